"""A small study as its driver runs it, with nothing trained: each trial measures what its number and epoch say.

In the order of things one trial completes and is evaluated, one is stopped early, one fails, one loses its worker, and
the last is interrupted and goes on in a second session. All goes through the code of a search but Ray and the training:
the folder's claim, the trials that are asked for, the recorder, checkpoints without weights.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from arat_ray.evaluation import request
from arat_ray.evaluation.accuracy import Accuracy, Examples, Report
from arat_ray.evaluation.ensembles import plan_of
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.study import folder as study_folder
from arat_ray.study.record import StudyRecord
from arat_ray.study.state import trial_id
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.checkpoint_writer import CheckpointWriter

from .clock import Clock
from .driver import Driver

EVALUATED, STOPPED, FAILS, LOSES = range(4)
"""Numbers of the trials that something happens to, besides the last one."""
PART_ROWS, SEGMENT_BYTES = 6, 4000
"""So few that parts and segments are full again and again."""
PATIENCE_S = 600.0
"""After which a driver that cannot write gives up, as a user would."""
PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}


Say = Callable[[str], None]


class NotSavedError(Exception):
    """The driver ended with rows that are not on disk: exit code 3."""


class Plan(NamedTuple):
    """A study of so many trials, each of so many epochs; a single run where there is no trial."""

    name: str
    trials: int
    epochs: int

    def write(self, folder: Path) -> Path:
        """Its experiment file."""
        source = folder / f"{self.name}.yaml"
        source.write_text(yaml.safe_dump(self._run() | self._search() if self.trials else self._run()))
        return source

    def _run(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "train": {
                "dataset": {"name": "digits"},
                "model": {"name": "tiny", "width": 2},
                "method": {"name": "trades", "beta": 1.0},
                "attack": PGD,
                "epochs": self.epochs,
                "batch_size": 256,
                "seed": 0,
            },
            "validate": {"every": 1, "images": 1000 if self.trials else 100, "attack": PGD},
        }

    def _search(self) -> dict[str, Any]:
        return {
            "search": {"method.beta": {"choice": [0.5 * i for i in range(1, self.trials + 1)]}},
            "sampler": {"name": "grid", "seed": 0},
            "early_stopping": {"name": "pareto_asha", "min_epochs": 1, "reduction_factor": 2},
            "constraints": {"robust_accuracy": {"min": 0.2}},
            "resources": {"price": {"usd_per_device_hour": 2}},
        }


def row_of(number: int, epoch: int, luck: int) -> Any:
    """What a trial measures after an epoch; other numbers with other luck."""
    draw = random.Random(1000 * number + epoch + 1_000_000 * luck)
    clean, robust = (0.3, 0.1) if number == STOPPED else (0.5 + 0.5 * draw.random(), 0.5 * draw.random() + 0.1 * number)
    measured = {"validation_clean_accuracy": clean, "validation_robust_accuracy": robust, "validation_images": 1000}
    layers = {"gradient_cosine_by_layer": {"bn3": draw.random()}}
    return {"epoch": epoch, "loss_clean": 1 / epoch, "epoch_s": 1.0, **layers, **measured}


def _nothing_to_push() -> bool:
    return True


def run(source: Path, folder: Path, clock: Clock, say: Say, push: Callable[[], bool] = _nothing_to_push) -> None:
    """The whole study, the last trial of which is interrupted once; `push` is called now and then, and says whether
    all that was done by then is where it is to last.

    Errors are those of `arat-ray tune --resume`; NotSavedError where the disk did not come back.
    """
    session(source, folder, clock, say, push, interrupt=True)
    session(source, folder, clock, say, push)


def session(
    source: Path,
    folder: Path,
    clock: Clock,
    say: Say,
    push: Callable[[], bool] = _nothing_to_push,
    *,
    interrupt: bool = False,
    luck: int = 0,
) -> None:
    """What is missing of the study, as far as the last trial where that is interrupted. What has ended for good is
    witnessed beside `source`; AssertionError where the study has forgotten it."""
    experiment, witness = experiment_of(source), Witness(source.with_suffix(".witness"))
    small: dict[str, Any] = {"part_rows": PART_ROWS, "segment_bytes": SEGMENT_BYTES}
    with study_folder.claim(folder, experiment, source, kind="tune", resume=True, warn=say, **small) as record:
        this = _Session(experiment, folder, clock, record, say, witness, push, luck)
        this.run(interrupt=interrupt)
    if not this.saved:
        raise NotSavedError(f"some rows could not be written to {folder}")
    this.evaluate()


@functools.cache
def experiment_of(source: Path) -> Experiment:
    return load(source, opens_data=False)


class Witness:
    """A file outside the study of what was told to be done, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, what: object) -> None:
        with self.path.open("a") as file:
            file.write(f"{what}\n")

    def has(self, what: object) -> bool:
        return f"{what}" in self.all()

    def all(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


class _Session:
    """One session of the study."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        clock: Clock,
        record: StudyRecord,
        say: Say,
        witness: Witness,
        push: Callable[[], bool],
        luck: int,
    ) -> None:
        self.experiment, self.folder, self.clock = experiment, folder, clock
        self.witness, self.push, self.luck = witness, push, luck
        self.say, self.driver = say, Driver(experiment, record, say)
        ended = self.driver.trials.ended()
        forgotten = {int(each) for each in witness.all() if each.isdigit()} - ended
        assert not forgotten, f"trials {forgotten} had ended, and the study has forgotten it"
        self.left = (experiment.trials or 0) - len(ended)
        self.recorder = self.driver.recorder
        self.saved = False

    def run(self, *, interrupt: bool) -> None:
        last = (self.experiment.trials or 0) - 1
        try:
            for _ in range(self.left):
                self._wait(self.driver.may_start)
                asked = self.driver.ask()
                self._wait(self.driver.may_start)
                self.train = self.experiment.resolve(asked.sampled)
                self.recorder.start(asked.number, asked.sampled, self.train)
                if not self._trial(asked.number, interrupt=interrupt and asked.number == last):
                    break
                if self.push() and self.driver.is_saved:
                    self.witness.add(asked.number)
                if asked.number == EVALUATED:
                    self.evaluate()
        finally:
            self.saved = self.driver.close()

    def _trial(self, number: int, *, interrupt: bool) -> bool:
        """One trial from its last checkpoint to its end; False where it was interrupted."""
        if number == FAILS:
            self.recorder.end(number, "the loss became nan")
            return True
        epochs = self.experiment.base.epochs
        path = self.checkpoint_of(number)
        saving = CheckpointWriter(path.parent, alive=self._alive)
        try:
            history = checkpoint.load(path).history if path.exists() else []
        except (checkpoint.NotNowError, checkpoint.NotACheckpointError) as error:
            if isinstance(error, checkpoint.NotACheckpointError):
                checkpoint.set_aside(path)
                self.say(f"trial {number}: {error}, {checkpoint.SET_ASIDE}; it begins anew")
            self.recorder.retry(number, f"{error}")
            return self._trial(number, interrupt=interrupt)
        except ValueError as error:
            self.recorder.end(number, f"{error}")
            return True
        for row in [*history, *(row_of(number, epoch, self.luck) for epoch in range(len(history) + 1, epochs + 1))]:
            epoch, replayed = row["epoch"], row["epoch"] <= len(history)
            if not replayed:
                self._save(saving, number, epoch)
            decision = self.recorder.decide(number, row)
            sent = {"row": row, "replayed": replayed, "device": "cpu", "peak_memory_gib": 0.5}
            self.recorder.report(number, sent)
            self._tick()
            if decision is not None and not decision.goes_on:
                break
            if interrupt and epoch == 1:
                return False
            if number == LOSES and epoch == 1 and self.recorder.running[number].row["attempt"] == 1:
                self.recorder.retry(number, "node lost")
                return self._trial(number, interrupt=interrupt)
        self.recorder.end(number)
        return True

    def evaluate(self) -> None:
        """Once, in the words of who looks on."""
        if not self.witness.has("evaluated"):
            evaluate(self.checkpoint_of(EVALUATED), self.experiment)
            if self.push():
                self.witness.add("evaluated")

    def checkpoint_of(self, number: int) -> Path:
        return self.folder / "checkpoints" / trial_id(self.experiment.name, number) / checkpoint.LAST

    def _save(self, saving: CheckpointWriter, number: int, epoch: int) -> None:
        train = self.train.model_dump(mode="json")
        history = [row_of(number, each, self.luck) for each in range(1, epoch + 1)]
        nothing: dict[str, torch.Tensor] = {}
        validate = self.experiment.validation.model_dump(mode="json")
        state = Checkpoint(train, validate, "", epoch, nothing, {}, None, nothing, history)
        self._patient_until = self.clock.now + PATIENCE_S
        saving.save(state, is_best=False, is_final=epoch == self.experiment.base.epochs)

    def _alive(self, trouble: str | None) -> None:
        self._tick()
        if self.clock.now > self._patient_until:
            raise NotSavedError(trouble)

    def _tick(self) -> None:
        self.clock.sleep(1.0)
        self.driver.tick()

    def _wait(self, is_done: Callable[[], bool]) -> None:
        until = self.clock.now + PATIENCE_S
        while not is_done():
            if self.clock.now > until:
                raise NotSavedError("no trial starts before the results can be written again")
            self._tick()


def evaluate(path: Path, experiment: Experiment) -> None:
    """What `arat-ray evaluate` adds to a study when it has attacked a checkpoint; the same each time."""
    found = [False, True, True, True, True, False, True, True]
    verdicts = Examples(
        torch.arange(8), torch.arange(8), torch.tensor(found), ["pgd-1", None] * 4, torch.linspace(-1, 1, 8)
    )
    attack = plan_of(experiment.validation.attack, 10)
    request.record(
        Report(
            checkpoint=path,
            checkpoint_sha256="0" * 64,
            epoch=1,
            weights=None,
            dial=None,
            split="test",
            subset=None,
            indices_sha256="the first eight",
            seed=0,
            batch_size=8,
            clean=Accuracy(None, 6, 8, 0.1),
            robust=Accuracy(attack, 4, 8, 0.1),
            examples=verdicts,
            warnings=(),
            key="k",
        )
    )
