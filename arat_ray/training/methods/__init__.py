"""The defences: one file each, its spec beside its loss.

A spec's `passes` says how often a step's loss runs a network forth and back; the attack's passes come on top.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from arat_ray.training.methods.arat import Arat, AratSpec
from arat_ray.training.methods.arrest import Arrest, ArrestSpec
from arat_ray.training.methods.base import Losses, Method, SampleAccuracy, Task
from arat_ray.training.methods.lbgat import Lbgat, LbgatSpec
from arat_ray.training.methods.mart import Mart, MartSpec
from arat_ray.training.methods.pgd_at import PgdAt, PgdAtSpec
from arat_ray.training.methods.standard import Standard, StandardSpec
from arat_ray.training.methods.trades import Trades, TradesSpec

MethodSpec = Annotated[
    StandardSpec | PgdAtSpec | TradesSpec | MartSpec | LbgatSpec | ArrestSpec | AratSpec, Field(discriminator="name")
]
METHODS = {
    "standard": StandardSpec,
    "pgd_at": PgdAtSpec,
    "trades": TradesSpec,
    "mart": MartSpec,
    "lbgat": LbgatSpec,
    "arrest": ArrestSpec,
    "arat": AratSpec,
}

__all__ = [
    "METHODS",
    "Arat",
    "AratSpec",
    "Arrest",
    "ArrestSpec",
    "Lbgat",
    "LbgatSpec",
    "Losses",
    "Mart",
    "MartSpec",
    "Method",
    "MethodSpec",
    "PgdAt",
    "PgdAtSpec",
    "SampleAccuracy",
    "Standard",
    "StandardSpec",
    "Task",
    "Trades",
    "TradesSpec",
]
