"""Unbroken images: which of a batch still stand, and the adversarial images of those that fell."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Unbroken:
    """x [N, C, H, W] and y [N] under attack. The network itself has the last word on what has fallen."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self._adversarial = x.clone()
        self._standing = torch.ones(len(y), dtype=torch.bool, device=y.device)

    def rows(self) -> Tensor:
        """int64 [n]: the images that stand, ascending."""
        return self._standing.nonzero().squeeze(1)

    def images(self) -> Tensor:
        """[N, C, H, W], contiguous: the adversarial image of each that fell, x of the others."""
        return self._adversarial.contiguous()

    def take(self, rows: Tensor, candidates: Tensor, suspected: Tensor) -> Tensor:
        """bool [n]: which of the images `rows` have fallen by now.

        Of the candidates [n, C, H, W] those suspected (bool [n]) and still standing are shown to the network.
        """
        standing = self._standing[rows]
        ask = (suspected & standing).nonzero().squeeze(1)
        if len(ask):
            shown = candidates.detach()[ask].contiguous()
            with torch.no_grad():
                wrong = self.model(shown).max(1).indices != self.y[rows[ask]]
            fell = rows[ask[wrong]]
            self._adversarial[fell] = shown[wrong]
            self._standing[fell] = False
            standing = self._standing[rows]
        return ~standing


def length(z: Tensor, norm: str) -> Tensor:
    """[n, 1, 1, 1] of z [n, C, H, W], in linf or l2."""
    if norm == "linf":
        return z.abs().amax((1, 2, 3), keepdim=True)
    return z.square().sum((1, 2, 3), keepdim=True).sqrt()
