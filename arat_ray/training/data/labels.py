"""Labels as Parquet holds them, batch by batch: whole numbers of any type, text, lists of one element."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arat_ray.training.data import classes
from arat_ray.training.data.classes import shown

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 1000
"""Characters of a label."""
AT_MOST = 100_000
"""Classes; ImageNet-21k has 21,841."""
Value = int | str


class Found:
    """The labels of all rows, as they are added, and where each that occurs comes first."""

    def __init__(self) -> None:
        self.places: dict[Value, str] = {}
        self._numbers: dict[Value, int] = {}
        self._parts: list[npt.NDArray[np.int32]] = []

    def add(self, cells: pa.Array, path: Path, first: int, *, names: tuple[str, ...]) -> None:
        """A batch of a column, from row `first` on. Where `names` are given, numbers stand for these."""

        def place(row: int) -> str:
            return f"{path}, row {first + row} (from 0)"

        indices, values = distinct(cells, place)
        self._add(indices, [self._named(value, names, i, indices, place) for i, value in enumerate(values)], place)

    def add_constant(self, label: str, rows: int, path: Path) -> None:
        """So many rows of one label, which their folder says."""
        self._add(np.zeros(rows, np.int64), [label] if rows else [], lambda row: str(path))

    def _add(self, indices: npt.NDArray[np.int64], values: list[Value], place: Callable[[int], str]) -> None:
        for i, value in enumerate(values):
            if value not in self._numbers:
                self._numbers[value] = len(self._numbers)
                self.places[value] = place(int(np.flatnonzero(indices == i)[0]))
        if len(self._numbers) > AT_MOST:
            raise ValueError(
                f"{place(0)}: more than {AT_MOST:,} different labels; name the column of the classes with "
                "dataset.label_column"
            )
        numbers = np.array([self._numbers[value] for value in values], np.int32)
        self._parts.append(numbers[indices])

    def _named(
        self,
        value: Value,
        names: tuple[str, ...],
        i: int,
        indices: npt.NDArray[np.int64],
        place: Callable[[int], str],
    ) -> Value:
        if not names or isinstance(value, str):
            return value
        if 0 <= value < len(names):
            return names[value]
        fix = "leave out the rows that have no label" if value < 0 else "name all classes there"
        raise ValueError(
            f"{place(int(np.flatnonzero(indices == i)[0]))}: label {shown(value)} is none of 0..{len(names) - 1}, the "
            f"{len(names)} classes that the file's `huggingface` metadata names; {fix}"
        )

    def numbered(self, names: tuple[str, ...]) -> Tensor:
        """int64 [N], by the order of the classes; ValueError for a label that is none of them."""
        index = {name: i for i, name in enumerate(names)}
        numbers = [classes.index_of(value, index, self.places[value]) for value in self._numbers]
        return torch.tensor(numbers, dtype=torch.int64)[torch.from_numpy(np.concatenate(self._parts)).long()]


def distinct(column: pa.Array, place: Callable[[int], str]) -> tuple[npt.NDArray[np.int64], list[Value]]:
    """Of a column [N], the index [N] of each row's label among those that occur, and these in order of appearance.

    `place(row)` names a row in the ValueError for one that has no label, several, or what is neither a whole number nor
    text.
    """
    column = _flat(column, place)
    if column.null_count:
        raise ValueError(f"{place(_first(column.is_null()))}: no label (null); leave out the rows that have none")
    encoded = column.dictionary_encode()
    indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    values: list[Value] = []
    for i, value in enumerate(encoded.dictionary.to_pylist()):
        plain = _value(value)
        if plain is None:
            row = int(np.flatnonzero(indices == i)[0])
            allowed = f"no whole number and no text of up to {LONGEST:,} characters"
            raise ValueError(f"{place(row)}: label {shown(value)} is no class: {allowed}")
        values.append(plain)
    return indices, values


def _flat(column: pa.Array, place: Callable[[int], str]) -> pa.Array:
    """A column of single values of a type that can be a label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if isinstance(kind, pa.ExtensionType):
        return _flat(column.storage, place)
    if pa.types.is_dictionary(kind):
        return _flat(column.dictionary_decode(), place)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 1)
        others = pc.not_equal(lengths, 1)
        if pc.any(others).as_py():
            row = _first(others)
            several = shown(column[row].values.slice(0, 5).to_pylist())
            raise ValueError(f"{place(row)}: {lengths[row].as_py()} labels in one row, {several}; an image has one")
        return _flat(pc.list_element(column, 0), place)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not any(fits(kind) for fits in (*numbers, *texts, pa.types.is_fixed_size_binary, pa.types.is_null)):
        raise ValueError(
            f"{place(0)}: labels of the type {shown(str(kind))[1:-1]}; a label is a whole number or text, name its "
            "column with dataset.label_column"
        )
    return column


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])


def _value(value: Any) -> Value | None:
    """A label as a number or a text; None for what is neither."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        return value if value.strip() and len(value) <= LONGEST else None
    try:
        whole = int(value)
    except (ValueError, OverflowError, ArithmeticError):  # NaN, infinite
        return None
    return whole if whole == value else None
