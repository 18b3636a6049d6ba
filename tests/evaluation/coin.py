"""An attack as anyone may add one: a spec and its call. The worst of a few random corners of the ball."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from arat_ray.training.attacks import Attack, Logits, Loss
from arat_ray.training.randomness import Noise


class Coin(Attack):
    """Each pixel goes to one end of its interval, by the toss of a coin."""

    name: Literal["coin"] = "coin"
    tosses: int = Field(3, ge=1)
    """Corners that are tried."""

    @property
    def passes(self) -> int:
        return self.tosses

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, *, noise: Noise | None, loss: Loss | None = None
    ) -> Tensor:
        worst, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(self.tosses if noise else 0):
            assert noise
            x_adv = self.project(x + self.epsilon * noise.normal(x).sign(), x)
            with torch.no_grad():
                height = F.cross_entropy(logits(x_adv), y, reduction="none")
            worst = torch.where((height > highest)[:, None, None, None], x_adv, worst)
            highest = torch.maximum(height, highest)
        return worst
