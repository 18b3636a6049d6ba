"""Values that are valid and surely a slip are told; what is published and what is shipped is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from arat_ray.experiment import slips
from arat_ray.experiment.config import load
from arat_ray.training.presets import PRESETS

ROOT = Path(__file__).parents[2]
FILE = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  epochs: 10
  batch_size: 64
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.05, steps: 10}
  method: {name: trades}
search:
  attack.epsilon: {uniform: [0.05, 0.3]}
validate: {every: 2, images: 100, attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.05, steps: 20}}
sampler: {name: random}
budget: {trials: 2}
"""


def found(folder: Path, *changes: tuple[str, str]) -> list[str]:
    text = FILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "small.yaml"
    path.write_text(text)
    return list(slips.found(load(path)))


def test_a_sensible_file_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (
            "optimizer: {learning_rate: 1000}",
            "train.optimizer.learning_rate: 1000 makes training diverge; 0.01 to 0.5 is",
        ),
        ("optimizer: {name: adamw, learning_rate: 0.5}", "learning_rate: 0.5 makes training diverge; 1e-4 to 1e-2 is"),
        ("optimizer: {learning_rate: 1e-9}", "train.optimizer.learning_rate: 1e-09 learns next to nothing"),
        ("optimizer: {weight_decay: 5}", "train.optimizer.weight_decay: 5 leaves no weights"),
        ("optimizer: {momentum: 0.9999}", "train.optimizer.momentum: 0.9999 averages over thousands of steps"),
        ("schedule: {name: piecewise, warmup_epochs: 10}", "train.schedule.warmup_epochs: 10 of 10 epochs leaves none"),
        ("label_smoothing: 0.9", "train.label_smoothing: 0.9 leaves the label less than its share"),
        ("gradient_clipping: 1e-6", "train.gradient_clipping: 1e-06 leaves next to no gradient"),
    ],
)
def test_a_slip_in_a_field_is_told_with_what_is_usual(field: str, says: str, tmp_path: Path) -> None:
    (line,) = found(tmp_path, ("  seed: 0\n", f"  seed: 0\n  {field}\n"))
    assert says in line


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs: 10", "epochs: 1000000000", "train.epochs: 1000000000 is far more than any run takes"),
        ("{name: trades}", "{name: trades, beta: 1000}", "train.method.beta: 1000 drowns the cross-entropy"),
        ("epsilon: 0.2", "epsilon: 0.6", "train.attack.epsilon: 0.6 in linf makes any image plain grey"),
        ("epsilon: 0.2, step_size: 0.05, steps: 20", "epsilon: 1e-4, step_size: 2e-5, steps: 20", "half a grey level"),
        ("step_size: 0.05, steps: 20", "step_size: 0.9, steps: 20", "validate.attack.step_size: 0.9 leaps to and fro"),
        ("step_size: 0.05, steps: 20", "step_size: 0.002, steps: 20", "less than a quarter of the way to epsilon 0.2"),
        ("steps: 20", "steps: 5000", "validate.attack.steps: 5000 are far more than any attack takes"),
        ("steps: 20", "steps: 5", "validate.attack.steps: 5 are fewer than the 10 trained with"),
        (
            "linf, epsilon: 0.2, step_size: 0.05, steps: 20",
            "l2, epsilon: 0.5, step_size: 0.1, steps: 20",
            "l2 is not the",
        ),
        ("[0.05, 0.3]", "[0.05, 0.9]", "search.attack.epsilon: with attack.epsilon: 0.9: train.attack.epsilon: 0.9 in"),
        ("attack.epsilon: {uniform: [0.05, 0.3]}", "attack.steps: {int: [5, 40]}", "20 are fewer than the 40"),
        (
            "attack.epsilon: {uniform: [0.05, 0.3]}",
            "optimizer.learning_rate: {loguniform: [0.01, 1000]}",
            "search.optimizer.learning_rate: with optimizer.learning_rate: 1000",
        ),
    ],
)
def test_a_slip_anywhere_is_told_once_with_its_key(old: str, new: str, says: str, tmp_path: Path) -> None:
    lines = found(tmp_path, (old, new))
    assert sum(says in line for line in lines) == 1, lines


def test_a_radius_of_linf_in_l2_is_told(tmp_path: Path) -> None:
    l2 = "norm: l2, epsilon: 8/255, step_size: 2/255, steps: "
    lines = found(
        tmp_path,
        ("norm: linf, epsilon: 0.2, step_size: 0.05, steps: 10", l2 + "10"),
        ("norm: linf, epsilon: 0.2, step_size: 0.05, steps: 20", l2 + "20"),
    )
    assert [line.split(";")[0] for line in lines] == [
        "train.attack.epsilon: 8/255 is a radius of linf",
        "validate.attack.epsilon: 8/255 is a radius of linf",
    ]


def test_many_slips_are_cut_short(tmp_path: Path) -> None:
    choice = ", ".join(str(10 * n) for n in range(1, 31))
    old = "attack.epsilon: {uniform: [0.05, 0.3]}"
    lines = found(tmp_path, (old, f"optimizer.learning_rate: {{choice: [{choice}]}}"))
    assert len(lines) == slips.TOLD_AT_MOST + 1
    assert lines[-1] == "and 20 more like these"


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.stem)
def test_no_shipped_file_has_a_slip(file: Path) -> None:
    assert list(slips.found(load(file))) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_no_published_run_has_a_slip(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    validate = FILE[FILE.index("validate:") : FILE.index("sampler")].replace(
        "0.2, step_size: 0.05", "8/255, step_size: 2/255"
    )
    path.write_text(f"name: published\ntrain: {{preset: {preset}, dataset: {{name: cifar10}}, seed: 0}}\n{validate}")
    assert list(slips.found(load(path))) == []
