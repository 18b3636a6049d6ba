"""Domains: what each kind samples, what a sample stands for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from arat_ray.experiment.config import load
from arat_ray.experiment.search import Domain


def domain(**fields: Any) -> Domain:
    return Domain.model_validate(fields)


def fixed(params: dict[str, Any]) -> optuna.Trial:
    """A trial of a real study whose parameters are given."""
    study = optuna.create_study()
    study.enqueue_trial(params)
    return study.ask()


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
@pytest.mark.parametrize("end", [0.5, 8.0])
def test_both_ends_of_an_interval_can_be_sampled(kind: str, end: float) -> None:
    interval = domain(**{kind: [0.5, 8]})
    assert interval.suggest(fixed({"x": end}), "x") == end
    assert interval.value(end) == end


@pytest.mark.parametrize("end", [1, 3])
def test_both_ends_of_an_int_can_be_sampled(end: int) -> None:
    whole = domain(int=[1, 3])
    sampled = whole.suggest(fixed({"x": end}), "x")
    assert (sampled, type(sampled), whole.value(sampled)) == (end, int, end)


def test_int_samples_every_number_and_no_other() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {domain(int=[1, 3]).suggest(study.ask(), "x") for _ in range(50)} == {1, 2, 3}


def test_a_logarithmic_interval_spends_half_of_its_samples_below_the_geometric_mean() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sampled = [domain(loguniform=[1, 100]).suggest(study.ask(), "x") for _ in range(400)]
    assert 160 < sum(value < 10 for value in sampled) < 240


@pytest.mark.parametrize("values", [["8/255", 0.5], {"small": "8/255"}])
def test_a_fraction_in_a_choice_is_a_number(values: Any) -> None:
    choice = domain(choice=values)
    label = "small" if isinstance(values, dict) else 8 / 255
    assert choice.value(label) == pytest.approx(8 / 255)


def test_labels_are_text_or_all_of_them_whole_numbers() -> None:
    numbered = domain(choice={0: "none", 8: "all"})
    assert (numbered.kind, numbered.labels, numbered.value(8)) == ("int", [0, 8], "all")
    for labels in ({0: 1, "a": 2}, {True: 1}, {0.5: 1}, {0: 1, False + 2.0: 2}):
        with pytest.raises(ValidationError, match="a label must be text; YAML reads this one as"):
            domain(choice=labels)


def test_a_fraction_is_a_number_as_an_end_and_where_a_user_writes_a_sample() -> None:
    interval = domain(uniform=["2/255", "8/255"])
    assert interval.ends == (2 / 255, 8 / 255)
    assert interval.value(interval.read("8/255")) == 8 / 255
    assert domain(choice=["4/255", "8/255"]).read("8/255") == 8 / 255


def test_a_number_is_read_as_the_equal_one_of_a_choice() -> None:
    read = domain(choice=[64, 128]).read(64.0)
    assert (read, type(read)) == (64, int)


def test_a_label_that_looks_like_a_fraction_stays_a_label() -> None:
    choice = domain(choice={"8/255": {"epsilon": 8 / 255}})
    assert choice.value(choice.read("8/255")) == {"epsilon": 8 / 255}


def test_labels_are_what_is_sampled_and_values_what_they_stand_for() -> None:
    choice = domain(choice={"last": ["bn3"], "none": None})
    assert choice.suggest(fixed({"x": "none"}), "x") == "none"
    assert (choice.value("none"), choice.value("last")) == (None, ["bn3"])


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"uniform": [0, 1]}, "float"),
        ({"int": [0, 1]}, "int"),
        ({"choice": [1, 2]}, "int"),
        ({"choice": [1, 0.5]}, "float"),
        ({"choice": [True, False]}, "bool"),
        ({"choice": ["a", "b"]}, "string"),
        ({"choice": {"a": 1, "b": 2}}, "string"),
    ],
)
def test_the_column_has_the_type_of_what_is_sampled(fields: dict[str, Any], kind: str) -> None:
    assert domain(**fields).kind == kind


@pytest.mark.parametrize(
    ("when", "sampled", "holds"),
    [
        ({}, {}, True),
        ({"layers": "last"}, {"layers": "last"}, True),
        ({"layers": "last"}, {"layers": "pooled"}, False),
        ({"layers": "last"}, {}, False),
        ({"layers": ["last", "pooled"]}, {"layers": "pooled"}, True),
        ({"layers": "last", "depth": 2}, {"layers": "last", "depth": 1}, False),
        ({"epsilon": "8/255"}, {"epsilon": 8 / 255}, True),
    ],
)
def test_a_condition_holds_where_every_path_was_sampled_as_wanted(
    when: dict[str, Any], sampled: dict[str, Any], holds: bool
) -> None:
    assert domain(uniform=[0, 1], when=when).applies(sampled) is holds


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of"),
        ({"uniform": [0, 1], "int": [0, 1]}, "exactly one of"),
        ({"uniform": [1, 0]}, r"\[1, 0\] is empty; write the lower end first"),
        ({"int": [2, 2]}, "is empty"),
        ({"loguniform": [0, 1]}, "starts above 0"),
        ({"uniform": [0, 1, 2]}, r"two numbers, \[low, high\]"),
        ({"uniform": "0-1"}, r"two numbers, \[low, high\]"),
        ({"int": [0.5, 2]}, "integer"),
        ({"choice": []}, "at least one value"),
        ({"choice": 3}, r"\[value, ...\] or"),
        ({"choice": [["bn3"]]}, "a label"),
        ({"choice": [None, "x"]}, "give null a label"),
        ({"choice": ["x", 1]}, "mixes"),
        ({"choice": [True, 1]}, "mixes"),
        ({"choice": [1, 1.0]}, "stands twice"),
        ({"choice": [float("nan")]}, "finite"),
        ({"choice": {False: 1}}, "reads this one as false, so put it in quotes"),
    ],
)
def test_what_is_no_domain_is_refused_with_the_reason(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        domain(**fields)


@pytest.mark.parametrize(
    ("fields", "sample"),
    [
        ({"uniform": [0, 1]}, 1.01),
        ({"uniform": [0, 1]}, "0.5"),
        ({"uniform": [0, 1]}, True),
        ({"uniform": [0, 1]}, float("nan")),
        ({"int": [1, 3]}, 1.5),
        ({"choice": [1, 2]}, 3),
        ({"choice": {"a": 1}}, 1),
        ({"choice": {"a": 1}}, ["a"]),
        ({"choice": [True, False]}, 1),
        ({"choice": [0, 1]}, True),
        ({"choice": {1: "a", 2: "b"}}, True),
    ],
)
def test_a_sample_outside_of_the_domain_is_refused(fields: dict[str, Any], sample: Any) -> None:
    with pytest.raises(ValueError, match=r"is not within|is none of|whole number"):
        domain(**fields).value(sample)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"loguniform": [1, 300]}, "log-uniform in [1, 300]"),
        ({"uniform": [0, 1]}, "uniform in [0, 1]"),
        ({"int": [1, 3]}, "integer in [1, 3]"),
        ({"choice": {"a": 1, "b": 2}, "when": {"x": ["c", "d"]}}, "one of a, b, where x is c or d"),
    ],
)
def test_a_domain_in_words(fields: dict[str, Any], text: str) -> None:
    assert str(domain(**fields)) == text


FLAGS = """
name: flags
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  epochs: 2
  batch_size: 64
  seed: 0
  sync_batch_norm: FIRST
  method: {name: standard}
search:
  sync_batch_norm: {choice: [FIRST, SECOND]}
  channels_last: {choice: {plain: SECOND, fast: FIRST}}
  optimizer: {choice: {a: {nesterov: FIRST}, b: {nesterov: SECOND}}, when: {sync_batch_norm: FIRST}}
  batch_size: {choice: [32, 64], when: {sync_batch_norm: [FIRST, SECOND]}}
first: [{sync_batch_norm: SECOND, channels_last: fast, batch_size: 32}]
validate: {every: 1, images: 100, attack: {name: pgd, norm: linf, epsilon: 0.1, step_size: 0.1, steps: 1}}
sampler: {name: random}
budget: {trials: 2}
"""


@pytest.mark.parametrize(("first", "second"), [("on", "off"), ("yes", "no"), ("Yes", "NO"), ("True", "false")])
def test_booleans_are_written_in_any_of_yamls_ways_and_are_one_experiment(
    first: str, second: str, tmp_path: Path
) -> None:
    written, plain = tmp_path / "written.yaml", tmp_path / "plain.yaml"
    written.write_text(FLAGS.replace("FIRST", first).replace("SECOND", second))
    plain.write_text(FLAGS.replace("FIRST", "true").replace("SECOND", "false"))
    experiment = load(written)
    assert experiment.identity() == load(plain).identity()
    assert experiment.search["sync_batch_norm"].labels == [True, False]
    assert experiment.search["sync_batch_norm"].kind == "bool"
    assert experiment.resolve(experiment.first[0]).sync_batch_norm is False


@pytest.mark.parametrize("labels", [("no", "yes"), ("on", "off"), ("n", "y"), ("No", "2026-11-27")])
def test_labels_that_yaml_1_1_reads_as_something_else_are_text(labels: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "labels.yaml"
    file.write_text(
        FLAGS.replace("{plain: SECOND, fast: FIRST}", f"{{{labels[0]}: false, {labels[1]}: true}}")
        .replace("channels_last: fast", f"channels_last: {labels[1]}")
        .replace("FIRST", "true")
        .replace("SECOND", "false")
    )
    experiment = load(file)
    assert experiment.search["channels_last"].labels == list(labels)
    assert experiment.search["channels_last"].kind == "string"
    assert experiment.resolve({"channels_last": labels[1]}).channels_last is True


@pytest.mark.parametrize(
    "fields",
    [{"uniform": [0, 1]}, {"loguniform": [0.1, 10]}, {"int": [1, 5]}, {"choice": [0.1, 0.2]}, {"choice": {"a": 1}}],
)
def test_what_a_domain_says_of_itself_is_what_optuna_records_when_it_samples(fields: dict[str, Any]) -> None:
    trial = optuna.create_study().ask()
    domain(**fields).suggest(trial, "x")
    assert trial.distributions["x"] == domain(**fields).distribution()
