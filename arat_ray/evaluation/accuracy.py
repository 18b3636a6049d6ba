"""Clean and robust accuracy of one network on one set of images, under one attack, with 95 % intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from arat_ray.digests import sha256_of
from arat_ray.evaluation import autoattack, reliability
from arat_ray.evaluation.autoattack import Attacker, AttackProgress, Runner, one_after_another
from arat_ray.evaluation.ensembles import AttackPlan, Ensemble, plan_of
from arat_ray.evaluation.records import Records, digest_of
from arat_ray.frontier.dominance import wilson
from arat_ray.results.rows import EvaluationRow, ExampleRow
from arat_ray.training import checkpoint, pairs
from arat_ray.training.attacks import Attack
from arat_ray.training.data import fingerprint, splits
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.data.subset import Subset, choose
from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.pairs import Way
from arat_ray.units import duration

SplitName = Literal["train", "validation", "test"]


class Other(NamedTuple):
    """Another checkpoint, towards which a soup or a mixture goes."""

    way: Way
    path: Path

    @property
    def label(self) -> str:
        """soup-layers-00003-last: the way, and the trial and checkpoint that it leads to."""
        return f"{self.way}-{self.path.absolute().parent.name}-{self.path.stem}"

    def digest(self, first: str, its_own: str) -> str:
        """Of the way and of both files' digests, in their order: soup and mixture are one network at their ends, and
        two curves."""
        return hashlib.sha256(f"{self.way} {first} {its_own}".encode()).hexdigest()


@dataclass(frozen=True)
class Accuracy:
    """Numbers of images right on clean input (`attack` None) or under an attack, of so many."""

    attack: AttackPlan | None
    correct: int
    images: int
    wall_s: float

    @property
    def name(self) -> str:
        return self.attack.label if self.attack else "none"

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        low, high = wilson(self.correct, self.images)
        return float(low), float(high)


@dataclass(frozen=True)
class Examples:
    """The verdict on each of N images."""

    indices: Tensor  # int64 [N], in the data set's file
    labels: Tensor  # int64 [N]
    clean_correct: Tensor  # bool [N]
    broken_by: list[str | None]
    """The first attack that broke each; None for those wrong without one and for the robust."""
    margins: Tensor
    """float32 [N]: true logit less the highest other, at the adversarial image where there is one, else at x."""


@dataclass(frozen=True)
class Report:
    """Both accuracies of a network, the verdict on each image, and what they were measured on."""

    checkpoint: Path | None
    """None of a network in memory; so is `epoch`."""
    checkpoint_sha256: str
    """Of the file; of a network in memory that of its architecture and weights."""
    epoch: int | None
    weights: str | None
    """swa or ema where an average was measured; of two networks the label of the `Other`."""
    dial: float | None
    """The setting between the norm branches; None as deployed."""
    split: str | None
    """None where the images were given as tensors."""
    subset: Subset | None
    """Which images of the split; None where it is all of them."""
    indices_sha256: str
    seed: int
    batch_size: int
    clean: Accuracy
    robust: Accuracy
    examples: Examples = field(repr=False)
    warnings: tuple[str, ...]
    """Why the robust accuracy may be too high."""
    key: str
    """Tells evaluations apart: the digest of all that their verdicts depend on."""

    def evaluation_id(self, evaluation: Accuracy) -> str:
        dial = "" if self.dial is None else f"-dial{self.dial}"
        return f"{self.checkpoint_sha256[:12]}-{self.split or 'given'}-{evaluation.name}{dial}-{self.key}"

    def rows(self) -> list[EvaluationRow]:
        """Both accuracies, by the columns of the `evaluations` table."""
        return [
            {
                "evaluation_id": self.evaluation_id(each),
                "trial_id": self.checkpoint.absolute().parent.name if self.checkpoint else None,
                "checkpoint": self.weights or (self.checkpoint.stem if self.checkpoint else None),
                "checkpoint_sha256": self.checkpoint_sha256,
                "dial": self.dial,
                "split": self.split,
                "attack": each.name,
                "attack_version": each.attack.version if each.attack else "arat-ray",
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
                "warnings": "; ".join(self.warnings) or None if each.attack else None,
                "epoch": self.epoch,
            }
            for each in (self.clean, self.robust)
        ]

    def example_rows(self) -> list[ExampleRow]:
        """The verdicts, by the columns of the `examples` table."""
        evaluation_id, found = self.evaluation_id(self.robust), self.examples
        images = zip(
            found.indices.tolist(),
            found.labels.tolist(),
            found.clean_correct.tolist(),
            found.broken_by,
            found.margins.tolist(),
            strict=True,
        )
        return [
            {
                "evaluation_id": evaluation_id,
                "index": index,
                "label": label,
                "clean_correct": right,
                "broken_by": by,
                "margin": margin,
            }
            for index, label, right, by, margin in images
        ]


def evaluate(
    path: Path,
    *,
    split: SplitName,
    attack: Attack | Ensemble,
    images: int | None,
    subset: Subset = "stratified",
    subset_seed: int = 0,
    seed: int,
    batch_size: int,
    device: torch.device,
    averaged: bool = True,
    dial: float | None = None,
    other: Other | None = None,
    records: Path | None = None,
    runner: Runner = one_after_another,
    hardware: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
    say: Callable[[str], None] = lambda problem: None,
) -> Report:
    """Measure a checkpoint's deployed network on so many `images` of a split (None: on all of it).

    They are drawn by class, always the same, whatever the `seed`, with a `subset_seed` of their own; or the first, as
    `subset` says.

    Where the run averaged weights that is the average; `averaged=False` measures the weights trained last, and `dial`
    the network at that setting between the branches, or between it and an `other` checkpoint. Finished jobs are
    recorded in `records`, beside the checkpoint where not given, and are not run again. `hardware` says what the
    `runner` runs jobs on, where that is not this process.

    `progress` gets a line after each batch, `say` one of each record that cannot be read. Raises ValueError for a file
    that is no checkpoint, a dial that it has not, missing data, and more images than there are.
    """
    state, digest = _loaded(path, device)
    chosen, indices, whole = _images(state, split, images, subset, subset_seed)
    if other is None:
        model = checkpoint.network(state, averaged=averaged, dial=dial).to(device)
    else:
        assert dial is not None
        second, its_digest = _loaded(other.path, device)
        digest = other.digest(digest, its_digest)
        pair = pairs.TwoNetworks(other.way, state, second)
        model = pairs.network(pair, dial, averaged=averaged, device=device)
    report = evaluate_network(
        model,
        chosen,
        indices=indices,
        num_classes=state.num_classes,
        attack=attack,
        seed=seed,
        batch_size=batch_size,
        device=device,
        records=records or path.parent / "attacks",
        runner=runner,
        hardware=hardware,
        progress=progress,
        say=say,
    )
    return replace(
        report,
        checkpoint=path,
        checkpoint_sha256=digest,
        epoch=state.epoch,
        weights=(state.weights if averaged else None) if other is None else other.label,
        dial=dial,
        split=split,
        subset=subset if len(indices) < whole else None,
    )


def _loaded(path: Path, device: torch.device) -> tuple[checkpoint.Checkpoint, str]:
    """A checkpoint, and the digest of the file that it was read from: a run may be putting another in its place."""
    while True:
        before = _identity(path)
        state, digest = checkpoint.load(path, device=device), sha256_of(path)
        if _identity(path) == before:
            return state, digest


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Another one where another file was put in its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def evaluate_network(
    model: nn.Module,
    data: ImageSet,
    *,
    indices: Tensor,
    num_classes: int,
    attack: Attack | Ensemble,
    seed: int,
    batch_size: int,
    device: torch.device,
    records: Path | None = None,
    runner: Runner = one_after_another,
    hardware: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
    say: Callable[[str], None] = lambda problem: None,
) -> Report:
    """Measure a network, which maps x [N, C, H, W] in [0, 1] to logits [N, K], on all images of `data`.

    `indices` int64 [N] are those of the images in their data set. The network is on `device`; a copy in eval mode is
    measured. Finished jobs are kept in `records`, if it is given.
    """
    keep_freed_memory()
    plan = plan_of(attack, num_classes)
    attacker = Attacker(model, data, plan, seed=seed)
    identity = attacker.identity(batch_size, hardware or autoattack.hardware(device))
    found = autoattack.run(
        attacker,
        batch_size=batch_size,
        records=Records(records, plan.label, identity, say=say) if records else None,
        runner=runner,
        progress=lambda now: progress(_show(now)),
    )
    broken_by = [found.attacks[i] if i > 0 else None for i in found.broken_by.tolist()]
    examples = Examples(indices, data.labels, found.clean_correct, broken_by, found.margins)
    warnings = reliability.warnings(found.signs, found.clean_correct, broken_by, found.attacks[1:])
    return Report(
        checkpoint=None,
        checkpoint_sha256=identity["network_sha256"],
        epoch=None,
        weights=None,
        dial=None,
        split=None,
        subset=None,
        indices_sha256=splits.indices_sha256(indices),
        seed=seed,
        batch_size=batch_size,
        clean=Accuracy(None, int(found.clean_correct.sum()), len(indices), found.wall_s),
        robust=Accuracy(plan, int(found.robust.sum()), len(indices), found.wall_s),
        examples=examples,
        warnings=tuple(warnings),
        key=digest_of(identity),
    )


def _show(now: AttackProgress) -> str:
    share = 100 * now.unbroken / now.images
    left = "" if now.left_s is None else f", about {duration(now.left_s)} left"
    return f"{now.attack} {now.done}/{now.jobs} batches, {share:.1f} % of {now.images} images unbroken{left}"


def _images(
    state: checkpoint.Checkpoint, split: SplitName, images: int | None, subset: Subset, seed: int
) -> tuple[ImageSet, Tensor, int]:
    """So many images of a split, their indices in the data set's file, and how many there are."""
    dataset, validate = state.train_spec.dataset, state.validate_spec
    which: Literal["train", "test"] = "test" if split == "test" else "train"
    chosen = splits.read(dataset, which)
    if found := list(fingerprint.changes(state.content or {}, {which: fingerprint.of(chosen)})):
        raise ValueError(
            f"the data has changed since this checkpoint: {'; '.join(found)}; bring it back, or give --data PATH"
        )
    indices = torch.arange(len(chosen.labels))
    if split == "validation" and validate.split == "test":
        raise ValueError("this run held no images out: it was validated on test images; choose split test or train")
    if split != "test" and validate.split == "validation":
        kept, held = splits.hold_out(chosen.labels, images=validate.images, seed=validate.seed)
        if splits.indices_sha256(held) != state.validation_sha256:
            raise ValueError("the training set has changed since this checkpoint: other images would be held out now")
        indices = held if split == "validation" else kept
    if images is not None and not 0 < images <= len(indices):
        raise ValueError(f"{images} images of a {split} split of {len(indices)}; choose 1 to {len(indices)}")
    whole = len(indices)
    if images is not None:
        indices = indices[choose(chosen.labels[indices], images, subset=subset, seed=seed)]
    return chosen._replace(images=chosen.images[indices], labels=chosen.labels[indices]), indices, whole
