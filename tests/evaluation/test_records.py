"""Records of jobs: what is half written, of other images or by somebody else is computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from arat_ray.evaluation.records import Records
from arat_ray.training.data.splits import indices_sha256

INDICES = torch.arange(3)
MINE = {"indices_sha256": indices_sha256(INDICES)}


@pytest.mark.parametrize(
    "header",
    [None, {}, MINE, {"indices_sha256": "x", "plain": "{}"}, *({**MINE, "plain": text} for text in ("", "3", "[1]"))],
)
def test_a_record_that_says_something_else_is_none(header: dict[str, str] | None, tmp_path: Path) -> None:
    records = Records(tmp_path, "pgd", {})
    (records.folder / "pgd-00000.safetensors").write_bytes(safetensors.torch.save({"x": torch.zeros(1)}, header))
    assert records.load("pgd", 0, INDICES) is None
    records.save("pgd", 0, INDICES, {"x": torch.ones(1), "seconds": 1.5})
    assert records.load("pgd", 0, INDICES) == {"x": torch.ones(1), "seconds": 1.5}
