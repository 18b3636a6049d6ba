"""A share of a GPU: how much of its memory a process may take, and the trial that cannot fit. No GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.cuda._utils import _get_device_index

from arat_ray.cluster.trials.gpu_share import keep_to
from arat_ray.training.memory_forecast import OVERHEAD, forecast
from tests.training.runs import make, validate

GPU, GIB = torch.device("cuda"), 2**30
WIDE: dict[str, Any] = {"model": {"name": "tiny", "width": 1024}, "batch_size": 1300}


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The fractions that torch is told of a GPU of 8 GiB."""
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 * GIB))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def limit(fraction: float, device: Any) -> None:
        assert _get_device_index(device) in (0, 1), "torch takes no device without a number here"
        told.append(fraction)

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    return told


@pytest.mark.parametrize("device", [GPU, torch.device("cuda:1")])
def test_a_process_is_kept_to_its_share_less_what_cuda_takes_itself(device: torch.device, limits: list[float]) -> None:
    keep_to(0.25, device, make(), validate(40))
    assert limits == [(2 * GIB - OVERHEAD[1]) / (8 * GIB)]


@pytest.mark.parametrize(("share", "device"), [(1, GPU), (2, GPU), (0, GPU), (0.25, torch.device("cpu"))])
def test_whole_gpus_and_cpus_are_not_shared(share: float, device: torch.device, limits: list[float]) -> None:
    keep_to(share, device, make(**WIDE), validate(40))
    assert limits == []


def test_a_trial_that_cannot_fit_is_told_so_with_both_numbers_and_the_fix(limits: list[float]) -> None:
    train, measured = make(**WIDE), validate(40)
    needed = forecast(train, measured, images=1397).most / GIB
    assert 1.5 < needed < 7
    message = (
        rf"its tensors take {needed:.1f} GiB, and resources.gpus_per_worker: 0.25 of a GPU of 8.0 GiB leaves 1.4; "
        "raise it, or lower train.batch_size"
    )
    with pytest.raises(ValueError, match=message):
        keep_to(0.25, GPU, train, measured)
    keep_to(0.9, GPU, train, measured)
    keep_to(0.25, GPU, make(**WIDE, precision="bf16"), measured)  # it is not known how much less that takes
    assert len(limits) == 3
