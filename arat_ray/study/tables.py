"""The tables of a running study: a view of its record, which says the same and more (`study.record`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.frontier.eligibility import competes
from arat_ray.frontier.growing_front import GrowingFront
from arat_ray.results import reader
from arat_ray.results.growing_table import GrowingTable
from arat_ray.results.index import Key
from arat_ray.results.reader import part_files
from arat_ray.results.schema import PART_ROWS, TABLES, Metadata, trials_schema
from arat_ray.results.table import ParquetTable
from arat_ray.text import did_you_mean


class StudyTables:
    """`trials` and `epochs` of one study, and where it stops trials early its `decisions`.

    `trial`, `epoch` and `decision` only take rows, `flush` writes them. Rows of epochs and decisions never change,
    those of trials do. Opening a folder that has tables goes on with them; ValueError where one cannot be read, or is
    of another study. A `front` that is given grows elsewhere; `recall` is to be called once it is that of the study.
    """

    def __init__(
        self,
        study: Path,
        *,
        params: Mapping[str, pa.DataType],
        metadata: Metadata,
        decisions: bool = False,
        part_rows: int | None = None,
        front: GrowingFront | None = None,
    ) -> None:
        schema = trials_schema(params)
        for goal in metadata.goals:
            if goal not in schema.names:
                raise ValueError(f"goal {goal!r} is not a column of trials{did_you_mean(goal, schema.names)}")
        if part_files(study / "trials") and (found := reader.metadata(study).goals) != metadata.goals:
            raise ValueError(f"{study} has results for the goals {found}, not {metadata.goals}: use another folder")
        self.study, self.goals = study, metadata.goals
        text = metadata.encode()

        def options(name: str) -> dict[str, Any]:
            return {"key": TABLES[name].key, "part_rows": part_rows or PART_ROWS[name], "metadata": text}

        self.epochs = GrowingTable(study / "epochs", TABLES["epochs"].schema, **options("epochs"))
        self.trials = ParquetTable(study / "trials", schema, **options("trials"))
        self.decisions = None
        if decisions:
            self.decisions = GrowingTable(study / "decisions", TABLES["decisions"].schema, **options("decisions"))
        self.front = GrowingFront() if front is None else front
        self._keeps_front = front is None
        self._marked: dict[str, Key] = {}
        """By trial_id, the key of the rows that say `on_front`."""
        if self._keeps_front:
            self.recall()

    def belong_to(self, record: str) -> None:
        """Have each part say so from the first one on, also where it is full before all rows are there."""
        for table in (self.epochs, self.decisions, self.trials):
            if table is not None:
                table.mark = table.mark or f"{record}:0"

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return sum(table.pending for table in (self.epochs, self.decisions, self.trials) if table is not None)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Take a row of `epochs`; ValueError for a column that there is not, or a value that is none of its type."""
        self.epochs.append(row)

    def decision(self, row: Mapping[str, Any]) -> None:
        """Take a row of `decisions`."""
        assert self.decisions is not None
        self.decisions.append(row)

    def trial(self, row: Mapping[str, Any]) -> None:
        """Take a row of `trials`, in the place of an earlier one; `on_front` is true on the front, and only there."""
        name, key = row["trial_id"], (row["trial_id"], row["attempt"])
        is_competing = competes(row, self.goals)
        if is_competing and self._keeps_front and name not in self.front.points:
            self.front.add(name, [float(row[goal]) for goal in self.goals])
        is_on_front = is_competing and name in self.front.points
        self.trials.upsert({**row, "on_front": is_on_front})
        if is_on_front:
            self._marked[name] = key
            self._unmark(self._marked.keys() - self.front.points.keys())

    def flush(self, mark: str = "") -> None:
        """Put all rows on disk, epochs and decisions before the trials that speak of them; OSError where that fails.

        `mark` says from what they are made.
        """
        for table in (self.epochs, self.decisions, self.trials):
            if table is not None:
                table.flush(mark)

    def _unmark(self, names: Iterable[str]) -> None:
        for name in list(names):
            key = self._marked.pop(name)
            self.trials.upsert({**self.trials.row(key), "on_front": False})

    def recall(self) -> None:
        """Go on with the front that the folder has, or that was given, and correct the marks of what is on disk."""
        columns = ["trial_id", "attempt", "status", "is_full_fidelity", "on_front", "feasible", *self.goals]
        keys: dict[str, Key] = {}
        for row in reader.read(self.study, "trials", columns).to_pylist():
            key = (row["trial_id"], row["attempt"])
            if row["on_front"]:
                self._marked[row["trial_id"]] = key
            if competes(row, self.goals):
                keys[row["trial_id"]] = key
                if self._keeps_front:
                    self.front.add(row["trial_id"], [row[goal] for goal in self.goals])
        self._unmark(self._marked.keys() - self.front.points.keys())
        for name in (self.front.points.keys() - self._marked.keys()) & keys.keys():
            self._marked[name] = keys[name]
            self.trials.upsert({**self.trials.row(keys[name]), "on_front": True})
