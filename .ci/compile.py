"""Compile what pip installs, package by package as it comes: `python3 .ci/compile.py ENVIRONMENT INSTALLED`.

pip works on one core and compiles after all else; this takes another one. It ends when the file INSTALLED is there and
nothing is left. A package is there as a whole once pip has said, in its INSTALLER, who installed it.
"""

from __future__ import annotations

import compileall
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def modules(info: Path) -> Iterator[Path]:
    """A package's modules, by its record; its own tests are left to whoever imports them."""
    with (info / "RECORD").open(newline="") as lines:
        for name, *_ in csv.reader(lines):
            path = Path(name)
            if path.suffix == ".py" and not {"test", "tests"} & set(path.parts):
                yield info.parent / path


def follow(environment: Path, installed: Path) -> None:
    done = set[Path]()
    while True:
        is_last = installed.exists()
        for installer in set(environment.glob("lib/python3*/site-packages/*.dist-info/INSTALLER")) - done:
            done.add(installer)
            for path in modules(installer.parent):
                compileall.compile_file(path, quiet=2)  # a template that is no Python is passed over
        if is_last:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    follow(Path(sys.argv[1]), Path(sys.argv[2]))
