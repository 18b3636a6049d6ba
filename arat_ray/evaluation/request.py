"""What a user asks to be measured, and where the answer is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arat_ray import locks
from arat_ray.attack_names import ENSEMBLES, attack_words
from arat_ray.evaluation.accuracy import Report
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.pixels import radius
from arat_ray.results import evaluation_records, reader
from arat_ray.results.reading import record_of
from arat_ray.results.schema import PART_ROWS, TABLES
from arat_ray.results.table import ParquetTable
from arat_ray.storage.names import below
from arat_ray.text import command, did_you_mean
from arat_ray.training.attacks import SPECS, Attack, spec_of
from arat_ray.training.checkpoint import dial_range, load
from arat_ray.training.dial import ONE_BRANCH


def attack_from(
    name: str,
    *,
    norm: str,
    epsilon: str | None,
    steps: int | None = None,
    step_size: str | None = None,
    mode: str = "exact",
) -> Attack | Ensemble:
    """The attack of command-line words. Raises ValueError naming the word that is missing or cannot be."""
    if name not in attack_words():
        raise ValueError(f"--attack: no attack {name!r}{did_you_mean(name, attack_words())}")
    if epsilon is None:
        raise ValueError("--epsilon is missing: the radius in pixel units, such as 8/255; no radius is usual enough")
    given = {key: value for key, value in (("steps", steps), ("step_size", step_size)) if value is not None}
    fields = SPECS[name].model_fields if name in SPECS else {}
    foreign = {"steps", "step_size"} - {*fields}
    if foreign & {*given}:
        takers = ", ".join(other for other, spec in SPECS.items() if foreign <= {*spec.model_fields})
        options = "--steps and --step-size are" if len(foreign) > 1 else f"--{foreign.pop().replace('_', '-')} is"
        raise ValueError(f"{options} for {takers}; what {name} does is in its name")
    if mode != "exact" and name not in ENSEMBLES:
        raise ValueError(f"--mode {mode} is for {', '.join(ENSEMBLES)}; leave it out with {name}")
    ball = {"norm": norm, "epsilon": radius(epsilon)}
    try:
        if name in ENSEMBLES:
            return Ensemble.model_validate({"name": name, "mode": mode, **ball})
        return spec_of(name).asked(name, ball | given)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + "-".join(map(str, problem["loc"] or ("epsilon",))).replace("_", "-")
        raise ValueError(f"{option}: {problem['msg'].removeprefix('Value error, ')}") from error


def checkpoints_of(
    target: Path, *, front: bool, fetch: Callable[[Sequence[Path]], None] = lambda paths: None
) -> list[Path]:
    """The checkpoint that `target` is; of a study, those of its complete trials, or of those on its front.

    `fetch` brings them here from where the study lies. Raises ValueError where there is none, and where the study's
    table names one that is not there, or outside of the study.
    """
    if not target.is_dir():
        if front:
            raise ValueError(f"--front is for a study, and {target} is none; name its folder or leave --front out")
        fetch([target])
        return [target]
    if not reader.part_files(target / "trials"):
        found = sorted(target.glob("**/last.pt"))
        hint = f"; it holds {found[0]}" if found else ""
        raise ValueError(f"{target} is a folder and no study; name a study or one checkpoint{hint}")
    columns = ["trial_id", "attempt", "number", "status", "is_full_fidelity", "on_front", "checkpoint"]
    trials = reader.read(target, "trials", columns)
    latest = zip(trials.to_pylist(), reader.latest_attempt(trials), strict=True)
    complete = [row for row, last in latest if last and row["status"] == "complete" and row["is_full_fidelity"]]
    chosen = [row for row in complete if row["on_front"] or not front]
    if complete and not chosen:
        shown = command("arat-ray", "pareto", target, "--infeasible")
        raise ValueError(f"none of {target}'s {len(complete)} complete trials is on its front; see why with: {shown}")
    if not chosen:
        raise ValueError(f"{target} has no complete trial yet: none of its {trials.num_rows} rows; go on with it first")
    try:
        paths = [below(target, row["checkpoint"]) for row in sorted(chosen, key=lambda row: int(row["number"]))]
    except ValueError as error:
        raise ValueError(f"{target}/trials names a checkpoint that is not the study's: {error}") from error
    fetch(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{target} lacks {len(missing)} of the {len(paths)} checkpoints to measure, {missing[0]} first; "
            "copy its checkpoints/ here as well"
        )
    return paths


def with_dials(
    checkpoints: Sequence[Path], dials: Sequence[float], *, averaged: bool, note: Callable[[str], None]
) -> list[Path]:
    """Those of the checkpoints that have a clean branch; `note` gets where each is defined, and those that have none.

    Raises ValueError where none has one, and where a network is not defined at one of the `dials`.
    """
    domains = {path: dial_range(load(path, mmap=True), averaged=averaged) for path in checkpoints}
    without = [path for path, domain in domains.items() if domain is None]
    if len(without) == len(checkpoints):
        raise ValueError(f"{without[0]} {ONE_BRANCH}" + f"; nor has any other of {len(without)}" * (len(without) > 1))
    if without:
        note(f"left out, for want of a clean branch: {', '.join(map(str, without))}")
    for path, domain in domains.items():
        for dial in dials:
            if domain is not None and dial not in domain:
                raise ValueError(f"dial {dial:g}: {path} is defined {domain}; choose settings there")
        if domain is not None:
            note(f"{path}: the dial is defined {domain}")
    return [path for path in checkpoints if path not in without]


def record(report: Report) -> Path | None:
    """Add the rows to `evaluations` and `examples` of the checkpoint's study; that study, if there is one."""
    if report.checkpoint is None:
        return None
    study = report.checkpoint.absolute().parent.parent.parent
    if not reader.part_files(study / "trials"):
        return None
    (study / "evaluations").mkdir(exist_ok=True)
    with locks.held(study / "evaluations" / ".lock", wait=True):  # another evaluation may be writing
        evaluation_records.write(study, report.rows(), report.example_rows())
        mark = f"{record_of(study)}:0"
        _add(study, "examples", report.example_rows(), mark)  # first: no accuracy is there without its verdicts
        _add(study, "evaluations", report.rows(), mark)
    return study


def _add(study: Path, name: str, rows: Sequence[Mapping[str, Any]], mark: str) -> None:
    kind = TABLES[name]
    text = reader.metadata(study).encode()
    table = ParquetTable(study / name, kind.schema, kind.key, part_rows=PART_ROWS[name], metadata=text)
    for row in rows:
        table.upsert(row)
    table.flush(mark)
