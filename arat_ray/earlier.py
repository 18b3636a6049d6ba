"""What earlier versions wrote down, in today's words.

Runs are written out in full, every key with its value. A key that came later is missing in older ones, and stands for
what was done then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def train(written: Mapping[str, Any]) -> dict[str, Any]:
    """A `train:` as it was written out: `images: N` was the first N before they were drawn by class."""
    dataset = written.get("dataset")
    if not isinstance(dataset, Mapping) or dataset.get("images") is None or "subset" in dataset:
        return dict(written)
    return {**written, "dataset": {**dataset, "subset": "first"}}


def validate(written: Mapping[str, Any]) -> dict[str, Any]:
    """A `validate:` as it was written out: so many test images were the first."""
    if written.get("split") != "test" or "subset" in written:
        return dict(written)
    return {**written, "subset": "first"}
