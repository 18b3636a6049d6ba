"""Random numbers that depend on the seed, the epoch and the step, and on nothing else.

Every stream is seeded anew from (seed, epoch) when an epoch begins, so a run resumed at an epoch boundary draws what an
uninterrupted one would have drawn, and a checkpoint needs no generator state. Draws are made for the whole global batch
on every worker, each of which keeps its own rows, so the number of workers does not change them either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts, well mixed: neighbouring seeds and epochs give unrelated streams."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A generator on `device` seeded with `derive_seed(*parts)`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


@dataclass(frozen=True)
class Noise:
    """Random numbers for one global batch of `total` images, of which this worker keeps `rows`."""

    generator: torch.Generator
    total: int
    rows: slice | Tensor = field(default_factory=lambda: slice(None))

    def uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        """U(low, high) in the shape of this worker's rows, `like` [N, ...]."""
        return self._empty(like).uniform_(low, high, generator=self.generator)[self.rows]

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1) in the shape of this worker's rows, `like` [N, ...]."""
        return self._empty(like).normal_(generator=self.generator)[self.rows]

    def _empty(self, like: Tensor) -> Tensor:
        return torch.empty((self.total, *like.shape[1:]), dtype=like.dtype, device=like.device)
