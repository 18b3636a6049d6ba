"""What a user asks to be measured, and where the answer is kept."""

from __future__ import annotations

import fcntl
from pathlib import Path

from pydantic import ValidationError

from arat_ray.evaluation.accuracy import Report
from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.results.table import Table
from arat_ray.spec import parse_fraction
from arat_ray.training.attacks import Attack, Pgd


def attack_from(name: str, *, norm: str, epsilon: str, steps: int, step_size: str | None) -> Attack:
    """The attack of command-line words. Raises ValueError naming the word that cannot be."""
    assert name == "pgd", name
    try:
        radius = parse_fraction(epsilon)
        size = step_size if step_size is not None else float(str(radius)) / 4
        return Pgd.model_validate({"name": name, "norm": norm, "epsilon": radius, "step_size": size, "steps": steps})
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + "-".join(map(str, problem["loc"] or ("epsilon",))).replace("_", "-")
        raise ValueError(f"{option}: {problem['msg']}") from error
    except ValueError:
        raise ValueError(f"--epsilon: {epsilon!r} is no number; write it as 8/255 or 0.031") from None


def record(report: Report) -> Path | None:
    """Add the rows to `evaluations` of the study that the checkpoint belongs to; that study, if there is one."""
    study = report.checkpoint.absolute().parent.parent.parent
    if not reader.part_files(study / "trials"):
        return None
    table, folder = TABLES["evaluations"], study / "evaluations"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another evaluation may be writing
        evaluations = Table(folder, table.schema, table.key, metadata=reader.metadata(study).encode())
        for row in report.rows():
            evaluations.upsert(row)
        evaluations.flush()
    return study
