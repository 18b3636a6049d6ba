"""Every kind of file of a study, damaged in every way: what does each command say of it?

    python benchmarks/damage.py --output benchmarks/damage.md

A small study (`breaking/small_study.py`), the last trial of which was interrupted, is copied, one of its files is
damaged, and one command is run on the copy, in this process. A command may do its work nevertheless, because it does
not need the file or has made it again, or say what is wrong and how it is mended. What none may do is to end well with
other numbers and without a word, or to end with a traceback: then this ends with 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from breaking import contents, small_study
from breaking.clock import Clock
from click.testing import CliRunner

from arat_ray.cli import main as command_line

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
)


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


class Lab:
    """An undamaged study, another one, what the first holds, what it holds when it was resumed, and what commands say
    of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock().installed()
        self.source, self.study = self._make("small")
        _, self.other = self._make("other")
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

    def _make(self, name: str) -> tuple[Path, Path]:
        source, study = small_study.Plan(name, 6, 3).write(self.folder), self.folder / "made" / name
        study.parent.mkdir(exist_ok=True)
        small_study.session(source, study, self.clock, print, interrupt=True)
        return source, study

    def _copy(self) -> Path:
        shutil.rmtree(self.copy, ignore_errors=True)
        return Path(shutil.copytree(self.study, self.copy))

    def damaged(self, pattern: str, damage: Damage) -> Path | None:
        """A copy of the study with one file damaged; None where it has no such file."""
        copy = self._copy()
        path, other = (_chosen(study, pattern) for study in (copy, self.other))
        if path is None or other is None:
            return None
        damage.do(path, other)
        return copy

    def judged(self, command: str, study: Path) -> tuple[Said, str]:
        """What a command says of a damaged study, and what is not as it should be."""
        said, whole = self.call(command, study), self.whole[command]
        if said.crashed or said.code:
            return said, said.crashed
        if command == "show":
            return said, "other numbers" if said.text != whole.text and not said.told else ""
        if command == "verify":
            return said, "finds nothing" if said.text == whole.text else ""
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
        self.source.with_suffix(".witness").unlink(missing_ok=True)
        try:
            small_study.session(self.source, study, self.clock, told.append)
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


def cell(said: Said, problem: str, place: Path) -> str:
    """What is said, in one line that leads nowhere; a problem in bold."""
    lines = [line for line in said.told.replace(f"{place}", "STUDY").splitlines() if line.strip()]
    text = f"{said.code}: {lines[-1] if said.code and lines else '; '.join(lines)}".removeprefix("0: ")
    text = re.sub(r"\s+", " ", text).replace("|", "\\|").removeprefix("Error: ")
    return f"**{problem}** {text}".strip() if problem else text


def lines_of(lab: Lab, files: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """The rows of the table, and whether one has something that is not as it should be."""
    for kind, pattern in files.items():
        for damage in DAMAGES:
            cells, is_bad = [], False
            for command in COMMANDS:
                study = lab.damaged(pattern, damage)
                if study is None:
                    break
                said, problem = lab.judged(command, study)
                cells.append(cell(said, problem, study))
                is_bad |= bool(problem)
            if cells:
                yield f"| {kind} | {damage.name} | {' | '.join(cells)} |", is_bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*FILES], help="this kind of file")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    os.environ["PATH"] = ""  # else each start of the study asks git for the revision
    lab, bad = Lab(folder), 0
    lines = [f"| file | damage | {' | '.join(COMMANDS)} |", "|" + (2 + len(COMMANDS)) * "---|"]
    for row, is_bad in lines_of(lab, {options.only: FILES[options.only]} if options.only else FILES):
        lines.append(row)
        bad += is_bad
        print(row, flush=True)
    shutil.rmtree(folder)
    if options.output:
        options.output.write_text("\n".join(["# A study's files, damaged", "", *lines]) + "\n")
    print(f"{bad} of {len(lines) - 2} are not as they should be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
