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

import argparse
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from breaking import shim
from breaking.shim import FAULTS, Fault, Step

TOLD, NOT_SAVED, BUG = 2, 3, 70
OUTCOMES = {0: "went on", TOLD: "ended and said so", NOT_SAVED: "ended with exit code 3", -signal.SIGKILL: "killed"}


class Tried(NamedTuple):
    """A step that went wrong, how the process of the study ended, and what is not as it should be."""

    step: Step
    fault: Fault
    outcome: str
    problem: str | None


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
        self._must_succeed(lambda study: self._run(study, None, 0, log), "whole")
        self._must_succeed(self._keep, "whole")
        return shim.steps(log)

    def try_one(self, step: Step, fault: Fault) -> Tried:
        """Let one step go wrong, resume the study and compare it."""
        shutil.rmtree(self.folder / "broken", ignore_errors=True)
        self.source.with_suffix(".witness").unlink(missing_ok=True)
        log = self.folder / "hit"
        code, said = self._process(lambda study: self._run(study, fault, step.number, log), "broken")
        if code not in OUTCOMES:
            return Tried(step, fault, "a bug", said or f"ended with {code}")
        hit = next((each for each in shim.steps(log) if each.number == step.number), None)
        if hit is None or hit.call != step.call:
            return Tried(step, fault, OUTCOMES[code], f"is another step when the study runs again: {hit}")
        then, problem = self._process(self._resume, "broken")
        return Tried(step, fault, OUTCOMES[code], f"{problem or then} (before: {said})" if then else None)

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
        expected = pickle.loads((self.folder / "expected").read_bytes())
        differing = list(contents.differences(contents.read(self.source, study), expected))
        assert not differing, "; ".join(differing[:3])

    def _must_succeed(self, work: Callable[[Path], None], name: str) -> None:
        code, said = self._process(work, name)
        if code:
            raise SystemExit(f"the undisturbed study: {said or code}")

    def _process(self, work: Callable[[Path], None], name: str) -> tuple[int, str]:
        """Work on a study in a process of its own: how it ended, and what it said."""
        said = self.folder / "said"
        said.write_text("")
        if not (process := os.fork()):
            _end(work, self.folder / name, said)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said.read_text()


def _end(work: Callable[[Path], None], study: Path, said: Path) -> NoReturn:
    """Work, and end this process as a command ends; what it says goes into a file."""
    from breaking.small_study import NotSavedError

    code = BUG
    try:
        work(study)
        code = 0
    except NotSavedError as error:
        code = NOT_SAVED
        said.write_text(f"{error}")
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and (error.filename is None or error.errno is None):
            raise  # as `user_errors` of the command line does
        code = TOLD
        said.write_text(f"{error}")
    finally:
        if code == BUG:
            said.write_text(" | ".join(line.strip() for line in traceback.format_exc().splitlines()[-6:]))
        os._exit(code)


def table(tried: list[Tried]) -> list[str]:
    """Numbers of steps by fault and outcome, as Markdown."""
    lines = [f"| fault | steps | {' | '.join(OUTCOMES.values())} | not as it should be |", "|" + 7 * "---|"]
    for fault in FAULTS:
        of_it = [each for each in tried if each.fault == fault]
        ended = Counter(each.outcome for each in of_it)
        cells = [
            len(of_it),
            *(ended[outcome] for outcome in OUTCOMES.values()),
            sum(bool(each.problem) for each in of_it),
        ]
        lines.append(f"| {fault.name} | {' | '.join(map(str, cells))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="try each so-manieth step only")
    parser.add_argument("--rotate", action="store_true", help="one fault a step, each in its turn")
    parser.add_argument("--only", type=int, help="the number of a step")
    parser.add_argument("--fault", choices=[fault.name for fault in FAULTS], help="this way only")
    parser.add_argument("--folder", type=Path, help="where the studies go, and stay; by default memory")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shim.preload()
    memory = Path("/dev/shm")
    folder = options.folder or Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    os.environ["PATH"] = ""  # else each start of the study asks git for the revision
    lab = Lab(folder.absolute(), options.trials, options.epochs)
    steps, tried = lab.count(), list[Tried]()
    print(f"{len(steps)} steps: {dict(Counter(step.call for step in steps))}", flush=True)
    chosen = [steps[options.only - 1]] if options.only else steps[:: options.every]
    for turn, step in enumerate(chosen):
        faults = [each for each in FAULTS if step.suffers(each) and options.fault in (None, each.name)]
        for fault in [faults[turn % len(faults)]] if options.rotate and faults else faults:
            tried.append(lab.try_one(step, fault))
            if problem := tried[-1].problem:
                print(f"--only {step.number} --fault '{fault.name}': {step.call} {step.path}: {problem}", flush=True)
    problems = [each for each in tried if each.problem]
    lines = [
        "# Each step of a study's work with the disk goes wrong",
        "",
        f"A study of {options.trials} trials of {options.epochs} epochs takes {len(steps)} steps: "
        f"{', '.join(f'{count} {call}' for call, count in Counter(step.call for step in steps).most_common())}. "
        f"{len(tried)} studies were disturbed, resumed and compared in {time.monotonic() - began:.0f} s; "
        f"{len(problems)} were not as they should be.",
        "",
        *table(tried),
    ]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    if not options.folder:
        shutil.rmtree(folder)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
