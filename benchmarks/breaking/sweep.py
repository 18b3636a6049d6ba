"""All steps of a study, each with all that may happen to it: what the benchmarks that break studies have in common."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .processes import OUTCOMES, Ended


class Case(NamedTuple):
    """A step, and what happens to it."""

    number: int
    kind: str
    """A call or a method."""
    path: str
    fault: str


class Tried(NamedTuple):
    """A case, how the process of the study ended, and what is not as it should be."""

    case: Case
    outcome: str
    problem: str | None

    @classmethod
    def judged(cls, case: Case, hit: str | None, ended: Ended, then: Callable[[], Ended]) -> Tried:
        """`hit` is what the fault hit in fact, and `then` resumes and compares."""
        problem = None
        if ended.outcome not in OUTCOMES.values():
            problem = ended.said or f"ended with {ended.code}"
        elif hit != case.kind:
            problem = f"is another step when the study runs again: {hit}"
        elif (afterwards := then()).code:
            problem = f"{afterwards.said or afterwards.code} (before: {ended.said or ended.outcome})"
        return cls(case, ended.outcome, problem)


def options(description: str | None, faults: Sequence[str]) -> argparse.Namespace:
    """What both may be asked for; `folder` is where the studies go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="try each so-manieth step only")
    parser.add_argument("--rotate", action="store_true", help="one fault a step, each in its turn")
    parser.add_argument("--only", type=int, help="the number of a step")
    parser.add_argument("--fault", choices=faults, help="this way only")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the block, in memory where there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def run(
    title: str,
    steps: Sequence[Sequence[Case]],
    faults: Sequence[str],
    try_one: Callable[[Case], Tried],
    asked: argparse.Namespace,
) -> bool:
    """Try the cases of all steps, each named where it is not as it should be, and print a table; whether all are."""
    began, tried = time.monotonic(), list[Tried]()
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(cases[0].kind for cases in steps).most_common())
    print(f"{len(steps)} steps: {kinds}", flush=True)
    for turn, cases in enumerate([steps[asked.only - 1]] if asked.only else steps[:: asked.every]):
        chosen = [case for case in cases if asked.fault in (None, case.fault)]
        for case in [chosen[turn % len(chosen)]] if asked.rotate and chosen else chosen:
            tried.append(try_one(case))
            if problem := tried[-1].problem:
                print(f"--only {case.number} --fault '{case.fault}': {case.kind} {case.path}: {problem}", flush=True)
    bad = sum(bool(each.problem) for each in tried)
    lines = [
        f"# {title}",
        "",
        f"A study of {asked.trials} trials of {asked.epochs} epochs takes {len(steps)} steps: {kinds}. {len(tried)} "
        f"studies were disturbed, resumed and compared in {time.monotonic() - began:.0f} s; {bad} were not as they "
        "should be.",
        "",
        *_table(tried, faults),
    ]
    print("\n".join(lines))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n")
    return not bad


def _table(tried: Sequence[Tried], faults: Sequence[str]) -> list[str]:
    """Numbers of steps by fault and outcome, as Markdown."""
    lines = [f"| fault | steps | {' | '.join(OUTCOMES.values())} | not as it should be |", "|" + 7 * "---|"]
    for fault in faults:
        of_it = [each for each in tried if each.case.fault == fault]
        ended = Counter(each.outcome for each in of_it)
        bad = sum(bool(each.problem) for each in of_it)
        cells = [len(of_it), *(ended[outcome] for outcome in OUTCOMES.values()), bad]
        lines.append(f"| {fault} | {' | '.join(map(str, cells))} |")
    return lines
