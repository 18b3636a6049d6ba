"""The plan in words, and FLOPs against a count by hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from arat_ray.experiment import plan
from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import Experiment
from arat_ray.training.memory_forecast import forecast
from arat_ray.units import flop

FILE = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  epochs: 4
  batch_size: 64
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 5}
  method: METHOD
search:
  optimizer.learning_rate: {loguniform: [0.01, 1]}
validate: {every: 3, images: 437, attack: {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 20}}
sampler: {name: random, seed: 0}
budget: {trials: 8}
"""
ARAT = '{name: arat, invariance_weight: 5, layers: ["bn?"]}'
FORWARD = 3 * 2304 + 160
"""A multiply-add is two. 8x8 positions * 2 channels * 3*3*1 weights, 4x4 * 4 * 3*3*2, 2x2 * 8 * 3*3*4; last 8 * 10."""


def experiment(tmp_path: Path, method: str = ARAT) -> Experiment:
    path = tmp_path / "small.yaml"
    path.write_text(FILE.replace("METHOD", method))
    return load(path)


def test_flops_of_a_forward_pass_are_those_counted_by_hand(tmp_path: Path) -> None:
    base = experiment(tmp_path).base
    assert plan.forward_flops(base.model, base.dataset) == FORWARD


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("{name: standard}", 3),  # forward, and backward to inputs and to weights
        ("{name: pgd_at}", 5 * 2 + 3),  # five attack steps, forward and backward to the input
        (ARAT, 5 * 2 + 2 * 3),  # through both branches
    ],
)
def test_flops_of_a_trial_are_those_of_its_passes(method: str, passes: int, tmp_path: Path) -> None:
    lines = list(plan.estimate(experiment(tmp_path, method)))
    training = 4 * 1000 * passes  # 1,437 training images, of which 437 validate
    validation = 2 * 437 * (1 + 20 * 2)  # after epochs 3 and 4
    expected = FORWARD * (training + validation)
    assert lines[0] == f"  a trial: 1000 training images, {flop(expected)}"
    assert lines[1] == f"  the search: 8 trials, {flop(8 * expected)}"


def test_the_trials_of_a_grid_are_counted_each_by_its_own_method(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    text = FILE.replace("METHOD", "{name: pgd_at}").replace("name: random", "name: grid").replace("budget", "# budget")
    search = "  method: {choice: {plain: {name: standard}, kl: {name: trades}, two: {name: lbgat}}}"
    path.write_text(text.replace("  optimizer.learning_rate: {loguniform: [0.01, 1]}", search))
    lines = list(plan.estimate(load(path)))
    validation = 2 * 437 * (1 + 20 * 2)
    plain, kl, two = (FORWARD * (4000 * passes + validation) for passes in (3, 5 * 2 + 6, 5 * 2 + 9))
    assert lines[1] == f"  from {flop(plain)} to {flop(two)}, as a trial's method and size demand"
    assert lines[2] == f"  the search: 3 trials, {flop(plain + kl + two)}"


def test_the_plan_names_the_layers_that_the_patterns_stand_for(tmp_path: Path) -> None:
    text = "\n".join(plan.describe(experiment(tmp_path)))
    assert "regularised layers: bn1, bn2, bn3" in text
    assert "attack in training: pgd-5 linf 8/255" in text
    assert "varies: optimizer.learning_rate, log-uniform in [0.01, 1]" in text
    assert "search: random, 8 trials, maximising clean_accuracy and robust_accuracy" in text


def test_the_forecast_is_in_device_hours_and_usd_and_says_how_far_a_budget_goes(tmp_path: Path) -> None:
    path = tmp_path / "priced.yaml"
    text = FILE.replace("METHOD", ARAT).replace("trials: 8", "trials: 8, usd: 1.0e-9")
    path.write_text(text + "resources: {workers: 2, price: {usd_per_device_hour: 2}}\n")
    lines = list(plan.estimate(load(path)))
    (search,) = [line for line in lines if "at once" in line]
    match = re.search(r"at once, (\S+) device-hours, (\S+) usd \(a device is a CPU worker\)", search)
    assert match
    hours, usd = match.groups()
    assert float(usd) == pytest.approx(2 * float(hours), abs=0.01)
    assert re.search(r"budget.usd: 1e-09 is enough for about \S+ trials", lines[-1])
    assert "8 trials or 1e-09 usd" in "\n".join(plan.describe(load(path)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 4", "epochs: 1000000000"),
        ("epochs: 4", "epochs: 1000000000\n  schedule: {name: cosine}"),
        ("batch_size: 64", "batch_size: 1000"),
        ("steps: 20", "steps: 1000000000"),
        ("trials: 8", "trials: 1000000000000"),
        ("every: 3", "every: 1000000000"),
        ("budget", "early_stopping: {name: pareto_asha, min_epochs: 3, reduction_factor: 2}\nbudget"),
        ("[0.01, 1]}", "[0.01, 1]}\n  seed: {int: [0, 1000000000]}"),
    ],
)
def test_the_plan_of_numbers_that_are_too_large_comes_as_soon_as_any(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    text = FILE.replace("METHOD", "{name: standard}").replace(old, new)
    if "early" in new:
        text = text.replace("epochs: 4", "epochs: 999999999")
    path.write_text(text)
    experiment = load(path)
    lines = [*plan.describe(experiment), *plan.estimate(experiment, image_s=1e-3, at_once=1)]
    assert any(line.startswith("  a trial: 1000 training images") for line in lines)


def test_no_rung_of_a_billion_epochs_is_looked_for_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    text = FILE.replace("METHOD", "{name: standard}").replace("epochs: 4", "epochs: 1000000000")
    path.write_text(text.replace("budget", "early_stopping: {name: pareto_asha, min_epochs: 4}\nbudget"))
    with pytest.raises(ExperimentError, match=r"4 is no multiple .* use 3, 6, 9, ... or 999999999"):
        load(path)


def test_a_batch_that_is_timed_is_not_larger_than_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text(FILE.replace("METHOD", "{name: standard}").replace("batch_size: 64", "batch_size: 100000000"))
    assert plan.seconds_per_image(load(path).base, at_least_s=0.0) > 0


def test_conditions_upon_conditions_are_tried_out_in_part(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    names = ["nesterov", "momentum", "weight_decay", "learning_rate"]
    flags = [f"schedule.decays: {{choice: {{{', '.join(f'd{n}: [0.{n}]' for n in range(1, 10))}}}}}"]
    values = ", ".join(f"0.{n}" for n in range(1, 10))
    for number, name in enumerate(names[1:]):
        above = [
            "schedule.decays: [d1, d2, d3, d4, d5, d6]",
            *(f"optimizer.{n}: [{values}]" for n in names[1:][:number]),
        ]
        flags.append(f"optimizer.{name}: {{choice: [{values}], when: {{{', '.join(above)}}}}}")
    text = FILE.replace("METHOD", "{name: standard}")
    path.write_text(text.replace("  optimizer.learning_rate: {loguniform: [0.01, 1]}", "  " + "\n  ".join(flags)))
    assert sum(1 for _ in probes(load(path))) < 10_000


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ("workers: 4, cpus_per_worker: 50000", "lower resources.cpus_per_worker (50000) or resources.workers (4), or"),
        (
            "cpus_per_worker: 90000, concurrent_trials: 8",
            "a trial takes 90000 CPUs, and there are N; lower resources.cpus_per_worker (90000), or join",
        ),
    ],
)
def test_a_trial_for_which_this_machine_is_too_small_runs_no_times_at_once(
    resources: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE.replace("METHOD", "{name: standard}") + f"resources: {{{resources}}}\n")
    text = "\n".join(plan.estimate(load(path)))
    assert "  the search: 0 trials at once on this machine: " in text
    assert says.replace("there are N", f"there are {os.cpu_count()}") in text


def test_no_more_trials_run_at_once_than_this_machine_holds(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE.replace("METHOD", "{name: standard}") + "resources: {concurrent_trials: 100000}\n")
    assert f", {os.cpu_count()} trial(s) at once" in "\n".join(plan.estimate(load(path)))


@pytest.mark.parametrize(
    ("budget", "grid"),
    [
        ("trials: 5", "grid tries them all"),
        ("trials: 2", "grid with `budget: {trials: 5}` tries them all"),
        ("hours: 1", "grid tries them all"),
        ("trials: 1", None),
    ],
)
def test_a_search_of_few_choices_is_better_served_by_grid(budget: str, grid: str | None, tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    text = FILE.replace("METHOD", "{name: standard}").replace("trials: 8", budget)
    text = text.replace("{loguniform: [0.01, 1]}", "{choice: [0.01, 0.03, 0.1, 0.3, 1]}")
    path.write_text(text.replace("name: random", "name: curves"))
    notes = [line for line in plan.describe(load(path)) if "combinations" in line]
    few = f"    note: 5 combinations of choices in all; a model learns little of so few, {grid}"
    assert notes == ([few] if grid else [])


def test_combinations_that_no_condition_allows_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    rates = "{choice: [0.01, 0.03, 0.1, 0.3, 1]}"
    momentum = "\n  optimizer.momentum: {choice: [0, 0.5, 0.9], when: {optimizer.learning_rate: 1}}"
    text = FILE.replace("METHOD", "{name: standard}").replace("{loguniform: [0.01, 1]}", rates + momentum)
    path.write_text(text.replace("name: random", "name: curves"))
    assert any("note: 7 combinations of choices in all" in line for line in plan.describe(load(path)))


@pytest.mark.parametrize(("share", "room"), [(0.5, ", so at gpus_per_worker: 0.5 of one of {} GiB or more"), (1, "")])
def test_what_a_worker_takes_of_a_gpu_is_forecast(share: float, room: str, tmp_path: Path) -> None:
    on_gpus = experiment(tmp_path)
    on_gpus = on_gpus.model_copy(update={"resources": on_gpus.resources.model_copy(update={"gpus_per_worker": share})})
    needed = forecast(on_gpus.base, on_gpus.validation, images=1000).on_a_gpu / 2**30
    assert 0.58 < needed < 0.7, "a tiny net; most of it is CUDA's own"
    told = room.format(f"{needed / share:.3g}")
    assert f"  memory: about {needed:.3g} GiB of a GPU a worker by forecast{told}" in list(plan.estimate(on_gpus))
    assert not any("memory" in line for line in plan.estimate(experiment(tmp_path)))
