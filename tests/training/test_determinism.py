"""Determinism on a GPU: what is switched while a run trains, and that nothing in a run lacks such an algorithm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arat_ray.training.context import Context
from arat_ray.training.determinism import FILLING, WORKSPACE, algorithms
from arat_ray.training.loop import fit
from arat_ray.training.methods import METHODS
from tests.training.runs import few_digits, make, validate
from tests.training.test_combinations import NEEDED, SMALL

CUDA = torch.device("cuda")  # the switches are there without one
LACKING = {
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward", "histc", "kthvalue"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "median", "put_"),
    *("grid_sampler_2d_backward", "reflection_pad2d_backward", "nll_loss2d_forward", "scatter_reduce", "max_unpool2d"),
    *(
        "_ctc_loss_backward",
        "_embedding_bag_backward",
        "weighted bincount",
        "fractional_max_pool2d_backward",
        "nanmedian",
    ),
}
"""Operations that `torch.use_deterministic_algorithms` says to have no deterministic one on GPUs."""


def switches() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    strict = torch.are_deterministic_algorithms_enabled()
    return cudnn.benchmark, cudnn.deterministic, strict, FILLING.fill_uninitialized_memory


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_algorithms_are_chosen_within_the_block_alone(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = switches()
    with suppress(KeyError), algorithms(CUDA, deterministic=deterministic):
        assert switches() == (not deterministic, deterministic, deterministic, not deterministic)
        assert os.environ[WORKSPACE] == ":4096:8"
        raise KeyError
    assert switches() == before


def test_no_compiler_is_imported_for_it() -> None:
    """It takes seconds, and one is not needed."""
    program = (
        "import sys, torch\nfrom arat_ray.training.determinism import algorithms\n"
        "for deterministic in (False, True):\n"
        "    with algorithms(torch.device('cuda'), deterministic=deterministic):\n"
        "        assert torch.are_deterministic_algorithms_enabled() == deterministic\n"
        "print(*{'torch._dynamo', 'torch._inductor.config'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_user_s_own_workspace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with algorithms(CUDA, deterministic=True):
        assert os.environ[WORKSPACE] == ":16:8"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_trains_and_measures_in_the_block(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, spec = list[Any](), make(deterministic=deterministic, epochs=1)

    def watched(device: torch.device, *, deterministic: bool) -> Any:
        assert device == torch.device("cpu")
        return algorithms(CUDA, deterministic=deterministic)

    def report(row: Mapping[str, Any], replayed: bool) -> bool:
        seen.append(switches()[:3])
        return replayed

    few_digits(monkeypatch, 24)
    monkeypatch.setattr("arat_ray.training.loop.algorithms", watched)
    fit(spec, validate(4), Context(tmp_path, report, alive=lambda trouble: seen.append(switches()[:3])))
    assert set(seen) == {(not deterministic, deterministic, deterministic)}


def test_the_key_is_written_where_it_says_something_and_is_of_the_run() -> None:
    assert "deterministic" not in make().model_dump(mode="json")
    written = make(deterministic=True).model_dump(mode="json")
    assert written["deterministic"]
    assert type(make()).model_validate(written) == make(deterministic=True) != make()


class Operations(TorchDispatchMode):
    """What is called within the block, forward and backward, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        has_weights = name == "bincount" and len(args) > 1 and args[1] is not None
        self.names.add("weighted bincount" if has_weights else name)
        return func(*args, **(kwargs or {}))


def pooled() -> None:
    torch.nn.AdaptiveAvgPool2d(2)(torch.rand(1, 1, 4, 4, requires_grad=True)).sum().backward()


def counted() -> None:
    torch.bincount(torch.arange(3))
    torch.bincount(torch.arange(3), torch.rand(3))


@pytest.mark.parametrize(
    ("act", "found"), [(pooled, {"_adaptive_avg_pool2d_backward"}), (counted, {"weighted bincount"})]
)
def test_what_lacks_an_algorithm_is_seen(act: Callable[[], None], found: set[str]) -> None:
    with Operations() as operations:
        act()
    assert operations.names & LACKING == found


@pytest.mark.parametrize(
    ("method", "model"),
    [("arat", model) for model in ("resnet18", "vit", "tiny")]
    + [(method, "tiny") for method in METHODS if method != "arat"],
)
def test_no_method_and_no_network_has_an_operation_without_an_algorithm(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_digits(monkeypatch, 24)
    spec = make(
        model={"name": model, **SMALL[model]},
        method={"name": method, **NEEDED.get(method, {})},
        augmentation="trivial_augment",
        averaging={"name": "ema"},
        weight_perturbation={"gamma": 0.01, "warmup_epochs": 0},
        label_smoothing=0.1,
        gradient_clipping=1.0,
    )
    with Operations() as operations:
        fit(spec, validate(4), Context(tmp_path, lambda row, replayed: False))
    assert {"convolution_backward", "native_batch_norm_backward"} & operations.names or model == "vit"
    assert operations.names & LACKING == set()
