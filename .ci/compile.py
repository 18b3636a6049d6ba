"""Compile what pip installs, package by package as it comes: `python3 .ci/compile.py ENVIRONMENT INSTALLED`.

pip works on one core and compiles after all else; this takes another one. It ends when the file INSTALLED is there and
nothing is left. A package is there as a whole once pip has said, in its INSTALLER, who installed it. With pytest the
tests are compiled as well, with asserts that say what they saw, which each of pytest's processes would else do again.
"""

from __future__ import annotations

import compileall
import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TESTS = """
from pathlib import Path
from types import SimpleNamespace
from _pytest.assertion import rewrite  # pytest's own; where it has changed, the tests only start later

config, state = SimpleNamespace(getini=lambda name: False), SimpleNamespace(trace=lambda text: None)
for pattern in ("test_*.py", "conftest.py"):
    for path in Path("tests").absolute().rglob(pattern):
        digest, code = rewrite._rewrite_test(path, config)
        compiled = path.parent / "__pycache__" / (path.stem + rewrite.PYC_TAIL)
        compiled.parent.mkdir(exist_ok=True)
        rewrite._write_pyc(state, code, digest, compiled)
"""


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
            with suppress(FileNotFoundError):  # pip replaces what came with the environment
                for path in modules(installer.parent):
                    compileall.compile_file(path, quiet=2)  # a template that is no Python is passed over
            if installer.parent.match("pytest-[0-9]*"):
                subprocess.run([environment / "bin" / "python", "-c", TESTS], check=False)
        if is_last:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    follow(Path(sys.argv[1]), Path(sys.argv[2]))
