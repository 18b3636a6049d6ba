"""Memory forecast: what a run's tensors take on its device, by a step that is taken without values.

A training step and a batch of the measurement run on the meta device, where tensors have shapes and no content, and
each storage that comes and goes is counted. What CUDA takes for itself is not known before: `OVERHEAD` allows for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arat_ray.training.attacks import Attack, Pgd
from arat_ray.training.averaging import Average
from arat_ray.training.context import Context
from arat_ray.training.data.augmentation import AugmentedImages
from arat_ray.training.data.images import Shape
from arat_ray.training.outlines import outlined
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train, Validate
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch

BLOCK = 512
"""Bytes to which CUDA's allocator rounds a tensor up."""
OVERHEAD = 1.1, 600 << 20
"""Of an allocator that cannot use every gap, as a factor, and of a process with CUDA and its libraries, in bytes."""
STEPS = 2
"""Of the attack: more of them hold no more."""


class Forecast(NamedTuple):
    """Bytes of one worker: `kept` from step to step (images, weights, optimizer, average), `most` at once."""

    kept: int
    most: int

    @property
    def on_a_gpu(self) -> int:
        """What a process would take of a GPU, `OVERHEAD` included."""
        factor, process = OVERHEAD
        return round(factor * self.most) + process


class Alive(TorchDispatchMode):
    """Bytes of the tensors that were made within the block and are alive: `now`, and the `most` at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known = set[int]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in given:  # no view, nothing in place
                self._see(each.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _NoNoise(Noise):
    """Draws of which only the shape counts."""

    def uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty_like(like)

    def normal(self, like: Tensor) -> Tensor:
        return torch.empty_like(like)


def forecast(train: Train, validate: Validate, *, images: int, workers: int = 1) -> Forecast:
    """What one of the `workers` of a run on so many training images holds.

    bfloat16 is counted as float32, and the buckets in which several workers add up their gradients are not.
    """
    dataset, rows = train.dataset, train.batch_size // workers
    shape, classes = dataset.shape, dataset.num_classes
    attack = train.attack and _short(train.attack)
    one = train.model_copy(update={"attack": attack})
    nothing = _NoNoise(torch.Generator(), rows)
    with outlined(), Alive() as alive:
        training = AugmentedImages(_images(images, shape), padding=dataset.crop_padding, flip=dataset.flip)
        held = [training, _images(validate.images, shape), torch.empty(images + validate.images, dtype=torch.int64)]
        method = one.build(shape, classes)
        optimizer = train.optimizer.build([value for value in method.parameters() if value.requires_grad])
        average = train.averaging and Average(train.averaging, method, steps_per_epoch=2**20, epochs=2**10)
        method.train()
        method.start_epoch(train.epochs, lambda model, count, fresh: 0.5)
        step = TrainingStep(one, method, optimizer, Context(Path(), lambda row, replayed: False))
        for _ in range(2):  # the optimizer's state comes with the first
            x, y = _batch(rows, shape)
            step(x, y, nothing, Stopwatch(torch.device("cpu")), perturbs_weights=train.weight_perturbation is not None)
            del x, y
        optimizer.zero_grad(set_to_none=True)
        kept = alive.now
        method.eval()
        x, y = _batch(-(-min(validate.batch_size, validate.images) // workers), shape)
        _short(validate.attack)(method.model, x, y, noise=nothing)
        del held, average
    return Forecast(kept, alive.most)


def _images(count: int, shape: Shape) -> Tensor:
    return torch.empty(count, *shape, dtype=torch.uint8)


def _batch(rows: int, shape: Shape) -> tuple[Tensor, Tensor]:
    return torch.empty(rows, *shape), torch.empty(rows, dtype=torch.int64)


def _short(attack: Attack) -> Attack:
    """PGD in so few steps that it shows what the attack holds.

    An attack that only measures may look at values, of which there are none here; its largest batch is a PGD step's.
    """
    if attack.measures_only:
        return Pgd(norm=attack.norm, epsilon=attack.epsilon, step_size=attack.epsilon, steps=STEPS)
    return attack.model_copy(update={"steps": STEPS})
