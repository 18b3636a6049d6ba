"""The tables of a study as they are written: rows are taken at once, put on disk soon, and survive a failing disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from arat_ray.disk import Disk
from arat_ray.frontier.dominance import non_dominated
from arat_ray.frontier.eligibility import competes
from arat_ray.results import reader
from arat_ray.results.index import Key
from arat_ray.results.log import RowLog
from arat_ray.results.reader import part_files
from arat_ray.results.schema import PART_ROWS, TABLES, Metadata, trials_schema
from arat_ray.results.table import ParquetTable
from arat_ray.text import did_you_mean


class StudyWriter:
    """The trials and epochs of one study, in `<study>/trials` and `<study>/epochs`, and where it stops trials early the
    `decisions` on them.

    `trial`, `epoch` and `decision` only take rows; `tick` writes them when `flush_s` seconds have passed, `flush`
    now. A failing disk does not raise: rows stay in memory until it can be written again (`Disk`).
    """

    def __init__(
        self,
        study: Path,
        *,
        params: Mapping[str, pa.DataType],
        metadata: Metadata,
        warn: Callable[[str], None],
        decisions: bool = False,
        flush_s: float = 2.0,
        part_rows: int | None = None,
        retry_s: tuple[float, float] = (2.0, 60.0),
    ) -> None:
        schema = trials_schema(params)
        for goal in metadata.goals:
            if goal not in schema.names:
                raise ValueError(f"goal {goal!r} is not a column of trials{did_you_mean(goal, schema.names)}")
        if part_files(study / "trials") and (found := reader.metadata(study).goals) != metadata.goals:
            raise ValueError(f"{study} has results for the goals {found}, not {metadata.goals}: use another folder")
        self.study, self.goals, self.flush_s = study, metadata.goals, flush_s
        self.disk = Disk(f"results to {study}", warn=warn, retry_s=retry_s)
        self.log = RowLog(study)
        _check_none_is_lost(study, self.log)
        text = metadata.encode()

        def table(name: str, columns: pa.Schema) -> ParquetTable:
            rows = part_rows or PART_ROWS[name]
            return ParquetTable(study / name, columns, TABLES[name].key, part_rows=rows, metadata=text)

        self.epochs = table("epochs", TABLES["epochs"].schema)
        self.trials = table("trials", schema)
        self.decisions = table("decisions", TABLES["decisions"].schema) if decisions else None
        self._flushed_at = time.monotonic()
        self._attempt: dict[str, int] = {}  # the last attempt at each trial
        self._points: dict[str, tuple[float, ...]] = {}  # goals of the complete, feasible full-fidelity trials
        self._front: set[Key] = set()
        self._recall()

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return sum(table.pending for table in (self.epochs, self.decisions, self.trials) if table is not None)

    @property
    def failing(self) -> bool:
        """Whether rows wait because they could not be written."""
        return self.disk.failing

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Take one row of `epochs`; ValueError for a column that there is not, or a value that is none of its type."""
        self.epochs.upsert(row)
        self.log.take("epochs", row)

    def decision(self, row: Mapping[str, Any]) -> None:
        """Take one row of `decisions`."""
        assert self.decisions is not None
        self.decisions.upsert(row)
        self.log.take("decisions", row)

    def trial(self, row: Mapping[str, Any]) -> None:
        """Take one row of `trials`; keeps `on_front` true on the non-dominated trials, and only on them."""
        self.trials.upsert({**row, "on_front": False})
        self.log.take_trial(row)
        trial_id, attempt = row["trial_id"], row["attempt"]
        if attempt < self._attempt.get(trial_id, attempt):
            return
        was_on_front = (trial_id, self._attempt.get(trial_id)) in self._front
        self._remember(row)
        if was_on_front:  # it may have left, and then others come back
            self._mark(self._points)
        else:  # dominance is transitive: who is not on the front now cannot matter
            self._mark({name for name, _ in self._front} | ({trial_id} & self._points.keys()))
        if (trial_id, attempt) in self._front:
            self.trials.upsert({**row, "on_front": True})

    def tick(self) -> None:
        """Call often: writes when the last writing is `flush_s` ago."""
        if time.monotonic() - self._flushed_at >= self.flush_s:
            self.flush()

    def flush(self, *, final: bool = False) -> bool:
        """Write now, epochs and decisions before the trials that speak of them; whether everything is on disk.

        The log comes first. While the disk fails, only the next planned retry tries again, unless this is the `final`
        call.
        """
        if not self.disk.is_due and not final:
            return self.pending == 0
        self._flushed_at = time.monotonic()
        waiting = self.pending
        try:
            self.log.flush()
            for table in (self.epochs, self.decisions, self.trials):
                if table is not None:
                    table.flush()
        except OSError as error:
            self.disk.fails(error, kept="rows are")
            return False
        self.disk.works(waited=f"{waiting} rows")
        return True

    def _remember(self, row: Mapping[str, Any]) -> None:
        trial_id = row["trial_id"]
        self._attempt[trial_id] = row["attempt"]
        self._points.pop(trial_id, None)
        if competes(row, self.goals):
            self._points[trial_id] = tuple(float(row[goal]) for goal in self.goals)

    def _mark(self, trial_ids: Iterable[str]) -> None:
        """The front is the non-dominated of these trials; correct the rows whose flag that changes."""
        names = list(trial_ids)
        points = np.array([self._points[name] for name in names]).reshape(len(names), len(self.goals))
        front = {(names[i], self._attempt[names[i]]) for i in np.flatnonzero(non_dominated(points))}
        for key in front ^ self._front:
            self.trials.upsert({**self.trials.row(key), "on_front": key in front})
        self._front = front

    def _recall(self) -> None:
        """Go on with the trials that the folder has."""
        columns = ["trial_id", "attempt", "status", "is_full_fidelity", "on_front", "feasible", *self.goals]
        rows = reader.read(self.study, "trials", columns)
        for row, is_latest in zip(rows.to_pylist(), reader.latest_attempt(rows), strict=True):
            if row["on_front"]:
                self._front.add((row["trial_id"], row["attempt"]))
            if is_latest:
                self._remember(row)
        self._mark(self._points)


def _check_none_is_lost(study: Path, log: RowLog) -> None:
    """A table that was there and is not any more would be begun anew, without what the study has measured."""
    for table in ("epochs", "trials"):
        if not log.is_empty and not part_files(study / table):
            raise ValueError(f"{study} has lost its table {table!r}; {reader.rebuild_with(study)}")
