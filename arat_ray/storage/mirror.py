"""A mirror: a local folder and an address in a bucket, kept alike.

Files go up whole, and those that speak of others after them: epochs and decisions, then trials, then the journal. They
come down the other way round. So at any moment the bucket has what a killed study leaves behind and can go on from.

What was never pushed is never overwritten. Where the bucket has moved on meanwhile, because the study went on
elsewhere, it is set aside.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

from arat_ray import locks
from arat_ray.digests import sha256_of
from arat_ray.storage import manifest, objects
from arat_ray.storage.address import Mirrored, address_of, root
from arat_ray.storage.manifest import Entry
from arat_ray.storage.names import all_below
from arat_ray.storage.objects import Stat

GROUPS = (
    ("study.json", "study.yaml", "journal/", "trials/", "decisions/", "epochs/"),
    ("evaluations/", "examples/"),
)
"""What only makes sense together, each in the order in which it is pulled."""
TABLES = GROUPS[0] + GROUPS[1]
"""A study without its checkpoints."""
RANKS = {"study.json": 0, "study.yaml": 0, "epochs": 2, "decisions": 2, "examples": 2, "evaluations": 3, "trials": 4}
RANKS |= {"journal": 5}
"""Pushed from low to high; 1 is what nothing else speaks of before it is there: checkpoints, figures."""
NOT_MIRRORED = ("ray",)
"""Ray's own folder: of no use elsewhere."""
ROW_LOG = "journal/rows-"
"""The log behind the tables stays on its machine: it grows to megabytes, each push would send it whole."""
UNSETTLED_S = 5.0
"""An object that changed less than this before it was read may change again within the same second of its clock."""
AT_ONCE = 8

Log = Callable[[str], None]


class Mirror:
    """The mirror of one folder in a bucket."""

    def __init__(self, folder: Mirrored) -> None:
        self.folder, self.address = folder, address_of(folder)

    def pull(self, names: Iterable[str], *, log: Log = lambda text: None, is_live: bool = False) -> None:
        """Bring files and folders (`trials/`) that are newer in the bucket; OSError where that fails.

        ValueError, before anything of a folder is written, where a key is no name of a file below it.

        Unpushed files stay, unless the bucket has moved on without them: then those of a study are set aside, which is
        told, and checkpoints are replaced. With `is_live` a driver of this machine writes them, and they stay.
        """
        with self._alone():
            overtaken = [each for name in names for each in self._pull(name)]
            if not overtaken or is_live:
                return
            kept = []
            for group in GROUPS:
                if any(_top(each) in group for each in overtaken):
                    kept += self.unpushed(group)
            if kept:
                self._set_aside(kept, log)
            for name in dict.fromkeys([*overtaken, *kept]):
                (self.folder / name).unlink(missing_ok=True)
                self._pull(name)

    def push(self, names: Iterable[str] = ("",)) -> int:
        """Put every file up that is not in the bucket as it is here; how many. OSError where that fails."""
        with self._alone(), ExitStack() as stack:
            changed = self.unpushed(names)
            # Those that speak of others are read before them, and sent after them.
            snapshots = {
                name: stack.enter_context(_snapshot(self.folder / name))
                for name in reversed(changed)
                if _rank(name) > 1
            }
            for name in changed:
                if name in snapshots:
                    self._push(name, snapshots[name])
                else:
                    with _snapshot(self.folder / name) as snapshot:
                        self._push(name, snapshot)
            return len(changed)

    def push_all(self, *, log: Log = lambda text: None) -> int:
        """`push`, of files that earlier commands or other processes of this machine left as well."""
        self.pull([name for name in self.unpushed() if name.startswith("checkpoints/")], log=log)
        return self.push()

    def unpushed(self, names: Iterable[str] = ("",)) -> list[str]:
        """The files that are not in the bucket as they are here, in the order in which they are to go up."""
        changed = {each for name in names for each in self._files(name) if not _is_clean(self.folder / each)}
        return sorted(changed, key=lambda name: (_rank(name), name))

    def _files(self, name: str) -> Iterator[str]:
        """Files that belong in the bucket, at or below a name."""
        if name and not name.endswith("/"):
            yield from [name] if (self.folder / name).is_file() else []
            return
        for folder, below, files in os.walk(self.folder / name):
            inside = Path(folder).relative_to(self.folder)
            below[:] = [each for each in below if not each.startswith(".") and str(inside / each) not in NOT_MIRRORED]
            names = (str(inside / each) for each in files if not each.startswith(".") and ".lock" not in each)
            yield from (each for each in names if not each.startswith(ROW_LOG))

    def _pull(self, name: str) -> list[str]:
        """Bring what is newer; the unpushed files that were overtaken, which stay."""
        known = [each for each in self._files(name) if _is_clean(self.folder / each)]
        there = objects.stats(self.address, name)
        all_below(self.folder, there)
        wanted, overtaken = [], []
        for each, remote in there.items():
            path, entry = self.folder / each, manifest.read(self.folder / each)
            if not path.exists() or (_is_clean(path) and entry.remote != remote):
                wanted.append(each)
            elif not _is_clean(path) and entry.remote != remote and not self._is_own(each, entry):
                overtaken.append(each)
        for each in known:
            if each not in there and _is_clean(self.folder / each):  # it was removed from the bucket
                (self.folder / each).unlink()
                manifest.forget(self.folder / each)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda each: self._get(each, there[each]), wanted))
        return overtaken

    def _get(self, name: str, remote: Stat) -> None:
        path = self.folder / name
        settled = time.time_ns() - remote.mtime_ns > UNSETTLED_S * 1e9
        with self._fetched(name) as temporary:
            sha256, local = sha256_of(temporary), manifest.stat_of(temporary)
            # A process killed before the last line leaves the old file, to be replaced, or the new one, known as such.
            manifest.write(path, Entry(manifest.stat_of(path), None, sha256))
            temporary.replace(path)
        manifest.write(path, Entry(local, remote if settled else None, sha256))

    @contextmanager
    def _fetched(self, name: str) -> Iterator[Path]:
        """The object as a temporary file beside where it belongs."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.pulled-*"):
            if not Path("/proc", stale.name.split("-")[-2]).exists():  # its process was killed
                stale.unlink(missing_ok=True)
        temporary = path.with_name(f".{path.name}.pulled-{os.getpid()}-{threading.get_ident()}")
        try:
            objects.get(self.address, name, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _is_own(self, name: str, entry: Entry) -> bool:
        """Whether the object that is there now came from here, so that the file is its successor."""
        with self._fetched(name) as temporary:
            return sha256_of(temporary) in (entry.sha256, sha256_of(self.folder / name))

    def _push(self, name: str, snapshot: _Snapshot) -> None:
        path = self.folder / name
        manifest.write(path, manifest.read(path)._replace(sha256=snapshot.sha256))
        remote = objects.put(self.address, name, snapshot.content)
        manifest.write(path, Entry(snapshot.stat, remote, snapshot.sha256))

    def _set_aside(self, names: Sequence[str], log: Log) -> None:
        aside = root() / ".set-aside" / self.folder.relative_to(root()) / datetime.now().strftime("%Y%m%d-%H%M%S")
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.folder / name, aside / name)
        log(
            f"{self.address.uri} went on elsewhere while {len(names)} files of this machine were not in it; what is "
            f"there counts, and they are kept in {aside}"
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One transfer at a time among the processes of this machine."""
        marks_folder = manifest.folder_of(self.folder)
        marks_folder.mkdir(parents=True, exist_ok=True)
        with locks.held(marks_folder / ".lock", wait=True):
            yield


class _Snapshot(NamedTuple):
    """What a file held at one moment."""

    stat: Stat
    content: IO[bytes]
    sha256: str


@contextmanager
def _snapshot(path: Path) -> Iterator[_Snapshot]:
    """A file is replaced whole, so that an open one never changes; but for the journal, which grows line by line."""
    with path.open("rb") as file:
        stat = manifest.stat_of(file.fileno())
        assert stat is not None
        content: IO[bytes] = file
        if path.parent.name == "journal":
            lines = file.read(stat.size)
            content = io.BytesIO(lines[: lines.rfind(b"\n") + 1])
        digest = hashlib.sha256()
        while chunk := content.read(objects.CHUNK):
            digest.update(chunk)
        content.seek(0)
        yield _Snapshot(stat, content, digest.hexdigest())


def _is_clean(path: Path) -> bool:
    """Whether a file is, or was not long ago, in the bucket as it is here."""
    local = manifest.stat_of(path)
    return local is not None and local == manifest.read(path).local


def _top(name: str) -> str:
    """`trials/` for `trials/part-00000.parquet`."""
    head, slash, _ = name.partition("/")
    return head + slash


def _rank(name: str) -> int:
    return RANKS.get(name.partition("/")[0], 1)
