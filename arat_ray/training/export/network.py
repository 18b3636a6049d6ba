"""A trained network for use elsewhere: its weights, or a program for plain torch or ONNX Runtime.

Each file is loaded back the way a stranger would, and its logits are compared with the checkpoint's network on images,
before it gets its name. Beside it stands a JSON that says what it is. x [N, C, H, W] in [0, 1] -> logits [N, K].
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arat_ray.digests import sha256_of
from arat_ray.training import checkpoint as checkpoints
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data.images import ImageSet
from arat_ray.training.data.splits import Dataset
from arat_ray.training.data.torchvision_sets import without_downloads
from arat_ray.training.export import formats
from arat_ray.training.export.formats import Format, Logits
from arat_ray.training.export.robustbench import counterpart
from arat_ray.training.randomness import generator
from arat_ray.version import __version__

FORMAT = 1
"""Of the JSON."""
COMPARED_BATCHES = (1, 7, 24)
"""Numbers of images at once in which logits are compared; none of them the one that programs are traced with."""


class Comparison(NamedTuple):
    """The file's logits beside the checkpoint's."""

    images: int
    source: str
    largest_difference: float
    largest_logit: float
    relative_tolerance: float

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.largest_difference:.2g} where the largest is {self.largest_logit:.3g} "
            f"(allowed: {self.relative_tolerance:g} of it), on {self.images} {self.source}"
        )


class Exported(NamedTuple):
    """The files written."""

    path: Path
    description: Path
    comparison: Comparison


def export(
    source: Path, path: Path, *, averaged: bool = True, dial: float | None = None, overwrite: bool = False
) -> Exported:
    """Write the deployed network of the checkpoint `source` to `path`, in the format that its suffix names.

    The average is exported where there is one, unless `averaged` is False; with `dial` the network at that setting
    between the norm branches. Raises ValueError for another suffix, a missing package, a file that exists, what is no
    checkpoint, a dial that it has not, a network whose logits are not finite, and a file whose logits differ; then
    nothing is written.
    """
    form = formats.of(path)
    try:
        return _export(source, path, form, averaged=averaged, dial=dial, overwrite=overwrite)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error


def _export(source: Path, path: Path, form: Format, *, averaged: bool, dial: float | None, overwrite: bool) -> Exported:
    description = path.with_name(f"{path.name}.json")
    for file in (path, description):
        if file.is_dir():
            raise ValueError(f"{file} is a folder; choose another name")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} exists; choose another name, or --force to replace it")
    state = checkpoints.load(source)
    if path.exists() and path.samefile(source):
        raise ValueError(f"{path} is the checkpoint itself; choose another name")
    network = checkpoints.network(state, averaged=averaged, dial=dial).requires_grad_(False)
    known = _at_hand(state.train_spec.dataset)
    x, images = _images(state, known)
    logits = _in_batches(network, x)
    if not logits.isfinite().all():
        raise ValueError(f"{source}: its network's logits are not finite on {images}; export another checkpoint")
    content = form.encode(network, state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft, draft_description = Path(folder) / path.name, Path(folder) / description.name
        draft.write_bytes(content)
        difference = (_in_batches(form.load(draft, state), x) - logits).abs().max().item()
        compared = Comparison(len(x), images, difference, logits.abs().max().item(), form.tolerance)
        if not difference <= form.tolerance * compared.largest_logit:  # NaN is not, either
            raise ValueError(f"{path}: not written, because it computes something else: {compared}")
        facts = {"format": FORMAT, "file": path.name, "sha256": sha256_of(draft)}
        facts |= _describe(state, averaged=averaged, dial=dial, classes=known.classes if known else None)
        facts |= {"checkpoint_sha256": sha256_of(source), "verified": compared._asdict()}
        draft_description.write_text(json.dumps(facts, indent=2) + "\n")
        os.replace(draft, path)
        os.replace(draft_description, description)
    return Exported(path, description, compared)


def _describe(
    state: Checkpoint, *, averaged: bool, dial: float | None, classes: tuple[str, ...] | None
) -> dict[str, Any]:
    """What the JSON says of the network."""
    train, dataset = state.train_spec, state.train_spec.dataset
    weights = (averaged and state.weights) or "last"
    channels = state.shape[0]
    return {
        "architecture": train.model.model_dump(mode="json"),
        "dataset": dataset.name,
        "num_classes": state.num_classes,
        "classes": classes,
        "input": {
            "name": "x",
            "shape": state.shape,
            "range": [0, 1],
            # no network here shifts or scales its pixels; (x - mean) / std for code that insists on doing so
            "mean": [0.0] * channels,
            "std": [1.0] * channels,
        },
        "output": "logits",
        "weights": weights,
        "dial": dial,
        "fitted": state.fitted,
        "epoch": state.epoch,
        "method": train.method.name,
        "attack": train.attack and train.attack.model_dump(mode="json"),
        "validation": _validation(state) if weights == (state.weights or "last") and not dial else None,
        "robustbench": counterpart(train.model, state.shape, state.num_classes),
        "torch": str(torch.__version__),
        "arat_ray": __version__,
    }


def _validation(state: Checkpoint) -> dict[str, Any] | None:
    """The accuracies measured of the deployed weights."""
    row = next((row for row in state.history if row["epoch"] == state.epoch and "validation_images" in row), None)
    if row is None:
        return None
    validate = state.validate_spec
    return {
        "clean_accuracy": row["validation_clean_accuracy"],
        "robust_accuracy": row["validation_robust_accuracy"],
        "images": row["validation_images"],
        "split": validate.split,
        "attack": {"label": validate.attack.label} | validate.attack.model_dump(mode="json"),
    }


def _at_hand(dataset: Dataset) -> ImageSet | None:
    """The first training images, of which there are enough to compare on; None where they are not on this machine."""
    count = sum(COMPARED_BATCHES)
    few = dataset.model_copy(update={"images": min(dataset.images or count, count), "subset": "first"})
    with suppress(ValueError, OSError), without_downloads():
        return few.read("train")
    return None


def _images(state: Checkpoint, known: ImageSet | None) -> tuple[Tensor, str]:
    """x [N, C, H, W] in [0, 1] to compare on, and what it is."""
    dataset = state.train_spec.dataset
    if known is not None:
        return known.images.float() / 255, f"training images of {dataset.name}"
    draws = generator("cpu", 0, "export")
    return torch.rand(sum(COMPARED_BATCHES), *state.shape, generator=draws), "random images in [0, 1]"


def _in_batches(network: Logits, x: Tensor) -> Tensor:
    """Logits [N, K] of x [N, C, H, W], in batches of several sizes."""
    ends = torch.tensor(COMPARED_BATCHES).cumsum(0)[:-1]
    with torch.no_grad():
        return torch.cat([network(part) for part in x.tensor_split(ends) if len(part)])
