"""The file behind Optuna's journal: what it holds is at any moment a whole beginning of what happened.

Optuna's own backend raises where the disk fails, in the middle of a study, and a line that it wrote half makes the
journal unreadable. Here entries wait in memory, in their order, until they can be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from arat_ray.disk import Disk
from arat_ray.json_files import parse_json
from arat_ray.text import command

Entry = dict[str, Any]


class Journal(BaseJournalBackend):
    """Optuna's journal in one file, which one process writes to. Others may read it, or append a note.

    Entries are written at once while `may_write` allows it, else they wait for `flush`. A failing disk does not raise:
    they wait as well (`Disk`).
    """

    def __init__(
        self,
        path: Path,
        *,
        warn: Callable[[str], None],
        may_write: Callable[[], bool] = lambda: True,
        retry_s: tuple[float, float] = (2.0, 60.0),
    ) -> None:
        self.path, self._may_write = path, may_write
        self.disk = Disk(f"the journal {path}", warn=warn, retry_s=retry_s)
        self._waiting: list[bytes] = []
        self._fresh: list[Entry] = []
        """Entries that Optuna has not read yet, the first of which is its number `_first`."""
        self._first = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            there = path.read_bytes()
            whole = self._whole(there)
            if there and not whole and not there.startswith(b"{"):  # else the first line was written half
                raise ValueError(f"{path} holds no line of a journal; {move_away(path)}")
            file.truncate(whole)  # a line that a killed process wrote half, on which nothing was built
        self._size = self._lines = 0
        self._catch_up()

    @property
    def pending(self) -> int:
        """How many entries are not on disk yet."""
        return len(self._waiting)

    def read_logs(self, log_number_from: int) -> Iterable[Entry]:
        assert log_number_from >= self._first, "one study reads it, from its beginning to its end"
        del self._fresh[: log_number_from - self._first]
        self._first = log_number_from
        return list(self._fresh)

    def append_logs(self, logs: list[Entry]) -> None:
        if not self._waiting:
            self._catch_up()
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._fresh += [json.loads(line) for line in lines]
        self._waiting += [line.encode() + b"\n" for line in lines]
        self.flush()

    def flush(self, *, final: bool = False) -> bool:
        """Write what waits; whether everything is on disk.

        While the disk fails, only the next planned retry tries again, unless this is the `final` call.
        """
        if not self._waiting or not self._may_write() or not (self.disk.is_due or final):
            return not self._waiting
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            self.disk.fails(error, kept="its entries are")
            return False
        self.disk.works(waited=f"{len(self._waiting)} entries")
        self._waiting.clear()
        return True

    def _append(self, data: bytes) -> None:
        """All of it or nothing; OSError where it was nothing."""
        with self.path.open("r+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                done = 0
                while done < len(data):
                    done += file.write(data[done:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)  # takes no space
                raise
            self._size = before + len(data)
            self._lines += data.count(b"\n")

    def _catch_up(self) -> None:
        """Take in what the file holds beyond what is known of it."""
        if self.path.stat().st_size == self._size:
            return
        with self.path.open("rb") as file:
            file.seek(self._size)
            there = file.read()
        there = there[: self._whole(there)]
        before, shape = self._lines, {"op_code": int, "worker_id": str}
        for number, line in enumerate(there.split(b"\n")[:-1], start=before + 1):
            where = f"{self.path}, line {number}"
            self._fresh.append(parse_json(line, where, fix=move_away(self.path), shape=shape))
        self._lines = before + there.count(b"\n")
        self._size += len(there)

    @staticmethod
    def _whole(text: bytes) -> int:
        """Bytes up to the end of the last whole line."""
        return text.rfind(b"\n") + 1


def move_away(path: Path) -> str:
    """What mends a journal that cannot be read."""
    return (
        f"bring back a copy, or move it away ({command('mv', path, f'{path}.damaged')}): --resume makes it again from "
        "the tables and the checkpoints"
    )
