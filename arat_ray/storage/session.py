"""Studies in a bucket, opened for a command: pulled before it reads, pushed while and after it writes.

For paths that are no mirrors all of this does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from arat_ray import locks
from arat_ray.storage import objects, pushing
from arat_ray.storage.address import Mirrored, address_of
from arat_ray.storage.aside import Log
from arat_ray.storage.faults import BucketError
from arat_ray.storage.lock import Lock, TakenError
from arat_ray.storage.mirror import EVALUATIONS, TABLES, Mirror

READ_S, AGAIN_S = 10.0, 1.0
"""How long a bucket that fails is asked again before a command gives up."""
WAIT_S = 120.0
"""How long an evaluation waits for another one to add its rows."""


class NotPushedError(Exception):
    """What a command wrote is on this machine and not in the bucket."""


def pull(path: Path, names: Iterable[str] = TABLES, *, log: Log) -> None:
    """Bring a study, or some of it, up to date in its mirror; first what earlier commands left behind goes up.

    ValueError where the bucket cannot be read.
    """
    if not isinstance(path, Mirrored):
        return
    mirror, names = Mirror(path), tuple(names)
    with _told(path):
        _patiently(lambda: objects.check(mirror.address))
        is_live = locks.is_held(path / ".lock")
        if not is_live and mirror.unpushed():
            _push_leftovers(mirror, log)
        _patiently(lambda: mirror.pull(names, log=log, is_live=is_live))


@contextmanager
def writing(path: Path, *, log: Log, names: Sequence[str] = TABLES) -> Iterator[None]:
    """A study to be written to, by this process alone: pulled, then pushed every two seconds, and whole at the end.

    `names` is what this process writes; other files are pushed at the end. ValueError where another driver has it,
    NotPushedError where the bucket does not have everything at the end.
    """
    if not isinstance(path, Mirrored):
        yield
        return
    mirror, lock = Mirror(path), Lock(address_of(path))
    with _told(path):
        _patiently(lambda: objects.check(mirror.address))
    if locks.is_held(path / ".lock"):
        raise ValueError(f"{path} is being written to by another process of this machine; wait for it or stop it")
    try:
        with _told(path):
            lock.wait_for_sign(log)
            lock.acquire(log=log)
            _patiently(lambda: mirror.pull(dict.fromkeys([*TABLES, *names]), log=log))
            if count := mirror.restore():
                log(f"{count} files of {path} that are gone from the bucket are pushed again")
    except ValueError:
        with suppress(OSError):
            lock.release()
        raise
    pusher = pushing.Pushing(mirror, names, log=log, lock=lock)
    with _pushed(pusher, lambda: _close(pusher, lock), log):
        yield


@contextmanager
def evaluating(path: Path, names: Sequence[str], *, log: Log) -> Iterator[None]:
    """A study whose checkpoints are evaluated: finished batches, below `names`, are pushed while it goes on.

    NotPushedError where the bucket does not have everything at the end.
    """
    if not isinstance(path, Mirrored):
        yield
        return
    pusher = pushing.Pushing(Mirror(path), names, log=log)
    with _pushed(pusher, lambda: _close_evaluating(pusher, path, log), log):
        yield


@contextmanager
def adding(path: Path | None, *, log: Log) -> Iterator[None]:
    """The evaluations of a study, to be added to by this process alone: pulled before and pushed after the block.

    Where the bucket is gone they stay on this machine.
    """
    if not isinstance(path, Mirrored):
        yield
        return
    mirror, lock = Mirror(path), Lock(address_of(path), "evaluations")
    is_there = True
    try:
        lock.acquire(wait_s=WAIT_S)
        mirror.pull(EVALUATIONS, log=log)
        mirror.restore(EVALUATIONS)
    except OSError:
        is_there = False
    yield
    if is_there:
        with suppress(OSError):
            mirror.push(EVALUATIONS)
            lock.release()


def study_of(path: Path) -> tuple[Path, str]:
    """The study that a path in a bucket is in, or is, and what of it the path names; no study: the path's folder."""
    if not isinstance(path, Mirrored):
        return path, ""
    address = address_of(path)
    with _told(path):
        _patiently(lambda: objects.check(address))
        for study in (path, *list(path.parents)[:3]):
            inside = str(path.relative_to(study))
            if address_of(study).location.count("/") and objects.stats(address_of(study), "trials/part-00000.parquet"):
                return study, "" if inside == "." else inside
        if objects.stats(address_of(path.parent), path.name):
            return path.parent, path.name
        there = objects.folders(address) or objects.folders(address_of(path.parent))
    known = f"; near it there is {', '.join(there[:10])}" if there else ""
    raise ValueError(f"{path}: there is no study and no checkpoint{known}")


@contextmanager
def _told(path: Mirrored) -> Iterator[None]:
    """What is wrong with the bucket, or the name of a key in it, as a ValueError that names the study."""
    try:
        yield
    except TakenError:  # it does so
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _patiently(ask: Callable[[], None]) -> None:
    """Ask a bucket, again for some seconds where it fails in a way that may pass."""
    deadline = time.monotonic() + READ_S
    while True:
        try:
            return ask()
        except OSError as error:
            if time.monotonic() >= deadline or (isinstance(error, BucketError) and not error.passes):
                raise
            time.sleep(AGAIN_S)


def _push_leftovers(mirror: Mirror, log: Log) -> None:
    """What a command could not push before it ended, unless the study is written to elsewhere, or may not be here."""
    lock = Lock(mirror.address)
    try:
        lock.acquire()
    except (TakenError, BucketError) as error:
        log(f"{len(mirror.unpushed())} files are not pushed now: {error}")
        return
    mirror.pull(TABLES, log=log)
    if count := mirror.push_all(log=log, lock=lock):
        log(f"pushed {count} files to {mirror.address.uri} that were left on this machine")
    lock.release()


@contextmanager
def _pushed(pusher: pushing.Pushing, close: Callable[[], list[str]], log: Log) -> Iterator[None]:
    """Push while the block runs, and whole at its end; NotPushedError where `close` says what is left."""
    pusher.start()
    ended: SystemExit | None = None
    try:
        yield
    except SystemExit as error:
        ended = error  # what is not in the bucket matters more than how the command ended otherwise
    except BaseException:
        if left := close():
            log(_not_pushed(pusher.mirror.folder, left))
        raise
    if left := close():
        raise NotPushedError(_not_pushed(pusher.mirror.folder, left))
    if ended:
        raise ended


def _close(pusher: pushing.Pushing, lock: Lock) -> list[str]:
    """End pushing; what is left, of a bucket that was gone or of a study that was taken over."""
    left = pusher.close()
    if not left:
        with suppress(OSError):  # the process that holds it is gone soon, which frees it as well
            lock.release()
    return left


def _close_evaluating(pusher: pushing.Pushing, path: Mirrored, log: Log) -> list[str]:
    pusher.close(all_of_it=False)
    if pusher.mirror.unpushed(EVALUATIONS):
        with adding(path, log=log):
            pass
    return pusher.mirror.unpushed([*pusher.names, *EVALUATIONS])


def _not_pushed(path: Path, left: Sequence[str]) -> str:
    return (
        f"{len(left)} files of {path} are not in the bucket, {left[0]} first; they are in {path!s}, and the next "
        "command on this machine that opens it pushes them"
    )
