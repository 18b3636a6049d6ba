"""The training loop: one epoch after another in plain torch, the same code for every launcher.

A launcher passes a `Context`: where this worker stands among its fellows, where checkpoints go, and what to do with the
row of an epoch. Images live on the device as uint8; every worker holds them all and takes its rows of each batch.
"""

from __future__ import annotations

import math
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arat_ray.training import augmentation, branches, checkpoint, data
from arat_ray.training.augmentation import AugmentedImages
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.counting import count, to_unit
from arat_ray.training.data import ImageSet
from arat_ray.training.methods import Method
from arat_ray.training.randomness import Noise, derive_seed, generator
from arat_ray.training.run import Train, Validate

Row = dict[str, Any]
"""One epoch's measurements, by the column names of the `epochs` table."""


class DivergenceError(ValueError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Context:
    """Where a loop runs and whom it reports to.

    `report(row, replayed)` is called on every worker after each epoch, and first for the epochs of a restored
    checkpoint (`replayed`); it returns True where the run shall stop. Only rank 0 writes to `folder`.
    """

    folder: Path
    report: Callable[[Row, bool], bool]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


def fit(train: Train, validate: Validate, context: Context) -> None:
    """Run `train` to its end, going on from the checkpoint in `context.folder` where there is one.

    Raises ValueError for a checkpoint of another run and for what `Train` cannot know without its data;
    `DivergenceError` where the loss becomes NaN or infinite.
    """
    if train.batch_size % context.world_size:
        raise ValueError(f"batch_size {train.batch_size} cannot be shared out over {context.world_size} workers")
    run = _Run(train, validate, context)
    history = run.restore()
    for row in history:
        if context.report(row, True):
            return
    for epoch in range(len(history) + 1, train.epochs + 1):
        row = run.epoch(epoch)
        history.append(row)
        if validate.is_due(epoch, train.epochs):
            row |= run.measure()
            run.save(epoch, history)
        if context.report(row, False):
            return


class _Run:
    """The state of one training run on one worker."""

    def __init__(self, train: Train, validate: Validate, context: Context) -> None:
        self.train, self.validate, self.context = train, validate, context
        device = context.device
        splits = data.load(train.dataset, validation_images=validate.images, seed=validate.seed)
        self.validation_sha256 = splits.validation_sha256
        self.validation = _to(splits.validation, device)
        self.labels = splits.train.labels.to(device)
        self.images = AugmentedImages(
            splits.train.images.to(device), padding=train.dataset.crop_padding, flip=train.dataset.flip
        )
        self.steps = len(self.labels) // train.batch_size
        if self.steps == 0:
            raise ValueError(f"batch_size {train.batch_size} is larger than the {len(self.labels)} training images")
        method = train.build()
        if train.sync_batch_norm and context.world_size > 1:
            branches.synchronize(method, device)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.method: Method = method.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.step_method: nn.Module = self.method
        self.optimizer = train.optimizer.build(list(method.parameters()))

    def restore(self) -> list[Row]:
        """Load the last checkpoint, if any, and share the network out over the workers; the rows reported so far."""
        path = self.context.folder / checkpoint.LAST
        history: list[Row] = []
        if path.exists():
            state = checkpoint.load(path, device=self.context.device)
            expected = (self.train.model_dump(mode="json"), self.validate.model_dump(mode="json"))
            if (state.train, state.validate) != expected:
                raise ValueError(f"{path} is the checkpoint of another run; choose another folder or remove it")
            self.method.load_state_dict(state.method)
            self.optimizer.load_state_dict(state.optimizer)
            history = state.history
        if self.context.world_size > 1:
            self.step_method = DistributedDataParallel(self.method)
        return history

    def save(self, epoch: int, history: list[Row]) -> None:
        if self.context.rank == 0:
            state = Checkpoint(
                train=self.train.model_dump(mode="json"),
                validate=self.validate.model_dump(mode="json"),
                validation_sha256=self.validation_sha256,
                epoch=epoch,
                method=self.method.state_dict(),
                optimizer=self.optimizer.state_dict(),
                history=history,
            )
            checkpoint.save(state, self.context.folder / checkpoint.LAST)

    def epoch(self, epoch: int) -> Row:
        """Train for one epoch (from 1)."""
        train, context = self.train, self.context
        torch.manual_seed(derive_seed(train.seed, "torch", epoch, context.rank))
        self.method.train()
        self.method.start_epoch(
            lambda model, images, fresh: self._sample_accuracy(model, images, epoch if fresh else 0)
        )
        order = torch.randperm(len(self.labels), generator=generator("cpu", train.seed, "order", epoch))
        batches = order[: self.steps * train.batch_size].view(self.steps, train.batch_size)
        draws = generator("cpu", train.seed, "augment", epoch)
        noise = Noise(
            generator(context.device, train.seed, "attack", epoch),
            train.batch_size,
            slice(context.rank, None, context.world_size),
        )
        totals = torch.zeros(5, dtype=torch.float64, device=context.device)
        watch = _Stopwatch(context.device)
        began = time.perf_counter()
        rate = 0.0
        for step, indices in enumerate(batches):
            rate = train.optimizer.learning_rate * train.schedule.factor(
                epoch=epoch - 1, epochs=train.epochs, progress=(epoch - 1 + step / self.steps) / train.epochs
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            x, y = self._batch(indices, draws)
            totals += self._step(x, y, noise, watch)
        sums = context.sum(totals).tolist()
        seconds = time.perf_counter() - began
        losses = [value / (self.steps * context.world_size) for value in sums[:3]]
        if not all(math.isfinite(loss) for loss in losses):
            raise DivergenceError(
                f"the loss became {sum(losses)} in epoch {epoch}; lower optimizer.learning_rate "
                f"({train.optimizer.learning_rate:g}) or method.invariance_weight"
            )
        images = self.steps * train.batch_size
        measured = {"train_clean_accuracy": sums[3], "train_robust_accuracy": sums[4]}
        return {
            "epoch": epoch,
            "loss_adversarial": losses[0],
            "loss_clean": losses[1],
            "loss_invariance": losses[2],
            "balance": self.method.balance,
            "learning_rate": rate,
            "train_images": images,
            **{name: None if math.isnan(correct) else correct / images for name, correct in measured.items()},
            "epoch_s": seconds,
            "attack_s": watch.seconds(),
            "images_per_s": images / seconds,
        }

    def measure(self) -> Row:
        """Clean and robust accuracy on the held-out images, through the deployed (adversarial) branch."""
        counts = count(
            self.method.model,
            self.validation,
            attack=self.validate.attack,
            seed=self.validate.seed,
            batch_size=self.validate.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            reduce=self.context.sum,
        )
        return {
            "validation_clean_accuracy": counts.clean_accuracy,
            "validation_robust_accuracy": counts.robust_accuracy,
            "validation_images": counts.images,
        }

    def _step(self, x: Tensor, y: Tensor, noise: Noise, watch: _Stopwatch) -> Tensor:
        """One update: [adversarial, clean, invariance loss, right clean, right adversarial], NaN where not computed."""
        with watch.running():
            if self.train.attack is None:
                x_adv = x
            else:
                x, x_adv = self.method.perturb(x, y, self.train.attack, noise)
        losses = self.step_method(x, x_adv, y)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()
        with torch.no_grad():
            right = [
                y.new_tensor(math.nan, dtype=torch.float64) if logits is None else (logits.argmax(1) == y).sum()
                for logits in (losses.logits_clean, losses.logits_adv)
            ]
            return torch.stack([*losses[:3], *right]).double()

    def _batch(self, indices: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """This worker's rows of an augmented batch: x [B / world, C, H, W] in [0, 1] and y."""
        offsets, flips = self._draw(len(indices), draws)
        mine = slice(self.context.rank, None, self.context.world_size)
        indices = indices[mine].to(self.context.device)
        images = self.images.batch(indices, offsets[mine], flips[mine])
        return to_unit(images, channels_last=self.train.channels_last), self.labels[indices]

    def _draw(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        dataset = self.train.dataset
        return augmentation.draw(count, draws, padding=dataset.crop_padding, flip=dataset.flip)

    def _sample_accuracy(self, model: nn.Module, images: int, draw: int) -> float:
        """Accuracy in eval mode on `images` augmented training images chosen by `draw`."""
        draws = generator("cpu", self.train.seed, "sample", draw)
        chosen = torch.randperm(len(self.labels), generator=draws)[:images].to(self.context.device)
        offsets, flips = self._draw(len(chosen), draws)
        sample = ImageSet(self.images.batch(chosen, offsets, flips), self.labels[chosen], ())
        counts = count(
            model,
            sample,
            attack=None,
            seed=0,
            batch_size=self.validate.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            reduce=self.context.sum,
        )
        return counts.clean_accuracy


def describe(device: torch.device) -> Row:
    """The device's name, and the most memory held so far: on a GPU by tensors, otherwise by the process."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        return {"device": torch.cuda.get_device_name(device), "peak_memory_gib": peak / 2**30}
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"device": "cpu", "peak_memory_gib": peak / 2**30}


class _Stopwatch:
    """Seconds spent within `running()` blocks; on a GPU measured there, without waiting for it at every step."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.elapsed = 0.0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self.events.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self.elapsed += time.perf_counter() - began

    def seconds(self) -> float:
        return self.elapsed + float(sum(begin.elapsed_time(end) for begin, end in self.events)) / 1000


def _to(images: ImageSet, device: torch.device) -> ImageSet:
    return images._replace(images=images.images.to(device), labels=images.labels.to(device))
