"""The defences: one file each, its spec beside its loss."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from arat_ray.training.methods.arat import Arat, AratSpec
from arat_ray.training.methods.base import Losses, Method, SampleAccuracy
from arat_ray.training.methods.pgd_at import PgdAt, PgdAtSpec
from arat_ray.training.methods.standard import Standard, StandardSpec

MethodSpec = Annotated[StandardSpec | PgdAtSpec | AratSpec, Field(discriminator="name")]
METHODS = {"standard": StandardSpec, "pgd_at": PgdAtSpec, "arat": AratSpec}

__all__ = [
    "METHODS",
    "Arat",
    "AratSpec",
    "Losses",
    "Method",
    "MethodSpec",
    "PgdAt",
    "PgdAtSpec",
    "SampleAccuracy",
    "Standard",
    "StandardSpec",
]
