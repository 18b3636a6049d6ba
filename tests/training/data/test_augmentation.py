"""Batches are cropped and flipped exactly as torchvision does, one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arat_ray.training.data.augmentation import AugmentedImages, draw


def random_images(n: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 5, 7), (1, 1, 1)])
def test_every_crop_and_flip_is_the_one_torchvision_makes(
    channels: int, height: int, width: int, padding: int, flip: bool
) -> None:
    import torchvision.transforms.functional as tvf  # here: to collect, every process would spend seconds on it

    images = random_images(20, channels, height, width)
    generator = torch.Generator().manual_seed(1)
    indices = torch.randint(20, (300,), generator=generator)
    offsets, flips = draw(300, generator, padding=padding, flip=flip)
    batch = AugmentedImages(images, padding=padding, flip=flip).batch(indices, offsets, flips)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    for one, index, (top, left), flipped in zip(batch, indices, offsets.tolist(), flips, strict=True):
        expected = tvf.crop(tvf.pad(images[index], [padding]), top, left, height, width)
        assert torch.equal(one, tvf.hflip(expected) if flipped else expected)


def test_the_outermost_crops_of_the_first_and_the_last_image_stay_inside_them() -> None:
    images = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)
    augmented = AugmentedImages(images, padding=2, flip=True)
    corners = torch.tensor([[0, 0], [4, 4]])
    black = augmented.batch(torch.tensor([0, 1]), corners, torch.tensor([False, True]))
    assert torch.equal(black, torch.zeros_like(images))


def test_the_images_given_are_not_modified_and_not_shared() -> None:
    images = random_images(3, 1, 4, 4)
    before = images.clone()
    augmented = AugmentedImages(images, padding=0, flip=False)
    still = augmented.batch(torch.arange(3), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3).bool())
    still.zero_()
    assert torch.equal(images, before)


def test_draws_cover_all_offsets_evenly_and_flip_one_image_in_two() -> None:
    offsets, flips = draw(90_000, torch.Generator().manual_seed(0), padding=1, flip=True)
    assert offsets.dtype == torch.int64
    cells = (offsets[:, 0] * 3 + offsets[:, 1]).bincount(minlength=9)
    assert len(cells) == 9
    assert (cells - 10_000).abs().max() < 500  # five standard deviations
    assert abs(int(flips.sum()) - 45_000) < 750


def test_the_same_seed_draws_the_same_and_no_flips_change_no_other_draw() -> None:
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    offsets, flips = draw(50, first, padding=4, flip=True)
    same_offsets, no_flips = draw(50, second, padding=4, flip=False)
    assert torch.equal(offsets, same_offsets)
    assert flips.any()
    assert not no_flips.any()
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_pixels() -> None:
    images = random_images(50, 3, 32, 32)
    indices = torch.arange(50)
    offsets, flips = draw(50, torch.Generator().manual_seed(0), padding=4, flip=True)
    here = AugmentedImages(images, padding=4, flip=True).batch(indices, offsets, flips)
    there = AugmentedImages(images.cuda(), padding=4, flip=True).batch(indices, offsets, flips)
    assert torch.equal(here, there.cpu())
