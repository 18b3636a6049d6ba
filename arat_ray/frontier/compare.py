"""Two evaluations on the same images: how far apart their accuracies are, and whether chance alone explains it.

The images that both get right or both get wrong say nothing about which is better. Of the others each is a toss, fair
if neither is: McNemar (1947, https://doi.org/10.1007/BF02295996), here with the exact binomial p. The interval of the
difference is the adjusted Wald one of Bonett and Price (2012, https://doi.org/10.3102/1076998611411915).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from arat_ray.digests import sha256_of
from arat_ray.frontier.evaluations import (
    AVERAGES,
    Conditions,
    Evaluation,
    command,
    exact_first,
    listed,
    read,
    refuse_unknown,
)
from arat_ray.results import reader
from arat_ray.storage.names import below
from arat_ray.text import did_you_mean

LEVEL = 0.05
"""Below this p two accuracies are told apart."""


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p of so uneven a split of the images that one of two networks gets right: a fair coin's."""
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    ways = total = 1
    for heads in range(1, fewer + 1):
        ways = ways * (tosses - heads + 1) // heads
        total += ways
    return 2 * total / (1 << tosses)  # of integers, so it is rounded once


def paired_interval(only_a: int, only_b: int, images: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the difference of two accuracies on the same images, as fractions; its centre is shrunk to 0."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    a, b = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    half = z * float(np.sqrt((a + b - (a - b) ** 2) / (images + 2)))
    return max(a - b - half, -1.0), min(a - b + half, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One accuracy of A and of B: how many images both get right, and each alone, of so many."""

    both: int
    only_a: int
    only_b: int
    images: int

    @property
    def a(self) -> float:
        return (self.both + self.only_a) / self.images

    @property
    def b(self) -> float:
        return (self.both + self.only_b) / self.images

    @property
    def difference(self) -> float:
        return (self.only_a - self.only_b) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        return paired_interval(self.only_a, self.only_b, self.images)

    @property
    def p(self) -> float:
        return mcnemar(self.only_a, self.only_b)

    def in_words(self) -> str:
        """What it means."""
        if self.only_a == self.only_b == 0:
            return "A and B get the same images right"
        alone = f"right by A alone {self.only_a}, by B alone {self.only_b}"
        if self.p >= LEVEL:
            return (
                f"A and B cannot be told apart: {alone}; a fair coin would be at least as uneven with p = {self.p:.2g}"
            )
        higher, lower = ("A", "B") if self.difference > 0 else ("B", "A")
        chance = f"p = {self.p:.2g}" if self.p else "p < 1e-300"
        return f"{higher} is above {lower} by {100 * abs(self.difference):.2f} points: {alone}; {chance}"


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Clean and robust accuracy of two evaluations, on the images that both measured."""

    studies: tuple[Path, Path]
    a: Evaluation
    b: Evaluation
    images: int
    clean: Pair
    robust: Pair


def compare(a: Path, b: Path, asked: Conditions) -> PairedTest:
    """Two evaluations, each named as `find` says; where that leaves several, the only one that both have.

    ValueError where they have no image in common or are one, and where their splits or the labels differ.
    """
    (study_a, row_a), (study_b, row_b) = _both(a, b, asked)
    if row_a.evaluation_id == row_b.evaluation_id:
        raise ValueError(f"A and B are the same evaluation, {row_a.evaluation_id}; name another one")
    if row_a.split != row_b.split:
        raise ValueError(
            f"A is of the {row_a.split} split and B of the {row_b.split} split; with --split both are of the same one"
        )
    verdicts = _verdicts(study_a, row_a), _verdicts(study_b, row_b)
    _, of_a, of_b = np.intersect1d(verdicts[0].indices, verdicts[1].indices, assume_unique=True, return_indices=True)
    if not of_a.size:
        raise ValueError("A and B have no image in common; measure both on the same images")
    labels_a, labels_b = verdicts[0].labels[of_a], verdicts[1].labels[of_b]
    if differing := np.flatnonzero(labels_a != labels_b).tolist():
        first = differing[0]
        raise ValueError(
            f"A and B are not of the same data: {len(differing)} of {of_a.size} images have other labels, image "
            f"{verdicts[0].indices[of_a[first]]} has {labels_a[first]} in A and {labels_b[first]} in B"
        )
    return PairedTest(
        studies=(study_a, study_b),
        a=row_a,
        b=row_b,
        images=int(of_a.size),
        clean=_pair(verdicts[0].clean[of_a], verdicts[1].clean[of_b]),
        robust=_pair(verdicts[0].robust[of_a], verdicts[1].robust[of_b]),
    )


def as_json(comparison: PairedTest) -> dict[str, Any]:
    """Both rows, and of each accuracy everything that is known."""
    rows = zip("ab", comparison.studies, (comparison.a, comparison.b), strict=True)
    answer: dict[str, Any] = {name: {"study": f"{study}"} | row._asdict() for name, study, row in rows}
    answer |= {"split": comparison.a.split, "images": comparison.images}
    for name, pair in (("clean_accuracy", comparison.clean), ("robust_accuracy", comparison.robust)):
        low, high = pair.interval
        answer[name] = {"a": pair.a, "b": pair.b, "difference": pair.difference, "low": low, "high": high}
        answer[name] |= {"both": pair.both, "only_a": pair.only_a, "only_b": pair.only_b, "p": pair.p}
    return answer


class _Verdicts(NamedTuple):
    """Of each of N images."""

    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    clean: npt.NDArray[np.bool_]
    robust: npt.NDArray[np.bool_]


def _verdicts(study: Path, row: Evaluation) -> _Verdicts:
    columns = ["index", "label", "clean_correct", "broken_by"]
    table = reader.read_rows(study, "examples", columns, where=("evaluation_id", {row.evaluation_id}))
    if not table.num_rows:
        raise ValueError(f"{study}: no verdicts of {row.evaluation_id} in `examples`; evaluate it again")
    index, label, clean, broken_by = (table[name].to_pylist() for name in columns)
    unbroken = np.array([attack is None for attack in broken_by], dtype=bool)
    return _Verdicts(np.array(index), np.array(label), np.array(clean), np.array(clean) & unbroken)


def _pair(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Pair:
    return Pair(both=int((a & b).sum()), only_a=int((a & ~b).sum()), only_b=int((b & ~a).sum()), images=a.size)


def find(target: Path, asked: Conditions) -> tuple[Path, Evaluation]:
    """The study and the evaluation that a user names: by a checkpoint, by its trial's folder, or as STUDY/ID.

    Of a checkpoint it is the one that fits, the newest under equal conditions; of an id a beginning is enough.
    ValueError where there is none, and where several fit.
    """
    study, rows = _fitting(target, asked)
    return study, _only(study, rows, f"{target} has", asked)


def _both(a: Path, b: Path, asked: Conditions) -> tuple[tuple[Path, Evaluation], tuple[Path, Evaluation]]:
    (study_a, of_a), (study_b, of_b) = _fitting(a, asked), _fitting(b, asked)
    if len(of_a) > 1 or len(of_b) > 1:
        keys = {_key(row) for row in of_a} & {_key(row) for row in of_b}
        if keys:
            of_a, of_b = ([row for row in rows if _key(row) in keys] for rows in (of_a, of_b))
            common = _only(study_a, of_a, f"{a} and {b} both have", asked)
            return (study_a, common), (study_b, next(row for row in of_b if _key(row) == _key(common)))
    one, other = _only(study_a, of_a, f"{a} has", asked), _only(study_b, of_b, f"{b} has", asked)
    are_named = not (a.exists() or b.exists())
    if not are_named and one.checkpoint_sha256 != other.checkpoint_sha256 and one.threat != other.threat:
        raise ValueError(
            f"{a} was measured under {one}, and {b} under {other}: two networks are compared under one attack; measure "
            f"both alike, or name the evaluations to compare these:{_by_id(study_a, [one])}{_by_id(study_b, [other])}"
        )
    return (study_a, one), (study_b, other)


def _key(row: Evaluation) -> tuple[Any, ...]:
    """What two evaluations have in common of which only the networks differ."""
    return row.alike, row.indices_sha256, row.attack_version


def _only(study: Path, rows: Sequence[Evaluation], who: str, asked: Conditions) -> Evaluation:
    if len(rows) > 1:
        words = f" with {asked}" if asked else ""
        raise ValueError(
            f"{who} {len(rows)} evaluations{words}; choose with --attack, --split, --norm, --epsilon, --images or "
            f"--mode, or name one:{_by_id(study, rows)}"
        )
    return rows[0]


def _fitting(target: Path, asked: Conditions) -> tuple[Path, list[Evaluation]]:
    """The study, and the evaluations that fit, one for each of the conditions."""
    if reader.part_files(target / "trials"):
        raise ValueError(
            f"{target} is a study; name one of its checkpoints, {target}/checkpoints/TRIAL/last.pt, "
            f"or one of its evaluations:{_by_id(target, read(target))}"
        )
    if target.is_dir():
        study = _above(target, 2)
        return study, _of_checkpoint(study, study / _checkpoint_of(study, target), asked)
    if target.is_file():
        study = _above(target, 3)
        return study, _of_checkpoint(study, target, asked)
    if not reader.part_files(target.parent / "trials"):
        raise ValueError(f"{target}: there is no such checkpoint, and {target.parent} is no study")
    rows = read(target.parent, dialled=True)
    found = [row for row in rows if row.evaluation_id.startswith(target.name)]
    found = [row for row in found if row.evaluation_id == target.name] or found
    if len(found) != 1:
        problem = f"{len(found)} evaluations begin with {target.name!r}" if found else f"no evaluation {target.name!r}"
        raise ValueError(f"{target.parent}: {problem}; there is{_by_id(target.parent, found or rows)}")
    return target.parent, found


def _of_checkpoint(study: Path, path: Path, asked: Conditions) -> list[Evaluation]:
    if not reader.part_files(study / "trials"):
        raise ValueError(
            f"{path} belongs to no study, so no evaluation of it is kept: it is not STUDY/checkpoints/TRIAL/FILE"
        )
    rows, digest, words = read(study), sha256_of(path), f" with {asked}" if asked else ""
    of_file = [row for row in rows if row.checkpoint_sha256 == digest]
    fitting = [row for row in of_file if asked.fits(row)]
    fitting = [row for row in fitting if row.checkpoint in AVERAGES] or fitting  # raw weights are not deployed
    fitting = exact_first(fitting)
    if fitting:
        return list({_key(row): row for row in fitting}.values())
    refuse_unknown(asked, rows)
    there = listed(of_file) if of_file else f"nothing of this file, and of the study's others {listed(rows)}"
    fix = f"measure it with: {command(path, study, asked)}"
    raise ValueError(f"{path} was not evaluated{words}; there is {there}; {fix}")


def _checkpoint_of(study: Path, folder: Path) -> str:
    """The checkpoint, relative to the study, that the trial of this folder names."""
    if not reader.part_files(study / "trials"):
        raise ValueError(f"{folder} is a folder and not checkpoints/TRIAL of a study")
    trials = reader.read(study, "trials", ["trial_id", "attempt", "checkpoint"])
    latest = reader.keep(trials, reader.latest_attempt(trials))
    named = dict(zip(latest["trial_id"].to_pylist(), latest["checkpoint"].to_pylist(), strict=True))
    trial = folder.absolute().name
    if trial not in named:
        raise ValueError(f"{folder}: {study} has no trial {trial!r}{did_you_mean(trial, named)}")
    if named[trial] is None or not below(study, named[trial]).is_file():
        raise ValueError(
            f"{folder}: the trial's checkpoint is not there; name an evaluation:{_by_id(study, read(study))}"
        )
    return str(named[trial])


def _above(path: Path, levels: int) -> Path:
    return (path if len(path.parents) >= levels else path.absolute()).parents[levels - 1]


def _by_id(study: Path, rows: Iterable[Evaluation]) -> str:
    """A line for each evaluation, which begins with what to call it by."""
    lines = [f"\n  {study / row.evaluation_id}: {row.trial_id} {row.checkpoint}, {row}" for row in rows]
    return "".join(lines) or " none yet"
