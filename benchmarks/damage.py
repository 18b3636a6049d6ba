"""Every kind of file of a study, damaged in every way: what does each command say of it?

    python benchmarks/damage.py --output benchmarks/damage.md

A small study (`breaking/small_study.py`), the last trial of which was interrupted, is copied, one of its files is
damaged, and one command is run on the copy, in this process. A command may do its work nevertheless, because it does
not need the file or has made it again, or say what is wrong and how it is mended. What none may do is to end well with
other numbers and without a word, or to end with a traceback: then this ends with 1.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from breaking import contents, small_study, sweep
from breaking.clock import Clock
from click.testing import CliRunner
from rich.console import Console

from arat_ray.cli import main as command_line
from arat_ray.study import single

FILES = {
    "record, the open segment": "journal/record-*.jsonl",
    "record, a sealed segment": "journal/record-*.jsonl.zst",
    "record of an evaluation": "journal/evaluations/*",
    "study.json": "study.json",
    "study.yaml": "study.yaml",
    "Optuna's view": "journal/optuna.log",
    "checkpoint": "checkpoints/*/last.pt",
    **{
        f"table {name}": f"{name}/part-*.parquet"
        for name in ("trials", "epochs", "decisions", "evaluations", "examples")
    },
}
"""By kind; of several files the last one, but of segments and parts the first."""
BITS = 5
COMMANDS = ("show", "resume", "verify", "rebuild")


class Damage(NamedTuple):
    """A way to damage a file, given its counterpart in another study."""

    name: str
    do: Callable[[Path, Path], None]
    of: str = "other"
    """The study of the counterpart."""


class Said(NamedTuple):
    """How a command ended: its exit code, the numbers and messages that it printed, the exception if it crashed."""

    code: int
    text: str
    told: str
    crashed: str


def _flip(place: float) -> Callable[[Path, Path], None]:
    def flip(path: Path, other: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 16
        path.write_bytes(content)

    return flip


DAMAGES = (
    Damage("cut in half", lambda path, other: os.truncate(path, path.stat().st_size // 2)),
    Damage("emptied", lambda path, other: os.truncate(path, 0)),
    Damage("zeroed", lambda path, other: _overwrite(path, bytes(path.stat().st_size))),
    *(Damage(f"one bit at {place:.0%}", _flip(place)) for place in [(i + 0.5) / BITS for i in range(BITS)]),
    Damage("removed", lambda path, other: path.unlink()),
    Damage("another study's", lambda path, other: _overwrite(path, other.read_bytes())),
    Damage("of the same study begun anew", lambda path, other: _overwrite(path, other.read_bytes()), of="anew"),
)


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


class Kind(NamedTuple):
    """A kind of study: how one that was interrupted is made, and how it is resumed."""

    name: str
    resume_with: str
    source: Callable[[Path, str], Path]
    """In a folder, by the name of the study."""
    interrupted: Callable[[Path, Path, int], None]
    """With some luck, which decides the numbers of a search."""
    resume: Callable[[Path, Path, Callable[[str], None]], None]


def _silent(text: str) -> None:
    return None


def _search(folder: Path, name: str) -> Path:
    return small_study.Plan(name, 6, 2).write(folder)  # its record has an open segment


def _interrupted_search(source: Path, study: Path, luck: int) -> None:
    small_study.session(source, study, Clock(), _silent, interrupt=True, luck=luck)


def _resume_search(source: Path, study: Path, say: Callable[[str], None]) -> None:
    source.with_suffix(".witness").unlink(missing_ok=True)
    small_study.session(source, study, Clock(), say)


class _Console(Console):
    """Hears what is said; `stop` interrupts after the first epoch."""

    def __init__(self, say: Callable[[str], None], *, stop: bool = False) -> None:
        super().__init__(file=io.StringIO())
        self.say, self.stop = say, stop

    def print(self, *parts: Any, **how: Any) -> None:
        text = " ".join(map(str, parts))
        if self.stop and "epoch 1/" in text:
            raise KeyboardInterrupt
        if how.get("style"):
            self.say(text)


def _run(folder: Path, name: str) -> Path:
    return small_study.Plan(name, 0, 2).write(folder)


def _interrupted_run(source: Path, study: Path, luck: int) -> None:
    experiment = small_study.experiment_of(source)
    with suppress(KeyboardInterrupt):
        single.run(experiment, source, study, resume=False, console=_Console(_silent, stop=True))


def _resume_run(source: Path, study: Path, say: Callable[[str], None]) -> None:
    single.run(small_study.experiment_of(source), source, study, resume=True, console=_Console(say))


KINDS = (
    Kind("a search", "tune --resume", _search, _interrupted_search, _resume_search),
    Kind("a single run", "train --resume", _run, _interrupted_run, _resume_run),
)


class Lab:
    """An undamaged study, another one, what the first holds, what it holds when it was resumed, and what commands say
    of it."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self.kind = folder / kind.resume_with[:5].strip(), kind
        self.folder.mkdir()
        self.source, self.study = self._make("small")
        self.others = {"other": self._make("other", luck=2)[1], "anew": self._make("small", "anew", luck=1)[1]}
        self.before = contents.read(self.source, self._copy())
        self.whole, self.after = dict[str, Said](), contents.Contents()
        for command in COMMANDS:
            self.whole[command] = self.call(command, self._copy())
            assert not self.whole[command].code, self.whole[command]
            if command == "resume":
                self.after = contents.read(self.source, self.copy)

    @property
    def copy(self) -> Path:
        return self.folder / "small"

    def _make(self, name: str, place: str = "first", *, luck: int = 0) -> tuple[Path, Path]:
        source, study = self.kind.source(self.folder, name), self.folder / place / name
        study.parent.mkdir(exist_ok=True)
        source.with_suffix(".witness").unlink(missing_ok=True)
        self.kind.interrupted(source, study, luck)
        return source, study

    def _copy(self) -> Path:
        shutil.rmtree(self.copy, ignore_errors=True)
        return Path(shutil.copytree(self.study, self.copy))

    def damaged(self, pattern: str, damage: Damage) -> Path | None:
        """A copy of the study with one file damaged; None where it has no such file, or a damage leaves it as it is."""
        copy = self._copy()
        path, other = (_chosen(study, pattern) for study in (copy, self.others[damage.of]))
        if path is None or other is None:
            return None
        before = path.read_bytes()
        damage.do(path, other)
        return copy if not path.exists() or path.read_bytes() != before else None

    def judged(self, command: str, study: Path) -> tuple[Said, str]:
        """What a command says of a damaged study, and what is not as it should be."""
        said, whole = self.call(command, study), self.whole[command]
        if said.crashed or said.code:
            return said, said.crashed
        if command == "show":
            return said, "other numbers" if said.text != whole.text and not said.told else ""
        try:
            held, expected = contents.read(self.source, study), self.after if command == "resume" else self.before
            differing = list(contents.differences(held, expected))
        except (ValueError, OSError) as error:
            return said, f"cannot be read afterwards: {error}"
        if differing and said.told == whole.told:
            return said, f"{len(differing)} rows differ: {differing[0]}"
        return said._replace(told=f"{said.told}; {len(differing)} rows differ" if differing else said.told), ""

    def call(self, command: str, study: Path) -> Said:
        """Run one of COMMANDS on a study."""
        if command == "resume":
            return self._resume(study)
        words = ["results", command, str(study), *(["--json"] if command == "show" else [])]
        done = CliRunner().invoke(command_line, words)
        crashed = done.exception is not None and not isinstance(done.exception, SystemExit)
        told = done.stderr if command == "show" else done.output
        return Said(done.exit_code, done.stdout, told, f"{done.exception!r}" if crashed else "")

    def _resume(self, study: Path) -> Said:
        told: list[str] = []
        try:
            self.kind.resume(self.source, study, told.append)
        except (ValueError, OSError) as error:
            is_message = not isinstance(error, OSError) or (error.filename is not None and error.errno is not None)
            return Said(2, "", f"{error}", "" if is_message else f"{error!r}")
        return Said(0, "", "\n".join(told), "")


def _chosen(study: Path, pattern: str) -> Path | None:
    """The first of segments and parts, which is sealed; the last of others."""
    found = sorted(study.glob(pattern))
    if not found:
        return None
    return found[0] if "part-" in pattern or pattern.endswith(".zst") else found[-1]


def cell(said: Said, whole: Said, problem: str, place: Path) -> str:
    """The exit code and what is said that is not said of a whole study, in one line; a problem in bold."""
    usual = whole.told.splitlines()
    told = [line.strip() for line in said.told.splitlines() if line.strip() and line not in usual]
    text = "; ".join(told[-1:] if said.code else told).replace(f"{place}", "STUDY").removeprefix("Error: ")
    text = re.sub(r"(line|column|char) \d+", r"\1 N", re.sub(r"-\d{8}-\d{6}(\.\d+)?", "-TIME", text))
    return f"{f'**{problem}** ' * bool(problem)}{said.code}{': ' * bool(text)}{text}".replace("|", "\\|")


def rows_of(lab: Lab, kind: str, pattern: str) -> Iterator[tuple[list[str], list[str], bool]]:
    """Damages of one kind of file that have the same effect, what the commands say, and whether one is silent."""
    found: dict[tuple[str, ...], tuple[list[str], bool]] = {}
    for damage in DAMAGES:
        cells, is_bad = [], False
        for command in COMMANDS:
            study = lab.damaged(pattern, damage)
            if study is None:
                break
            said, problem = lab.judged(command, study)
            cells.append(cell(said, lab.whole[command], problem, study))
            is_bad |= bool(problem)
            if problem:
                print(f"{lab.kind.name}, {kind}, {damage.name}, {command}: {cells[-1]}", flush=True)
        if cells:
            found.setdefault(tuple(cells), ([], is_bad))[0].append(damage.name)
    for said_of_it, (damages, is_bad) in found.items():
        yield damages, list(said_of_it), is_bad


def tables(folder: Path, files: dict[str, str]) -> tuple[list[str], int, int]:
    """A table of each kind of study; how many damages were tried, and of how many something was silent."""
    said, count, bad = list[str](), 0, 0
    for kind in KINDS:
        titles = [kind.resume_with if command == "resume" else f"results {command}" for command in COMMANDS]
        said += ["", f"Of {kind.name}:", "", f"| file | damage | {' | '.join(titles)} |"]
        said += [f"|{'---|' * (2 + len(titles))}"]
        lab = Lab(folder, kind)
        for name, pattern in files.items():
            for damages, cells, is_bad in rows_of(lab, name, pattern):
                said.append(f"| {name} | {', '.join(damages)} | {' | '.join(cells)} |")
                count, bad = count + len(damages), bad + is_bad * len(damages)
    return said, count, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*FILES], help="this kind of file")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    Clock().installed()  # nothing waits
    os.environ["PATH"] = ""  # else each start of the study asks git for the revision
    files = {options.only: FILES[options.only]} if options.only else FILES
    with sweep.scratch() as folder:
        said, count, bad = tables(folder, files)
    if options.output:
        options.output.write_text("\n".join(["# A study's files, damaged", *said]) + "\n")
    print("\n".join(said))
    print(f"{bad} of {count} are not as they should be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
