"""Precision: in which numbers the attack computes, and in which the update of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from arat_ray.spec import Spec

Numbers = Literal["fp32", "ieee", "tf32", "bf16"]
"""fp32: float32 as torch computes it, where a GPU's convolutions round to TF32 and its products of matrices do not.
ieee: float32 throughout. tf32: convolutions and products in TF32. bf16: the network under autocast."""


class Precision(Spec):
    """In which numbers a run computes, in one word or a word each; weights, losses and measurements stay in float32.

    bf16: autocast. On GPUs, tf32: convolutions and products in TF32; ieee: neither; fp32: as torch has it, convolutions
    alone.
    """

    attack: Numbers = "fp32"
    """The network in the attack."""
    update: Numbers = "fp32"
    """The network in the loss, forward and backward."""

    @model_validator(mode="before")
    @classmethod
    def _one_word_is_of_both(cls, given: Any) -> Any:
        if isinstance(given, str) and given in get_args(Numbers):
            return {"attack": given, "update": given}
        if isinstance(given, Mapping | Precision):
            return given
        message = "must be one of {words}, or {attack: ..., update: ...}, not {value}"
        raise PydanticCustomError("precision", message, {"words": ", ".join(get_args(Numbers)), "value": repr(given)})

    @model_serializer(mode="wrap")
    def _in_one_word(self, write: SerializerFunctionWrapHandler) -> Any:
        return self.attack if self.attack == self.update else write(self)

    def __str__(self) -> str:
        both = f"{self.attack} in the attack, {self.update} in the update"
        return self.attack if self.attack == self.update else both


@contextmanager
def rounding(numbers: Numbers) -> Iterator[None]:
    """Whether a GPU may round to TF32 within the block; without effect elsewhere.

    The backward pass belongs into it, but not into `autocast`.
    """
    if numbers not in ("ieee", "tf32"):
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = numbers == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def autocast(numbers: Numbers, device: torch.device) -> torch.autocast:
    """bfloat16 where torch holds it to be safe, for forward passes within the block, if `numbers` are bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=numbers == "bf16")


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without TF32, which would differ from batch size to batch size."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
