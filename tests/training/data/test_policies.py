"""Augmentation policies: what every one of them promises, and IDBH's own operations by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from arat_ray.training.data.policies import POLICIES, Policy, apply, color_or_shape, crop_shift, draw


def random_images(n: int, channels: int = 3, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def seeds(n: int, seed: int = 0) -> list[int]:
    return draw(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 32), (1, 8), (3, 33)])
def test_images_keep_their_shape_and_type_and_the_input_is_not_modified(
    policy: Policy, channels: int, size: int
) -> None:
    images = random_images(30, channels, size)
    before = images.clone()
    changed = apply(policy, images, seeds(30))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(images, before)
    assert changed.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("policy", POLICIES)
def test_most_images_change_and_each_in_its_own_way(policy: Policy) -> None:
    images = random_images(1).expand(100, -1, -1, -1)
    changed = apply(policy, images, seeds(100))
    different = (changed != images).flatten(1).any(1)
    assert different.sum() > 50
    assert len(torch.unique(changed.flatten(1), dim=0)) > 25


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seeds_give_the_same_images_and_other_seeds_others(policy: Policy) -> None:
    images = random_images(20)
    first = apply(policy, images, seeds(20))
    torch.manual_seed(99)
    assert torch.equal(apply(policy, images, seeds(20)), first)
    assert not torch.equal(apply(policy, images, seeds(20, seed=1)), first)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [2, 3, 5])
def test_each_workers_rows_are_those_of_the_whole_batch(policy: Policy, workers: int) -> None:
    images, every = random_images(15), seeds(15)
    whole = apply(policy, images, every)
    for rank in range(workers):
        mine = slice(rank, None, workers)
        assert torch.equal(apply(policy, images[mine], every[mine]), whole[mine])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_default_generator_is_left_as_it_was(policy: Policy) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    apply(policy, random_images(3), seeds(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("policy", POLICIES)
def test_channels_last_images_give_the_same_pixels(policy: Policy) -> None:
    images = random_images(10)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(apply(policy, last, seeds(10)), apply(policy, images, seeds(10)))


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_are_neither_grey_nor_rgb_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"'idbh_weak' works on grey \(1\) or RGB \(3\) images, not on {channels}"):
        apply("idbh_weak", random_images(2, channels), seeds(2))


def test_an_image_too_few_or_too_many_for_the_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        apply("idbh_weak", random_images(2), seeds(3))


def test_seeds_are_spread_over_32_bits_and_do_not_repeat() -> None:
    many = seeds(10_000)
    assert len(set(many)) > 9_990
    assert 0 <= min(many) < 2**20
    assert 2**32 - 2**20 < max(many) < 2**32


def test_crop_shift_moves_a_window_of_the_image_onto_black() -> None:
    torch.manual_seed(0)
    image = torch.arange(1, 32 * 32 + 1).view(1, 32, 32)  # each pixel says where it came from
    cuts = []
    for _ in range(400):
        shifted = crop_shift(image)
        rows, columns = (shifted[0].any(dim).nonzero().flatten() for dim in (1, 0))
        window = shifted[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = divmod(int(window[0, 0]) - 1, 32)
        assert torch.equal(window, image[0, top : top + len(window), left : left + window.shape[1]])
        assert int((shifted > 0).sum()) == window.numel()
        cuts.append(64 - sum(window.shape))
    assert {*cuts} == {*range(11)}


def test_crop_shift_cuts_less_off_smaller_images() -> None:
    torch.manual_seed(0)
    cuts = {64 - int(crop_shift(torch.ones(1, 8, 8)).sum()) for _ in range(200)}
    assert cuts == {0, 8, 15, 16}  # none; one row or column; one of each; two rows or columns


def test_idbh_draws_its_eight_operations_equally_often() -> None:
    torch.manual_seed(0)
    image = random_images(1)[0] // 2 + 20  # between 20 and 147, so that every operation shows
    images = [color_or_shape(image) for _ in range(400)]
    filled = sum(int((changed == 0).all(0).sum() > 3) for changed in images)
    assert 60 < filled < 140  # shear and rotation fill in black: two of eight
    grey = image.float().mean((1, 2))
    brighter = sum(bool(((changed.float().mean((1, 2)) - grey).abs() > 10).all()) for changed in images)
    assert 60 < brighter < 200  # brightness, autocontrast and equalize among others move the mean of all channels
    assert sum(torch.equal(changed, image) for changed in images) < 20


def test_strong_idbh_always_erases_a_rectangle_and_weak_idbh_half_the_time() -> None:
    white = torch.full((300, 3, 32, 32), 255, dtype=torch.uint8)
    weak, strong = (apply(policy, white, seeds(300)) for policy in ("idbh_weak", "idbh_strong"))
    # the same seed draws the same crop and operation in both, so they differ where only the strong one erases
    differ = (weak != strong).flatten(1).any(1).double().mean()
    assert 0.3 < differ < 0.7


def test_torchvision_is_loaded_only_by_the_first_use() -> None:
    program = "import sys, arat_ray.training.data.policies; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_gives_the_same_pixels(policy: Policy) -> None:
    images = random_images(20)
    there = apply(policy, images.cuda(), seeds(20))
    assert there.is_cuda
    assert torch.equal(there.cpu(), apply(policy, images, seeds(20)))
