"""Every shipped experiment file is a test case: it loads, says what it costs, and what it samples can be trained."""

from __future__ import annotations

import os
import re
from pathlib import Path

import optuna
import pytest

from arat_ray.experiment.config import load
from arat_ray.experiment.plan import describe
from arat_ray.study.ledger import make_sampler

ROOT = Path(__file__).parent.parent
SPACES = sorted(ROOT.glob("search_spaces/*.yaml"))
FILES = SPACES + sorted(ROOT.glob("benchmarks/**/*.yaml"))
CIFAR10 = "ARAT_CIFAR10"
TRIALS = 20


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
    experiment = load(file)
    assert next(describe(experiment)).startswith(f"{experiment.name}: ")


def test_file_opens_with_its_command_and_its_cost(file: Path) -> None:
    lines = file.read_text().splitlines()
    opening = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    verb = "tune" if load(file).search else "train"
    assert re.search(rf"^#   .*arat-ray {verb} {re.escape(str(file.relative_to(ROOT)))}$", opening, re.MULTILINE)
    assert "# Cost: " in opening


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_results_land_where_the_file_is_called(space: Path) -> None:
    assert load(space).name == space.stem


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.stem)
def test_every_sampled_trial_can_be_trained(space: Path) -> None:
    experiment = load(space)
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
    experiment = load(space)
    study = optuna.create_study(
        directions=["maximize"] * len(experiment.maximize), sampler=make_sampler(experiment.sampler)
    )
    for number in range(15):
        trial = study.ask()
        experiment.resolve(experiment.suggest(trial))
        study.tell(trial, [number / 15] * len(experiment.maximize))
