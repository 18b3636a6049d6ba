"""Clean and robust accuracy: of checkpoints, of the trials of a study, and of any network."""

from __future__ import annotations

import _thread
import copy
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy.typing as npt
import torch
from torch import Tensor, nn

from arat_ray.api.arguments import OfCheckpoint, OfNetwork, parse
from arat_ray.api.inputs import AnyPath, as_path, in_python
from arat_ray.api.measuring import Measured, device_of, reports
from arat_ray.api.showing import batches, log, tell
from arat_ray.evaluation import accuracy
from arat_ray.evaluation.accuracy import Report, SplitName
from arat_ray.evaluation.ensembles import Ensemble, Mode
from arat_ray.evaluation.request import attack_from
from arat_ray.pixels import Norm
from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.attacks import Attack
from arat_ray.training.data import splits
from arat_ray.training.data.images import Images, ImageSet
from arat_ray.training.data.splits import Dataset
from arat_ray.training.data.subset import Subset, choose

AnyAttack = str | Attack | Ensemble
"""A word that `arat-ray evaluate --attack` takes, beside an epsilon; or a spec, which has its own."""
AnyImages = Dataset | ImageSet | tuple[Tensor | npt.NDArray[Any], Tensor | npt.NDArray[Any]]
"""A data set spec, an ImageSet, or x [N, C, H, W] (uint8 0 to 255, or float32 in [0, 1]) and y [N]."""


@overload
def evaluate(
    target: nn.Module,
    *,
    data: AnyImages,
    attack: AnyAttack,
    epsilon: float | str | None = None,
    split: Literal["train", "test"] | None = None,
    norm: Norm = "linf",
    steps: int | None = None,
    step_size: float | str | None = None,
    images: int | None = None,
    subset: Subset | None = None,
    seed: int = 0,
    batch_size: int = 256,
    mode: Mode = "exact",
    device: str | None = None,
    records: AnyPath | None = None,
    progress: bool = False,
) -> Report: ...
@overload
def evaluate(
    target: AnyPath,
    *,
    split: SplitName,
    attack: AnyAttack,
    epsilon: float | str | None = None,
    data: AnyPath | None = None,
    norm: Norm = "linf",
    steps: int | None = None,
    step_size: float | str | None = None,
    images: int | None = None,
    subset: Subset | None = None,
    seed: int = 0,
    batch_size: int = 256,
    mode: Mode = "exact",
    raw: bool = False,
    dial: float | None = None,
    device: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    records: AnyPath | None = None,
    progress: bool = False,
) -> Report: ...
@in_python()
def evaluate(target: nn.Module | AnyPath, *, attack: AnyAttack, epsilon: float | str | None = None, **more: Any) -> Any:
    """Clean and robust accuracy of a checkpoint, or of any network, under a named attack, with 95 % intervals.

    A checkpoint is measured on `split` of the data that it was trained on, which lies where it says or at `data`; the
    result is added to the tables of its study, and a repeated call goes on from the batches that were finished. With
    `workers` the batches are spread over Ray; `raw=True` measures the weights trained last, not their average. `dial`
    measures the plain network at that setting between the norm branches of ARAT, 0 the deployed one and 1 the clean.

    A network is any `nn.Module` that maps x [N, C, H, W] in [0, 1] to logits [N, K]; normalisation belongs into it. It
    is measured in eval mode, as a copy, on `device` (default: where it is). `data` is a data set spec with its `split`
    (train or test), an `ImageSet`, or tensors or arrays (x, y): x uint8 from 0 to 255, or float32 in [0, 1]; y [N] from
    0 to K - 1. Nothing is saved, unless `records` names a folder for finished batches.

    `attack` is autoattack, apgd, square, autoattack-10-steps, pgd, fgsm or another that `arat-ray evaluate --attack`
    takes, with the radius `epsilon` in pixel units (0.031 or "8/255") in `norm`; `steps` (20) and `step_size` (epsilon
    / 4) are for pgd. Or it is a spec, such as `Pgd(norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=20)`, which
    says all of that. autoattack is AutoAttack's standard version, the reference code's verdicts bit for bit for the
    same `batch_size` and `seed`, or with `mode="fast"` up to rounding in less time. `images` measures so many, drawn by
    class, or with `subset="first"` the first.

    The report has `clean` and `robust` (each with `accuracy`, a fraction in [0, 1], `interval`, `correct`, `images`),
    `examples` (the verdict on each image: `broken_by`, `margins` [N]), and `warnings`: signs of masked gradients.
    Raises ValueError for what is missing or cannot be.

    Example:
        >>> report = arat_ray.evaluate(model, data=(x, y), attack="autoattack", epsilon="8/255")
        >>> report.robust.accuracy, report.robust.interval
        (0.487, (0.456, 0.518))
        >>> arat_ray.evaluate(study.checkpoint, split="test", attack="pgd", epsilon=0.2).clean.accuracy
        0.972
    """
    if isinstance(target, nn.Module):
        return _of_network(target, parse(OfNetwork, more), attack=attack, epsilon=epsilon)
    path = as_path(target)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; Study({str(path)!r}).evaluate(...) measures the trials of a study")
    (measured,) = _of_path(path, parse(OfCheckpoint, more), attack=attack, epsilon=epsilon)
    return measured.report


@in_python()
def evaluate_study(
    study: Path, *, attack: AnyAttack, epsilon: float | str | None = None, front: bool = False, **more: Any
) -> list[Report]:
    """Attack all complete trials of a study, or those on its front; the reports are added to its tables.

    The other arguments are those of `evaluate` for a checkpoint.
    """
    given = parse(OfCheckpoint, more)
    return [measured.report for measured in _of_path(study, given, attack=attack, epsilon=epsilon, front=front)]


def _of_path(
    path: Path, given: OfCheckpoint, *, attack: AnyAttack, epsilon: float | str | None, front: bool = False
) -> Iterator[Measured]:
    return reports(
        path,
        attack=_attack(attack, epsilon, given),
        split=given.split,
        data=given.located,
        front=front,
        images=given.images,
        subset=given.subset,
        seed=given.seed,
        batch_size=given.batch_size,
        averaged=not given.raw,
        dials=None if given.dial is None else [given.dial],
        device=given.device,
        workers=given.workers,
        address=given.address,
        records=given.kept,
        tell=tell,
        note=log.info,
        progress=batches(given.progress),
        ray_ended=_interrupt,
    )


def _of_network(model: nn.Module, given: OfNetwork, *, attack: AnyAttack, epsilon: float | str | None) -> Report:
    chosen_attack = _attack(attack, epsilon, given)
    data = _image_set(given.data, given.split)
    whole, images, subset = len(data.labels), given.images, given.subset
    if subset and images is None:
        raise ValueError(f"subset={subset!r} says which images, and not how many; add images=N")
    if images is not None and images > whole:
        raise ValueError(f"{images} images of {whole}; choose 1 to {whole}")
    indices = torch.arange(whole) if images is None else choose(data.labels, images, subset=subset or "stratified")
    chosen = data._replace(images=data.images[indices], labels=data.labels[indices])
    its_own = next((each.device.type for each in (*model.parameters(), *model.buffers())), None)
    on = device_of(given.device or its_own)
    network = copy.deepcopy(model).eval().to(on)
    report = accuracy.evaluate_network(
        network,
        chosen,
        indices=indices,
        num_classes=_num_classes(network, chosen, on),
        attack=chosen_attack,
        seed=given.seed,
        batch_size=given.batch_size,
        device=on,
        records=given.kept,
        progress=batches(given.progress),
        say=tell,
    )
    is_part = len(indices) < whole
    return replace(report, split=given.split, subset=(subset or "stratified") if is_part else None)


def _attack(attack: AnyAttack, epsilon: float | str | None, given: OfNetwork | OfCheckpoint) -> Attack | Ensemble:
    norm, steps, size, mode = given.norm, given.steps, given.step_size, given.mode
    if isinstance(attack, str):
        radius = None if epsilon is None else str(epsilon)
        step_size = None if size is None else str(size)
        return attack_from(attack, norm=norm, epsilon=radius, steps=steps, step_size=step_size, mode=mode)
    if (epsilon, norm, steps, size, mode) != (None, "linf", None, None, "exact"):
        raise ValueError(f"attack={attack!r} says its radius and steps itself; leave epsilon, norm, steps and mode out")
    return attack


def _image_set(data: AnyImages, split: Literal["train", "test"] | None) -> ImageSet:
    """The images and labels to measure on, on the CPU and checked."""
    if isinstance(data, Images):
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r}: which images of {data!r}; write split='test' or split='train'")
        return splits.read(data, split)
    if split is not None:
        raise ValueError(f"split={split!r} is for a data set spec; given images are measured as they are")
    if not isinstance(data, tuple) or len(data) < 2:
        raise ValueError(f"data is {type(data).__name__}; give a data set spec, an ImageSet, or (x, y)")
    x, y = (torch.as_tensor(each).detach().cpu() for each in data[:2])
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y) or not len(x):
        raise ValueError(f"x {list(x.shape)} and y {list(y.shape)} must be [N, C, H, W] and [N], N at least 1")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"y is {y.dtype}; give the number of each image's class as an integer")
    names = data.classes if isinstance(data, ImageSet) else tuple(map(str, range(int(y.max()) + 1)))
    return ImageSet(x.contiguous(), y.to(torch.int64), names)


def _num_classes(network: nn.Module, data: ImageSet, device: torch.device) -> int:
    """How many logits the network gives for the first image; ValueError where they are none, or too few."""
    x = to_unit(data.images[:1]).to(device)
    with torch.no_grad():
        try:
            logits = network(x)
        except (RuntimeError, TypeError) as error:
            error.add_note(f"the network was given one image, x {list(x.shape)} float32 in [0, 1]")
            raise
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1 or logits.dtype != torch.float32:
        shape = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network must give logits float32 [N, K]; for x {list(x.shape)} it gave {shape}")
    lowest, highest = int(data.labels.min()), int(data.labels.max())
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(f"labels go from {lowest} to {highest}, and the network has {logits.shape[1]} logits")
    return logits.shape[1]


def _interrupt(how: str, over: threading.Event) -> None:
    """In a thread: the main one waits for an answer of Ray that cannot come."""
    del over
    tell(f"{how}; the same call goes on from the finished batches")
    _thread.interrupt_main()
