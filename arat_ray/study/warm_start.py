"""What earlier studies found out, in the terms of this search, for its sampler to learn from.

Their Parquet tables are read, not their journals: the resolved run of a trial says every value that it had, also of
what was not searched there. A sampler may learn from runs that differ elsewhere (fewer epochs, another network), so
such differences are no error; they are said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from arat_ray import earlier
from arat_ray.experiment import constraints
from arat_ray.experiment.errors import shown
from arat_ray.experiment.spec import Experiment, Sampled
from arat_ray.results import reader
from arat_ray.training.identity import differences, without_places

NAMED_AT_MOST = 5
IGNORED = ("seed",)
"""Not a difference between two runs worth a word."""


class Known(NamedTuple):
    """A finished trial of an earlier study."""

    key: str
    """The same wherever the study's folder lies: its trial_id and when it was started."""
    sampled: Sampled
    goals: list[float]
    violations: dict[str, float]
    """How far it violates each constraint of this search."""


class EarlierTrials(NamedTuple):
    """What one earlier study gives."""

    study: Path
    known: list[Known]
    of: int
    refused: dict[str, tuple[int, str]]
    """Path of a parameter -> how many trials cannot be used for it, and the first one's reason."""
    differing: list[str]
    """Where its runs differ from what is run here, beyond what is searched."""

    def lines(self) -> list[str]:
        """For people: how many were taken, why others were not, what else is different there."""
        lines = [f"learning from {self.study}: {len(self.known)} of {self.of} complete trials"]
        lines += [f"  {count} not: {reason}" for count, reason in self.refused.values()]
        if self.differing:
            more = len(self.differing) - NAMED_AT_MOST
            named = "; ".join(self.differing[:NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")
            lines.append(f"  its runs differ from these: {named}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """For study.json."""
        refused = [reason for _, reason in self.refused.values()]
        taken = [known.key for known in self.known]
        return {"study": f"{self.study.absolute()}", "of": self.of, "taken": taken, "refused": refused}


class _UnusableError(ValueError):
    """Why a trial has no place in this search, and which parameter is at fault."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}{reason}")
        self.path = path


def read(study: Path, experiment: Experiment) -> EarlierTrials:
    """The complete trials of full fidelity of an earlier study that have a place in this search.

    Raises ValueError where it has other goals, was measured in another way, or gives no trial at all.
    """
    learns = experiment.sampler is not None and experiment.sampler.name not in ("random", "grid")
    if not learns:
        name = experiment.sampler.name if experiment.sampler else "none"
        raise ValueError(f"--from {study}: the sampler {name} learns from no trial; use another, or leave --from out")
    goals = reader.metadata(study).goals
    if set(goals) != set(experiment.maximize):
        raise ValueError(
            f"--from {study}: it maximises {', '.join(goals)}, this search {', '.join(experiment.maximize)}; "
            "only a study with the same goals can be learned from"
        )
    rows = _complete(study, goals, [name for name in experiment.constraints if name not in constraints.OF_TRIALS])
    _refuse_measured_otherwise(study, rows, experiment)
    translate = _translator(experiment)
    known: list[Known] = []
    refused: dict[str, tuple[int, str]] = {}
    differing: Counter[str] = Counter()
    for row in rows:
        config = earlier.train(reader.config(study, row))
        try:
            violations = _violations(experiment, row)
            sampled = translate(
                config, {key.removeprefix("param_"): row[key] for key in row if key.startswith("param_")}
            )
        except _UnusableError as error:
            count, first = refused.get(error.path, (0, str(error)))
            refused[error.path] = (count + 1, first)
            continue
        here = without_places(experiment.resolve(sampled).model_dump(mode="json"))
        others = differences(without_places(config), here)
        differing.update(path for path in others if path.split(" ")[0] not in IGNORED)
        key = f"{row['trial_id']}@{row['started_at'].isoformat() if row['started_at'] else row['config_hash']}"
        known.append(Known(key, sampled, [row[goal] for goal in experiment.maximize], violations))
    found = EarlierTrials(study, known, len(rows), refused, list(differing))
    if not known:
        why = "; ".join(reason for _, reason in refused.values()) or "it has none that is complete"
        raise ValueError(f"--from {study}: none of its {len(rows)} complete trials can be used: {why}")
    return found


def translate(experiment: Experiment, config: Mapping[str, Any]) -> Sampled | None:
    """What this search would have sampled for a resolved run; None where it would not."""
    try:
        return _translator(experiment)(config, {})
    except _UnusableError:
        return None


def _violations(experiment: Experiment, row: Mapping[str, Any]) -> dict[str, float]:
    for column in experiment.constraints:
        if row.get(column) is None:
            raise _UnusableError(f"constraints.{column}", " was not measured there")
    return constraints.check(experiment.constraints, row).violations


def _complete(study: Path, goals: Sequence[str], of_epochs: Sequence[str]) -> list[dict[str, Any]]:
    """The last attempts at its trials that are complete, in the order of their numbers.

    Each with its last numbers in these columns of `epochs`, as far as there are any.
    """
    table: pa.Table = reader.read(study, "trials")
    rows = reader.keep(table, reader.latest_attempt(table)).to_pylist()
    usable = [
        row
        for row in rows
        if row["status"] == "complete" and row["is_full_fidelity"] and all(row[goal] is not None for goal in goals)
    ]
    if of_epochs:
        last: dict[str, dict[str, Any]] = {}
        columns = [name for name in of_epochs if name in reader.schema(study, "epochs").names]
        epochs = reader.read(study, "epochs", ["trial_id", "attempt", "epoch", *columns]).to_pylist()
        for each in sorted(epochs, key=lambda each: (each["epoch"], each["attempt"])):
            numbers = {name: each[name] for name in columns if each[name] is not None}
            last.setdefault(each["trial_id"], {}).update(numbers)
        usable = [row | last.get(row["trial_id"], {}) for row in usable]
    return sorted(usable, key=lambda row: int(row["number"]))


def _refuse_measured_otherwise(study: Path, rows: Sequence[Mapping[str, Any]], experiment: Experiment) -> None:
    """Numbers under another attack, or of other images, say nothing about these goals."""
    validate = experiment.validation
    attack = validate.attack
    here = {"attack": attack.label, "norm": attack.norm, "epsilon": attack.epsilon, "split": validate.split}
    for condition, value in here.items():
        for there in dict.fromkeys(row[condition] for row in rows):
            if there != value:
                raise ValueError(
                    f"--from {study}: measured with the {condition} {_exact(there)} there and {_exact(value)} here; "
                    "only a study that was measured alike can be learned from"
                )


def _exact(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _translator(experiment: Experiment) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Sampled]:
    """From a resolved run, and the labels sampled in it, to what this search would have sampled."""
    search = experiment.search

    @lru_cache(maxsize=1024)
    def resolved(choices: tuple[tuple[str, Any], ...], path: str) -> list[Any]:
        """What a choice stands for, with all its defaults; empty where it makes no run."""
        try:
            return [_at(experiment.resolve(dict(choices)).model_dump(mode="json"), path)]
        except (ValueError, KeyError):
            return []

    def label(path: str, value: Any, given: Any, sampled: Sampled) -> Any:
        labels = search[path].labels
        assert labels is not None
        is_labelled = isinstance(search[path].choice, dict)
        if is_labelled and isinstance(given, str):
            if given not in labels:
                raise _UnusableError(path, f": {shown(given)} is none of {', '.join(map(shown, labels))}")
            labels = [given]
        choices = {other: at for other, at in sampled.items() if search[other].labels is not None}
        below = [other.removeprefix(f"{path}.") for other in search if other.startswith(f"{path}.")]
        for each in labels:
            here = resolved(tuple({**choices, path: each}.items()), path)
            if here and _without(without_places(here[0]), below) == _without(without_places(value), below):
                return each
        if is_labelled and isinstance(given, str):
            raise _UnusableError(path, f": {shown(given)} stands for {shown(value)} there and for another value here")
        raise _UnusableError(path, f": {shown(value)} is none of {', '.join(map(shown, labels))}")

    def translate(config: Mapping[str, Any], labels: Mapping[str, Any]) -> Sampled:
        sampled: Sampled = {}
        for path, domain in search.items():
            if not domain.applies(sampled):
                continue
            try:
                value = _at(config, path)
            except KeyError:
                raise _UnusableError(path, " is neither searched nor in `train` there") from None
            if domain.labels is not None:
                sampled[path] = label(path, value, labels.get(path), sampled)
                continue
            try:
                domain.value(value)
            except ValueError as error:
                raise _UnusableError(path, f": {error}") from None
            sampled[path] = float(value) if domain.kind == "float" else value
        return sampled

    return translate


def _at(config: Any, path: str) -> Any:
    """The value at a dotted path; KeyError where there is none."""
    for part in path.split("."):
        if not isinstance(config, Mapping) or part not in config:
            raise KeyError(path)
        config = config[part]
    return config


def _without(value: Any, paths: Sequence[str]) -> Any:
    """A subtree without the values below it that are sampled by themselves."""
    if not isinstance(value, dict):
        return value
    below: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        below.setdefault(head, []).append(rest)
    return {
        key: _without(item, [rest for rest in below.get(key, []) if rest])
        for key, item in value.items()
        if "" not in below.get(key, [])
    }
