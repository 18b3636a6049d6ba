"""A small study that a fault is injected into: what was on disk before, when it goes on, and whether all is there."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from arat_ray.results import reader
from arat_ray.training import checkpoint
from tests.cluster.studies import EXPERIMENT, wait_until
from tests.lab.faults.clusters import ADDRESS, DISK, SHARED, Cluster
from tests.lab.hosts import Host

EPOCHS = 10
STEPS = 20
NAME = EXPERIMENT["name"]
WEIGHTS = [0.5, 5.0]
FLUSH_S = 3.0
"""A row that was reported before a fault may take so long to the disk."""
START_S, END_S = 180.0, 400.0
TIMES = {"epoch_s", "attack_s", "images_per_s", "diagnostics_s", "attempt"}

Rows = dict[tuple[str, int], dict[str, Any]]


class BrokenPromiseError(Exception):
    """Something was lost, doubled or changed, or the study did not go on."""


class Study:
    """One study and its driver; `place` is `folder`, `disk` or `bucket`."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        place: str = "folder",
        workers: int = 1,
        timeout_minutes: float | None = None,
    ) -> None:
        self.cluster, self.name, self.place, self.workers = cluster, name, place, workers
        self.results = {"folder": str(SHARED / name), "disk": str(DISK / name), "bucket": f"s3://lab/{name}"}[place]
        self.folder = SHARED / f"{name}.d"
        self.folder.mkdir()
        self.file = self.folder / "small.yaml"
        self.trials = len(WEIGHTS) if workers == 1 else 1
        self.file.write_text(yaml.safe_dump(experiment(workers, self.trials, timeout_minutes)))
        self.before: Rows = {}
        self.broke_at = self.recovered_s = 0.0
        self.by_hand: list[str] = []
        self.starts = 0
        self.host: Host = cluster.head
        self.driver: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()

    def start(self, *options: str, host: Host | None = None) -> None:
        self.starts += 1
        self.host = host or self.cluster.head
        command = ("arat-ray", "tune", str(self.file), "--address", ADDRESS, "--results", self.results, *options)
        self.driver = self.host.start(*command, log=self.folder / f"said-{self.starts}")

    def resume(self, *, host: Host | None = None) -> None:
        """What a person does."""
        self.by_hand.append("`--resume`")
        self.start("--resume", host=host)

    def reaches(self, epochs: int) -> None:
        self.wait(lambda: len(self.rows()) >= epochs, START_S, f"{epochs} epochs")

    def breaks(self) -> None:
        """The fault comes now."""
        self.before, self.broke_at = self.rows(), time.monotonic()

    def says(self, words: str, seconds: float) -> None:
        self.wait(lambda: words in self.said(), seconds, f"the study to say {words!r}")

    def lasts(self, seconds: float) -> None:
        """The fault goes on for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            time.sleep(0.1)

    def goes_on(self) -> None:
        """Wait for an epoch that was not reported before the fault."""
        self.wait(lambda: self.recovered_s > 0, END_S, "an epoch after the fault")

    def _look(self) -> None:
        """Whether there is a new epoch; what comes just after the fault had been reported before it."""
        if not self.broke_at or self.recovered_s:
            return
        rows, passed = self.rows(), time.monotonic() - self.broke_at
        if passed < FLUSH_S:
            self.before = rows or self.before
        elif rows.keys() > self.before.keys():
            self.recovered_s = passed

    def ends(self) -> int:
        """Wait for the end of the driver; its exit code."""
        assert self.driver is not None
        try:
            return self.driver.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            raise BrokenPromiseError(f"it did not end within {END_S:.0f} s; it said:\n{self.said()}") from None

    def check(self, code: int, undisturbed: Rows) -> None:
        """All that must be so at the end. Raises BrokenPromiseError with what is not."""
        wrong = [f"exit code {code}"] if code else []
        wrong += broken(self.before, self.rows(), undisturbed)
        complete = [row for row in self.table("trials") if row["status"] == "complete"]
        if len(complete) != self.trials or any(row["epochs_done"] != EPOCHS for row in complete):
            wrong.append(f"{len(complete)} of {self.trials} trials are complete")
        if missing := self.missing_checkpoints():
            wrong.append(f"the last network is not there: {missing}")
        if "Traceback" in self.said() and self.place != "folder":  # of a lost worker Ray shows one
            wrong.append("a traceback")
        if wrong:
            raise BrokenPromiseError(f"{'; '.join(wrong)}; it said:\n{self.said()}")

    def said(self) -> str:
        return "".join((self.folder / f"said-{number}").read_text() for number in range(1, self.starts + 1))

    def rows(self) -> Rows:
        """The epochs on disk; of a bucket, in the bucket, where it answers."""
        return by_key(self.table("epochs"))

    def table(self, name: str) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError), self.tables() as study:
            return list(reader.read(study, name).to_pylist()) if reader.part_files(study / name) else []
        return []

    def missing_checkpoints(self) -> list[str]:
        """Trials whose last network is not where the results are, or not that of the last epoch."""
        missing = []
        for row in self.table("trials"):
            if row["status"] != "complete":
                continue
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(self.results) / NAME / row["checkpoint"]
                if self.place == "bucket":
                    path = Path(temporary) / "last.pt"
                    with contextlib.suppress(OSError):
                        path.write_bytes(self.cluster.get(f"{self.name}/{NAME}/{row['checkpoint']}"))
                if not path.exists() or checkpoint.load(path).epoch != EPOCHS:
                    missing.append(row["trial_id"])
        return missing

    @contextlib.contextmanager
    def tables(self) -> Iterator[Path]:
        if self.place != "bucket":
            yield Path(self.results) / NAME
            return
        temporary = Path(tempfile.mkdtemp())
        try:
            self.cluster.download(f"{self.name}/{NAME}", temporary)
            yield temporary
        finally:
            shutil.rmtree(temporary)

    def wait(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        def look() -> bool:
            self._look()
            return is_so()

        try:
            wait_until(look, seconds, what)
        except AssertionError as error:
            raise BrokenPromiseError(f"{error}; it said:\n{self.said()}") from None


def experiment(workers: int, trials: int, timeout_minutes: float | None) -> dict[str, Any]:
    """Two trials of a grid, one after the other."""
    attack = EXPERIMENT["train"]["attack"] | {"steps": STEPS}
    resources: dict[str, Any] = {"workers": workers, "cpus_per_worker": 1, "concurrent_trials": 1}
    if timeout_minutes is not None:
        resources["timeout_minutes"] = timeout_minutes
    return EXPERIMENT | {
        "train": EXPERIMENT["train"] | {"epochs": EPOCHS, "attack": attack},
        "search": {"method.invariance_weight": {"choice": WEIGHTS}},
        "sampler": {"name": "grid", "seed": 0},
        "budget": {"trials": trials},
        "resources": resources,
    }


def broken(before: Rows, rows: Rows, undisturbed: Rows) -> list[str]:
    """Which promises about the epochs of a study do not hold, in words."""
    found = {
        "reported before the fault and lost": before.keys() - rows.keys(),
        "reported before the fault and changed": {
            key for key in before.keys() & rows.keys() if rows[key] != before[key]
        },
        "missing": undisturbed.keys() - rows.keys(),
        "not as undisturbed": {key for key in rows if rows[key] != undisturbed.get(key)},
    }
    return [
        f"{what}: {', '.join(f'{trial} {epoch}' for trial, epoch in sorted(keys))}"
        for what, keys in found.items()
        if keys
    ]


def by_key(rows: list[dict[str, Any]]) -> Rows:
    """Epochs by trial and number, without what differs from run to run; BrokenPromiseError where one is there twice."""
    found = {(row["trial_id"], row["epoch"]): {k: v for k, v in row.items() if k not in TIMES} for row in rows}
    if len(found) != len(rows):
        raise BrokenPromiseError(f"{len(rows) - len(found)} epochs are there twice")
    return found
