"""What would a setting for each norm layer add to one setting for all? Measured, so that the dial need not guess.

    python benchmarks/dial_layers.py results/quickstart/checkpoints/quickstart-0000[245]/last.pt

Of each network, on the validation images of its run and under their attack: one setting for all norm layers at 25
places, then NSGA-II (Optuna, begun with these) over one setting a norm layer. Of either the N settings that dominate
the largest area together (exactly, by dynamic programming) are measured on the test images; the difference there with a
paired bootstrap over images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import torch
from torch import nn

from arat_ray.frontier.dominance import Floats, hypervolume, non_dominated
from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import correctness
from arat_ray.training.data import splits
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.dial import dialled, domain
from arat_ray.training.split_norm import SplitNorm

LOW, HIGH, PLACES = -0.75, 1.0, 25
RESAMPLES = 4000
Setting = tuple[float, ...]


class Verdicts(NamedTuple):
    clean: np.ndarray  # bool [n]
    robust: np.ndarray  # bool [n]

    @property
    def point(self) -> tuple[float, float]:
        return self.clean.mean().item(), self.robust.mean().item()


def network_at(model: nn.Module, layers: Sequence[str], setting: Setting) -> nn.Module:
    """A plain copy with setting[i] between the branches of the norm layer layers[i]."""
    copies = {name: dialled(model.get_submodule(name), t) for name, t in zip(layers, setting, strict=True)}
    plain = dialled(model, 0)
    for name, norm in copies.items():
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent) if parent else plain, child, norm)
    return plain.eval()


def best_of(points: Floats, count: int) -> list[int]:
    """Which `count` of points [P, 2] dominate the largest area above (0, 0) together."""
    front = np.flatnonzero(non_dominated(points))
    front = front[np.argsort(points[front, 0], kind="stable")]
    x, y = points[front, 0], points[front, 1]
    area, before = x * y, [[-1] * len(front)]
    for _ in range(1, min(count, len(front))):
        gains = np.where(x[None] < x[:, None], area[None] + (x[:, None] - x[None]) * y[:, None], -np.inf)
        choice = gains.argmax(axis=1)
        better = gains.max(axis=1) > area
        before.append([int(j) if is_so else -1 for j, is_so in zip(choice, better, strict=True)])
        area = np.where(better, gains.max(axis=1), area)
    at, chosen = int(area.argmax()), []
    for row in reversed(before[1:]):
        if row[at] >= 0:
            chosen.append(int(front[at]))
            at = row[at]
    chosen.append(int(front[at]))
    return sorted(chosen)


def study(path: Path, *, evaluations: int, points: int, seed: int) -> dict[str, object]:
    state = checkpoint.load(path)
    model = checkpoint.method(state).model.eval()
    layers = [name for name, module in model.named_modules() if isinstance(module, SplitNorm)]
    bounds = []
    for name in layers:
        defined = domain({f"{name}.{key}": value for key, value in model.get_submodule(name).state_dict().items()})
        assert defined is not None
        bounds.append((max(LOW, 0.98 * defined.low), min(HIGH, 1 + 0.98 * (defined.high - 1))))
    low, high = max(each[0] for each in bounds), min(each[1] for each in bounds)
    validate = state.validate_spec
    held_out = validate.splits(state.train_spec.dataset).validation
    test = splits.read(state.train_spec.dataset, "test")

    def measure(setting: Setting, data: ImageSet) -> Verdicts:
        found = list(
            correctness(network_at(model, layers, setting), data, attack=validate.attack, seed=0, batch_size=256)
        )
        return Verdicts(*(torch.cat([each[i] for each in found]).numpy() for i in range(2)))

    began = time.process_time()
    places = np.unique(np.append(np.linspace(low, high, PLACES - 1), 0.0))
    measured = {(float(t),) * len(layers): measure((float(t),) * len(layers), held_out).point for t in places}
    single = list(measured)
    single_s = time.process_time() - began
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(
        directions=["maximize"] * 2, sampler=optuna.samplers.NSGAIISampler(population_size=PLACES, seed=seed)
    )
    spaces: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(*ends) for name, ends in zip(layers, bounds, strict=True)
    }
    for setting in measured:
        search.enqueue_trial(dict(zip(layers, setting, strict=True)))
    for _ in range(len(single) + evaluations):
        trial = search.ask(spaces)
        setting = tuple(trial.params[name] for name in layers)
        if setting not in measured:
            measured[setting] = measure(setting, held_out).point
        search.tell(trial, measured[setting])
    names = list(measured)
    ways = {"single": single, "groups": names}
    chosen = {
        way: [of[i] for i in best_of(np.array([measured[each] for each in of]), points)] for way, of in ways.items()
    }
    verdicts = {way: [measure(each, test) for each in settings] for way, settings in chosen.items()}
    draws = np.random.default_rng(0).multinomial(
        len(test.labels), np.full(len(test.labels), 1 / len(test.labels)), RESAMPLES
    ) / len(test.labels)

    def areas(found: list[Verdicts]) -> Floats:
        shares = np.stack([np.stack([draws @ each.clean, draws @ each.robust], 1) for each in found], 1)
        return np.array([hypervolume(each, (0, 0)) for each in shares])

    gain = areas(verdicts["groups"]) - areas(verdicts["single"])
    volume = {way: hypervolume([each.point for each in found], (0, 0)) for way, found in verdicts.items()}
    on_validation = {
        way: hypervolume([measured[each] for each in settings], (0, 0)) for way, settings in chosen.items()
    }
    return {
        "network": f"{path.parent.name}",
        "layers": layers,
        "evaluations": len(measured) - len(single),
        "single_s": single_s,
        "all_s": time.process_time() - began,
        "settings": {way: [[round(t, 3) for t in each] for each in of] for way, of in chosen.items()},
        "validation": on_validation,
        "test": volume,
        "gain": volume["groups"] - volume["single"],
        "interval": np.quantile(gain, [0.025, 0.975]).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--evaluations", type=int, default=120)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for path in given.checkpoints:
        found = study(path, evaluations=given.evaluations, points=given.points, seed=given.seed)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
