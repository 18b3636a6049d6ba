"""The generated pages are what the code says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.results.rows import ROWS
from arat_ray.results.schema import TABLES
from tools import docs


class Unexplained(TypedDict):
    epoch: int
    """From 1."""
    seconds: float


def test_generated_pages_are_what_the_code_says() -> None:
    """In a process of its own: click keeps a command's help option as the first context that asked had it."""
    command = [sys.executable, "-m", "tools.docs", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=docs.DOCS.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["tune"], ["results", "why"], ["compare"]])
def test_a_command_is_used_as_its_help_says(words: list[str]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"], prog_name="arat-ray").output.splitlines()[0]
    assert shown.startswith(f"Usage: arat-ray {' '.join(words)} [OPTIONS] ")
    assert shown in (docs.DOCS / "commands.md").read_text().splitlines()


def test_a_page_that_is_not_what_the_code_says_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "DOCS", shutil.copytree(docs.DOCS, tmp_path / "docs"))
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    monkeypatch.setattr(docs, "PAGES", {"results.md": docs.results})
    docs.main()
    with (tmp_path / "docs" / "results.md").open("a") as page:
        page.write("more\n")
    with pytest.raises(SystemExit, match=r"^results.md: not as the code says"):
        docs.main()


UNITS = {"_s": "s", "_gib": "GiB", "_usd": "US dollars", "_at": "UTC", "_accuracy": "share", "images_per_s": "1/s"}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_and_the_unit_that_its_name_says(table: str) -> None:
    found = docs.columns(ROWS[table])
    assert list(found) == TABLES[table].schema.names
    for name, column in found.items():
        units = [unit for end, unit in UNITS.items() if name.endswith(end)]
        assert column.unit == units[-1] if units else column.unit not in set(UNITS.values()) - {"share"}, name
        assert not (name in TABLES[table].key and column.null)


def test_a_column_without_a_meaning_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unexplained\.seconds has no meaning"):
        docs.columns(Unexplained)


def test_keys_with_values_of_any_kind_say_what_may_be_written() -> None:
    page = (Path(__file__).parents[1] / "docs" / "experiment.md").read_text()
    assert "| `train` | [Train](#train) |" in page
    assert "mapping to value" not in page.split("## Train")[0]
    assert "| `choice` | list of values, or mapping of labels" in page
