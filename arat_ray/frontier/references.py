"""Points that others have published, to be drawn beside a front that was measured alike.

`references.csv` ships: Table 3 of the paper (https://arxiv.org/abs/2402.14648) and entries of RobustBench
(https://arxiv.org/abs/2010.09670), each row with its source. A user's file has the same columns. Accuracies are shares.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from math import isclose, isfinite
from pathlib import Path
from typing import Any, NamedTuple, get_args

from arat_ray.pixels import Norm, format_pixels, radius
from arat_ray.text import did_you_mean, line

CONDITIONS = ("dataset", "split", "attack", "norm", "epsilon")
"""In which a point and a front must agree."""
NUMBERS = ("clean_accuracy", "clean_sd", "robust_accuracy", "robust_sd")
OPTIONAL = ("model", "clean_sd", "robust_sd", "note")
BYTES = 1_000_000
"""That a file of points may have."""
PUBLISHED = "published"
"""The word for those that ship."""
Measured = Mapping[str, Any]
"""By the names of CONDITIONS, how a front was measured."""


class Reference(NamedTuple):
    """A published point: clean and robust accuracy as shares, each with its standard deviation where it has one."""

    name: str
    model: str
    dataset: str
    split: str
    attack: str
    norm: str
    epsilon: float
    clean_accuracy: float
    clean_sd: float | None
    robust_accuracy: float
    robust_sd: float | None
    source: str
    note: str

    @property
    def label(self) -> str:
        """`ARAT, ResNet-18`."""
        return line(", ".join(filter(None, (self.name, self.model))))


def load(which: str) -> list[Reference]:
    """The published points, or those of a user's file. ValueError with the number of the line where it is wrong."""
    return published() if which == PUBLISHED else read(Path(which))


def published() -> list[Reference]:
    """Those that ship."""
    text = resources.files("arat_ray.frontier").joinpath("references.csv").read_text(encoding="utf-8")
    return list(_parsed(text, "references.csv"))


def read(path: Path) -> list[Reference]:
    """Those of a CSV with the columns of `Reference`. ValueError names file, line, column and value."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise ValueError(f"{path}: points in a CSV are meant to be few; this file has more than {BYTES:,} bytes")
        text = content.decode("utf-8-sig")
    except OSError as error:
        known = f"; the points that ship are called {PUBLISHED}"
        raise ValueError(f"--reference: {path} cannot be read: {error.strerror}{known}") from error
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {number}: byte {error.start} is no UTF-8; save the file as UTF-8") from error
    found = list(_parsed(text, f"{path}"))
    if not found:
        raise ValueError(f"{path} holds no point, only the names of columns")
    return found


def _parsed(text: str, where: str) -> Iterator[Reference]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = [head.strip() for head in next(rows, [])]
        _check_heads(heads, where)
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            at = f"{where}, line {rows.line_num}"
            if len(cells) != len(heads):
                raise ValueError(
                    f"{at}: {len(cells)} cells, and {len(heads)} columns; a text with a comma stands in quotes"
                )
            yield _reference(dict(zip(heads, (cell.strip() for cell in cells), strict=True)), at)
    except csv.Error as error:
        raise ValueError(f"{where}, line {rows.line_num}: {error}") from error


def _check_heads(heads: Sequence[str], where: str) -> None:
    needed = [name for name in Reference._fields if name not in OPTIONAL]
    for head in heads:
        if head not in Reference._fields:
            raise ValueError(f"{where}, line 1: no column {line(head)!r}{did_you_mean(head, Reference._fields)}")
        if heads.count(head) > 1:
            raise ValueError(f"{where}, line 1: the column {head} stands there twice")
    if missing := [name for name in needed if name not in heads]:
        raise ValueError(f"{where}, line 1: there is no column {', '.join(missing)}; needed are {', '.join(needed)}")


def _reference(cells: dict[str, str], at: str) -> Reference:
    row: dict[str, Any] = dict.fromkeys(OPTIONAL, "") | cells
    for name in ("name", *CONDITIONS, "source"):
        if not row[name]:
            raise ValueError(f"{at}: {name} is empty")
    for name in NUMBERS:
        row[name] = None if row[name] == "" and name.endswith("_sd") else _share(name, row[name], at)
    if row["norm"] not in get_args(Norm):
        raise ValueError(f"{at}: norm {row['norm']!r} is none of {', '.join(get_args(Norm))}")
    try:
        row["epsilon"] = radius(row["epsilon"])
    except ValueError:
        raise ValueError(f"{at}: epsilon {row['epsilon']!r} is no radius; write it as 8/255 or 0.031") from None
    return Reference(**row)


def _share(name: str, cell: str, at: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{at}: {name} {cell!r} is no number; write a share, such as 0.8782") from None
    if not (isfinite(value) and 0 <= value <= 1):
        percent = f"; of percent write {value / 100:.4g}" if 1 < value <= 100 else ""
        raise ValueError(f"{at}: {name} {cell} is no share between 0 and 1{percent}")
    return value


def fitting(references: Iterable[Reference], measured: Measured) -> list[Reference]:
    """Those that were measured like the front."""
    return [each for each in references if not _differing(each, measured)]


def demanded(references: Sequence[Reference], measured: Measured) -> tuple[list[Reference], list[str]]:
    """Those that were measured like the front, and in words why each of the others is left out.

    ValueError where none is left, with what differs, value against value.
    """
    found, why = fitting(references, measured), reasons(references, measured)
    if not found:
        raise ValueError(f"--reference: no point was measured like this front: {'; '.join(why)}")
    return found, why


def reasons(references: Sequence[Reference], measured: Measured) -> list[str]:
    """`18 differ in dataset (cifar100, here cifar10)`, the fewest differences first."""
    groups: dict[tuple[str, ...], list[Reference]] = {}
    for each in references:
        if names := _differing(each, measured):
            groups.setdefault(names, []).append(each)
    return [
        f"{len(group)} differ{'s' * (len(group) == 1)} in "
        + ", ".join(_against(name, group, measured) for name in names)
        for names, group in sorted(groups.items(), key=lambda item: len(item[0]))
    ]


def _differing(reference: Reference, measured: Measured) -> tuple[str, ...]:
    return tuple(name for name in CONDITIONS if not _agree(getattr(reference, name), measured[name]))


def _agree(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, float):
        return isinstance(ours, float) and isclose(theirs, ours, rel_tol=1e-4)
    return bool(theirs == ours)


def _against(name: str, group: Sequence[Reference], measured: Measured) -> str:
    theirs = list(dict.fromkeys(_shown(getattr(each, name)) for each in group))
    several = ", ".join(theirs[:4]) + (f" and {len(theirs) - 4} more" if len(theirs) > 4 else "")
    return f"{name} ({several}; here {_shown(measured[name])})"


def _shown(value: Any) -> str:
    return format_pixels(value) if isinstance(value, float) else line("not known" if value is None else value)
