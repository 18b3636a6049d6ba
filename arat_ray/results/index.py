"""Which part of a table holds a key, for millions of rows: twelve bytes a row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

Key = tuple[Any, ...]
Run = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]


class Index:
    """Sorted runs of hashes, each with its part. Runs of like sizes are merged, so that there are few of them.

    Two keys may have one hash, so what is found must be looked up in the part.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._runs)

    def add(self, keys: Collection[Key], part: int) -> None:
        """The part holds these keys, which no part held before."""
        hashes = _hashes(keys)
        run = _sorted(hashes, np.full(len(hashes), part, dtype=np.int32))
        while self._runs and len(self._runs[-1][0]) <= len(run[0]):
            before, parts = self._runs.pop()
            run = _sorted(np.concatenate([before, run[0]]), np.concatenate([parts, run[1]]))
        self._runs.append(run)

    def find(self, keys: Collection[Key]) -> dict[int, list[Key]]:
        """By part, those of the keys that it may hold; keys that no part holds are missing, but for a rare chance."""
        found: dict[int, list[Key]] = {}
        listed, wanted = list(keys), _hashes(keys)
        for hashes, parts in self._runs:
            first, last = (np.searchsorted(hashes, wanted, side) for side in ("left", "right"))
            for i in np.flatnonzero(last > first).tolist():
                for part in set(parts[first[i] : last[i]].tolist()):
                    found.setdefault(part, []).append(listed[i])
        return found


def _hashes(keys: Collection[Key]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))


def _sorted(hashes: npt.NDArray[np.int64], parts: npt.NDArray[np.int32]) -> Run:
    order = np.argsort(hashes, kind="stable")
    return hashes[order], parts[order]
