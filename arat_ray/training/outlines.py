"""Networks without values, on the meta device: what their layers are called and how wide they are, at no cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWN = (Tensor.normal_, Tensor.uniform_)


class _NothingDrawn(TorchFunctionMode):
    """Initial values are not drawn: torch's meta kernels of it import its compiler, which takes seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in DRAWN and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def outlined() -> Iterator[None]:
    """What is built within the block has shapes and no values."""
    with torch.device("meta"), _NothingDrawn():
        yield
