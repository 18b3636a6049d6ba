"""Experiments: how samples get into a run, what a grid holds, and what makes two experiments the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.config import load
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import Experiment
from arat_ray.training.identity import differences
from arat_ray.training.methods import AratSpec, PgdAtSpec
from arat_ray.training.models import Resnet18
from arat_ray.training.optimizers import Sgd
from arat_ray.training.run import Train

ATTACK = {"name": "pgd", "norm": "linf", "epsilon": 0.25, "step_size": 0.0625, "steps": 2}
FILE: dict[str, Any] = {
    "name": "small",
    "train": {
        "dataset": {"name": "digits"},
        "model": {"name": "tiny", "width": 4},
        "epochs": 2,
        "batch_size": 64,
        "seed": 0,
        "attack": ATTACK,
        "method": {"name": "arat", "invariance_weight": 5, "layers": ["bn3"]},
    },
    "validate": {"every": 1, "images": 100, "attack": ATTACK},
    "sampler": {"name": "tpe", "seed": 0},
    "budget": {"trials": 4},
}
LAYERS = {"choice": {"last": ["bn3"], "last-two": ["bn2", "bn3"]}}
PREDICTOR = {"choice": {"none": None, "wide": {"ratio": 1}}}
DEPTH = {"int": [1, 3], "when": {"method.predictor": "wide"}}


def experiment(search: dict[str, Any] | None = None, **fields: Any) -> Experiment:
    return Experiment.model_validate(copy.deepcopy(FILE) | {"search": search or {}} | fields)


def arat(search: dict[str, Any], sampled: dict[str, Any]) -> AratSpec:
    method = experiment(search).resolve(sampled).method
    assert isinstance(method, AratSpec)
    return method


def test_samples_land_at_their_paths_and_nothing_else_changes() -> None:
    search = {"method.invariance_weight": {"loguniform": [1, 300]}, "method.layers": LAYERS}
    method = arat(search, {"method.invariance_weight": 41.5, "method.layers": "last-two"})
    assert (method.invariance_weight, method.layers) == (41.5, ("bn2", "bn3"))
    untouched = method.model_copy(update={"invariance_weight": 5.0, "layers": ("bn3",)})
    assert untouched == experiment().base.method


def test_nothing_sampled_is_the_run_of_train() -> None:
    both = experiment({"method.predictor": PREDICTOR})
    assert both.resolve({}) == both.base


def test_a_path_may_lead_to_what_the_file_leaves_to_its_default() -> None:
    search = {"method.predictor.ratio": {"choice": [0.5]}, "optimizer.learning_rate": {"uniform": [0.01, 1]}}
    run = experiment(search).resolve({"method.predictor.ratio": 0.5, "optimizer.learning_rate": 0.2})
    assert isinstance(run.method, AratSpec)
    assert run.method.predictor is not None
    assert (run.method.predictor.ratio, run.method.predictor.depth) == (0.5, 2)
    assert run.optimizer == Sgd(learning_rate=0.2, momentum=0.9)


def test_presets_can_be_searched_and_paths_go_into_the_one_sampled() -> None:
    train = {"preset": "pgd_at/resnet18", "dataset": {"name": "cifar10"}, "model": {"width": 8}, "seed": 0}
    search = {
        "preset": {"choice": ["trades/resnet18", "mart/resnet18"]},
        "optimizer.learning_rate": {"loguniform": [0.01, 1]},
    }
    given = experiment(search, train=train)
    assert given.base.method == PgdAtSpec()
    trades, mart = (given.resolve({"preset": name}) for name in ("trades/resnet18", "mart/resnet18"))
    assert (trades.method.name, trades.epochs, trades.optimizer.learning_rate) == ("trades", 76, 0.1)
    assert (mart.method.name, mart.epochs, mart.optimizer.learning_rate) == ("mart", 120, 0.01)
    faster = given.resolve({"preset": "mart/resnet18", "optimizer.learning_rate": 0.05})
    assert (faster.optimizer.learning_rate, faster.optimizer.weight_decay) == (0.05, 3.5e-3)
    assert trades.model == mart.model == faster.model == Resnet18(width=8)


def test_a_path_below_a_sampled_subtree_is_put_into_that_subtree() -> None:
    search = {"method.predictor": PREDICTOR, "method.predictor.depth": DEPTH}
    sampled = {"method.predictor.depth": 3, "method.predictor": "wide"}
    predictor = arat(search, sampled).predictor
    assert predictor is not None
    assert (predictor.ratio, predictor.depth) == (1, 3)
    assert arat(search, {"method.predictor": "none"}).predictor is None


def test_resolving_does_not_change_the_experiment() -> None:
    search = {"method.predictor": PREDICTOR, "method.predictor.depth": DEPTH}
    both = experiment(search)
    both.resolve({"method.predictor": "wide", "method.predictor.depth": 3})
    assert both == experiment(search)


def test_whole_methods_can_be_a_choice() -> None:
    methods = {"ours": FILE["train"]["method"], "at": {"name": "pgd_at"}}
    chosen = experiment({"method": {"choice": methods}}).resolve({"method": "at"}).method
    assert chosen == PgdAtSpec()


def test_a_sampled_preset_fills_in_what_the_file_leaves_out() -> None:
    presets = {"method.preset": {"choice": {"paper": None, "code": "official"}}}
    assert arat(presets, {"method.preset": "code"}).noisy_center
    assert not arat(presets, {"method.preset": "paper"}).noisy_center


@pytest.mark.parametrize(
    ("sampled", "message"),
    [
        ({"method.depth": 1}, "'method.depth' is not a path of `search:`"),
        ({"method.layers": "lst"}, "method.layers: 'lst' is none of 'last', 'last-two'"),
    ],
)
def test_a_sample_that_leads_nowhere_is_refused(sampled: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment({"method.layers": LAYERS}).resolve(sampled)


def test_a_grid_holds_every_combination_once_and_respects_conditions() -> None:
    depth = {"choice": [1, 2], "when": {"method.predictor": "wide"}}
    grid = experiment({"method.predictor": PREDICTOR, "method.predictor.depth": depth, "seed": {"choice": [0, 1]}})
    assert list(grid.grid()) == [
        {"method.predictor": "none", "seed": 0},
        {"method.predictor": "none", "seed": 1},
        {"method.predictor": "wide", "method.predictor.depth": 1, "seed": 0},
        {"method.predictor": "wide", "method.predictor.depth": 1, "seed": 1},
        {"method.predictor": "wide", "method.predictor.depth": 2, "seed": 0},
        {"method.predictor": "wide", "method.predictor.depth": 2, "seed": 1},
    ]


@pytest.mark.parametrize(("budget", "trials"), [({}, 2), ({"trials": 1}, 1), ({"trials": 9}, 2)])
def test_a_grid_ends_by_itself_or_with_its_budget(budget: dict[str, Any], trials: int) -> None:
    grid = experiment({"method.layers": LAYERS}, sampler={"name": "grid", "seed": 0}, budget=budget)
    assert grid.trials == trials


def test_a_member_is_a_whole_run_and_other_paths_go_into_it() -> None:
    other = FILE["train"] | {"epochs": 7, "batch_size": 32}
    runs = {"choice": {0: FILE["train"], 8: other}}
    grid = experiment({"seed": {"choice": [5, 6]}, "member": runs}, sampler={"name": "grid", "seed": 0})
    assert list(grid.grid()) == [
        *({"seed": 5, "member": 0}, {"seed": 5, "member": 8}),
        *({"seed": 6, "member": 0}, {"seed": 6, "member": 8}),
    ]
    assert grid.search["member"].kind == "int"
    assert grid.resolve({"seed": 6, "member": 8}) == Train.model_validate(other | {"seed": 6})
    assert grid.resolve({"seed": 5, "member": 0}) == Train.model_validate(FILE["train"] | {"seed": 5})
    with pytest.raises(ValueError, match="member stands for all of `train`, not for 3; give each of its labels a run"):
        experiment({"member": {"choice": [3]}}).resolve({"member": 3})


def test_budget_sampler_resources_and_first_points_do_not_make_another_experiment() -> None:
    search = {"method.layers": LAYERS}
    other = experiment(
        search,
        budget={"hours": 1},
        sampler={"name": "random", "seed": 3},
        resources={"cpus_per_worker": 4},
        first=[{"method.layers": "last"}],
    )
    assert other.identity() == experiment(search).identity()


@pytest.mark.parametrize(
    "changed",
    [
        {"train": FILE["train"] | {"epochs": 3}},
        {"search": {}},
        {"maximize": ["robust_accuracy"]},
        {"validate": FILE["validate"] | {"images": 99}},
        {"name": "other"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_anything_that_is_measured_makes_another_experiment(changed: dict[str, Any]) -> None:
    search = {"method.layers": LAYERS}
    assert experiment(**({"search": search} | changed)).identity() != experiment(search).identity()


def test_spelling_out_a_default_is_the_same_experiment() -> None:
    spelled = experiment(train=FILE["train"] | {"optimizer": {"name": "sgd", "learning_rate": 0.1}})
    assert spelled.identity() == experiment().identity()


def test_a_given_budget_replaces_the_file_s_where_it_is_given() -> None:
    both = experiment(budget={"trials": 4, "hours": 2}).with_budget(trials=8, hours=None).budget
    assert (both.trials, both.hours) == (8, 2)
    assert experiment().with_budget(trials=None, hours=None) == experiment()


def test_without_its_search_an_experiment_is_one_run_of_train() -> None:
    alone = experiment({"method.layers": LAYERS}, first=[{"method.layers": "last-two"}]).without_search()
    assert (alone.trials, alone.search, alone.first) == (1, {}, [])
    assert alone.base == experiment().base


def test_probes_show_every_value_where_it_can_be_sampled() -> None:
    probed = experiment(
        {"method.predictor": PREDICTOR, "method.predictor.depth": DEPTH}, first=[{"method.predictor": "none"}]
    )
    assert list(probes(probed)) == [
        ("search.method.predictor", {"method.predictor": "none"}),
        ("search.method.predictor", {"method.predictor": "wide"}),
        ("search.method.predictor.depth", {"method.predictor": "wide", "method.predictor.depth": 1}),
        ("search.method.predictor.depth", {"method.predictor": "wide", "method.predictor.depth": 3}),
        ("first[0]", {"method.predictor": "none"}),
    ]


def test_probes_of_an_interval_include_one_that_is_not_whole() -> None:
    tried = [sample["seed"] for _, sample in probes(experiment({"seed": {"uniform": [1, 5]}}))]
    assert tried[:2] == [1, 5]
    assert tried[2] % 1


def test_a_path_below_a_searched_one_is_probed_with_each_of_its_values() -> None:
    probed = experiment({"method.predictor": PREDICTOR, "method.predictor.ratio": {"choice": [0.5]}})
    contexts = [sample["method.predictor"] for where, sample in probes(probed) if where.endswith("ratio")]
    assert contexts == ["none", "wide"]


def test_scientific_notation_anchors_and_fractions_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 4}
  epochs: 2
  batch_size: 64
  seed: 0
  optimizer: {weight_decay: 5e-4}
  attack: &attack {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 2}
  method: {name: pgd_at}
search:
  optimizer.weight_decay: {choice: [1e-4, 5e-4]}
  attack.epsilon: {uniform: [4/255, 16/255]}
first:
  - {attack.epsilon: 8/255, optimizer.weight_decay: 5e-4}
validate: {every: 1, images: 100, attack: {<<: *attack, steps: 20}}
sampler: {name: tpe, seed: 0}
budget: {trials: 4}
"""
    )
    read = load(path)
    assert read.validation.attack.label == "pgd-20"
    assert read.search["optimizer.weight_decay"].kind == "float"
    assert read.first == [{"attack.epsilon": 8 / 255, "optimizer.weight_decay": 5e-4}]


OFFICIAL = """
name: official
train: {preset: arat/resnet18, dataset: {name: cifar10}, seed: 0}
search:
  method.invariance_weight: {loguniform: [1, 100]}
  method.balance.images: {choice: [256, 1024]}
  schedule.warmup_epochs: {int: [0, 2]}
  attack.norm: {choice: [linf, l2]}
validate: {every: 10, images: 100, attack: {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 20}}
sampler: {name: random}
budget: {trials: 2}
"""


@pytest.mark.parametrize(("norm", "attack_norm"), [("linf", "train"), ("l2", "eval")])
def test_what_is_sampled_below_a_preset_leaves_the_preset_to_fill_in_the_rest(
    norm: str, attack_norm: str, tmp_path: Path
) -> None:
    path = tmp_path / "official.yaml"
    path.write_text(OFFICIAL)
    run = load(path).resolve(
        {
            "method.invariance_weight": 7.0,
            "method.balance.images": 256,
            "schedule.warmup_epochs": 2,
            "attack.norm": norm,
        }
    )
    method = run.model_dump()["method"]
    assert method["invariance_weight"] == 7
    assert (method["attack_norm"], method["noisy_center"]) == (attack_norm, norm == "linf")
    assert method["balance"] == {"name": "auto", "exponent": 1.0, "images": 256, "sample": "fresh"}
    assert run.model_dump()["schedule"]["decays"] == (0.76, 0.91)


def test_a_file_that_a_preset_completes_otherwise_than_before_is_another_experiment(tmp_path: Path) -> None:
    path = tmp_path / "official.yaml"
    path.write_text(OFFICIAL.replace("seed: 0}", "seed: 0, method: {balance: {images: 512}}}"))
    now = load(path).identity()
    assert list(differences(now, now)) == []
    before = copy.deepcopy(now)
    before["train"]["method"]["balance"]["sample"] = "fixed"  # a preset once dropped what stood beside `images`
    assert list(differences(before, now)) == ['train.method.balance.sample is "fixed" there and "fresh" here']
    path.write_text(OFFICIAL.replace("seed: 0}", "seed: 0, method: {balance: {images: 512, sample: fixed}}}"))
    assert list(differences(before, load(path).identity())) == []
