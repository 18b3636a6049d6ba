"""Where a point lies by a front, in words."""

from __future__ import annotations

from arat_ray.frontier.region import region

TWO = ("clean_accuracy", "robust_accuracy")


def test_before_anything_is_complete_there_is_no_front_to_lie_by() -> None:
    assert region((0.5, 0.5), {}, TWO) == "before any trial was complete"


def test_a_trial_that_is_on_no_front_is_no_neighbour() -> None:
    trials = {0: (0.9, 0.1), 3: (0.7, 0.05), 8: (0.5, 0.5)}
    assert region((0.7, 0.4), trials, TWO) == "between trials 0 and 8 of the front"
    assert region((0.7, 0.4), {3: (0.7, 0.15)}, TWO) == "beyond trial 3, then the best in robust accuracy"


def test_of_one_goal_or_three_it_is_said_whether_the_point_is_ahead() -> None:
    assert region((0.7,), {0: (0.6,), 1: (0.65,)}, TWO[:1]) == "ahead of the front"
    assert region((0.6,), {0: (0.6,), 1: (0.65,)}, TWO[:1]).startswith("behind trial 1:")
    assert region((0.6, 0.6, 0.6), {0: (0.9, 0.9, 0.1), 1: (0.1, 0.9, 0.9)}, ("a", "b", "c")) == "ahead of the front"
