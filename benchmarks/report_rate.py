"""A thousand trials at once report a hundred rows a second: what does that cost the driver, and when is a row safe?

    python benchmarks/report_rate.py --output benchmarks/report_rate.md

By simulation, without Ray and without waiting: the rows of the trials come at their moments of a clock that is moved
on by hand, and by the CPU time that the recorder takes for each (so a driver that is too slow falls behind, as it
would). Trials end and others are asked for in their place. The disk's own time is not counted.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from breaking import sweep
from breaking.clock import Clock
from breaking.driver import Driver
from table_scale import epoch_row, memory_mib

from arat_ray.experiment.config import load
from arat_ray.study import folder as study_folder

EPOCHS, EVERY, PUSH_S = 20, 10, 2.0
FILE = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"


class Measured(NamedTuple):
    """Of a simulation of `seconds`."""

    rows: int
    seconds: float
    cpu_s: float
    late_s: np.ndarray[Any, np.dtype[np.float64]]
    """From each report to the moment at which it was on disk."""
    memory_mib: tuple[float, float]
    """Before and after."""
    written: int
    """Bytes."""
    pushed: int
    """Bytes of the files that had changed, each as a whole, every PUSH_S seconds: what a bucket is sent."""
    close_s: float
    """CPU seconds in which all that still run are put back at the end."""


class Simulation:
    """Trials that run side by side, each of which reports in its turn."""

    def __init__(self, folder: Path, at_once: int, a_second: float) -> None:
        self.at_once, self.epoch_s = at_once, at_once / a_second
        source, study = folder / "rate.yaml", folder / "rate"
        there = yaml.safe_load(FILE.read_text()) | {"name": "rate", "sampler": {"name": "random"}}
        there["budget"] = {"hours": 1000}
        there["train"] |= {"epochs": EPOCHS}
        there["validate"] |= {"every": EVERY}
        source.write_text(yaml.safe_dump(there))
        self.experiment, self.clock, self.draw = load(source), Clock(), random.Random(0)
        self.claimed = study_folder.claim(study, self.experiment, source, kind="tune", resume=False)
        self.study = study

    def run(self, seconds: float) -> Measured:
        cpu = time.process_time
        self.clock.installed()
        with self.claimed as record:
            driver = Driver(self.experiment, record, lambda text: None)
            due = [
                (self.epoch_s * i / self.at_once, (self._start(driver)[0], 1 + i % EPOCHS)) for i in range(self.at_once)
            ]  # as if they had been started one after the other
            driver.tick()
            before, files, written = memory_mib(), dict[Path, tuple[int, int]](), _written()
            waiting, late, spent, rows, pushed, pushes_at = deque[tuple[int, float]](), list[float](), 0.0, 0, 0, 0.0
            began = self.clock.now
            due = [(began + moment, each) for moment, each in due]
            heapq.heapify(due)
            while due[0][0] < began + seconds:
                moment, (number, epoch) = heapq.heappop(due)
                self.clock.now = max(self.clock.now, moment)
                start = cpu()
                following = self._report(driver, number, epoch)
                driver.tick()
                taken = cpu() - start
                spent += taken
                self.clock.now += taken
                heapq.heappush(due, (moment + self.epoch_s, following))
                waiting.append((driver.events, moment))
                rows += 1
                while waiting and waiting[0][0] <= driver.events_on_disk:
                    late.append(self.clock.now - waiting.popleft()[1])
                if self.clock.now >= pushes_at:
                    pushed += sum(self._changed(files))
                    pushes_at = self.clock.now + PUSH_S
            written = _written() - written
            after = memory_mib()
            start = cpu()
            assert driver.close()
            close_s = cpu() - start
        return Measured(rows, seconds, spent, np.array(late), (before, after), written, pushed, close_s)

    def _start(self, driver: Driver) -> tuple[int, int]:
        asked = driver.ask()
        assert driver.may_start()
        driver.recorder.start(asked.number, asked.sampled, self.experiment.resolve(asked.sampled))
        return asked.number, 1

    def _report(self, driver: Driver, number: int, epoch: int) -> tuple[int, int]:
        """A row of a trial; the next one that comes in its place."""
        row = epoch_row({"trial_id": "", "attempt": 1}, epoch, self.draw)
        for column in ("trial_id", "attempt"):
            del row[column]
        driver.recorder.report(number, {"row": row, "replayed": False, "device": "cuda", "peak_memory_gib": 10.0})
        if epoch < EPOCHS:
            return number, epoch + 1
        driver.recorder.end(number)
        return self._start(driver)

    def _changed(self, known: dict[Path, tuple[int, int]]) -> Iterator[int]:
        """Sizes of the files that are others than a moment ago."""
        for folder, below, files in os.walk(self.study):
            below[:] = [each for each in below if not each.startswith(".")]
            for name in files:
                stat = (path := Path(folder, name)).stat()
                if not name.startswith(".") and known.get(path) != (stat.st_mtime_ns, stat.st_size):
                    known[path] = (stat.st_mtime_ns, stat.st_size)
                    yield stat.st_size


def _written() -> int:
    """Bytes that this process has handed to the kernel to be written."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])


def lines_of(measured: Measured, at_once: int) -> list[str]:
    """The table, and what follows from it for ten times as many."""
    rate, row_us = measured.rows / measured.seconds, 1e6 * measured.cpu_s / measured.rows
    an_hour = 3600 / measured.seconds / 2**30
    quantiles = np.quantile(measured.late_s, [0.5, 0.99, 1.0])
    before, after = measured.memory_mib
    return [
        f"# {at_once:,} trials at once",
        "",
        f"{measured.rows:,} rows in {measured.seconds:.0f} simulated seconds ({rate:.0f} a second), trials of {EPOCHS} "
        f"epochs, measured every {EVERY}th.",
        "",
        "| | |",
        "|---|---|",
        f"| CPU of the driver for its records, a row | {row_us:.0f} us |",
        f"| ... as a share of one core | {measured.cpu_s / measured.seconds:.1%} |",
        f"| a row is on disk after (median, 99 %, at most) | {', '.join(f'{each:.2f} s' for each in quantiles)} |",
        f"| memory before and after | {before:.0f} and {after:.0f} MiB |",
        f"| written to disk an hour | {measured.written * an_hour:.2f} GiB |",
        f"| sent to a bucket an hour, a push every {PUSH_S:.0f} s | {measured.pushed * an_hour:.2f} GiB |",
        f"| CPU of an interruption, which puts {at_once:,} trials back | {measured.close_s:.1f} s |",
        f"| rows a second that would fill one core | {1e6 / row_us:.0f} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="at once")
    parser.add_argument("--rate", type=float, default=100, help="rows a second, of all")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["PATH"] = ""  # else the study asks git for the revision
    with sweep.scratch() as folder:
        lines = lines_of(Simulation(folder, options.trials, options.rate).run(options.seconds), options.trials)
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
