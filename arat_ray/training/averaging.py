"""Weight averaging: a second network whose parameters are the running average of the trained one's.

SWA, Izmailov et al., https://arxiv.org/abs/1803.05407, section 3: the mean of snapshots taken late in training. EMA: an
exponential moving average of every step. Parameters are averaged, buffers are not: the averaged network normalises
activations that no training step has seen. So before it is measured, the statistics of every norm layer are estimated
anew, each branch of a split norm on the inputs that it serves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arat_ray.spec import Spec
from arat_ray.training.attacks import Attack
from arat_ray.training.methods import Method
from arat_ray.training.randomness import Noise


class Swa(Spec):
    """The plain mean of snapshots; by default one an epoch after the first decay of the default schedule."""

    name: Literal["swa"] = "swa"
    start: float = Field(0.76, ge=0, lt=1)
    """Share of the run after which snapshots are taken."""
    every: int | None = Field(None, ge=1)
    """Steps between snapshots; by default one at the end of each epoch."""
    norm_images: int = Field(10_000, ge=1)
    """Training images on which norm statistics are estimated: so many whole batches of them, at least one."""

    def takes(self, step: int, *, steps_per_epoch: int, steps: int) -> bool:
        """Whether step `step` (from 1) of `steps` ends with a snapshot."""
        return step / steps > self.start and step % (self.every or steps_per_epoch) == 0

    def weight(self, taken: int) -> float:
        """Share of the next snapshot in the average, after `taken` of them."""
        return 1 / (taken + 1)


class Ema(Spec):
    """w <- d w + (1 - d) w_t at every step, w starting at the first w_t taken.

    After n of them d = min(decay, (1 + n) / (10 + n)), the warm-up of TensorFlow's
    `tf.train.ExponentialMovingAverage(num_updates=n)`: early in training the average looks back less far.
    """

    name: Literal["ema"] = "ema"
    decay: float = Field(0.999, gt=0, lt=1)
    """d, reached after a warm-up."""
    start: float = Field(0.0, ge=0, lt=1)
    """Share of the run after which steps are averaged."""
    norm_images: int = Field(10_000, ge=1)
    """Training images on which norm statistics are estimated: so many whole batches of them, at least one."""

    def takes(self, step: int, *, steps_per_epoch: int, steps: int) -> bool:
        """Whether step `step` (from 1) of `steps` enters the average."""
        del steps_per_epoch
        return step / steps > self.start

    def weight(self, taken: int) -> float:
        """Share of the next step in the average, after `taken` of them."""
        return 1 - min(self.decay, (1 + taken) / (10 + taken)) if taken else 1.0


Averaging = Annotated[Swa | Ema, Field(discriminator="name")]


class Average:
    """The running average of a method's parameters, and the network it deploys.

    `method` is a copy that no gradient reaches. Its parameters are the average once it has `started`; its norm
    statistics and whatever else it holds are those of the last `estimate_norms`.
    """

    def __init__(self, spec: Swa | Ema, method: Method, *, steps_per_epoch: int, epochs: int) -> None:
        self.spec = spec
        self.steps_per_epoch = steps_per_epoch
        self.steps = steps_per_epoch * epochs
        self.method = _copy(method)
        self.taken = 0
        if not any(self._takes(step) for step in range(self.steps, 0, -1)):
            raise ValueError(
                f"averaging would take no snapshot: of the {self.steps} steps of this run, none after the share "
                f"averaging.start {spec.start:g} is a multiple of averaging.every; lower one of the two"
            )

    @property
    def started(self) -> bool:
        """Whether there is an average yet; before, the method itself is what there is to measure."""
        return self.taken > 0

    @torch.no_grad()
    def update(self, method: Method, *, step: int) -> None:
        """Take the parameters after step `step`, from 1 over the whole run, into the average where they are due.

        Parameters that are not trained (a teacher's) are left as they are.
        """
        if not self._takes(step):
            return
        weight = self.spec.weight(self.taken)
        for mean, value in zip(self.method.parameters(), method.parameters(), strict=True):
            if value.requires_grad:
                mean.lerp_(value, weight)
        self.taken += 1

    def estimate_norms(
        self, method: Method, batches: Iterable[tuple[Tensor, Tensor]], attack: Attack | None, noise: Noise
    ) -> None:
        """Give the average the norm statistics of its own activations, and `method`'s state of this epoch.

        Every norm takes the mean of its batch means and variances over `batches`, pairs x [N, C, H, W] in [0, 1] and
        y [N], on the inputs that it serves in training: the averaged network is attacked, and the method's own forward
        sends the final x' and x where they belong. The attack uses batch statistics and its steps do not count. Where
        several workers call this, each with its own rows, all get the mean over workers. Without norms nothing is run.
        """
        average = _copy(method)
        trained = [value.requires_grad for value in method.parameters()]
        with torch.no_grad():
            for mine, mean, is_trained in zip(average.parameters(), self.method.parameters(), trained, strict=True):
                if is_trained:
                    mine.copy_(mean)
        norms = [
            norm
            for norm, live in zip(average.modules(), method.modules(), strict=True)
            if isinstance(norm, _BatchNorm) and _learns(norm, live)
        ]
        self.method = average
        if norms:
            estimate(average, norms, batches, attack, noise)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; `method` loads into a method of the same spec."""
        return {"taken": self.taken, "method": dict(self.method.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.taken = state["taken"]

    def _takes(self, step: int) -> bool:
        return self.spec.takes(step, steps_per_epoch=self.steps_per_epoch, steps=self.steps)


def _copy(method: Method) -> Method:
    copied = copy.deepcopy(method).train()
    copied.requires_grad_(False)
    return copied


def _learns(norm: _BatchNorm, live: nn.Module) -> bool:
    """Whether training moves the statistics of this norm layer, `live` in the method itself: not a frozen teacher's."""
    affine = list(live.parameters())
    return norm.training and norm.track_running_stats and (not affine or any(value.requires_grad for value in affine))


def estimate(
    method: Method,
    norms: list[_BatchNorm],
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: Attack | None,
    noise: Noise,
) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.zero_()
        norm.momentum = None  # torch's word for the plain mean over all batches, the first of which forgets the past
    attack_norm, method.attack_norm = method.attack_norm, "train_frozen_stats"
    for x, y in batches:
        clean, x_adv = (x, x) if attack is None else method.perturb(x, y, attack, noise)
        with torch.no_grad():
            method(clean, x_adv, y)
    method.attack_norm = attack_norm
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if dist.is_initialized():
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                dist.all_reduce(statistic)
                statistic.div_(dist.get_world_size())
