"""The evaluations of a study, which of them are asked for, and those that a front takes for its trials' goals.

An evaluation is a row of the `evaluations` table under an attack, together with the row whose attack is "none", of the
same weights on the same images: its clean accuracy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from arat_ray import text
from arat_ray.attack_names import attack_words, name_and_steps
from arat_ray.digests import sha256_of
from arat_ray.pixels import format_pixels
from arat_ray.results import reader
from arat_ray.results.schema import FITTED
from arat_ray.text import did_you_mean

CONDITIONS = ("attack", "norm", "epsilon", "split", "images")
AVERAGES = ("swa", "ema")
NO_ATTACK = "none"


class Evaluation(NamedTuple):
    """A row of `evaluations` under an attack, and how many images are right without one."""

    evaluation_id: str
    trial_id: str
    checkpoint: str
    checkpoint_sha256: str
    dial: float | None
    split: str
    attack: str
    attack_version: str
    norm: str | None
    epsilon: float | None
    images: int
    correct: int
    indices_sha256: str
    warnings: str | None
    epoch: int | None
    clean_correct: int

    @property
    def conditions(self) -> tuple[str, str | None, float | None, str, int]:
        """By the names of CONDITIONS."""
        return self.attack, self.norm, self.epsilon, self.split, self.images

    @property
    def threat(self) -> tuple[str, str | None, float | None]:
        """Attack, norm and epsilon in hundredths of 1/255: 8/255 may also have been written as 0.03137."""
        return self.attack, self.norm, None if self.epsilon is None else round(255 * self.epsilon, 2)

    @property
    def alike(self) -> tuple[str, str | None, float | None, str, int]:
        """`conditions` that tell evaluations apart, whichever way epsilon was written."""
        return *self.threat, self.split, self.images

    @property
    def mode(self) -> str:
        """fast, or exact as everything else is."""
        return "fast" if self.attack_version.endswith(", fast") else "exact"

    def __str__(self) -> str:
        """`pgd-20 linf 8/255, test split, 1,000 images`."""
        parts = [self.attack, self.norm, None if self.epsilon is None else format_pixels(self.epsilon)]
        fast = ", fast mode" if self.mode == "fast" else ""
        dial = "" if self.dial is None else f", dial {self.dial:g}"
        return f"{' '.join(filter(None, parts))}{fast}{dial}, {self.split} split, {self.images:,} images"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions that choose among evaluations, by the names of their options; None is no condition.

    The attack is its name in the table, such as pgd-20; pgd stands for any number of steps.
    """

    attack: str | None = None
    split: str | None = None
    norm: str | None = None
    epsilon: float | None = None
    images: int | None = None
    mode: str | None = None
    """How an ensemble ran, exact or fast; where that is not said, exact ones count before fast ones."""

    def __post_init__(self) -> None:
        if self.attack == NO_ATTACK:
            raise ValueError("--attack none: clean accuracy is shown beside that under any attack; name an attack")

    def __bool__(self) -> bool:
        return self != Conditions()

    def __str__(self) -> str:
        """As the options were written: `--attack pgd --epsilon 8/255`."""
        words = {name: value for name, value in vars(self).items() if value is not None}
        return " ".join(f"--{name} {format_pixels(v) if isinstance(v, float) else v}" for name, v in words.items())

    def fits(self, row: Evaluation) -> bool:
        return (
            self.attack in (None, row.attack, name_and_steps(row.attack)[0])
            and self.split in (None, row.split)
            and self.norm in (None, row.norm)
            and (self.epsilon is None or isclose(self.epsilon, row.epsilon or 0, rel_tol=1e-4))
            and self.images in (None, row.images)
            and self.mode in (None, row.mode)
        )


def read(study: Path, *, dialled: bool = False) -> list[Evaluation]:
    """All of a study's networks as deployed, the oldest first; none where nothing was evaluated yet.

    With `dialled` also those of settings of their dials.
    """
    if not reader.part_files(study / "evaluations"):
        return []
    columns = Evaluation._fields[:-1]
    table = reader.read(study, "evaluations", columns)
    clean: dict[tuple[str, str, float | None, str, str], int] = {}
    found = []
    for row in zip(*(table[name].to_pylist() for name in columns), strict=True):
        _, _, weights, digest, dial, split, attack, _, _, _, _, correct, indices, *_ = row
        what = (weights, digest, dial, split, indices)
        if dial is not None and not dialled:
            continue
        if attack == NO_ATTACK:
            clean[what] = correct
        elif what in clean:
            found.append(Evaluation._make((*row, clean[what])))
    return found


def exact_first(rows: list[Evaluation]) -> list[Evaluation]:
    """Of those of one network, without the fast ones of which there is an exact one under equal conditions."""
    exact = {row.alike for row in rows if row.mode == "exact"}
    return [row for row in rows if row.mode == "exact" or row.alike not in exact]


def in_place(
    studies: Sequence[Path], trials: Sequence[pa.Table], asked: Conditions, *, dials: bool = False
) -> list[pa.Table]:
    """The trials of each study that have the evaluation, its accuracies and conditions in the place of their own.

    An evaluation counts for its trial when it measured the checkpoint that the trial names, as deployed: the average
    where there is one, as `config` says. Of several under equal conditions exact ones count before fast ones, then the
    newest. Its warnings take the place of the column `config`. With `dials` each setting of its dial that was measured
    alike is a row of its own, told by the column `dial`, and `mode` says how
    its attack ran; the setting 0 counts where there is no deployed one.
    ValueError where the attack or the split is not said, where a study has no such evaluation, and where those of all
    trials have not the same conditions.
    """
    refuse_unknown(asked, [row for study in studies for row in read(study, dialled=dials)])
    _refuse_half_a_question(asked, studies, dials=dials)
    fitting = []
    for study, table in zip(studies, trials, strict=True):
        rows = read(study, dialled=dials)
        fitting.append(of_trials(study, table, [row for row in rows if asked.fits(row)]))
        if not fitting[-1]:
            raise ValueError(
                f"{study}: no checkpoint that its trials name was evaluated with {asked}; there is {listed(rows)}; "
                f"measure it with: {command(study, study, asked)}"
            )
    if dials and not any(dial is not None for of_study in fitting for _, dial in of_study):
        measure = " and ".join(command(study, study, asked, verb="dial") for study in studies)
        raise ValueError(f"--dial: no setting of a dial was measured with {asked}; measure some with: {measure}")
    _refuse_mixed([row for of_study in fitting for rows in of_study.values() for row in rows], asked)
    newest = [{which: rows[-1] for which, rows in of_study.items()} for of_study in fitting]
    for name in ("attack_version", "indices_sha256"):
        counts = Counter(getattr(row, name) for of_study in newest for row in of_study.values())
        if len(counts) > 1:
            what = "points" if dials else "trials"
            there = "; ".join(f"{value[:40]} ({count} of the {what})" for value, count in counts.items())
            again = " and ".join(command(study, study, asked) for study in studies)
            modes = {row.mode for of_study in newest for row in of_study.values()}
            choose = "choose with --mode, or " if len(modes) > 1 else ""
            raise ValueError(
                f"the evaluations with {asked} differ in {name}: {there}; {choose}measure all anew with: {again}"
            )
    pairs = zip(trials, newest, strict=True)
    return [_with_evaluations(table, of_study, dials=dials) for table, of_study in pairs]


def refuse_unknown(asked: Conditions, rows: Iterable[Evaluation]) -> None:
    """An attack that was neither measured nor can be is misspelled."""
    there = sorted({row.attack for row in rows})
    name = asked.attack
    if name is None or name in there or name_and_steps(name)[0] in attack_words():
        return
    evaluated = ", ".join(there) or "nothing yet"
    raise ValueError(
        f"--attack: no attack {name!r} (evaluated: {evaluated}){did_you_mean(name, [*there, *attack_words()])}"
    )


def _refuse_half_a_question(asked: Conditions, studies: Iterable[Path], *, dials: bool) -> None:
    """Robust accuracy never goes without its attack and its split."""
    missing = [f"--{name}" for name in ("attack", "split") if getattr(asked, name) is None]
    if missing:
        there = "; ".join(f"{study} has {listed(read(study, dialled=dials))}" for study in studies)
        given = f"{asked}" or "--dial"
        raise ValueError(
            f"--attack and --split belong together, and beside {given} there is no {' and no '.join(missing)}: {there}"
        )


def _refuse_mixed(rows: Sequence[Evaluation], asked: Conditions) -> None:
    """One front needs one answer, also from each single trial."""
    there = zip(*{row.alike for row in rows}, strict=True)
    differing = [name for name, values in zip(CONDITIONS, there, strict=True) if len(set(values)) > 1]
    if differing:
        options = " and ".join(f"--{name}" for name in differing)
        raise ValueError(
            f"the evaluations with {asked} differ in {', '.join(differing)}: {listed(rows)}; choose with {options}"
        )


def of_trials(
    study: Path, trials: pa.Table, rows: Iterable[Evaluation]
) -> dict[tuple[str, float | None], list[Evaluation]]:
    """By trial_id and dial, the evaluations of the network that the trial deploys, the oldest first.

    What was measured of last.pt before a whole trial was whole is not of that network.
    """
    needed = ("trial_id", "checkpoint", "config", "epochs_done", "is_full_fidelity")
    columns = (trials[name].to_pylist() for name in needed)
    by_trial: dict[str, list[Evaluation]] = {}
    for row in rows:
        by_trial.setdefault(row.trial_id, []).append(row)
    found: dict[tuple[str, float | None], list[Evaluation]] = {}
    for trial, checkpoint, config, epochs, is_whole in zip(*columns, strict=True):
        if checkpoint and trial in by_trial:
            is_averaged = '"averaging": {' in (config or "")
            at = {None, epochs} if is_whole and _stem(checkpoint) == "last" else None
            own = [row for row in by_trial[trial] if not _is_fitted(row) and (at is None or row.epoch in at)]
            of_trial = _of_named(study, checkpoint, own, is_averaged=is_averaged)
            is_raw = is_averaged and checkpoint.endswith("/last.pt")
            names = {f"{FITTED}{name}" for name in (*AVERAGES, *([] if is_raw else [_stem(checkpoint)]))}
            for name in names & {row.checkpoint for row in by_trial[trial]}:
                rows_of_it = [row for row in by_trial[trial] if row.checkpoint == name and row.dial is not None]
                of_trial += _of_file((study / checkpoint).with_name(f"{name}.pt"), rows_of_it)
            is_deployed = any(row.dial is None for row in of_trial)
            for row in of_trial:
                if not (is_deployed and row.dial == 0):
                    found.setdefault((trial, row.dial), []).append(row)
    return {which: exact_first(alike) for which, alike in found.items()}


def _of_named(study: Path, checkpoint: str, rows: list[Evaluation], *, is_averaged: bool) -> list[Evaluation]:
    """Those of one of a trial's checkpoints; its file is read only where the labels leave it open."""
    stem = _stem(checkpoint)
    if len(rows) == 1 and rows[0].checkpoint == stem and not is_averaged:
        return rows
    rows = [row for row in rows if row.checkpoint in (stem, *AVERAGES)]
    rows = _of_file(study / checkpoint, rows)
    averages = [row for row in rows if row.checkpoint in AVERAGES]
    is_raw = is_averaged and stem == "last"  # best.pt may be older than the average
    return averages if averages or is_raw else rows


def _of_file(path: Path, rows: list[Evaluation]) -> list[Evaluation]:
    """Those of the file as it is; it is read only where there are several; without it the newest count."""
    if len({row.checkpoint_sha256 for row in rows}) > 1:
        digest = sha256_of(path) if path.is_file() else rows[-1].checkpoint_sha256
        rows = [row for row in rows if row.checkpoint_sha256 == digest]
    return rows


def _is_fitted(row: Evaluation) -> bool:
    return row.checkpoint.startswith(FITTED)


def _stem(checkpoint: str) -> str:
    return checkpoint.rpartition("/")[2].removesuffix(".pt")


def _with_evaluations(
    trials: pa.Table, found: Mapping[tuple[str, float | None], Evaluation], *, dials: bool
) -> pa.Table:
    place = {trial_id: number for number, trial_id in enumerate(trials["trial_id"].to_pylist())}
    rows = sorted(found.values(), key=lambda row: (place[row.trial_id], row.dial or 0.0))
    trials = reader.take(trials, [place[row.trial_id] for row in rows])
    columns: dict[str, list[Any]] = {
        "clean_accuracy": [row.clean_correct / row.images for row in rows],
        "robust_accuracy": [row.correct / row.images for row in rows],
    }
    columns |= {name: [value] * len(rows) for name, value in zip(CONDITIONS, rows[0].conditions, strict=True)}
    for name in columns.keys() & set(trials.column_names):
        trials = reader.replace(trials, name, columns[name])
    trials = reader.replace(trials, "config", [row.warnings for row in rows])
    if dials:
        files = zip(trials["checkpoint"].to_pylist(), rows, strict=True)
        own = [f"{PurePosixPath(file).parent / row.checkpoint}.pt" if _is_fitted(row) else file for file, row in files]
        trials = reader.replace(trials, "checkpoint", own)
        trials = reader.append(trials, "dial", pa.float64(), [row.dial for row in rows])
        trials = reader.append(trials, "mode", pa.string(), [row.mode for row in rows])
    return trials.rename_columns(["warnings" if name == "config" else name for name in trials.column_names])


def command(target: Path, study: Path, asked: Conditions, *more: object, verb: str = "evaluate") -> str:
    """What would measure it; norm and epsilon that are not asked for are those of the study's own measurements."""
    attack, steps = name_and_steps(asked.attack or "ATTACK")
    own = reader.read(study, "trials", ["norm", "epsilon"])
    norms = {asked.norm} if asked.norm else set(own["norm"].to_pylist()) - {None}
    epsilons = {asked.epsilon} if asked.epsilon else set(own["epsilon"].to_pylist())
    conditions: dict[str, Any] = {
        "attack": attack,
        "steps": steps,
        "norm": asked.norm or (None if norms <= {"linf"} else " or ".join(sorted(norms))),
        "epsilon": format_pixels(*epsilons) if len(epsilons) == 1 and None not in epsilons else "EPSILON",
        "split": asked.split or "SPLIT",
        "images": asked.images,
        "mode": asked.mode,
    }
    options = [word for name, value in conditions.items() if value for word in (f"--{name}", value)]
    return text.command("arat-ray", verb, target, *more, *options)


def with_autoattack(study: Path, *, norm: str | None, epsilon: float, split: str) -> str:
    """The command that measures the front of a study under the attack that papers report."""
    words = ["--front", "--attack", "autoattack", *(["--norm", norm] if norm not in (None, "linf") else [])]
    return text.command("arat-ray", "evaluate", study, *words, "--epsilon", format_pixels(epsilon), "--split", split)


def listed(rows: Iterable[Evaluation]) -> str:
    """Under which conditions the weights of how many trials were measured, and whether at settings of their dials."""
    trials: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        how = "" if row.dial is None else ", dialled"
        trials.setdefault((str(row._replace(dial=None)), row.checkpoint, how), set()).add(row.trial_id)
    parts = [
        f"{row} ({weights} of {len(ids)} trial{'s' * (len(ids) > 1)}{how})"
        for (row, weights, how), ids in trials.items()
    ]
    return "; ".join(parts) or "none yet"
