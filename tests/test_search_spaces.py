"""Every shipped experiment file is a test case: it loads, says what it costs, and what it samples can be trained."""

from __future__ import annotations

import itertools
import os
import re
import time
from functools import lru_cache
from pathlib import Path

import optuna
import pytest
import torch

from arat_ray.cli import main
from arat_ray.experiment.config import load
from arat_ray.experiment.plan import describe
from arat_ray.experiment.spec import Experiment
from arat_ray.results.schema import TABLES
from arat_ray.study.samplers import make_sampler
from arat_ray.training.attacks import Pgd
from arat_ray.training.averaging import Swa
from arat_ray.training.methods import METHODS, Arat, AratSpec, TradesSpec
from arat_ray.training.methods.arat import AutoBalance, PredictorSpec
from arat_ray.training.models import Resnet18, WideResnet
from arat_ray.training.optimizers import Sgd
from arat_ray.training.run import Train
from arat_ray.training.split_norm import SplitNorm

ROOT = Path(__file__).parent.parent
SPACES = sorted(ROOT.glob("search_spaces/*.yaml"))
FILES = SPACES + sorted(ROOT.glob("benchmarks/**/*.yaml"))
CIFAR10 = "ARAT_CIFAR10"
TRIALS = 20
SECONDS = 20


@lru_cache
def loaded(path: Path) -> tuple[Experiment, float]:
    """An experiment, and the CPU seconds that reading and checking it took."""
    began = time.process_time()
    return load(path), time.process_time() - began


def space_called(name: str) -> Experiment:
    return loaded(ROOT / f"search_spaces/{name}.yaml")[0]


def resolved(name: str) -> list[Train]:
    experiment = space_called(name)
    return [experiment.resolve(sampled) for sampled in experiment.grid()]


def arat(run: Train) -> AratSpec:
    assert isinstance(run.method, AratSpec)
    return run.method


def one_but_for(runs: list[Train], *keys: str) -> bool:
    return len({run.model_dump_json(exclude=set(keys)) for run in runs}) == 1


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT)))
def file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each file; one that needs the Parquet CIFAR-10 is skipped where there is none."""
    path: Path = request.param
    if f"${CIFAR10}" in path.read_text():
        folder = Path(os.environ.get(CIFAR10) or ROOT.parent / "shared" / "data" / "cifar10")
        if not (folder / "train.parquet").exists():
            pytest.skip(f"set {CIFAR10} to a folder with train.parquet and test.parquet")
        monkeypatch.setenv(CIFAR10, str(folder))
    return path


def test_file_loads_and_can_be_described(file: Path) -> None:
    experiment, _ = loaded(file)
    assert next(describe(experiment)).startswith(f"{experiment.name}: ")


def test_file_opens_with_its_command_and_its_cost(file: Path) -> None:
    lines = file.read_text().splitlines()
    opening = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    verb = "tune" if loaded(file)[0].search else "train"
    assert re.search(rf"^#   .*arat-ray {verb} {re.escape(str(file.relative_to(ROOT)))}$", opening, re.MULTILINE)
    assert "# Cost: " in opening


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_results_land_where_the_file_is_called(space: Path) -> None:
    assert loaded(space)[0].name == space.stem


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_every_sampled_trial_can_be_trained(space: Path) -> None:
    experiment, _ = loaded(space)
    study = optuna.create_study(
        directions=["maximize"] * len(experiment.maximize), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for point in experiment.first:
        study.enqueue_trial(point)
    for number in range(TRIALS):
        sampled = experiment.suggest(study.ask())
        if number < len(experiment.first):
            assert sampled == experiment.first[number]
        assert experiment.resolve(sampled) == experiment.resolve(dict(reversed(sampled.items())))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_the_file_s_own_sampler_proposes_trials_that_resolve(space: Path) -> None:
    experiment, _ = loaded(space)
    study = optuna.create_study(
        directions=["maximize"] * len(experiment.maximize), sampler=make_sampler(experiment.sampler)
    )
    for number in range(15):
        trial = study.ask()
        experiment.resolve(experiment.suggest(trial))
        study.tell(trial, [number / 15] * len(experiment.maximize))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_commands_in_a_file_s_header_exist(space: Path) -> None:
    header = "\n".join(line for line in space.read_text().splitlines() if line.startswith("#"))
    for verb, rest in re.findall(r"^#   arat-ray (\w+)((?:.*\\\n)*.*)", header, re.MULTILINE):
        known = {option for parameter in main.commands[verb].params for option in parameter.opts}
        assert set(re.findall(r" (--[a-z-]+)", rest)) <= known


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_loading_takes_seconds(space: Path) -> None:
    assert loaded(space)[1] < SECONDS


def test_the_ablation_is_every_combination_of_the_three_mechanisms_with_three_seeds() -> None:
    runs = resolved("ablation")
    mechanisms = [
        (method.stop_gradient, method.split_norm, method.predictor is None, run.seed)
        for run in runs
        for method in [arat(run)]
    ]
    assert sorted(mechanisms) == sorted(itertools.product(["clean", "none"], [False, True], [False, True], range(3)))
    assert one_but_for(runs, "method", "seed")
    assert runs[0].diagnostics is not None


def test_columns_that_the_ablation_s_header_explains_are_columns_of_the_epochs_table() -> None:
    text = (ROOT / "search_spaces/ablation.yaml").read_text()
    explained = re.findall(r"^#     ([a-z_, ]+):", text, re.MULTILINE)
    columns = {column for line in explained for column in line.split(", ")}
    assert {"gradient_cosine", "bn_mismatch", "predicted_drift"} <= columns
    for column in columns:
        assert {column, f"{column}_by_layer"} <= set(TABLES["epochs"].schema.names)


def test_the_baselines_are_all_methods_on_one_budget_with_three_seeds() -> None:
    runs = resolved("baselines")
    assert {run.method.name for run in runs} == set(METHODS)
    asymmetric = [run for run in runs if isinstance(run.method, TradesSpec) and run.method.stop_gradient == "clean"]
    assert [run.seed for run in asymmetric] == [0, 1, 2]
    assert len(runs) == 3 * (len(METHODS) + 1)
    assert one_but_for(runs, "method", "seed")


@pytest.mark.parametrize("name", ["trades", "mart", "lbgat", "pgd_at"])
def test_a_baseline_s_loss_is_that_of_its_preset(name: str) -> None:
    experiment = space_called("baselines")
    method = experiment.resolve({"method": name, "seed": 0}).method.model_dump()
    published = Train.model_validate({"preset": f"{name}/resnet18", "dataset": {"name": "cifar10"}, "seed": 0}).method
    apart = {"repeat_clean_forward", "teacher"}  # moves statistics only; the same network as f, as the header says
    assert {k: v for k, v in method.items() if k not in apart} == published.model_dump(exclude=apart)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_predictors_of_one_linear_layer_have_no_width_norm_or_activation_to_search(depth: int) -> None:
    experiment = space_called("predictor_design")
    trial = optuna.trial.FixedTrial(
        {
            "method.predictor": "mlp",
            "method.predictor.depth": depth,
            "method.predictor.ratio": 1.0,
            "method.predictor.norm": "layer",
            "method.predictor.activation": "gelu",
            "method.invariance_weight": 30,
        }
    )
    sampled = experiment.suggest(trial)  # type: ignore[arg-type]
    assert ("method.predictor.ratio" in sampled) == (depth > 1)
    assert len(sampled) == (6 if depth > 1 else 3)


def test_the_transformer_s_layers_are_in_its_blocks_and_its_layer_norms_split() -> None:
    experiment = space_called("transformer")
    domain = experiment.search["method.layers"]
    for label in domain.choice:
        with torch.device("meta"):
            method = experiment.resolve({"method.layers": label, "method.split_norm": True}).build()
        assert isinstance(method, Arat)
        assert len(method.layers) == {"all-blocks": 9, "last-third-norms": 6}.get(label, len(method.layers))
        splits = [module for module in method.model.modules() if isinstance(module, SplitNorm)]
        assert len(splits) == 2 * 9 + 1


# Table 3 of https://arxiv.org/abs/2402.14648 as the authors' repository shows it: method, clean, AutoAttack
PUBLISHED = {
    "cifar10_resnet18": """
        AT 83.77 42.42; TRADES 81.25 48.54; MART 82.15 47.83; LBGAT 85.00 +- 0.47 48.85 +- 0.46; ARREST 86.63 46.14;
        ARAT 87.82 +- 0.19 49.02 +- 0.47; ARAT+SWA 86.44 +- 0.05 50.28 +- 0.14""",
    "cifar10_wrn34_10": """
        AT 86.06 46.26; TRADES 84.33 51.75; MART 86.10 49.11; LBGAT 88.19 +- 0.11 52.56 +- 0.34; ARREST 90.24 50.20;
        ARAT 90.89 +- 0.22 50.77 +- 0.50; ARAT+SWA 90.06 +- 0.08 54.03 +- 0.31""",
    "cifar100_resnet18": """
        AT 55.82 19.50; TRADES 54.74 23.60; MART 54.54 26.04; LBGAT 65.87 +- 0.74 23.19 +- 0.74;
        ARAT 67.51 +- 0.13 23.38 +- 0.19; ARAT+SWA 67.17 +- 0.18 24.36 +- 0.20""",
    "cifar100_wrn34_10": """
        AT 59.83 23.94; TRADES 57.61 26.88; MART 57.75 24.89; LBGAT 68.17 +- 0.56 26.92 +- 0.32; ARREST 73.05 24.32;
        ARAT 72.51 +- 0.51 24.18 +- 0.46; ARAT+SWA 72.37 +- 0.13 27.31 +- 0.13""",
}


@pytest.mark.parametrize("run", PUBLISHED)
def test_published_numbers_stand_in_the_file_that_reproduces_them(run: str) -> None:
    text = (ROOT / f"search_spaces/reproduce_{run}.yaml").read_text()
    table = re.findall(r"^#   ([A-Z+]+) +(\d\d\.\d\d.*)$", text, re.MULTILINE)
    shown = [" ".join([name, *numbers.split()]) for name, numbers in table]
    assert shown == [" ".join(row.split()) for row in PUBLISHED[run].split(";")]


@pytest.mark.parametrize("run", PUBLISHED)
def test_a_reproduction_is_the_paper_s_run(run: str) -> None:
    runs = resolved(f"reproduce_{run}")
    assert [train.seed for train in runs] == [0, 1, 2, 3, 4]
    train = runs[0]
    dataset, is_wide = run.split("_")[0], run.endswith("wrn34_10")
    assert train.dataset.name == dataset
    assert train.dataset.images is None
    assert (train.dataset.crop_padding, train.dataset.flip) == (4, True)
    assert train.dataset.num_classes == int(dataset.removeprefix("cifar"))
    assert isinstance(train.model, WideResnet if is_wide else Resnet18)

    spec = arat(train)
    assert spec.invariance_weight == (100 if is_wide else 30)
    assert (spec.noisy_center, spec.split_norm) == (True, True)
    assert (spec.stop_gradient, spec.distance, spec.attack_norm) == ("clean", "cosine", "train")
    assert spec.predictor == PredictorSpec(ratio=0.25, depth=2, norm="batch", activation="relu")
    assert spec.balance == AutoBalance(exponent=1, images=1024, sample="fresh")
    with torch.device("meta"):
        method = train.build()
    assert isinstance(method, Arat)
    blocks = [f"block3.layer.{block}.relu{i}" for block in range(5) for i in (1, 2)]
    official = [*blocks, "avgpool"] if is_wide else [f"layer4.{block}.bn{i}" for block in (0, 1) for i in (1, 2)]
    assert list(method.layers) == official

    assert train.attack == Pgd(norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=10)
    assert (train.epochs, train.batch_size, str(train.precision)) == (100, 128, "fp32")
    assert train.optimizer == Sgd(learning_rate=0.1, momentum=0.9, weight_decay=5e-4, nesterov=False)
    rates = [0.1 * train.schedule.factor(epoch=epoch, epochs=100, progress=epoch / 100) for epoch in range(100)]
    assert rates == pytest.approx([0.02] + [0.1] * 75 + [0.01] * 15 + [0.001] * 9)
    assert (train.augmentation, train.weight_perturbation, train.gradient_clipping) == (None, None, None)
    assert (train.label_smoothing, train.sync_batch_norm) == (0, False)

    swa, steps = train.averaging, 50_000 // 128
    assert swa == Swa(start=0.75, every=500, norm_images=50_000)
    every_step = range(1, 100 * steps + 1)
    taken = [step for step in every_step if swa.takes(step, steps_per_epoch=steps, steps=100 * steps)]
    assert (len(taken), taken[0]) == (20, 75 * steps + 250)

    validation = space_called(f"reproduce_{run}").validation
    assert (validation.split, validation.images, validation.held_out) == ("test", 10_000, 0)
    assert [epoch for epoch in range(1, 101) if validation.is_due(epoch, 100)] == [100]
    assert str(validation.attack) == "pgd-20 linf 8/255"


@pytest.mark.parametrize("network", ["resnet18", "wrn34_10"])
def test_weights_before_averaging_are_those_of_the_preset_without(network: str) -> None:
    given = {"dataset": {"name": "cifar10"}, "seed": 0}
    averaged, plain = (Train.model_validate({"preset": f"{name}/{network}", **given}) for name in ("arat_swa", "arat"))
    assert averaged.model_copy(update={"preset": plain.preset, "averaging": None}) == plain
