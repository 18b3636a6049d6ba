"""Clean and robust accuracy of one checkpoint, on one split, under one attack, with 95 % intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from arat_ray.frontier.pareto import wilson
from arat_ray.training import checkpoint, data
from arat_ray.training.attacks import Attack
from arat_ray.training.counting import count
from arat_ray.training.data import ImageSet

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Numbers of images right on clean input (`attack` None) or under an attack, of so many."""

    attack: Attack | None
    correct: int
    images: int
    wall_s: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        low, high = wilson(self.correct, self.images)
        return float(low), float(high)


@dataclass(frozen=True)
class Report:
    """Both accuracies of a checkpoint, and what they were measured on."""

    checkpoint: Path
    checkpoint_sha256: str
    epoch: int
    weights: str | None
    """swa or ema where an average was measured."""
    split: SplitName
    indices_sha256: str
    seed: int
    batch_size: int
    clean: Evaluation
    robust: Evaluation
    measured_at: datetime

    def rows(self) -> list[dict[str, Any]]:
        """Both, by the columns of the `evaluations` table."""
        now = self.measured_at.strftime("%Y%m%dT%H%M%S.%f")
        return [
            {
                "evaluation_id": f"{self.checkpoint_sha256[:12]}-{self.split}-{_attack_name(each.attack)}-{now}",
                "trial_id": self.checkpoint.parent.name,
                "checkpoint": self.weights or self.checkpoint.stem,
                "checkpoint_sha256": self.checkpoint_sha256,
                "split": self.split,
                "attack": _attack_name(each.attack),
                "attack_version": "arat-ray",
                "norm": each.attack.norm if each.attack else None,
                "epsilon": each.attack.epsilon if each.attack else None,
                "images": each.images,
                "correct": each.correct,
                "accuracy": each.accuracy,
                "ci_low": each.interval[0],
                "ci_high": each.interval[1],
                "batch_size": self.batch_size,
                "seed": self.seed,
                "indices_sha256": self.indices_sha256,
                "wall_s": each.wall_s,
            }
            for each in (self.clean, self.robust)
        ]


def evaluate(
    path: Path,
    *,
    split: SplitName,
    attack: Attack,
    images: int | None,
    seed: int,
    batch_size: int,
    device: torch.device,
    averaged: bool = True,
    progress: Callable[[int, int, int, int], None] = lambda total, seen, clean, robust: None,
) -> Report:
    """Measure a checkpoint's deployed network on the first `images` of a split (None: on all of it).

    Where the run averaged weights that is the average; `averaged=False` measures the weights trained last.

    `progress(total, seen, clean, robust)` is called after each batch. Raises ValueError for a file that is no
    checkpoint, missing data, and more images than there are.
    """
    state = checkpoint.load(path, device=device)
    chosen, indices_sha256 = _images(state, split, images)
    on_device = chosen._replace(images=chosen.images.to(device), labels=chosen.labels.to(device))
    layout = torch.channels_last if state.train_spec.channels_last else torch.contiguous_format
    model = checkpoint.network(state, averaged=averaged).to(device=device, memory_format=layout)  # type: ignore[call-overload]
    total, began = len(chosen.labels), time.perf_counter()
    counts = count(
        model,
        on_device,
        attack=attack,
        seed=seed,
        batch_size=batch_size,
        progress=lambda seen, clean, robust: progress(total, seen, clean, robust),
    )
    wall_s = time.perf_counter() - began
    return Report(
        checkpoint=path,
        checkpoint_sha256=checkpoint.sha256(path),
        epoch=state.epoch,
        weights=state.weights if averaged else None,
        split=split,
        indices_sha256=indices_sha256,
        seed=seed,
        batch_size=batch_size,
        clean=Evaluation(None, counts.clean, counts.images, wall_s),
        robust=Evaluation(attack, counts.robust, counts.images, wall_s),
        measured_at=datetime.now(UTC),
    )


def _images(state: checkpoint.Checkpoint, split: SplitName, images: int | None) -> tuple[ImageSet, str]:
    """The images of a split and the fingerprint of their indices in the data set's file."""
    dataset, validate = state.train_spec.dataset, state.validate_spec
    chosen = data.read(dataset, "test" if split == "test" else "train")
    indices = torch.arange(len(chosen.labels))
    if split == "validation" and validate.split == "test":
        raise ValueError("this run held no images out: it was validated on test images; choose split test or train")
    if split != "test" and validate.split == "validation":
        kept, held = data.hold_out(chosen.labels, images=validate.images, seed=validate.seed)
        if data.indices_sha256(held) != state.validation_sha256:
            raise ValueError("the training set has changed since this checkpoint: other images would be held out now")
        indices = held if split == "validation" else kept
    if images is not None and not 0 < images <= len(indices):
        raise ValueError(f"{images} images of a {split} split of {len(indices)}; choose 1 to {len(indices)}")
    indices = indices[:images]
    subset = chosen._replace(images=chosen.images[indices], labels=chosen.labels[indices])
    return subset, data.indices_sha256(indices)


def _attack_name(attack: Attack | None) -> str:
    return attack.label if attack else "none"
