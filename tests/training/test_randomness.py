"""Random numbers depend on their seed's parts and on nothing else, least of all on the number of workers."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch

from arat_ray.training.randomness import Noise, derive_seed, generator


def test_a_seed_is_half_of_the_first_eight_bytes_of_a_hash() -> None:
    digest = hashlib.sha256(b"3/attack/7").digest()
    expected = sum(byte << (8 * i) for i, byte in enumerate(digest[:8])) // 2
    assert derive_seed(3, "attack", 7) == expected
    assert 0 <= expected < 2**63


def test_neighbouring_seeds_and_epochs_are_unrelated() -> None:
    seeds = [derive_seed(seed, stream, epoch) for seed in range(10) for stream in "ab" for epoch in range(10)]
    assert len(set(seeds)) == 200
    differing = [(a ^ b).bit_count() for a, b in itertools.pairwise(seeds)]
    assert 29 < sum(differing) / len(differing) < 34  # of 63 bits


def test_a_generator_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    torch.manual_seed(0)
    first = torch.rand(5, generator=generator("cpu", 1, "order", 2))
    torch.manual_seed(1)
    torch.rand(3)
    assert torch.equal(torch.rand(5, generator=generator("cpu", 1, "order", 2)), first)
    assert not torch.equal(torch.rand(5, generator=generator("cpu", 1, "order", 3)), first)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [1, 8])
def test_workers_rows_together_are_the_draw_of_one_worker(workers: int, total: int) -> None:
    like = torch.empty(total, 2, 3)
    whole = Noise(generator("cpu", 0), total)
    uniform, normal, again = whole.uniform(like, -2, 3), whole.normal(like), whole.uniform(like, -2, 3)
    assert not torch.equal(uniform, again)
    for rank in range(workers):
        rows = slice(rank, None, workers)
        mine = Noise(generator("cpu", 0), total, rows)
        assert torch.equal(mine.uniform(like[rows], -2, 3), uniform[rows])
        assert torch.equal(mine.normal(like[rows]), normal[rows])
        assert torch.equal(mine.uniform(like[rows], -2, 3), again[rows])


def test_rows_may_be_indices() -> None:
    rows = torch.tensor([4, 0])
    whole = Noise(generator("cpu", 0), 5).normal(torch.empty(5, 2))
    assert torch.equal(Noise(generator("cpu", 0), 5, rows).normal(torch.empty(2, 2)), whole[rows])


def test_draws_have_the_distribution_and_the_type_asked_for() -> None:
    like = torch.empty(100_000, 1, dtype=torch.float64)
    noise = Noise(generator("cpu", 0), 100_000)
    uniform, normal = noise.uniform(like, -2, 4), noise.normal(like)
    assert uniform.dtype == normal.dtype == torch.float64
    assert -2 <= uniform.min() < -1.99
    assert 3.99 < uniform.max() <= 4
    assert abs(uniform.mean() - 1) < 5 * 3**0.5 / 100_000**0.5  # variance 6^2 / 12
    assert abs(normal.mean()) < 5 / 100_000**0.5
    assert abs(normal.var() - 1) < 5 * (2 / 100_000) ** 0.5
