"""A mirror: a local folder and an address in a bucket, kept alike.

Files go up whole, and those that are made from others after them: checkpoints, the record of the study, then the
tables. They come down the other way round. So at any moment the bucket has what a killed study leaves behind and can go
on from. Of a study of before there was one record, rows go up before the journal that speaks of them.

Nothing that may be the last copy is removed or overwritten. What was never pushed is set aside where the bucket has
moved on meanwhile, because the study went on elsewhere. What is gone from the bucket stays here, and a command that
writes to the study brings it back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from arat_ray import locks
from arat_ray.digests import sha256_of
from arat_ray.storage import aside, manifest, objects, record
from arat_ray.storage.address import Mirrored, address_of
from arat_ray.storage.aside import Log
from arat_ray.storage.lock import Lock
from arat_ray.storage.manifest import Entry
from arat_ray.storage.names import all_below
from arat_ray.storage.objects import Stat
from arat_ray.storage.snapshots import Snapshot, snapshot

EVALUATIONS = ("evaluations/", "examples/", record.EVALUATIONS)
DESCRIPTION = "study.json"
STUDY = ("journal/", "trials/", "decisions/", "epochs/", DESCRIPTION, "study.yaml")
TABLES = (*STUDY, *EVALUATIONS, f"{record.REWRITTEN}*", f"{record.SEGMENTS}*")
"""A study without its checkpoints, in the order in which it is pulled: the record last, so that nothing is newer."""
RANKS = {DESCRIPTION: 3, "study.yaml": 3, "epochs": 4, "decisions": 4, "examples": 4, "evaluations": 5, "trials": 6}
RANKS |= {"journal": 7}
"""Pushed from low to high: 1 is what is made from nothing, checkpoints and figures, 2 the record."""
SINGLE, THE_RECORD, MADE, ALL = range(1, 2), range(2, 3), range(3, 8), range(1, 8)
NOT_MIRRORED = ("ray",)
"""Ray's own folder: of no use elsewhere."""
ROW_LOG = "journal/rows-"
"""The log behind the tables of a study of before stays on its machine: each push would send megabytes of it."""
AT_ONCE = 8


class Mirror:
    """The mirror of one folder in a bucket."""

    def __init__(self, folder: Mirrored) -> None:
        self.folder, self.address = folder, address_of(folder)

    def pull(self, names: Iterable[str], *, log: Log = lambda text: None, is_live: bool = False) -> None:
        """Bring files, folders (`trials/`) and what begins alike (`journal/record-*`) where the bucket has others.

        OSError where that fails; ValueError, before anything of a folder is written, where a key is no name of a file.

        Unpushed files stay, unless the bucket has moved on without them: then those of a study are set aside, which is
        told, and checkpoints are replaced. With `is_live` a driver of this machine writes them, and they stay. What is
        gone from the bucket is told; where it holds another study, all of this one is set aside.
        """
        with self._alone():
            names = tuple(names)
            if DESCRIPTION in names and not is_live and self._is_another():
                aside.move(self.folder, log)
            overtaken, gone = list[str](), list[str]()
            for name in names:
                there = self._there(name)
                overtaken += self._pull(there)
                gone += self._gone(name, there)
            if gone:
                log(
                    f"{len(set(gone))} files of {self.address.uri} are gone from the bucket, {gone[0]} first; nothing "
                    f"is removed here: they stay in {self.folder!s}, and a command that writes to it puts them back"
                )
            if not overtaken or is_live:
                return
            groups = {_group(name) for name in overtaken} - {None}
            kept = [name for name in dict.fromkeys([*overtaken, *self.unpushed()]) if _group(name) in groups]
            if kept:
                aside.keep(self.folder, kept, log)
            for name in (*overtaken, *kept):
                (self.folder / name).unlink(missing_ok=True)
            replaced = {*overtaken, *kept, *(record.opened(name) for name in (*overtaken, *kept))}
            for name in sorted(replaced, key=_rank, reverse=True):
                self._pull(self._there(name))

    def restore(self, names: Iterable[str] = ("",)) -> int:
        """Have what is gone from the bucket pushed again; how many files that are."""
        with self._alone():
            return self._restore(names)

    def push(self, names: Iterable[str] = ("",), *, lock: Lock | None = None) -> int:
        """Put every file up that is not in the bucket as it is here; how many. OSError where that fails.

        With the lock of a driver the record replaces nothing but what this driver knows; TakenError where another one
        has taken over.
        """
        names = tuple(names)
        with self._alone(), ExitStack() as stack:
            made = self._taken(names, stack, MADE)  # before what it is made from is read, and sent after it
            taken = self._taken(names, stack, THE_RECORD) | made
            single = self.unpushed(names, SINGLE)
            for name in single:
                with snapshot(self.folder / name) as held:
                    self._push(name, held, None)
            for name, held in taken.items():
                self._push(name, held, lock)
                if lock and record.is_segment(name):
                    record.remove_open(self.folder, name, lock)
            return len(single) + len(taken)

    def _taken(self, names: Iterable[str], stack: ExitStack, ranks: range) -> dict[str, Snapshot]:
        """What unpushed files of some ranks hold, in the order in which they go up; read the other way round."""
        while True:
            found = reversed(self.unpushed(names, ranks))
            with suppress(FileNotFoundError):  # a segment was sealed meanwhile, which is another file
                taken = {name: stack.enter_context(snapshot(self.folder / name)) for name in found}
                return dict(reversed(taken.items()))

    def push_all(self, *, log: Log = lambda text: None, lock: Lock | None = None) -> int:
        """`push`, of files that earlier commands or other processes of this machine left as well."""
        self.pull([name for name in self.unpushed() if name.startswith("checkpoints/")], log=log)
        return self.push(lock=lock)

    def unpushed(self, names: Iterable[str] = ("",), ranks: range = ALL) -> list[str]:
        """The files that are not in the bucket as they are here, in the order in which they are to go up."""
        files = {each for name in names for each in self._files(name) if _rank(each) in ranks}
        changed = [each for each in files if (self.folder / each).exists() and not _is_clean(self.folder / each)]
        return sorted(changed, key=lambda name: (_rank(name), name))

    def _files(self, name: str) -> Iterator[str]:
        """Files that belong in the bucket: one, those below a folder, or those of it that begin alike."""
        begin = name.removesuffix("*")
        if name and not name.endswith(("/", "*")):
            yield from [name] if (self.folder / name).is_file() else []
            return
        for folder, below, files in os.walk(self.folder / begin.rpartition("/")[0]):
            inside = Path(folder).relative_to(self.folder)
            below[:] = [each for each in below if not each.startswith(".") and str(inside / each) not in NOT_MIRRORED]
            names = (str(inside / each) for each in files if not each.startswith(".") and ".lock" not in each)
            yield from (each for each in names if each.startswith(begin) and not self._stays_here(each))

    def _stays_here(self, name: str) -> bool:
        return name.startswith(ROW_LOG) or (name == record.VIEW and record.is_kept_by(self.folder))

    def _there(self, name: str) -> dict[str, Stat]:
        """What the bucket has of a name; without open segments of the record where the sealed one is there as well."""
        found = objects.stats(self.address, name)
        there = {each: stat for each, stat in found.items() if f"{each}.zst" not in found}
        all_below(self.folder, there)
        return there

    def _is_another(self) -> bool:
        """Whether the bucket holds another study than the one that is here."""
        path = self.folder / DESCRIPTION
        there = objects.stats(self.address, DESCRIPTION).get(DESCRIPTION) if path.exists() else None
        if there is None or there == manifest.read(path).remote:
            return False
        return aside.are_two(path.read_bytes(), objects.read(self.address, DESCRIPTION) or b"")

    def _pull(self, there: dict[str, Stat]) -> list[str]:
        """Bring what is another version; the unpushed files that were overtaken, which stay."""
        wanted, overtaken = [], []
        for each, remote in there.items():
            path, entry = self.folder / each, manifest.read(self.folder / each)
            if (sealed := path.with_name(f"{path.name}.zst")).exists() and not path.exists():  # it was sealed here
                if not _is_clean(sealed) and entry.remote != remote and not self._is_own(each, entry):
                    overtaken.append(str(sealed.relative_to(self.folder)))
            elif not path.exists() or (_is_clean(path) and entry.remote != remote):
                wanted.append(each)
            elif entry.remote != remote and not self._is_own(each, entry):
                overtaken.append(each)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._get, wanted))
        for each in there:
            opened = self.folder / record.opened(each)
            if record.opened(each) != each and _is_clean(self.folder / each) and _is_clean(opened):
                opened.unlink()
                manifest.forget(opened)
        return overtaken

    def _gone(self, name: str, there: dict[str, Stat]) -> list[str]:
        """The files of a name that were in the bucket as they are here and are not any more."""
        return [each for each in self._files(name) if each not in there and _is_clean(self.folder / each)]

    def _restore(self, names: Iterable[str]) -> int:
        gone = {each for name in names for each in self._gone(name, self._there(name))}
        for each in gone:
            manifest.forget(self.folder / each)
        return len(gone)

    def _get(self, name: str) -> None:
        path = self.folder / name
        with self._fetched(name) as (temporary, remote):
            entry = Entry(manifest.version_of(temporary), remote, sha256_of(temporary))
            temporary.replace(path)
        manifest.write(path, entry)

    @contextmanager
    def _fetched(self, name: str) -> Iterator[tuple[Path, Stat]]:
        """The object as a temporary file beside where it belongs, and which version of it that is."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.pulled-*"):
            if not Path("/proc", stale.name.split("-")[-2]).exists():  # its process was killed
                stale.unlink(missing_ok=True)
        temporary = path.with_name(f".{path.name}.pulled-{os.getpid()}-{threading.get_ident()}")
        try:
            remote = objects.get(self.address, name, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            yield temporary, remote
        finally:
            temporary.unlink(missing_ok=True)

    def _is_own(self, name: str, entry: Entry) -> bool:
        """Whether the object that is there now came from here, so that the file is it, or its successor; noted then.

        A process may have been killed after it had sent, or replaced, a file and before it noted that.
        """
        path = self.folder / name
        with self._fetched(name) as (temporary, remote):
            local, there = manifest.version_of(path), sha256_of(temporary)
            mine = sha256_of(path) if local else None
        if there not in (entry.sha256, mine):
            return False
        manifest.write(path, Entry(local if there == mine else None, remote, there))
        return True

    def _push(self, name: str, taken: Snapshot, lock: Lock | None) -> None:
        path, entry = self.folder / name, manifest.read(self.folder / name)
        manifest.write(path, entry._replace(sha256=taken.sha256))
        if lock and record.is_segment(name):
            remote, was_gone = record.put(self.address, name, taken.content.read(), entry.remote, lock)
            if was_gone:
                self._restore([""])
        else:
            remote = objects.put(self.address, name, taken.content)
        manifest.write(path, Entry(taken.version, remote, taken.sha256))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One transfer at a time among the processes of this machine."""
        marks_folder = manifest.folder_of(self.folder)
        marks_folder.mkdir(parents=True, exist_ok=True)
        with locks.held(marks_folder / ".lock", wait=True):
            yield


def _is_clean(path: Path) -> bool:
    """Whether a file is in the bucket as it is here, as far as this machine knows."""
    local = manifest.version_of(path)
    return local is not None and local == manifest.read(path).local


def _group(name: str) -> str | None:
    """What only makes sense together with others: a study, or what was measured of it; None of checkpoints."""
    if name.startswith(EVALUATIONS):
        return "evaluations"
    return "study" if name.startswith(STUDY) else None


def _rank(name: str) -> int:
    if record.is_segment(name) or name.startswith(record.EVALUATIONS):
        return 2
    return RANKS.get(name.partition("/")[0], 1)
