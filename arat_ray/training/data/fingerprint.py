"""What data is, wherever it lies: the fingerprint of its images and labels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor

from arat_ray.training.data.images import ImageSet

Content = Mapping[str, Mapping[str, Any]]
"""By split, what `of` says of it; as JSON in checkpoints and in study.json."""

KEYS = ("images", "shape", "classes", "pixels_sha256", "labels_sha256")

NUMBERS_AT_MOST = 1 << 32
"""Pixels of an image times classes: what claims more is no data set, and its network would fill the memory."""


def of(images: ImageSet) -> dict[str, Any]:
    """Number, shape and number of classes of a set, and digests of its pixels and of its labels, in their order."""
    pixels, labels = _digests(images.images, images.labels)
    return {
        "images": len(images.labels),
        "shape": list(images.images.shape[1:]),
        "classes": len(images.classes),
        "pixels_sha256": pixels,
        "labels_sha256": labels,
    }


@lru_cache(maxsize=2)  # a set is read once a process, and so it is digested once
def _digests(images: Tensor, labels: Tensor) -> tuple[str, str]:
    pixels = hashlib.sha256(images.cpu().contiguous().numpy())  # type: ignore[arg-type]
    return pixels.hexdigest(), hashlib.sha256(labels.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def check(content: Any) -> None:
    """TypeError where a file says something else than `of` does: it may come from anywhere. Of no split is fine."""
    if not isinstance(content, dict):
        raise TypeError("content holds no splits")
    for split, said in content.items():
        if split not in ("train", "test") or not isinstance(said, dict) or set(said) != set(KEYS):
            raise TypeError(f"content says nothing of images for {split!r}")
        shape = said["shape"] if isinstance(said["shape"], list) else []
        sizes = [said["images"], said["classes"], *shape]
        are_sizes = len(shape) == 3 and all(type(size) is int and 0 < size < 1 << 32 for size in sizes)
        if not are_sizes or math.prod(shape) * said["classes"] > NUMBERS_AT_MOST:
            raise TypeError(f"content says no sizes of the {split} images")
    if content and "train" not in content:
        raise TypeError("content says nothing of the training images")


def changes(there: Content, here: Content) -> Iterator[str]:
    """What differs in the splits that both know, in words; nothing where they are the same."""
    for split in there:
        then, now = there[split], here.get(split)
        if now is None or then == now:
            continue
        for key, words in (
            ("images", "{} {split} images"),
            ("shape", "{split} images of {}"),
            ("classes", "{} classes"),
        ):
            if then[key] != now[key]:
                yield f"{words.format(then[key], split=split)} then and {now[key]} now"
                break
        else:
            what = [name for name in ("pixels", "labels") if then[f"{name}_sha256"] != now[f"{name}_sha256"]]
            yield f"other {' and '.join(what)} of the {now['images']} {split} images"
