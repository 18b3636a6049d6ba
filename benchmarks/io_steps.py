"""Every step of a study's work with the disk goes wrong once, in each way; is the study whole when it was resumed?

    python benchmarks/io_steps.py --output benchmarks/io_steps.md
    python benchmarks/io_steps.py --only 117 --fault killed

A small study (`breaking/small_study.py`) runs with a shim below Python that counts its writes, fsyncs, renames, reads
and the like. Then it runs again for each of these steps and each way in which that one can go wrong, in a process of
its own, is resumed without the shim until it has all its trials, and must hold what the undisturbed study holds: no row
lost, doubled or changed, in any table or for Optuna. A process may end for the fault, with a line that says so. The
clock is one that moves by itself, so that nothing waits. Needs cc.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from breaking import shim, sweep
from breaking.processes import Ended, in_process
from breaking.shim import FAULTS, Fault, Step
from breaking.sweep import Case, Tried

BY_NAME = {fault.name: fault for fault in FAULTS}


class Lab:
    """A folder with the undisturbed study and room for the disturbed ones."""

    def __init__(self, folder: Path, trials: int, epochs: int) -> None:
        from breaking import small_study

        with suppress(ImportError):  # once, and not in each process: pyarrow imports it where it is there
            import pandas as pd

            del pd
        self.folder, self.library = folder, shim.loaded()
        self.source = small_study.Plan("small", trials, epochs).write(folder)
        small_study.experiment_of(self.source)

    def count(self) -> list[Step]:
        """The steps of the undisturbed study, whose contents are kept."""
        log = self.folder / "steps"
        for work in (lambda study: self._run(study, None, 0, log), self._keep):
            if (ended := self._process(work, "whole")).code:
                raise SystemExit(f"the undisturbed study: {ended.said or ended.code}")
        return shim.steps(log)

    def try_one(self, case: Case) -> Tried:
        """Let one step go wrong, resume the study and compare it."""
        shutil.rmtree(self.folder / "broken", ignore_errors=True)
        self.source.with_suffix(".witness").unlink(missing_ok=True)
        log, fault = self.folder / "hit", BY_NAME[case.fault]
        ended = self._process(lambda study: self._run(study, fault, case.number, log), "broken")
        done = shim.steps(log)
        hit = next((each.call for each in done if each.number == case.number), None)
        if fault.power_fails:
            shim.lose_power(self.folder / "broken", done)
        return Tried.judged(case, hit, ended, lambda: self._process(self._resume, "broken"))

    def _run(self, study: Path, fault: Fault | None, number: int, log: Path) -> None:
        from breaking import small_study
        from breaking.clock import Clock

        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        shim.arm(self.library, study, file, fault, number)
        small_study.run(self.source, study, Clock().installed(), lambda text: None)

    def _keep(self, study: Path) -> None:
        from breaking import contents

        (self.folder / "expected").write_bytes(pickle.dumps(contents.read(self.source, study)))

    def _resume(self, study: Path) -> None:
        from breaking import contents, small_study
        from breaking.clock import Clock

        small_study.session(self.source, study, Clock().installed(), lambda text: None)
        contents.check(self.source, study, pickle.loads((self.folder / "expected").read_bytes()))

    def _process(self, work: Callable[[Path], None], name: str) -> Ended:
        """Work on a study in a process of its own."""
        return in_process(lambda: work(self.folder / name), self.folder / "said")


def main() -> None:
    asked = sweep.options(__doc__, list(BY_NAME))
    shim.preload()
    os.environ["PATH"] = ""  # else each start of the study asks git for the revision
    with sweep.scratch() as folder:
        lab = Lab(folder, asked.trials, asked.epochs)
        steps = [
            [Case(step.number, step.call, step.path, fault.name) for fault in FAULTS if step.suffers(fault)]
            for step in lab.count()
        ]
        title = "Each step of a study's work with the disk goes wrong"
        well = sweep.run(title, steps, list(BY_NAME), lab.try_one, asked)
    sys.exit(not well)


if __name__ == "__main__":
    main()
