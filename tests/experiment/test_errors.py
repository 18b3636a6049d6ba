"""A bad file gives one line: the file, the key as written, the value, and what to do; never a traceback."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from arat_ray.experiment import network
from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError

GOOD = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 4}
  epochs: 2
  batch_size: 64
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 0.25, step_size: 0.0625, steps: 2}
  method:
    name: arat
    invariance_weight: 5
    layers: ["bn3"]
search:
  method.invariance_weight: {loguniform: [1, 30]}
  method.layers: {choice: {last: ["bn3"], pooled: ["avgpool"]}}
first:
  - {method.invariance_weight: 5, method.layers: last}
validate: {every: 1, images: 100, attack: {name: pgd, norm: linf, epsilon: 0.25, step_size: 0.0625, steps: 2}}
sampler: {name: tpe, seed: 0}
budget: {trials: 4}
resources: {workers: 1}
"""
ATTACK = "  attack: {name: pgd, norm: linf, epsilon: 0.25, step_size: 0.0625, steps: 2}\n"
WEIGHT = "{loguniform: [1, 30]}"
LAYERS = '{choice: {last: ["bn3"], pooled: ["avgpool"]}}'

BAD = {  # what is wrong -> (text in the good file, what stands there instead, what the one line says)
    "top": ("name: small", "nmae: small", "unknown key 'nmae'; did you mean 'name'?"),
    "train": ("  epochs: 2", "  epoch: 2", "train: unknown key 'epoch'; did you mean 'epochs'?"),
    "method": ("    layers:", "    layer:", "train.method: unknown key 'layer'; did you mean 'layers'?"),
    "domain": ("loguniform", "logunifrom", "invariance_weight: unknown key 'logunifrom'; did you mean 'loguniform'?"),
    "price": ("trials: 4", "trials: 4, usd: 5", "budget.usd: 5 needs a price; write `resources: {price: {usd_per"),
    "goal without settings": (
        "sampler:",
        "maximize: [dial_hypervolume]\nsampler:",
        "hypervolume is measured at settings of",
    ),
    "stall": ("trials: 4", "stal: 4", "budget: unknown key 'stal'; did you mean 'stall'?"),
    "resources": ("workers: 1", "worker: 1", "resources: unknown key 'worker'; did you mean 'workers'?"),
    "type": ("epochs: 2", "epochs: many", "train.epochs: must be a whole number, not 'many'"),
    "too small": ("epochs: 2", "epochs: 0", "train.epochs: must be at least 1, not 0"),
    "missing": ("  epochs: 2\n", "", "train.epochs: missing"),
    "missing in method": ('    layers: ["bn3"]\n', "", "train.method.layers: missing"),
    "missing name": ("name: tiny, ", "", "train.model: missing `name`"),
    "no attack": (ATTACK, "", "train: method 'arat' needs `attack:`"),
    "pixels": (
        "epsilon: 0.25, step",
        "epsilon: 8, step",
        "train.attack: epsilon is 8, but images lie in [0, 1]; did you",
    ),
    "method name": ("name: arat", "name: aratt", "train.method: unknown name 'aratt'; did you mean 'arat'?"),
    "string for list": ('layers: ["bn3"]', "layers: bn3", "train.method.layers: must be a list; write ['bn3']"),
    "string for mapping": (
        "model: {name: tiny, width: 4}",
        "model: tiny",
        "train.model: must be a mapping; write {name: t",
    ),
    "null": ("model: {name: tiny, width: 4}", "model:", "train.model: must be a mapping"),
    "pattern": ('layers: ["bn3"]', 'layers: ["bn9"]', "train: layer pattern 'bn9' matches no layer of this model"),
    "pattern in search": (
        '["avgpool"]',
        '["avgpol"]',
        "search.method.layers: with method.layers: 'pooled': layer pattern",
    ),
    "path": ("  method.invariance_weight:", "  method.invariance_wieght:", "did you mean 'method.invariance_weight'?"),
    "path with train": ("  method.layers:", "  train.method.layers:", "is not in train; did you mean 'method.layers'?"),
    "when not searched": (WEIGHT, "{uniform: [1, 2], when: {seed: 1}}", "weight.when: 'seed' is not searched above it"),
    "when below": (WEIGHT, "{uniform: [1, 2], when: {method.layers: last}}", "'method.layers' stands below it; move"),
    "when label": (LAYERS, "{choice: {a: [bn3]}, when: {method.invariance_weight: 5}}", "is an interval"),
    "reversed": ("[1, 30]", "[30, 1]", "search.method.invariance_weight: [30, 1] is empty; write the lower end first"),
    "impossible end": ("[1, 30]", "[low, 30]", "search.method.invariance_weight.loguniform[0]: must be a number"),
    "impossible choice": (
        WEIGHT,
        "{choice: [5, -1]}",
        "with method.invariance_weight: -1: train.method.invariance_weight",
    ),
    "outside": (
        "weight: 5, method",
        "weight: 50, method",
        "first[0]: method.invariance_weight: 50 is not within [1, 30]",
    ),
    "boolean label": (
        "last: [",
        "false: [",
        "search.method.layers.choice: a label must be text; YAML reads this one as false",
    ),
    "twice": ("  seed: 0\n", "  seed: 0\n  seed: 1\n", "line 9, column 3: key 'seed' stands twice"),
    "syntax": ("epochs: 2", "epochs: [2", "line 7, column 13: "),
    "grid": ("name: tpe", "name: grid", "search.method.invariance_weight: a grid needs `choice`, not an interval"),
    "no budget": ("budget: {trials: 4}\n", "", "budget: missing; write `budget: {trials: 64}`"),
    "no sampler": ("sampler: {name: tpe, seed: 0}\n", "", "sampler: missing; write `sampler: {name: curves, seed: 0}`"),
    "half a gpu": ("workers: 1", "workers: 2, gpus_per_worker: 0.5", "resources: gpus_per_worker 0.5 with 2 workers"),
    "uneven": ("workers: 1", "workers: 3", "train: batch_size 64 cannot be shared out over 3 workers"),
    "long in bytes": (
        "name: small",
        f"name: {84 * chr(0x6F22)}",
        "name: becomes a folder: use at most 249 bytes, not 252 (its 84 characters have more than one each)",
    ),
    "slash": ("name: small", "name: a/b", "name: 'a/b' becomes a folder: use letters, digits, '-', '_' and '.'"),
    "goal": ("budget:", "maximize: accuracy\nbudget:", "maximize: must be a list; write ['accuracy']"),
    "same goal": ("budget:", "maximize: [clean_accuracy, clean_accuracy]\nbudget:", "maximize: a goal stands twice"),
    "huge": ("width: 4", "width: 1000000000000", "train.model.width: must be at most 1024, not 1000000000000"),
    "anchor of itself": ("name: small", "name: &a [*a]", "line 2, column "),
    "python": ("name: small", "name: !!python/name:os.system x", "line 2, column "),
    "number": ("name: small", "name: 2024", "name: must be text, in quotes where YAML reads it as something else, not"),
    "unit": ("trials: 4", "hours: 1:30", "line 21, column 17: budget.hours: 1:30 is no decimal number; write"),
    "thousands": ("trials: 4", "trials: 1_000", "line 21, column 18: budget.trials: 1_000 is no decimal number; write"),
    "not finite": ("[1, 30]", "[1, .inf]", "search.method.invariance_weight.loguniform[1]: .inf is no finite number"),
    "long": ("name: small", f"name: {'测' * 84}", "bytes, not 252 (its 84 characters have more than one each)"),
    "control": ("name: small", "name: \x00", "is not YAML: unacceptable character"),
}


def problems(text: str | bytes, tmp_path: Path) -> list[str]:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ExperimentError) as raised:
        load(path)
    assert str(raised.value).splitlines() == [f"{path}: {problem}" for problem in raised.value.problems]
    return raised.value.problems


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load(path).name == "small"


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_has_a_line_that_names_the_key_as_written(what: str, tmp_path: Path) -> None:
    good, bad, says = BAD[what]
    assert good in GOOD
    found = problems(GOOD.replace(good, bad), tmp_path)
    assert any(says in problem for problem in found), found


def test_several_mistakes_are_all_said_at_once(tmp_path: Path) -> None:
    found = problems(
        GOOD.replace("epochs: 2", "epochs: x").replace("seed: 0\n  attack", "seed: -1\n  attack"), tmp_path
    )
    assert [problem.split(":")[0] for problem in found] == ["train.epochs", "train.seed"]


def test_a_subtree_without_a_searched_key_is_refused_with_the_way_out(tmp_path: Path) -> None:
    predictor = (
        "{choice: {none: null, wide: {ratio: 1}}}\n"
        "  method.predictor.depth: {int: [1, 3]}\n"
        "  method.invariance_weight: {loguniform: [1, 30]}"
    )
    text = GOOD.replace("method.invariance_weight: {loguniform: [1, 30]}", f"method.predictor: {predictor}")
    (problem,) = problems(text, tmp_path)
    assert problem.startswith("search.method.predictor.depth: with method.predictor: 'none'")
    assert problem.endswith("a `when` can leave this out")


def test_a_first_point_whose_condition_fails_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace(
        "first:\n", "  batch_size: {choice: [32, 64], when: {method.layers: pooled}}\nfirst:\n"
    ).replace("method.layers: last}", "method.layers: last, batch_size: 32}")
    assert problems(text, tmp_path) == ["first[0]: batch_size is given, but its `when` does not hold; leave it out"]


@pytest.mark.parametrize("text", ["", "- name: a", "hello", "42"])
def test_what_is_no_mapping_is_no_experiment(text: str, tmp_path: Path) -> None:
    assert problems(text, tmp_path) == ["is not an experiment: it must hold `name:`, `train:` and `validate:`"]


def test_missing_folder_and_binary_files_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ExperimentError, match="cannot be read: Is a directory"):
        load(tmp_path)
    assert problems(b"\xff\xfe\x00", tmp_path) == ["cannot be read: is not UTF-8 text"]


def _paths(node: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else []
    return [path for key, value in children for path in [(*above, key), *_paths(value, (*above, key))]]


VALUES: list[Any] = [None, [], {}, {1: 2}, "text", "8/0", -1, True, float("nan"), [[1]]]


@pytest.mark.parametrize("above", yaml.safe_load(GOOD))
def test_no_value_anywhere_gives_anything_but_a_message_about_its_key(above: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    paths = [where for where in _paths(yaml.safe_load(GOOD)) if where[0] == above]
    for where, value in itertools.product(paths, VALUES):
        raw = yaml.safe_load(GOOD)
        node = raw
        for part in where[:-1]:
            node = node[part]
        node[where[-1]] = value
        path.write_text(yaml.safe_dump(raw))
        try:
            load(path)
        except ExperimentError as error:
            for problem in error.problems:
                assert "\n" not in problem
                assert "Input should" not in problem, (where, value)
                assert "pydantic" not in problem, (where, value)
                assert len(problem) < 400, (where, value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [("width=1_0", "--set width=1_0: 1_0 is no decimal number; write 10"), ("width=[", "--set width=[: while parsing")],
)
def test_settings_of_a_model_are_read_by_the_same_rules(setting: str, says: str) -> None:
    assert network.model_from("tiny", ["width=010"]).width == 10
    with pytest.raises(ValueError, match=re.escape(says)):
        network.model_from("tiny", [setting])
