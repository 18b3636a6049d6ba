"""Back-off, worked by hand."""

from __future__ import annotations

from arat_ray.backoff import Backoff


def test_delays_double_up_to_the_longest_and_a_row_is_warned_of_once() -> None:
    backoff = Backoff((2.0, 5.0))
    assert [(backoff.fail(), backoff.delay_s) for _ in range(4)] == [(True, 2), (False, 4), (False, 5), (False, 5)]
    assert backoff.succeed()
    assert not backoff.succeed()
    assert (backoff.failing, backoff.delay_s) == (False, 0)
    assert (backoff.fail(), backoff.delay_s) == (True, 2)


def test_without_any_delay_it_fails_all_the_same() -> None:
    backoff = Backoff((0.0, 0.0))
    assert [backoff.fail(), backoff.fail()] == [True, False]
    assert backoff.failing
