"""One step of training: the attack, the losses, and the update of the weights that follows from them."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arat_ray.training.context import Context
from arat_ray.training.methods import Losses, Method
from arat_ray.training.precision import Numbers, autocast, rounding
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train
from arat_ray.training.timing import Stopwatch
from arat_ray.training.weight_perturbation import perturbed

if TYPE_CHECKING:
    from torch.optim import Optimizer


class TrainingStep:
    """What a step needs: the method and its optimizer, and `replica`, the method with its gradients' mean over workers.

    Made on all workers at once, when the weights are those to go on from.
    """

    def __init__(self, train: Train, method: Method, optimizer: Optimizer, context: Context) -> None:
        self.train, self.method, self.optimizer, self.context = train, method, optimizer, context
        is_shared = context.world_size > 1
        self.replica: nn.Module = DistributedDataParallel(method) if is_shared else method
        differ = is_shared and not train.sync_batch_norm
        self._statistics = [each for each in method.buffers() if each.is_floating_point()] if differ else []

    def __call__(self, x: Tensor, y: Tensor, noise: Noise, watch: Stopwatch, *, perturbs_weights: bool) -> Tensor:
        """One update: [adversarial, clean, invariance loss, right clean, right adversarial], NaN where not computed.

        x [N, C, H, W] and y [N] are this worker's share of the batch; `watch` takes the time of the attack.
        """
        train, part, numbers = self.train, self.context.part, self.train.precision
        self.share_statistics()
        with part("attack"), watch.running(), rounding(numbers.attack), self._autocast(numbers.attack):
            x, x_adv = (x, x) if train.attack is None else self.method.perturb(x, y, train.attack, noise)
        with rounding(numbers.update), ExitStack() as stack:
            if perturbs_weights:
                with part("weight perturbation"):
                    stack.enter_context(self._perturbed_weights(x, x_adv, y))
            with part("forward"), self._autocast(numbers.update):
                losses: Losses = self.replica(x, x_adv, y)
            with part("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                losses.total.backward()
            with part("optimiser"):
                if train.gradient_clipping is not None:
                    nn.utils.clip_grad_norm_(self.method.parameters(), train.gradient_clipping)
                self.optimizer.step()
        with torch.no_grad():
            right = [
                losses.clean.new_full((), math.nan, dtype=torch.float64)  # filled there: a copy would be waited for
                if logits is None
                else (logits.argmax(1) == y).sum()
                for logits in (losses.logits_clean, losses.logits_adv)
            ]
            return torch.stack([*losses[:3], *right]).double()

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Give all workers the norms' running statistics that the first one has, which are those that are saved.

        Each worker's batch norm has moved its own on by its share of the batch. What attacks or is measured in eval
        mode would else be another network on each worker, and another one after the run was resumed.
        """
        if not self._statistics:
            return
        flat = torch.cat([each.flatten().double() for each in self._statistics])
        shared = self.context.sum(flat if self.context.rank == 0 else torch.zeros_like(flat))
        for each, value in zip(
            self._statistics, shared.split([each.numel() for each in self._statistics]), strict=True
        ):
            each.copy_(value.view_as(each))

    def _perturbed_weights(self, x: Tensor, x_adv: Tensor, y: Tensor) -> AbstractContextManager[None]:
        assert self.train.weight_perturbation is not None

        def loss() -> Tensor:
            with self._autocast(self.train.precision.update):
                losses: Losses = self.method(x, x_adv, y)
                return losses.total

        workers = self.context.world_size
        gamma = self.train.weight_perturbation.gamma
        return perturbed(self.method, loss, gamma=gamma, average=lambda gradient: self.context.sum(gradient) / workers)

    def _autocast(self, numbers: Numbers) -> torch.autocast:
        return autocast(numbers, self.context.device)
