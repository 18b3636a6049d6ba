"""The generated pages are what the code says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arat_ray.results.columns import MEANINGS
from arat_ray.results.schema import TABLES
from tools import docs


def test_generated_pages_are_what_the_code_says() -> None:
    """In a process of its own: click keeps a command's help option as the first context that asked had it."""
    command = [sys.executable, "-m", "tools.docs", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=docs.DOCS.parent)
    assert done.returncode == 0, done.stderr


def test_a_page_that_is_not_what_the_code_says_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "DOCS", shutil.copytree(docs.DOCS, tmp_path / "docs"))
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    monkeypatch.setattr(docs, "PAGES", {"results.md": docs.results})
    docs.main()
    with (tmp_path / "docs" / "results.md").open("a") as page:
        page.write("more\n")
    with pytest.raises(SystemExit, match=r"^results.md: not as the code says"):
        docs.main()


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_and_no_other(table: str) -> None:
    assert set(MEANINGS[table]) == set(TABLES[table].schema.names)
