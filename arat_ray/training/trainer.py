"""Trainer: one training run on one worker, from its data and its last checkpoint to the rows of its epochs.

Images live on the device as uint8; every worker holds them all and takes its rows of each batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from arat_ray.results.rows import EpochRow
from arat_ray.training import checkpoint, diagnostics, identity, split_norm
from arat_ray.training.accuracy_counts import Counts, count
from arat_ray.training.attacks import Attack
from arat_ray.training.averaging import Average
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.checkpoint_writer import CheckpointWriter
from arat_ray.training.context import Context
from arat_ray.training.data.batches import EVERYTHING, Batches
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.diagnostics import Features
from arat_ray.training.dial_goal import dial_row
from arat_ray.training.epoch_row import training_row
from arat_ray.training.methods import Method
from arat_ray.training.mid_epoch import EpochState, Partway, PreemptedError
from arat_ray.training.randomness import Noise, generator
from arat_ray.training.run import Train, Validate
from arat_ray.training.step import TrainingStep


class Trainer:
    """The state of one training run on one worker: `history` holds the rows of the epochs that are done.

    It goes on from the checkpoint in `context.folder` where there is one. Raises ValueError for a checkpoint of another
    run, and for what `Train` cannot know without its data.
    """

    def __init__(self, train: Train, validate: Validate, context: Context) -> None:
        self.train, self.validate, self.context = train, validate, context
        if validate.dials and (problem := train.lacks_branches):
            raise ValueError(f"validate.dials: {problem}")
        splits = validate.splits(train.dataset)
        self.validation_sha256, self.content = splits.validation_sha256, dict(splits.content)
        self.validation = _to(splits.validation, context.device)
        self.images = Batches(
            splits.train,
            train.dataset,
            policy=train.augmentation,
            channels_last=train.channels_last,
            device=context.device,
            rows=context.rows,
        )
        self.steps = len(self.images) // train.batch_size
        if self.steps == 0:
            raise ValueError(f"batch_size {train.batch_size} is larger than the {len(self.images)} training images")
        self.method = _built(train, context)
        self.optimizer = train.optimizer.build([value for value in self.method.parameters() if value.requires_grad])
        self.average: Average | None = None
        if train.averaging:
            self.average = Average(train.averaging, self.method, steps_per_epoch=self.steps, epochs=train.epochs)
        self.watched_features: Features = {}
        self.history: list[EpochRow] = []
        self.partway: Partway | None = None
        """Where the run goes on, if that is in the middle of an epoch."""
        self.writer = CheckpointWriter(context.folder, alive=context.alive)
        self._restore()
        self.step = TrainingStep(train, self.method, self.optimizer, context)

    def alive(self) -> None:
        self.context.alive(self.writer.trouble)

    def epoch(self, epoch: int) -> EpochRow:
        """Train for one epoch (from 1), or for the rest of it; its row, which joins `history`.

        Raises DivergenceError where the loss or a weight is NaN or infinite, and PreemptedError, with the state saved,
        where `context.leaves()`.
        """
        train, context = self.train, self.context
        self.method.train()
        state = EpochState(epoch, seed=train.seed, batch_size=train.batch_size, context=context)
        if self.partway is None:
            state.begin(self.method, lambda model, images, fresh: self._accuracy(model, images, epoch if fresh else 0))
        else:
            state.resume(self.partway, self.method)
            self.partway = None
        rate, awp = 0.0, train.weight_perturbation
        with context.part("epoch"):
            for step, indices in enumerate(self._shuffled(epoch)[state.first_step :], state.first_step):
                if context.leaves():
                    self._leave(state, step)
                rate = self._set_learning_rate(epoch, step)
                with context.part("step"):
                    with context.part("data"):
                        x, y = self.images.batch(indices, state.augment)
                    perturbs_weights = awp is not None and epoch > awp.warmup_epochs
                    state.sums[:-1] += self.step(x, y, state.noise, state.watch, perturbs_weights=perturbs_weights)
                    if self.average:
                        with context.part("average"):
                            self.average.update(self.method, step=(epoch - 1) * self.steps + step + 1)
                self.alive()
        self.step.share_statistics()
        state.sums[-1] = sum((~value.isfinite()).any() for value in self.method.parameters())
        row = training_row(state, train, steps=self.steps, rate=rate, balance=self.method.balance)
        measured = self._diagnose(epoch)
        measured |= row
        self.history.append(measured)
        return measured

    def measure(self, epoch: int) -> EpochRow:
        """Clean and robust accuracy on the images to validate on, of the network that would be deployed now.

        With settings of its dial, `validate.dials`, also there.
        """
        model, validate = self._deployed(epoch).model, self.validate
        count = partial(self._count, images=self.validation, attack=validate.attack, seed=validate.seed)
        counts = count(model)
        row = counts.row()
        if validate.dials:
            row |= dial_row(model, validate.dials, counts, count=count, reduce=self.context.sum)
        return row

    def save(
        self, epoch: int, *, is_best: bool = False, is_final: bool = False, partway: dict[str, Any] | None = None
    ) -> None:
        """Hand the state after `epoch` epochs, or `partway` in the next one, to the writer: on rank 0 alone."""
        if self.context.rank != 0:
            return
        state = Checkpoint(
            train=self.train.model_dump(mode="json"),
            validate=self.validate.model_dump(mode="json"),
            validation_sha256=self.validation_sha256,
            epoch=epoch,
            method=self.method.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=self.average.state_dict() if self.average and self.average.started else None,
            features=self.watched_features,
            history=self.history,
            partway=partway,
            content=self.content,
        )
        self.writer.save(state, is_best=is_best, is_final=is_final)
        self.alive()

    def noise(self, name: str, epoch: int) -> Noise:
        """Draws for whole batches, of which this worker keeps its rows."""
        stream = generator(self.context.device, self.train.seed, name, epoch)
        return Noise(stream, self.train.batch_size, self.context.rows)

    def _restore(self) -> None:
        path = self.context.folder / checkpoint.LAST
        if not path.exists():
            return
        state = checkpoint.load(path, device=self.context.device)
        identity.check_same_run(
            state, path, self.train, self.validate, content=self.content, validation_sha256=self.validation_sha256
        )
        self.method.load_state_dict(state.method)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average and state.average:
            self.average.load_state_dict(state.average)
        self.watched_features, self.history = state.features, state.history
        self.partway = Partway(**state.partway) if state.partway else None

    def _shuffled(self, epoch: int) -> Tensor:
        """Numbers of the images of each step [steps, batch size]."""
        size = self.train.batch_size
        order = torch.randperm(len(self.images), generator=generator("cpu", self.train.seed, "order", epoch))
        return order[: self.steps * size].view(self.steps, size)

    def _set_learning_rate(self, epoch: int, step: int) -> float:
        epochs = self.train.epochs
        progress = (epoch - 1 + step / self.steps) / epochs
        factor = self.train.schedule.factor(epoch=epoch - 1, epochs=epochs, progress=progress)
        rate = self.train.optimizer.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _leave(self, state: EpochState, step: int) -> NoReturn:
        self.save(state.epoch - 1, partway=state.capture(step, self.method))
        raise PreemptedError(f"left in epoch {state.epoch} before step {step + 1} of {self.steps}")

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
        average.estimate_norms(self.method, batches, self.train.attack, self.noise("norms-attack", epoch))
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

    def _accuracy(self, model: nn.Module, images: int, draw: int) -> float:
        """In eval mode, on `images` augmented training images chosen by `draw`."""
        draws = generator("cpu", self.train.seed, "sample", draw)
        chosen = torch.randperm(len(self.images), generator=draws)[:images]
        sample = ImageSet(*self.images.images(chosen, draws), ())
        return self._count(model, sample, attack=None, seed=0).clean_accuracy

    def _count(self, model: nn.Module, images: ImageSet, *, attack: Attack | None, seed: int) -> Counts:
        return count(
            model,
            images,
            attack=attack,
            seed=seed,
            batch_size=self.validate.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            reduce=self.context.sum,
            alive=self.alive,
        )


def _built(train: Train, context: Context) -> Method:
    """The method of a run, with fresh weights, as it computes on the worker's device."""
    method = train.build()
    if train.sync_batch_norm and context.world_size > 1:
        split_norm.synchronize(method, context.device)
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    placed: Method = method.to(device=context.device, memory_format=layout)  # type: ignore[call-overload]
    if "bf16" in (train.precision.attack, train.precision.update):
        for network in placed.networks:
            network.register_forward_hook(_in_fp32)
    return placed


def _in_fp32(network: nn.Module, inputs: object, logits: Tensor) -> Tensor:
    """Forward hook: losses are computed in fp32 whatever the network ran in."""
    return logits.float()


def _to(images: ImageSet, device: torch.device) -> ImageSet:
    return images._replace(images=images.images.to(device), labels=images.labels.to(device))
