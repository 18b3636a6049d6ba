"""The record of a study in a bucket: only who holds the study's lock changes it, by conditional writes."""

from __future__ import annotations

from pathlib import Path

from arat_ray.storage import manifest, objects
from arat_ray.storage.address import Address, Mirrored, address_of
from arat_ray.storage.faults import BucketError, ConflictError
from arat_ray.storage.lock import Lock
from arat_ray.storage.objects import Stat

SEGMENTS, REWRITTEN, EVALUATIONS = "journal/record-", "journal/rewritten-", "journal/evaluations/"
"""How the names of its files begin: of its segments, of those of a record that was made again, of evaluations."""
VIEW = "journal/optuna.log"
"""What is written beside the record for a dashboard, and made anew at each start."""


def is_segment(name: str) -> bool:
    return name.startswith((SEGMENTS, REWRITTEN))


def is_kept_by(folder: Path) -> bool:
    """Whether a study has a record."""
    return any((folder / "journal").glob("re[cw]*-*"))


def opened(name: str) -> str:
    """What a sealed segment was called while it grew; any other name as it is."""
    return name.removesuffix(".zst")


def put(address: Address, name: str, content: bytes, before: Stat | None, lock: Lock) -> tuple[Stat, bool]:
    """Put a segment in the place of what this driver knows to be there; and whether that was gone.

    Where something else is there, the lock says whose word counts: it is looked at what is there, then the lock is
    renewed, then that very version is replaced. Whoever was overtaken fails at the second step (TakenError), or at the
    third (ConflictError). A sealed segment is new, so that nothing is in its place: there the lock is asked first.
    """
    if opened(name) != name:
        lock.renew()
    try:
        return objects.put_over(address, name, content, before), False
    except ConflictError:
        there = objects.stats(address, name).get(name)
        lock.renew()
        return objects.put_over(address, name, content, there), before is not None and there is None


def remove_open(folder: Mirrored, sealed: str, lock: Lock) -> None:
    """Once a segment is sealed in the bucket, take the open one away there; where that is not allowed, it stays."""
    name, address = opened(sealed), address_of(folder)
    if name == sealed or Path(folder / name).exists() or manifest.read(folder / name).remote is None:
        return
    if objects.stats(address, sealed).get(sealed) != manifest.read(folder / sealed).remote:
        return
    lock.renew()
    try:
        objects.delete(address, name)
    except BucketError as error:
        if error.passes:
            raise
    manifest.forget(folder / name)
