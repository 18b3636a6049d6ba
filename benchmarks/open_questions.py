"""What small studies say about ARAT's open questions: which layers, which predictor, and split norms in a ViT.

    ARAT_DATA=FOLDER python benchmarks/open_questions.py results/open
    ARAT_DATA=FOLDER python benchmarks/open_questions.py results/open --only transformer --trials 60

FOLDER has cifar10/train.parquet and cifar10/test.parquet (columns `img`, `label`). Each question is a shipped search
space, with a network, images, epochs and measurements that a CPU can pay for, and a learning rate that rises and falls
within the epochs; the Vision Transformer, which learns slowest, has a smaller epsilon as well. Layers that the small
network has not are others, all else that varies is as shipped. Reckoned to take two cores about an hour each. Of each
knob, what its best value has over its worst in clean accuracy, robust accuracy and the front, by the model of the
learning curves, with 90 % intervals; of each layer, what its inclusion did. Interrupted, the same command goes
on. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import arat_ray
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.importance import Effect, Importance
from arat_ray.results import reader
from arat_ray.study import importances

SPACES = Path(__file__).parent.parent / "search_spaces"
IMAGES, HELD_OUT, EPOCHS, EVERY = 5000, 1000, 9, 3
DATA = {"name": "parquet", "train": "$ARAT_DATA/cifar10/train.parquet", "test": "$ARAT_DATA/cifar10/test.parquet"}
TINY = {"name": "tiny", "width": 16}
VIT = {"name": "vit", "patch": 8, "width": 48, "depth": 4, "heads": 3}


class Question(NamedTuple):
    """A shipped search space, and what is small in it."""

    asked: str
    model: Mapping[str, Any]
    layers: Mapping[str, list[str]]
    """By label: of the small network, in the place of those that are shipped; the first is that of `train`."""
    epsilon: int = 8
    """In 255ths, trained and measured with. With the 8 that are shipped a small Vision Transformer learns to be no more
    robust than chance in so few epochs."""
    steps: int = 10
    """Of the attack in training; together they are 2.5 times as long as epsilon, as shipped."""


QUESTIONS = {
    "layers": Question(
        "Which layers should be regularised, how strongly, and with how wide a predictor?",
        TINY,
        {
            "stage4": ["bn3"],
            "stages3-4": ["bn2", "bn3"],
            "all": ["bn1", "bn2", "bn3"],
            "penultimate": ["avgpool"],
        },
    ),
    "predictor_design": Question("Is a predictor needed, and which?", TINY, {"stage4": ["bn3"]}),
    "transformer": Question(
        "Does a split of the layer norms help a small Vision Transformer?",
        VIT,
        {
            "last-block-norms": ["blocks.3.norm?"],
            "last-half-norms": ["blocks.2.norm?", "blocks.3.norm?"],
            "last-half-blocks": ["blocks.2", "blocks.3"],
            "all-blocks": ["blocks.?"],
            "penultimate": ["avgpool"],
        },
        epsilon=2,
        steps=4,
    ),
}


def small(name: str, trials: int) -> dict[str, Any]:
    """The experiment file of a question: as it is shipped, but for what a CPU cannot pay for."""
    _, model, layers, epsilon, steps = QUESTIONS[name]
    raw: dict[str, Any] = yaml.safe_load((SPACES / f"{name}.yaml").read_text())
    raw["train"] |= {"dataset": {**DATA, "images": IMAGES}, "model": dict(model), "epochs": EPOCHS, "precision": "bf16"}
    raw["train"] |= {"schedule": {"name": "one_cycle"}}
    radius, step = f"{epsilon}/255", f"{2.5 * epsilon / steps:g}/255"
    raw["train"]["attack"] |= {"epsilon": radius, "step_size": step, "steps": steps}
    raw["train"]["method"]["layers"] = next(iter(layers.values()))
    raw["train"].pop("diagnostics", None)
    if "method.layers" in raw["search"]:
        raw["search"]["method.layers"] = {"choice": {label: list(names) for label, names in layers.items()}}
    raw["validate"] |= {"every": EVERY, "images": HELD_OUT}
    raw["validate"]["attack"] |= {"epsilon": radius, "step_size": f"{epsilon / 4:g}/255", "steps": 10}
    if "early_stopping" in raw:
        raw["early_stopping"]["min_epochs"] = EVERY
    raw["budget"] = {"trials": trials}
    raw["resources"] = {"workers": 1, "cpus_per_worker": 1, "concurrent_trials": 2}
    return raw


def experiment(name: str, folder: Path, trials: int) -> Experiment:
    """The same, written to a file in `folder` and read."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(small(name, trials), sort_keys=False))
    return load(file)


def answer(name: str, study: Path) -> Iterator[str]:
    """Markdown. ValueError where there are too few trials for a model of the knobs."""
    found = importances.of(study)
    if isinstance(found, str):
        raise ValueError(f"{study}: {found}")
    table = reader.read(study, "trials")
    status = [row["status"] for row in reader.keep(table, reader.latest_attempt(table)).to_pylist()]
    yield f"## {QUESTIONS[name].asked}"
    yield ""
    yield f"`{name}.yaml`: {len(status)} trials, {status.count('complete')} of them whole."
    yield ""
    yield "| knob | best over worst: clean | robust | the front |"
    yield "|---|---|---|---|"
    for each in found:
        cells = [f"{_value(moved.best)} over {_value(moved.worst)}: {_points(moved.by)}" for moved in each.goals]
        front = f"{_value(each.front.best)} over {_value(each.front.worst)}: {_points(each.front.by, unit=' %')}"
        yield f"| {each.knob} | {' | '.join(cells)} | {front} |"
    yield from members(found)


def members(found: list[Importance]) -> Iterator[str]:
    """What each layer's inclusion did, where layers vary."""
    for each in found:
        if each.members:
            yield from ("", f"| {each.knob}: with it over without | clean | robust | the front |", "|---|---|---|---|")
            for member, (*goals, front) in each.members.items():
                yield f"| {member} | {' | '.join(map(_points, goals))} | {_points(front, unit=' %')} |"


def _points(effect: Effect, unit: str = "") -> str:
    """In points, in bold where the interval does not hold 0."""
    low, high = 100 * effect.low, 100 * effect.high
    text = f"{100 * effect.effect:+.1f}{unit} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", action="append", choices=list(QUESTIONS), help="these alone; repeatable")
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.only or QUESTIONS:
        asked, study = experiment(name, options.results, options.trials), options.results / name
        arat_ray.tune(asked, results=options.results, resume=study.exists())
        print("\n".join([*answer(name, study), ""]), flush=True)


if __name__ == "__main__":
    main()
