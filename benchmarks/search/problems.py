"""What quality.py searches: an experiment, and what its trials measure after each epoch."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arat_ray.experiment.config import load
from arat_ray.experiment.early_stopping import ExpectedGain, ParetoAsha
from arat_ray.experiment.spec import Budget, Experiment
from arat_ray.frontier.dominance import hypervolume
from arat_ray.results import reader

HERE = Path(__file__).parent
Floats = npt.NDArray[np.float64]
Sampled = dict[str, Any]


class Problem(ABC):
    """Something to search: `experiment`, and the goals of a sample after each epoch."""

    experiment: Experiment
    best: float
    """Hypervolume of the true front, above (0, 0)."""

    @property
    def asha(self) -> ParetoAsha:
        """The file's early stopping."""
        rule = self.experiment.early_stopping
        assert isinstance(rule, ParetoAsha)
        return rule

    @property
    def gain(self) -> ExpectedGain:
        """Early stopping by expected gain, at the same rungs."""
        rule = self.asha
        return ExpectedGain(name="expected_gain", min_epochs=rule.min_epochs, rung_factor=rule.reduction_factor)

    @abstractmethod
    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        """[2]: the goals after an epoch, without noise."""

    @abstractmethod
    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        """[2]: as a trial reports them."""


class Surrogate(Problem):
    """A concave trade-off along one knob; the others cost both goals as they leave their best values."""

    IMAGES = 5000
    """That goals are as noisy as; digits has not so many."""

    def __init__(self) -> None:
        asked = without_a_default(load(HERE / "surrogate.yaml"))
        validation = asked.validation.model_copy(update={"images": self.IMAGES})
        self.experiment = asked.model_copy(update={"validation": validation})
        along = np.linspace(0, 1, 2001)
        self.best = hypervolume(np.column_stack(self._front(along)), [0, 0])

    @staticmethod
    def _front(along: Any) -> tuple[Any, Any]:
        return 0.96 - 0.30 * along**2, 0.60 * np.sqrt(along)

    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        along = sampled["attack.epsilon"] / 0.3
        balance = (sampled["method.balance.adversarial"] - 0.1) / 0.8
        weight = np.log10(sampled["method.invariance_weight"]) / 2 + 0.5
        rate = np.log10(sampled["optimizer.learning_rate"]) / 2 + 1
        lost = 0.5 * (balance - 0.3 - 0.4 * along) ** 2 + 0.4 * (weight - 0.6) ** 2 + 0.6 * (rate - 0.55) ** 2
        lost += {"last": 0.0, "last-two": 0.03, "pooled": 0.08}[sampled["method.layers"]]
        learned = 1 - 0.6 * np.exp(-epoch / (6 + 20 * abs(rate - 0.55)))
        return np.asarray(np.maximum(np.array(self._front(along)) - lost, 0.01) * learned)

    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        return np.asarray(noise.binomial(self.IMAGES, np.clip(self.truth(sampled, epoch), 0, 1)) / self.IMAGES)


class Crossing(Problem):
    """Two methods with knobs of their own, two schedules whose curves cross, overfitting where weight decay is low, and
    a learning rate above which training fails; 400 images, and luck of a point that a trial keeps."""

    def __init__(self) -> None:
        self.experiment = without_a_default(load(HERE / "crossing.yaml"))
        front = [
            self.truth(sampled, self.experiment.base.epochs)
            for along in np.linspace(0.05, 1, 400)
            for sampled in self._ideal(along)
        ]
        self.best = hypervolume(front, [0, 0])

    @staticmethod
    def _ideal(along: float) -> Iterator[Sampled]:
        """The best trials at a place of the trade-off, one of each method and schedule."""
        for schedule, rate in (("constant", 10**-1.3), ("cosine", 10**-0.8)):
            both = {"attack.epsilon": 0.3 * along, "optimizer.learning_rate": rate, "optimizer.weight_decay": 1e-2}
            trades = {"method": "trades", "method.beta": 10 ** (0.2 + 0.8 * along)}
            arat = {"method": "arat", "method.invariance_weight": 10**-0.2}
            for method in (trades, arat | {"method.balance.adversarial": 0.3 + 0.4 * along}):
                yield both | method | {"schedule": schedule}

    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        along, rate = sampled["attack.epsilon"] / 0.3, np.log10(sampled["optimizer.learning_rate"])
        is_cosine = sampled["schedule"] == "cosine"
        if rate > -0.3:
            return np.array([0.15, 0.05])
        if sampled["method"] == "trades":
            lost = 0.06 * (np.log10(sampled["method.beta"]) - 0.2 - 0.8 * along) ** 2 + 0.03 * (1 - along)
        else:
            weight, balance = np.log10(sampled["method.invariance_weight"]), sampled["method.balance.adversarial"]
            lost = 0.06 * (weight + 0.2) ** 2 + 0.5 * (balance - 0.3 - 0.4 * along) ** 2 + 0.03 * along
        lost += 0.15 * (rate + (0.8 if is_cosine else 1.3)) ** 2 + (0.0 if is_cosine else 0.03)
        learned = 1 - (0.7 * np.exp(-epoch / 14) if is_cosine else 0.5 * np.exp(-epoch / 5))
        decay = (np.log10(sampled["optimizer.weight_decay"]) + 5) / 3
        overfitted = 0.06 * max(0.0, (epoch - 20) / 34) * (1 - decay)
        goals = np.array([0.95 - 0.25 * along**2, 0.55 * np.sqrt(along)]) - lost
        return np.asarray(np.maximum(goals, 0.05) * learned - [0.0, min(overfitted, 0.04)])

    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        luck = np.random.default_rng(zlib.crc32(repr(sorted(sampled.items())).encode())).normal(0, 0.01, 2)
        return np.asarray(noise.binomial(400, np.clip(self.truth(sampled, epoch) + luck, 0, 1)) / 400)


class Table(Problem):
    """Real runs of all combinations, from their study."""

    def __init__(self, study: Path) -> None:
        grid = load(HERE / "digits.yaml")
        stopping = ParetoAsha(name="pareto_asha", min_epochs=1, reduction_factor=3)
        self.experiment = grid.model_copy(update={"early_stopping": stopping, "budget": Budget(trials=36)})
        trials = reader.read(study, "trials").to_pylist()
        curves: dict[str, dict[int, Floats]] = {}
        for row in reader.read(study, "epochs").to_pylist():
            goals = [row["validation_clean_accuracy"], row["validation_robust_accuracy"]]
            curves.setdefault(row["trial_id"], {})[row["epoch"]] = np.array(goals)
        self.curves = {}
        for row in trials:
            self.curves[self._key({path: row[f"param_{path}"] for path in grid.search})] = curves[row["trial_id"]]
        last = self.experiment.base.epochs
        self.best = hypervolume([curve[last] for curve in self.curves.values()], [0, 0])

    def _key(self, sampled: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(round(float(value), 6) for value in sampled.values())

    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        return self.curves[self._key(sampled)][epoch]

    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        return self.truth(sampled, epoch)


def without_a_default(experiment: Experiment) -> Experiment:
    """The file's own values are out of the search: none of the strategies begins with a good trial."""
    optimizer = experiment.train["optimizer"] | {"learning_rate": 50.0}
    return experiment.model_copy(update={"train": experiment.train | {"optimizer": optimizer}})
