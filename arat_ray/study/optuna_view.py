"""Optuna's journal of a study, written beside for `optuna-dashboard`, and never read: the record is what counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from arat_ray import whole_files

PROPOSAL = "curves:proposal"
"""Optuna's system attribute of a trial by which `curves` says why it proposed it: `by` default, start, random or gain;
for gain also the goals `expected` at its end, as they are maximised, their `deviation`, and the `gain` in hypervolume.
"""
FILE = Path("journal") / "optuna.log"

Entry = dict[str, Any]


class OptunaView(BaseJournalBackend):
    """Entries in memory, for the one study that reads them, and in a file as soon as it can be written.

    The file is another one at each start: it appears with the first `publish`. One that cannot be written is tried
    again with the next entry, without a word, because nothing is lost with it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._fresh: list[Entry] = []
        """Entries that Optuna has not read yet, the first of which is its number `_first`."""
        self._first = 0
        self._waiting: list[bytes] = []
        self._is_published = False
        self._size: int | None = None
        """Bytes that are whole in the file of this start, where there is one."""

    def read_logs(self, log_number_from: int) -> Iterable[Entry]:
        assert log_number_from >= self._first, "one study reads it, from its beginning to its end"
        del self._fresh[: log_number_from - self._first]
        self._first = log_number_from
        return list(self._fresh)

    def append_logs(self, logs: list[Entry]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._fresh += [json.loads(line) for line in lines]
        if self.path is not None:
            self._waiting += [line.encode() + b"\n" for line in lines]
            if self._is_published:
                self.publish()

    def publish(self) -> None:
        """Write what waits; the first time in the place of what an earlier start has left."""
        if self.path is None:
            return
        self._is_published = True
        data = b"".join(self._waiting)
        with suppress(OSError):
            if self._size is None:
                whole_files.replace(self.path, data, durable=False)
            else:
                with self.path.open("r+b") as file:
                    file.truncate(self._size)  # what a full disk took of an entry
                    file.seek(self._size)
                    file.write(data)
            self._size = (self._size or 0) + len(data)
            self._waiting.clear()
