"""Stronger augmentation: a policy draws one or several colour and shape operations for each image.

AutoAugment (its CIFAR-10 policy, https://arxiv.org/abs/1805.09501), TrivialAugment
(https://arxiv.org/abs/2103.10158) and RandAugment (https://arxiv.org/abs/1909.13719) are torchvision's, with its
defaults. IDBH is Li and Spratling's, https://arxiv.org/abs/2301.09879: CropShift, one of eight operations, and random
erasing, with the ranges of the authors' code for CIFAR-10.

All of them come after `augmentation`'s crop and flip. IDBH does not crop as such: to have it as published, set
`crop_padding: 0`. Its operations work on tensors here and on PIL images there, which differ by rounding. Grey images
work too; changes of saturation leave them as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Policy = Literal["auto_augment", "trivial_augment", "rand_augment", "idbh_weak", "idbh_strong"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Transform = Callable[[Tensor], Tensor]
"""One image uint8 [C, H, W] to another, by draws of torch's default generator."""


def draw(n: int, generator: torch.Generator) -> list[int]:
    """A seed for each of `n` images."""
    return torch.randint(2**32, (n,), generator=generator).tolist()


def apply(policy: Policy, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """The images uint8 [B, C, H, W] under `policy`, on their own device; an image's draws depend on its seed alone.

    Computed on the CPU one by one, in 0.2 to 0.6 ms an image of 32x32, so that every device gives the same pixels.
    Images on a GPU are waited for. Torch's default generator is left as it was.
    """
    assert images.dtype == torch.uint8, images.dtype
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"augmentation policy {policy!r} works on grey (1) or RGB (3) images, not on {images.shape[1]} channels; "
            "leave it out"
        )
    transform = _build(policy)
    changed = torch.empty_like(images, device="cpu", memory_format=torch.contiguous_format)
    with torch.random.fork_rng(devices=[]):
        for row, (image, seed) in enumerate(zip(images.cpu(), seeds, strict=True)):
            torch.default_generator.manual_seed(seed)  # the CPU's alone; torch.manual_seed takes 100 times as long
            changed[row] = transform(image)
    return changed.to(images.device)


@functools.cache
def _build(policy: Policy) -> Transform:
    from torchvision.transforms import v2  # slow to import, and only needed here

    transforms: dict[Policy, Callable[[], Transform]] = {
        "auto_augment": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        "trivial_augment": v2.TrivialAugmentWide,
        "rand_augment": v2.RandAugment,
        "idbh_weak": lambda: v2.Compose([crop_shift, color_or_shape, v2.RandomErasing(p=0.5)]),
        "idbh_strong": lambda: v2.Compose([crop_shift, color_or_shape, v2.RandomErasing(p=1.0)]),
    }
    return transforms[policy]()


def crop_shift(image: Tensor) -> Tensor:
    """CropShift: what a random crop leaves of the image [C, H, W], anywhere on black.

    Up to 10 rows and columns together are cut off an image of 32 pixels, in proportion off others.
    """
    _, height, width = image.shape
    cut = _integer(0, 10 * min(height, width) // 32)
    columns = _integer(0, cut)
    rows = cut - columns
    top, left, new_top, new_left = (_integer(0, most) for most in (rows, columns, rows, columns))
    height, width = height - rows, width - columns
    shifted = torch.zeros_like(image)
    shifted[:, new_top : new_top + height, new_left : new_left + width] = image[
        :, top : top + height, left : left + width
    ]
    return shifted


def color_or_shape(image: Tensor) -> Tensor:
    """One of the eight operations of IDBH, equally likely, at a strength uniform in its range."""
    from torchvision.transforms.v2 import functional as tvf

    operations: tuple[Transform, ...] = (
        lambda image: tvf.adjust_saturation(image, _uniform(0.1, 1.9)),
        lambda image: tvf.adjust_brightness(image, _uniform(0.5, 1.9)),
        lambda image: tvf.adjust_contrast(image, _uniform(0.5, 1.9)),
        lambda image: tvf.adjust_sharpness(image, _uniform(0.1, 1.9)),
        tvf.autocontrast,
        tvf.equalize,
        _shear,
        lambda image: tvf.rotate(image, angle=_sign() * _integer(1, 10)),
    )
    return operations[_integer(0, len(operations) - 1)](image)


def _shear(image: Tensor) -> Tensor:
    """By 0.05 to 0.15 radians along one axis."""
    from torchvision.transforms.v2 import functional as tvf

    degrees = _sign() * math.degrees(_uniform(0.05, 0.15))
    shear = [degrees, 0.0] if _integer(0, 1) else [0.0, degrees]
    sheared: Tensor = tvf.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear)
    return sheared


def _integer(low: int, high: int) -> int:
    """Uniform in low..high, both included."""
    return int(torch.randint(low, high + 1, ()))


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _sign() -> int:
    return 2 * _integer(0, 1) - 1
