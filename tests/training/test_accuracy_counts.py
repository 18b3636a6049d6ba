"""Counts of right answers, by hand on a linear model, and shared out over workers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.results.schema import ACCURACIES, GOALS, goals_of
from arat_ray.training.accuracy_counts import Counts, correctness, count, margins, to_unit
from arat_ray.training.attacks import Pgd
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.models import Resnet18, Tiny, WideResnet

STEP = Pgd(norm="linf", epsilon=8 / 255, step_size=8 / 255, steps=1, start="center")


class Brighter(nn.Module):
    """Class 0 where the left pixel is brighter, class 1 where the right one is; notes how many images it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        return x.flatten(1)


def pairs(*rows: tuple[int, int, int]) -> ImageSet:
    """Images of two grey values each, and their labels."""
    values = torch.tensor(rows)
    return ImageSet(values[:, :2].to(torch.uint8).view(-1, 1, 1, 2), values[:, 2], ("left", "right"))


# An attack of 8/255 moves the two pixels 16 grey values towards each other.
DATA = pairs(
    (200, 100, 0),  # right, and 84 are left: robust
    (130, 120, 0),  # right, but 10 < 16: not robust
    (100, 117, 1),  # right, and 1 is left: robust
    (130, 120, 1),  # wrong
    (255, 0, 1),  # wrong
)


def test_counts_are_those_worked_by_hand() -> None:
    counts = count(Brighter(), DATA, attack=STEP, seed=0, batch_size=5)
    assert counts == Counts(images=5, clean=3, robust=2)
    assert counts.clean_accuracy == 0.6
    assert counts.robust_accuracy == 0.4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    assert count(Brighter(), DATA, attack=STEP, seed=0, batch_size=batch_size) == Counts(5, 3, 2)


def test_images_that_are_wrong_without_an_attack_are_never_attacked_nor_robust() -> None:
    model = Brighter()
    assert count(model, DATA, attack=STEP, seed=0, batch_size=5).robust == 2
    assert model.asked == [5, 3, 3]  # all; the right ones for the step; and again for the answer
    model = Brighter()
    wrong = pairs((130, 120, 1), (255, 0, 1))
    assert count(model, wrong, attack=STEP, seed=0, batch_size=5) == Counts(2, 0, 0)
    assert model.asked == [2]


def test_without_an_attack_robust_is_clean() -> None:
    assert count(Brighter(), DATA, attack=None, seed=0, batch_size=2) == Counts(5, 3, 3)


def test_each_image_is_judged_batch_by_batch_in_the_order_of_the_data() -> None:
    batch = list(correctness(Brighter(), DATA, attack=STEP, seed=0, batch_size=2))
    assert [len(each.clean) for each in batch] == [2, 2, 1]
    assert [int(each.clean.sum()) for each in batch] == [2, 1, 0]
    assert [int(each.robust.sum()) for each in batch] == [1, 1, 0]
    margin = torch.cat([each.margins for each in batch])
    torch.testing.assert_close(margin * 255, torch.tensor([84.0, -6, 1, -10, -255]))


def test_a_margin_is_the_true_logit_less_the_highest_other() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.5], [1.0, 3.0, 2.5], [4.0, 4.0, -1.0]])
    torch.testing.assert_close(margins(logits, torch.tensor([1, 2, 0])), torch.tensor([0.5, -0.5, 0.0]))


def test_pixels_become_fractions_of_one() -> None:
    images = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    for channels_last in (False, True):
        unit = to_unit(images, channels_last=channels_last)
        assert unit.dtype == torch.float32
        torch.testing.assert_close(unit, torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]))
    assert images[0, 0, 1, 1] == 255


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_measured_in_eval_mode_and_left_as_it_was(training: bool) -> None:
    model = Tiny(width=2).build((1, 8, 8), 2).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = ImageSet(torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"))
    count(model, data, attack=STEP, seed=0, batch_size=4)
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_workers_counts_sum_to_those_of_one_worker_even_where_the_last_batch_is_ragged(norm: str, workers: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = torch.randint(256, (41, 1, 8, 8), dtype=torch.uint8)  # batches of 10, and one image for one worker
    labels = model(to_unit(images)).argmax(1)
    labels[::5] = (labels[::5] + 1) % 3  # every fifth is wrong
    data = ImageSet(images, labels, ("a", "b", "c"))
    reach = {"linf": 2e-2, "l2": 0.1}[norm]
    attack = Pgd.model_validate({"norm": norm, "epsilon": reach, "step_size": reach / 2, "steps": 2})
    one = count(model, data, attack=attack, seed=3, batch_size=10)
    assert one.images == 41
    assert one.clean == 32
    assert 0 < one.robust < one.clean
    shares: list[Tensor] = []

    def summed(mine: Tensor) -> Tensor:
        shares.append(mine)
        return mine

    for rank in range(workers):
        count(model, data, attack=attack, seed=3, batch_size=10, rank=rank, world_size=workers, reduce=summed)
    assert Counts(*torch.stack(shares).sum(0).tolist()) == one


@pytest.mark.parametrize("spec", [Tiny(width=2), Resnet18(width=1), WideResnet(depth=10, width=1)])
def test_a_worker_without_an_image_counts_none(spec: Any) -> None:
    data = ImageSet(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), ("a", "b"))
    for rank in (1, 2):
        counts = count(spec.build((1, 8, 8), 2), data, attack=STEP, seed=0, batch_size=4, rank=rank, world_size=3)
        assert counts == Counts(0, 0, 0)


def test_what_the_sum_over_workers_gives_is_what_is_returned() -> None:
    doubled = count(Brighter(), DATA, attack=STEP, seed=0, batch_size=5, reduce=lambda counts: 2 * counts)
    assert doubled == Counts(10, 6, 4)


def test_what_is_counted_are_the_goals_that_a_search_can_have() -> None:
    row = Counts(images=8, clean=6, robust=2).row()
    assert {**goals_of(row), "clean_accuracy": 0.75, "robust_accuracy": 0.25, "images": 8} == goals_of(row)
    assert {name.removeprefix("validation_") for name in row} == {*ACCURACIES, "images"}
    assert {*GOALS} - {*ACCURACIES} == {"dial_hypervolume"}, "made of such counts, by dial_row"
