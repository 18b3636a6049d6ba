"""Precision: one word or one for each, written as it always was, and in force where it should be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from arat_ray.training.context import Context
from arat_ray.training.precision import rounding
from arat_ray.training.randomness import Noise
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch
from tests.training.test_run import make

ROUNDS = {"ieee": (False, False), "tf32": (True, True)}


def may_round() -> tuple[bool, bool]:
    """Products, convolutions."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("word", ["fp32", "ieee", "tf32", "bf16"])
def test_one_word_is_of_both_and_is_written_as_one(word: str) -> None:
    train = make(precision=word)
    assert (train.precision.attack, train.precision.update) == (word, word)
    assert train.model_dump(mode="json")["precision"] == word
    assert str(train.precision) == word


def test_two_words_are_written_as_two() -> None:
    train = make(precision={"attack": "bf16", "update": "tf32"})
    written = train.model_dump(mode="json")
    assert written["precision"] == {"attack": "bf16", "update": "tf32"}
    assert type(train).model_validate(written) == train
    assert str(train.precision) == "bf16 in the attack, tf32 in the update"


@pytest.mark.parametrize("given", ["fp16", ["bf16"], 3, None])
def test_another_word_is_refused_with_those_that_there_are(given: Any) -> None:
    with pytest.raises(ValidationError, match=r"fp32, ieee, tf32, bf16, or \{attack: \.\.\., update: \.\.\.\}, not"):
        make(precision=given)


@pytest.mark.parametrize("words", [("bf16", "tf32"), ("tf32", "bf16"), ("ieee", "tf32"), ("fp32", "ieee")])
def test_attack_forward_and_backward_run_in_their_own(words: tuple[str, str]) -> None:
    """Seen by the first layer of a network: forward in the attack and in the update, and backward in both."""
    attack, update = words
    train = make(precision={"attack": attack, "update": update}, attack={**make().model_dump()["attack"], "steps": 1})
    method, before = train.build(), may_round()
    kinds = Counter[tuple[str, torch.dtype, tuple[bool, bool]]]()
    first = next(module for module in method.model.modules() if isinstance(module, nn.Conv2d))

    def forward(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kinds["forward", output.dtype, may_round()] += 1
        output.register_hook(lambda gradient: kinds.update([("backward", gradient.dtype, may_round())]))

    first.register_forward_hook(forward)
    optimizer = train.optimizer.build(list(method.parameters()))
    step = TrainingStep(train, method, optimizer, Context(Path(), lambda row, replayed: False))
    x, y = torch.rand(32, 1, 8, 8), torch.arange(32) % 10
    step(x, y, Noise(torch.Generator(), 32), Stopwatch(torch.device("cpu")), perturbs_weights=False)
    expected = Counter[tuple[str, torch.dtype, tuple[bool, bool]]]()
    for word in words:
        dtype = torch.bfloat16 if word == "bf16" else torch.float32
        expected.update((way, dtype, ROUNDS.get(word, before)) for way in ("forward", "backward"))
    assert kinds == expected
    assert may_round() == before


def test_what_was_allowed_before_is_allowed_again_after_an_error() -> None:
    def fail() -> None:
        with rounding("ieee"):
            assert may_round() == (False, False)
            raise ZeroDivisionError

    before = may_round()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert may_round() == before
