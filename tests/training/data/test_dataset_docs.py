"""docs/datasets.md names every key of every data set, and no other; its limits are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arat_ray.training.data import decoding, labels, parquet_limits
from arat_ray.training.data.images import Images
from arat_ray.training.data.splits import DATASETS

PAGE = (Path(__file__).parents[3] / "docs/datasets.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def keys(section: str) -> set[str]:
    table = section.split("| key |", 1)[1].split("\n\n", 1)[0] if "| key |" in section else ""
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


COMMON = keys(SECTIONS["Keys of every data set"])


def test_the_keys_that_all_data_sets_share_are_documented() -> None:
    assert {"name", *Images.model_fields} == COMMON


@pytest.mark.parametrize("name", DATASETS)
def test_every_key_of_a_data_set_is_documented_and_no_other(name: str) -> None:
    (section,) = (text for title, text in SECTIONS.items() if f"`{name}`" in title)
    assert COMMON | keys(section) == set(DATASETS[name].model_fields)
    assert f"`{name}`" in SECTIONS["Keys of every data set"]


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    limits = SECTIONS["What is too large"]
    for value in (decoding.PIXELS, parquet_limits.COLUMNS, parquet_limits.ROWS, labels.AT_MOST):
        assert f" {value:,}" in limits
    for value in (decoding.ENCODED, parquet_limits.PAGE, parquet_limits.FOOTER):
        assert f" {value // 10**6} MB" in limits
    assert f"{parquet_limits.NESTED} levels" in limits


def test_the_readme_links_to_the_page() -> None:
    assert "docs/datasets.md" in (Path(__file__).parents[3] / "README.md").read_text()
