"""Checkpoints: everything that a run needs to go on, in one file that is replaced whole.

Weights, norm statistics, predictors, optimiser state, the epoch and all rows reported so far. Learning rates and random
streams are functions of the seed and the epoch (`schedules`, `randomness`; within an epoch see `mid_epoch`), so a run
that goes on from a checkpoint equals an uninterrupted one bit for bit on the CPU, also with another number of
workers as far as rounding allows.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from arat_ray import disk, earlier, whole_files
from arat_ray.results.rows import EpochRow
from arat_ray.spec import Spec
from arat_ray.training.data import fingerprint
from arat_ray.training.data.images import Shape
from arat_ray.training.dial import DialRange, dialled, domain
from arat_ray.training.methods import Method
from arat_ray.training.run import Train, Validate
from arat_ray.training.split_norm import convert, deployed

S = TypeVar("S", bound=Spec)

LAST = "last.pt"
SET_ASIDE = f"set aside as {LAST}.damaged"
BEST = "best.pt"
"""The state at the most robust measurement, without what only resuming needs."""
FORMAT = 2
UNREADABLE = (
    *(pickle.UnpicklingError, OSError, EOFError, RuntimeError, LookupError, TypeError, AttributeError, ValueError),
    *(AssertionError, MemoryError, OverflowError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What torch raises for a file that it did not write."""


class NotNowError(ValueError):
    """The disk did not give a checkpoint that may be well; another attempt may read it."""


class NotACheckpointError(ValueError):
    """A file is not what was written, by its own checksums, or no checkpoint at all."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)  # what it is made from again, where it comes from another process
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: not a checkpoint of arat-ray ({self.why})"


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` epochs. `train` and `validate` are the JSON of their specs."""

    train: dict[str, Any]
    validate: dict[str, Any]
    validation_sha256: str
    epoch: int
    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    """State of `averaging`, as soon as there is one: the network deployed then is the average."""
    features: dict[str, Tensor]
    """Representations at the last measurement of `diagnostics`."""
    history: list[EpochRow]
    partway: dict[str, Any] | None = None
    """Fields of a `Partway`, where the state is from within the epoch after `epoch`."""
    content: dict[str, Any] | None = None
    """Fingerprints of the data, by split; earlier versions kept none."""
    fitted: dict[str, Any] | None = None
    """Where a network without a clean branch got one: in how many `epochs`, and `of` which file (SHA-256)."""
    format: int = FORMAT

    @property
    def weights(self) -> str | None:
        """`swa` or `ema` where the deployed network is an average."""
        return self.train["averaging"]["name"] if self.average else None

    @property
    def train_spec(self) -> Train:
        return _read(Train, self.train)

    @property
    def shape(self) -> Shape:
        """Of an image; of a checkpoint of an earlier version the data set is opened for it, here and below."""
        if self.content:
            channels, height, width = self.content["train"]["shape"]
            return channels, height, width
        return self.train_spec.dataset.shape

    @property
    def num_classes(self) -> int:
        return int(self.content["train"]["classes"]) if self.content else self.train_spec.dataset.num_classes

    @property
    def validate_spec(self) -> Validate:
        return _read(Validate, self.validate)


def _read(kind: type[S], given: dict[str, Any]) -> S:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"the checkpoint is of a run that this version cannot read: {where}: {first['msg']}"
        ) from error


def check(folder: Path) -> None:
    """OSError where no checkpoint could be written there now; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{BEST}.{os.getpid()}"
    probe.touch()
    probe.unlink()


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint so that `path` is at any moment either the old file or the new one, whole.

    Raises OSError where it cannot be written; then the old file stays, and nothing else does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    try:
        with whole_files.replaced(path, suffix=os.getpid()) as file:
            torch.save(vars(checkpoint), file)
    except RuntimeError as error:
        cause = error.__context__
        if isinstance(cause, OSError):  # torch's zip writer raises in the place of the file that it writes to
            raise cause from error
        raise


def detached(checkpoint: Checkpoint) -> Checkpoint:
    """The same state on the CPU, in memory of its own: training does not change it any more."""
    return Checkpoint(**_copied(vars(checkpoint)))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state dict has its version beside its items
        copied.update((key, _copied(item)) for key, item in value.items())
        return copied
    return [_copied(item) for item in value] if isinstance(value, list) else value


def load(path: Path, *, device: torch.device | str = "cpu", mmap: bool = False) -> Checkpoint:
    """Read a checkpoint; tensors land on `device`, or are left on disk (`mmap`) until they are used.

    Only tensors and plain values are unpickled.

    Raises ValueError naming the file where there is none, or where this version or this process cannot read it;
    NotACheckpointError where the file itself is damaged, NotNowError where the disk fails.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        fields = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
        if not mmap and not is_whole(path):
            raise ValueError("its checksums are others")
        version = fields["format"]
        if version == FORMAT:
            fields |= {"train": earlier.train(fields["train"]), "validate": earlier.validate(fields["validate"])}
            state = Checkpoint(**fields)
            _check(state)
            return state
    except UNREADABLE as error:
        fault = _fault_of_disk(error)
        if fault and not disk.is_lasting(fault):
            raise NotNowError(f"{path}: cannot be read now ({fault.strerror})") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        damaged = NotACheckpointError(path, reason)
        raise (damaged if _is_damaged(path) else ValueError(f"{damaged}")) from error
    raise ValueError(f"{path}: checkpoint format {version}, this version reads {FORMAT}")


def set_aside(path: Path) -> Path:
    """Keep a file that is no checkpoint under another name, so that its run begins anew; where it is then."""
    return path.replace(path.with_name(f"{path.name}.damaged"))


def is_whole(path: Path) -> bool:
    """Whether the checksums of a file are those of what it holds; torch itself looks at none.

    Raises NotNowError where it is not the file's own fault that it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (ValueError, OSError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        fault = _fault_of_disk(error)
        if fault and fault.errno not in (errno.EINVAL, errno.ENOENT):  # EINVAL: it points to before its beginning
            raise NotNowError(f"{path}: cannot be read now ({fault.strerror})") from error
        return False


def _is_damaged(path: Path) -> bool:
    """Whether what cannot be read is the file's own fault: no right, no memory or another version's is not.

    One that is gone by now was set aside by another worker.
    """
    try:
        return not is_whole(path)
    except NotNowError:
        return False


def _fault_of_disk(error: BaseException | None) -> OSError | None:
    """What the disk said, where that is behind an error: of a file whose end it cannot read zipfile says it is none."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__context__
    return error


def _check(state: Checkpoint) -> None:
    """TypeError where the fields of a file are not what `save` writes: it may come from anywhere."""
    kinds: dict[str, Any] = {"train": dict, "validate": dict, "validation_sha256": str, "epoch": int, "method": dict}
    kinds |= {"optimizer": dict, "average": dict | None, "features": dict, "history": list}
    kinds |= {"partway": dict | None, "content": dict | None, "fitted": dict | None}
    for name, kind in kinds.items():
        if not isinstance(getattr(state, name), kind):
            raise TypeError(f"{name} is a {type(getattr(state, name)).__name__}")
    json.dumps([state.train, state.validate, state.content])  # bytes would pass for text, and nobody asks of them
    if not all(isinstance(row, dict) and isinstance(row.get("epoch"), int) for row in state.history):
        raise TypeError("history holds no rows of epochs")
    if not all(isinstance(state.train.get(part), dict) for part in ("dataset", "model", "method")):
        raise TypeError("train names no dataset, model and method")
    if state.content is not None:
        fingerprint.check(state.content)


def history(path: Path) -> tuple[dict[str, Any], list[EpochRow]]:
    """The run of a checkpoint, as JSON of its `Train`, and the rows of its epochs; its weights are not read.

    Raises ValueError where it is no checkpoint of this version.
    """
    state = load(path, mmap=True)
    return state.train, state.history


def network(checkpoint: Checkpoint, *, averaged: bool = True, dial: float | None = None) -> nn.Module:
    """The deployed network of a checkpoint: plain architecture, adversarial branch, eval mode; or that at a `dial`.

    It is the average where there is one, unless `averaged` is False. Raises ValueError where the weights are another
    architecture's, and where there is no network at such a dial.
    """
    model = method(checkpoint, averaged=averaged).model
    return (deployed(model) if dial is None else dialled(model, dial)).eval()


def method(checkpoint: Checkpoint, *, averaged: bool = True) -> Method:
    """The method of a checkpoint, or its average, with both branches of its network where it has them.

    Raises ValueError where the weights are another architecture's.
    """
    built = checkpoint.train_spec.build(checkpoint.shape, checkpoint.num_classes)
    if checkpoint.fitted:
        convert(built.model)
    try:
        built.load_state_dict(_weights(checkpoint, averaged=averaged))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()  # the line after torch's headline
        raise ValueError(
            f"the weights are not of the model that the checkpoint names, {checkpoint.train['model']}: {first}"
        ) from error
    return built


def dial_range(checkpoint: Checkpoint, *, averaged: bool = True) -> DialRange | None:
    """The dials at which there is a network; None where there is no clean branch."""
    return domain(_weights(checkpoint, averaged=averaged))


def _weights(checkpoint: Checkpoint, *, averaged: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = checkpoint.average["method"] if averaged and checkpoint.average else checkpoint.method
    return found
