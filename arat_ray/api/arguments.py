"""Arguments of an evaluation: what may stand beside the attack and the radius, and within which bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, PositiveInt, ValidationError

from arat_ray.api.inputs import as_path
from arat_ray.evaluation.accuracy import SplitName
from arat_ray.evaluation.ensembles import Mode
from arat_ray.experiment.errors import explain
from arat_ray.pixels import Norm
from arat_ray.spec import Spec
from arat_ray.training.data.subset import Subset

Kind = TypeVar("Kind", bound=Spec)


class _Arguments(Spec):
    norm: Norm = "linf"
    steps: PositiveInt | None = None
    step_size: float | str | None = None
    mode: Mode = "exact"
    images: PositiveInt | None = None
    subset: Subset | None = None
    seed: int = Field(0, ge=0)
    batch_size: PositiveInt = 256
    device: str | None = None
    records: str | os.PathLike[str] | None = None
    progress: bool = False

    @property
    def kept(self) -> Path | None:
        """The folder for finished batches."""
        return None if self.records is None else as_path(self.records)


class OfNetwork(_Arguments):
    """Of any network: with the images, since nothing says what it was trained on."""

    data: Any
    split: Literal["train", "test"] | None = None


class OfCheckpoint(_Arguments):
    """Of a checkpoint, or of those of a study."""

    split: SplitName
    data: str | os.PathLike[str] | None = None
    raw: bool = False
    dial: float | None = Field(None, allow_inf_nan=False)
    workers: PositiveInt | None = None
    address: str | None = None

    @property
    def located(self) -> str | None:
        """Where the data lies, as text."""
        return None if self.data is None else os.fspath(self.data)


def parse(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """The arguments that were given. ValueError names each that is missing, unknown or out of bounds."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, given))) from None
