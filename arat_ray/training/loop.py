"""The training loop: one epoch after another in plain torch, the same code for every launcher.

A launcher passes a `Context`: where this worker stands among its fellows, where checkpoints go, and what to do with the
row of an epoch. Images live on the device as uint8; every worker holds them all and takes its rows of each batch.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arat_ray import disk
from arat_ray.results.rows import EpochRow
from arat_ray.training import checkpoint, diagnostics, identity, split_norm
from arat_ray.training.accuracy_counts import count
from arat_ray.training.averaging import Average
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data import fingerprint
from arat_ray.training.data.batches import EVERYTHING, Batches
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.diagnostics import Features
from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.methods import Losses, Method
from arat_ray.training.mid_epoch import Partway, PreemptedError, capture, resume, totals_of
from arat_ray.training.randomness import Noise, derive_seed, generator
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import Stopwatch
from arat_ray.training.weight_perturbation import perturbed

NAMED_AT_MOST = 5
RETRY_S = (1.0, 30.0)
"""How long to wait for a disk that fails: at first, and at most, before it is tried again."""


def _warn(trouble: str | None) -> None:
    if trouble:
        warnings.warn(trouble, stacklevel=4)  # Python shows a warning once


class DivergenceError(ValueError):
    """The loss is no number any more."""


class NeverSavedError(ValueError):
    """The run's checkpoint could never be written; only rank 0 knows."""


@dataclass(frozen=True)
class Context:
    """Where a loop runs and whom it reports to.

    `report(row, replayed)` is called on every worker after each epoch, and first for the epochs of a restored
    checkpoint (`replayed`); it returns True where the run shall stop. Only rank 0 writes to `folder`.

    `alive(trouble)` is called when the data is read, and at every step of training and of measuring: who hears nothing
    of any worker for long knows that it hangs. `trouble` is what keeps the run from being saved, else None.

    `leaves()` is asked on every worker before each step. Where it is True, which must be on all of them at once, the
    state is saved in the middle of the epoch and `fit` raises PreemptedError.
    """

    folder: Path
    report: Callable[[EpochRow, bool], bool]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    alive: Callable[[str | None], None] = _warn
    leaves: Callable[[], bool] = lambda: False

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


def fit(train: Train, validate: Validate, context: Context) -> None:
    """Run `train` to its end, going on from the checkpoint in `context.folder` where there is one.

    Raises ValueError for a checkpoint of another run and for what `Train` cannot know without its data;
    `DivergenceError` where the loss becomes NaN or infinite; `NeverSavedError`, before anything is computed if that can
    be known, where `context.folder` takes no checkpoint; `PreemptedError` where `context.leaves()`.
    """
    if train.batch_size % context.world_size:
        raise ValueError(f"batch_size {train.batch_size} cannot be shared out over {context.world_size} workers")
    if context.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes never change from step to step
    else:
        keep_freed_memory()
    if context.rank == 0:
        _try_to_save(context.folder)
    run = _Run(train, validate, context)
    history = run.restore()
    run.alive()
    for row in history:
        if context.report(row, True):
            return
    for epoch in range(len(history) + 1, train.epochs + 1):
        row = run.epoch(epoch, history)
        history.append(row)
        if validate.is_due(epoch, train.epochs):
            robust = [past["validation_robust_accuracy"] for past in history[:-1] if "validation_images" in past]
            row |= run.measure(epoch)
            is_best = row["validation_robust_accuracy"] > max(robust, default=-1)
            run.save(epoch, history, is_best=is_best, is_final=epoch == train.epochs)
        if context.report(row, False):
            return


class _Run:
    """The state of one training run on one worker."""

    def __init__(self, train: Train, validate: Validate, context: Context) -> None:
        self.train, self.validate, self.context = train, validate, context
        device = context.device
        splits = validate.splits(train.dataset)
        self.validation_sha256, self.content = splits.validation_sha256, dict(splits.content)
        self.validation = _to(splits.validation, device)
        self.images = Batches(
            splits.train,
            train.dataset,
            policy=train.augmentation,
            channels_last=train.channels_last,
            device=device,
            rows=self._own_rows,
        )
        self.steps = len(self.images) // train.batch_size
        if self.steps == 0:
            raise ValueError(f"batch_size {train.batch_size} is larger than the {len(self.images)} training images")
        method = train.build()
        if train.sync_batch_norm and context.world_size > 1:
            split_norm.synchronize(method, device)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.method: Method = method.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        if train.precision == "bf16":
            for network in self.method.networks:
                network.register_forward_hook(_in_fp32)
        self.step_method: nn.Module = self.method
        self.optimizer = train.optimizer.build([value for value in method.parameters() if value.requires_grad])
        self.average: Average | None = None
        if train.averaging:
            self.average = Average(train.averaging, self.method, steps_per_epoch=self.steps, epochs=train.epochs)
        self.watched_features: Features = {}
        self.partway: Partway | None = None
        """Where the run goes on, if that is in the middle of an epoch."""
        self.best: Checkpoint | None = None
        """The best state, until it is on disk."""
        self.trouble: str | None = None
        """Why the last checkpoint is not on disk."""

    def restore(self) -> list[EpochRow]:
        """Load the last checkpoint, if any, and share the network out over the workers; the rows reported so far."""
        path = self.context.folder / checkpoint.LAST
        history: list[EpochRow] = []
        if path.exists():
            state = checkpoint.load(path, device=self.context.device)
            if found := identity.another_run((state.train, state.validate), self.train, self.validate):
                what = "; ".join(found[:NAMED_AT_MOST])
                raise ValueError(f"{path} is the checkpoint of another run: {what}; choose another folder or remove it")
            if found := list(fingerprint.changes(state.content or {}, self.content)):
                raise ValueError(
                    f"{path} was trained on other data: {'; '.join(found)}; bring back the data that it began with, "
                    "give --data PATH, or train anew under another `name:`"
                )
            if state.validation_sha256 != self.validation_sha256:
                raise ValueError(
                    f"{path} held out other images for validation, so its training set was another one; bring it back"
                )
            self.method.load_state_dict(state.method)
            self.optimizer.load_state_dict(state.optimizer)
            if self.average and state.average:
                self.average.load_state_dict(state.average)
            self.watched_features = state.features
            history = state.history
            self.partway = Partway(**state.partway) if state.partway else None
        if self.context.world_size > 1:
            self.step_method = DistributedDataParallel(self.method)
        return history

    def save(
        self,
        epoch: int,
        history: list[EpochRow],
        *,
        is_best: bool = False,
        is_final: bool = False,
        partway: dict[str, Any] | None = None,
    ) -> None:
        """Replace the last checkpoint, and before it the best one where this is better.

        Where the disk fails, training goes on from the state in memory and the next epoch that is measured tries again.
        After the last epoch nothing is left to do but to wait for the disk: results without their network are none.
        NeverSavedError where waiting is of no use.
        """
        if self.context.rank == 0:
            state = Checkpoint(
                train=self.train.model_dump(mode="json"),
                validate=self.validate.model_dump(mode="json"),
                validation_sha256=self.validation_sha256,
                epoch=epoch,
                method=self.method.state_dict(),
                optimizer=self.optimizer.state_dict(),
                average=self.average.state_dict() if self.average and self.average.started else None,
                features=self.watched_features,
                history=history,
                partway=partway,
                content=self.content,
            )
            if is_best:
                self.best = replace(state, optimizer={}, features={})
            goes_on = "the run has ended and waits for the disk" if is_final else "training goes on without"
            delay, longest = RETRY_S
            while not self._write(state, goes_on) and is_final:
                self.alive()
                time.sleep(delay)
                delay = min(2 * delay, longest)
            self.alive()

    def _write(self, state: Checkpoint, goes_on: str) -> bool:
        """Write the checkpoints that are due; whether they are on disk."""
        try:
            if self.best is not None:
                checkpoint.save(self.best, self.context.folder / checkpoint.BEST)
                self.best = None
            checkpoint.save(state, self.context.folder / checkpoint.LAST)
        except OSError as error:
            if disk.is_lasting(error):
                raise NeverSavedError(f"its checkpoint can never be written: {disk.reason(error)}") from error
            if self.best is not None:
                self.best = checkpoint.detached(self.best)
            self.trouble = f"its checkpoint cannot be written ({error.strerror}); {goes_on}"
            return False
        self.trouble = None
        return True

    def alive(self) -> None:
        self.context.alive(self.trouble)

    def epoch(self, epoch: int, history: list[EpochRow]) -> EpochRow:
        """Train for one epoch (from 1), or for the rest of it; `history` holds the rows of those before."""
        train, context = self.train, self.context
        self.method.train()
        perturbs_weights = train.weight_perturbation is not None and epoch > train.weight_perturbation.warmup_epochs
        order = torch.randperm(len(self.images), generator=generator("cpu", train.seed, "order", epoch))
        batches = order[: self.steps * train.batch_size].view(self.steps, train.batch_size)
        draws = generator("cpu", train.seed, "augment", epoch)
        noise = self._noise("attack", epoch, train.batch_size)
        totals = torch.zeros(6, dtype=torch.float64, device=context.device)
        watch = Stopwatch(context.device)
        first, done_s = 0, 0.0
        if (partway := self.partway) is None:
            torch.manual_seed(derive_seed(train.seed, "torch", epoch, context.rank))
            self.method.start_epoch(
                epoch, lambda model, images, fresh: self._sample_accuracy(model, images, epoch if fresh else 0)
            )
        else:
            assert partway.epoch == epoch
            self.partway, first = None, partway.step
            totals = totals_of(partway, totals, rank=context.rank, world_size=context.world_size)
            watch.elapsed, done_s = partway.attack_s, partway.epoch_s
            resume(
                partway, augment=draws, noise=noise.generator, method=self.method, seed=train.seed, rank=context.rank
            )
        began, rate = time.perf_counter() - done_s, 0.0
        for step, indices in enumerate(batches[first:], first):
            if context.leaves():
                measured_s = partial(_measured_s, began, watch)
                self._leave(epoch, step, history, totals, measured_s, draws, noise.generator)
            rate = train.optimizer.learning_rate * train.schedule.factor(
                epoch=epoch - 1, epochs=train.epochs, progress=(epoch - 1 + step / self.steps) / train.epochs
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            x, y = self.images.batch(indices, draws)
            totals[:5] += self._step(x, y, noise, watch, perturbs_weights=perturbs_weights)
            if self.average:
                self.average.update(self.method, step=(epoch - 1) * self.steps + step + 1)
            self.alive()
        totals[-1] = sum((~value.isfinite()).any() for value in self.method.parameters())
        sums = context.sum(totals).tolist()
        seconds = time.perf_counter() - began
        losses = [value / (self.steps * context.world_size) for value in sums[:3]]
        what = "the weights became infinite or nan" if sums[5] else ""
        if not all(math.isfinite(loss) for loss in losses):
            what = f"the loss became {sum(losses)}"
        if what:
            raise DivergenceError(
                f"{what} in epoch {epoch}; lower optimizer.learning_rate "
                f"({train.optimizer.learning_rate:g}), set gradient_clipping or lower the method's invariance term"
            )
        images = self.steps * train.batch_size
        right_clean, right_robust = (None if math.isnan(right) else right / images for right in sums[3:5])
        row = self._diagnose(epoch)
        row |= {
            "epoch": epoch,
            "loss_adversarial": losses[0],
            "loss_clean": losses[1],
            "loss_invariance": losses[2],
            "balance": self.method.balance,
            "learning_rate": rate,
            "train_images": images,
            "train_clean_accuracy": right_clean,
            "train_robust_accuracy": right_robust,
            "epoch_s": seconds,
            "attack_s": watch.seconds(),
            "images_per_s": images / seconds,
        }
        return row

    def _leave(
        self,
        epoch: int,
        step: int,
        history: list[EpochRow],
        totals: Tensor,
        seconds: Callable[[], tuple[float, float]],
        draws: torch.Generator,
        noise: torch.Generator,
    ) -> NoReturn:
        partway = capture(
            epoch,
            step,
            totals=totals,
            seconds=seconds,
            augment=draws,
            noise=noise,
            method=self.method,
            world_size=self.context.world_size,
            sum=self.context.sum,
        )
        self.save(epoch - 1, history, partway=partway)
        raise PreemptedError(f"left in epoch {epoch} before step {step + 1} of {self.steps}")

    def measure(self, epoch: int) -> EpochRow:
        """Clean and robust accuracy on the images to validate on, of the network that would be deployed now."""
        counts = count(
            self._deployed(epoch).model,
            self.validation,
            attack=self.validate.attack,
            seed=self.validate.seed,
            batch_size=self.validate.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            reduce=self.context.sum,
            alive=self.alive,
        )
        return counts.row()

    def _deployed(self, epoch: int) -> Method:
        """The method itself, or its average where there is one, with fresh norm statistics."""
        average, size = self.average, self.train.batch_size
        if average is None or not average.started:
            return self.method
        order = generator("cpu", self.train.seed, "norms", epoch)
        whole = min(max(1, average.spec.norm_images // size), self.steps)  # batches, none of them ragged
        chosen = torch.randperm(len(self.images), generator=order)[: whole * size]
        draws = generator("cpu", self.train.seed, "norms-augment", epoch)
        batches = (self.images.batch(indices, draws) for indices in chosen.split(size))
        noise = self._noise("norms-attack", epoch, size)
        average.estimate_norms(self.method, batches, self.train.attack, noise)
        return average.method

    def _diagnose(self, epoch: int) -> EpochRow:
        """The columns of `diagnostics`, where they are due; every worker measures the same, on all rows."""
        spec, train = self.train.diagnostics, self.train
        if spec is None or not spec.is_due(epoch, train.epochs):
            return {}
        chosen = torch.randperm(len(self.images), generator=generator("cpu", train.seed, "diagnose"))[: spec.images]
        draws = generator("cpu", train.seed, "diagnose-augment")
        parts = [part for part in chosen.split(train.batch_size) if len(part) > 1]  # one image is no batch to a norm
        batches = (self.images.batch(part, draws, EVERYTHING) for part in parts)
        row, self.watched_features = diagnostics.measure(
            self.method,
            batches,
            attack=train.attack,
            noise=generator(self.context.device, train.seed, "diagnose-attack"),
            watched=spec.watched(self.method, train.model.representation),
            previous=self.watched_features,
        )
        return row

    def _step(self, x: Tensor, y: Tensor, noise: Noise, watch: Stopwatch, *, perturbs_weights: bool) -> Tensor:
        """One update: [adversarial, clean, invariance loss, right clean, right adversarial], NaN where not computed."""
        train = self.train
        with watch.running(), self._precision():
            x, x_adv = (x, x) if train.attack is None else self.method.perturb(x, y, train.attack, noise)
        with self._perturbed_weights(x, x_adv, y) if perturbs_weights else nullcontext():
            with self._precision():
                losses: Losses = self.step_method(x, x_adv, y)
            self.optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            if train.gradient_clipping is not None:
                nn.utils.clip_grad_norm_(self.method.parameters(), train.gradient_clipping)
            self.optimizer.step()
        with torch.no_grad():
            right = [
                y.new_tensor(math.nan, dtype=torch.float64) if logits is None else (logits.argmax(1) == y).sum()
                for logits in (losses.logits_clean, losses.logits_adv)
            ]
            return torch.stack([*losses[:3], *right]).double()

    def _perturbed_weights(self, x: Tensor, x_adv: Tensor, y: Tensor) -> AbstractContextManager[None]:
        assert self.train.weight_perturbation is not None

        def loss() -> Tensor:
            with self._precision():
                losses: Losses = self.method(x, x_adv, y)
                return losses.total

        workers = self.context.world_size
        gamma = self.train.weight_perturbation.gamma
        return perturbed(self.method, loss, gamma=gamma, average=lambda gradient: self.context.sum(gradient) / workers)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.context.device.type, torch.bfloat16, enabled=self.train.precision == "bf16")

    def _noise(self, name: str, epoch: int, total: int) -> Noise:
        """Draws for batches of `total` images, of which this worker keeps its rows."""
        return Noise(generator(self.context.device, self.train.seed, name, epoch), total, self._own_rows)

    @property
    def _own_rows(self) -> slice:
        """Which rows of a global batch this worker keeps."""
        return slice(self.context.rank, None, self.context.world_size)

    def _sample_accuracy(self, model: nn.Module, images: int, draw: int) -> float:
        """Accuracy in eval mode on `images` augmented training images chosen by `draw`."""
        draws = generator("cpu", self.train.seed, "sample", draw)
        chosen = torch.randperm(len(self.images), generator=draws)[:images]
        sample = ImageSet(*self.images.images(chosen, draws), ())
        counts = count(
            model,
            sample,
            attack=None,
            seed=0,
            batch_size=self.validate.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            reduce=self.context.sum,
            alive=self.alive,
        )
        return counts.clean_accuracy


def _try_to_save(folder: Path) -> None:
    try:
        checkpoint.check(folder)
    except OSError as error:
        if disk.is_lasting(error):
            raise NeverSavedError(f"its checkpoint can never be written: {disk.reason(error)}") from error


def _measured_s(began: float, watch: Stopwatch) -> tuple[float, float]:
    return time.perf_counter() - began, watch.seconds()


def _in_fp32(network: nn.Module, inputs: object, logits: Tensor) -> Tensor:
    """Forward hook: losses are computed in fp32 whatever the network ran in."""
    return logits.float()


def _to(images: ImageSet, device: torch.device) -> ImageSet:
    return images._replace(images=images.images.to(device), labels=images.labels.to(device))
