"""Added columns: a table that was written before a column was added has null there, and can be read and gone on with.

What a study of before is not: one of another search space, whose `param_*` differ, one whose columns have another type,
or one that a newer version wrote.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from arat_ray.results.schema import PARAM, TABLES, trials_schema


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with these columns and metadata, those that it lacks null."""
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def of_today(found: pa.Schema, table: str) -> pa.Schema:
    """The columns of a part and those that its table has had since, in today's order; unknown ones at the end."""
    if table not in TABLES or set(TABLES[table].schema.names) <= set(found.names):
        return found
    params = {name.removeprefix(PARAM): found.field(name).type for name in found.names if name.startswith(PARAM)}
    today = trials_schema(params) if table == "trials" else TABLES[table].schema
    fields = [found.field(field.name) if field.name in found.names else field for field in today]
    return pa.schema([*fields, *(field for field in found if field.name not in today.names)], found.metadata)


def is_of_before(path: Path, found: pa.Schema, wanted: pa.Schema, key: Collection[str]) -> bool:
    """Whether a part has to be written again to have the wanted columns, each in its place.

    ValueError where it cannot have them: its search space, its key or a type is another, or a newer version wrote it.
    """
    there, here = ({field.name: field for field in schema} for schema in (found, wanted))
    for name in here | there:
        is_param = name.startswith(PARAM)
        if name in there and name in here and there[name].equals(here[name]):
            continue
        if name not in there and name not in key and not is_param:
            continue  # it was added
        if name not in here and not is_param:
            raise ValueError(
                f"{path} has the column {name!r}, which this arat-ray does not know: a newer one wrote it; "
                "install that one to go on"
            )
        fix = "another search space" if is_param else "what another version of arat-ray wrote"
        raise ValueError(
            f"{path} has other columns: {name!r} is {_type(there.get(name))} there and {_type(here.get(name))} here; "
            f"{fix} needs another folder"
        )
    return list(there) != list(here)


def _type(field: pa.Field | None) -> str:
    if field is None:
        return "missing"
    return str(field.type) if field.nullable else f"{field.type} not null"
