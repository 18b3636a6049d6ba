"""What the table of faults calls lost, doubled and changed, and how it is written; no fault is injected here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.faults import table
from tests.lab.faults.__main__ import FAULTS
from tests.lab.faults.studies import BrokenPromiseError, Rows, broken, by_key

UNDISTURBED: Rows = {("a", 1): {"loss": 2.0}, ("a", 2): {"loss": 1.0}}


def test_nothing_is_broken_where_all_is_as_undisturbed() -> None:
    assert broken({("a", 1): {"loss": 2.0}}, dict(UNDISTURBED), UNDISTURBED) == []


def test_a_lost_row_and_a_changed_row_are_named() -> None:
    assert broken(UNDISTURBED, {("a", 1): {"loss": 3.0}}, UNDISTURBED) == [
        "reported before the fault and lost: a 2",
        "reported before the fault and changed: a 1",
        "missing: a 2",
        "not as undisturbed: a 1",
    ]


def test_an_epoch_that_is_there_twice_is_refused_though_its_attempts_differ() -> None:
    row = {"trial_id": "a", "epoch": 1, "loss": 2.0}
    with pytest.raises(BrokenPromiseError, match="1 epochs are there twice"):
        by_key([row | {"attempt": 1}, row | {"attempt": 2}])


def test_a_table_replaces_the_rows_that_were_measured_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}\n{table.END}\n\nafter\n")
    monkeypatch.setattr(table, "PAGE", page)
    first, second, gone = (table.Row(name, 3, 2, 1.0, "nothing") for name in ("first", "second", "gone"))
    table.write([second, gone], "caption", order=["second", "gone"])
    table.write([first, second._replace(recovered_s=2.4)], "another caption", order=["first", "second"])
    lines = page.read_text().split("\n")
    assert lines[:5] == ["before", "", table.BEGIN, "another caption", ""]
    assert lines[7:] == [
        "| first | 3 | 0 | 0 | 2 | 1 s | nothing |",
        "| second | 3 | 0 | 0 | 2 | 2 s | nothing |",
        *(table.END, "", "after", ""),
    ]


def test_each_fault_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.sentence for fault in FAULTS)
    assert table.BEGIN in table.PAGE.read_text()
