"""The generated pages are what the code says."""

from __future__ import annotations

import pytest

from arat_ray.results.columns import MEANINGS
from arat_ray.results.schema import TABLES
from tools import docs


@pytest.mark.parametrize("name", docs.PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (docs.DOCS / name).read_text() == docs.PAGES[name](), "run `python -m tools.docs`"


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_and_no_other(table: str) -> None:
    assert set(MEANINGS[table]) == set(TABLES[table].schema.names)
