"""What the report shows of studies that may be running, made again when a file of theirs has changed.

Nothing is written but the mirror of a study in a bucket, and nothing is done while nobody asks.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from arat_ray import locks
from arat_ray.report import view
from arat_ray.results import reader
from arat_ray.storage.address import Mirrored
from arat_ray.storage.mirror import Mirror
from arat_ray.text import plain

TABLES = ("trials", "decisions", "epochs", "evaluations")
DESCRIPTION = "study.json"
BUCKET_S = 2.0
"""How long a bucket is left alone after it was asked."""
REST = 3.0
"""How many times as long as making the view took the next one waits."""


class Live:
    """The view of studies, of which each trial knows the version in which it was last another.

    A page that has seen a version gets what changed since. Threads may ask at once.
    """

    def __init__(self, studies: Sequence[Path], *, log: Callable[[str], None]) -> None:
        """ValueError where the studies cannot be shown."""
        self.studies = list(studies)
        self._log, self._told = log, set[str]()
        self._alone = threading.Lock()
        self._files: object = None
        self._rests_until = self._bucket_rests_until = 0.0
        self._changed: dict[tuple[int, str], tuple[int, int]] = {}
        self._problem: str | None = None
        self.version = 0
        self._files = list(_files(self.studies))
        self._take(view.of(self.studies))

    def whole(self) -> tuple[dict[str, Any], int]:
        """The view as it stands, and its version."""
        with self._alone:
            self._look()
            return self._view, self.version

    def since(self, seen: int) -> dict[str, Any] | None:
        """What a page that has seen a version lacks: the view, of its trials those that changed, and since 0 all.

        None where it lacks nothing. A study that cannot be read now is a `problem`, beside what is known.
        """
        with self._alone:
            self._look()
            if seen == self.version and self._problem is None:
                return None
            news: dict[str, Any] = {"version": self.version, "problem": self._problem}
            if seen == self.version:
                return news
            is_known = 0 < seen < self.version
            studies = []
            for s, study in enumerate(self._view["studies"]):
                news_of = [each for each in study["trials"] if not is_known or self._changed[s, each["id"]][1] > seen]
                studies.append({**study, "count": len(study["trials"]), "trials": news_of})
            return news | {"view": {**self._view, "studies": studies, "whole": not is_known}}

    def _look(self) -> None:
        """Make the view again where a file is another one."""
        if time.monotonic() < self._rests_until:
            return
        try:
            self._bring()
            files = list(_files(self.studies))
            if files == self._files:
                self._problem = None
                return
            began = time.monotonic()
            self._take(view.of(self.studies))
            self._files, self._problem = files, None
            self._rests_until = time.monotonic() + REST * (time.monotonic() - began)
        except (ValueError, OSError) as error:
            self._problem = plain(error)
            self._rests_until = time.monotonic() + BUCKET_S

    def _bring(self) -> None:
        """Of studies in a bucket, what is new; a driver on this machine writes to the mirror itself."""
        if time.monotonic() < self._bucket_rests_until:
            return
        for study in self.studies:
            if isinstance(study, Mirrored) and not locks.is_held(study / ".lock"):
                Mirror(study).pull([*(f"{name}/" for name in TABLES), DESCRIPTION], log=self._tell_once)
        self._bucket_rests_until = time.monotonic() + BUCKET_S

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._log(text)

    def _take(self, found: dict[str, Any]) -> None:
        self._view, self.version = found, self.version + 1
        before, self._changed = self._changed, {}
        for s, study in enumerate(found["studies"]):
            for trial in study["trials"]:
                content = hash(json.dumps(trial))
                known, version = before.get((s, trial["id"]), (0, 0))
                self._changed[s, trial["id"]] = (content, version if content == known else self.version)


def _files(studies: Sequence[Path]) -> Iterator[tuple[object, ...]]:
    """What tells versions of the studies apart: each file that the view is made from, and whether they are running."""
    for study in studies:
        yield study, locks.is_held(study / ".lock")
        for path in [*(part for name in TABLES for part in reader.part_files(study / name)), study / DESCRIPTION]:
            with suppress(FileNotFoundError):  # it is being replaced: the next look sees what is there then
                stat = os.stat(path)
                yield path.name, path.parent.name, stat.st_ino, stat.st_mtime_ns, stat.st_size
