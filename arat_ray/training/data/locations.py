"""Locations of data: a file, a folder or the address of a bucket, as YAML may write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from arat_ray.storage.address import is_uri, parse


def _whole_path(path: Path) -> Path:
    filled = os.path.expandvars(path)
    if unset := re.search(r"\$(\w+|\{\w+\})", filled):
        raise PydanticCustomError("unset_variable", "the variable {name} is not set", {"name": unset[0]})
    return Path(filled).expanduser().absolute()


def _place(value: object) -> object:
    """An address of a bucket stays text; any other text is a path."""
    if isinstance(value, str) and is_uri(value):
        return parse(value).uri
    return _whole_path(Path(value)) if isinstance(value, str | Path) else value


DataPath = Annotated[Path, AfterValidator(_whole_path)]
"""A file or folder; `~` and $VARIABLES are filled in, and it is made absolute, because workers run in other folders."""

DataPlace = Annotated[Path | str, BeforeValidator(_place)]
"""A file or folder, as a DataPath, or the address of one in a bucket, as text."""
