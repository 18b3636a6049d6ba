"""Which columns of a Parquet file are the image and the label, and what the Hub's metadata says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arat_ray.text import did_you_mean, plain
from arat_ray.training.data.classes import shown

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES = re.compile(r"imgs?|images?|pixel_values|picture|photo|jpe?g|png|webp|(image_|img_)?bytes", re.IGNORECASE)
_LABELS = re.compile(
    r"((fine_|coarse_)?label|target|class(_id|_idx|_index|_label|_name|es)?|label_id|cls|category|y|digit)s?",
    re.IGNORECASE,
)
DEEPEST = 6
"""Lists within lists of a feature."""


class Columns(NamedTuple):
    """Where images and labels of a part stand, and what the Hub's metadata says of the label."""

    image: str
    label: str
    constant: str | None
    """The label of all rows, where a folder says it."""
    names: tuple[str, ...]
    """Of the classes 0, 1, ...; none where nothing says so."""


def columns(path: Path, schema: pa.Schema, keys: Mapping[str, str], *, image: str | None, label: str) -> Columns:
    """The columns by the names that are given, else the only ones that can be meant; `keys` are what folders say.

    ValueError naming the key of the data set that says which, where there is none or several.
    """
    features = _features(schema)
    image = image or _image_column(path, schema, features)
    _once("image_column", path, schema, image)
    _can_be_images(path, schema, image)
    if label not in schema.names and label not in keys:
        label = _label_column(path, schema, features, list(keys), label)
    if label not in schema.names:
        if not keys[label].strip():
            raise ValueError(f"{path}: no label in the name of its folder, {label}=; leave it out")
        return Columns(image, label, keys[label], ())
    _once("label_column", path, schema, label)
    return Columns(image, label, None, _names(features.get(label)))


def _once(key: str, path: Path, schema: pa.Schema, column: str) -> None:
    count = schema.names.count(column)
    if count > 1:
        raise ValueError(f"dataset.{key}: {path} has {count} columns called {shown(column)}; write it with one")
    if not count:
        raise ValueError(f"dataset.{key}: {path} has no {column!r}{_nearest(column, schema.names)}")


def _image_column(path: Path, schema: pa.Schema, features: dict[str, Any]) -> str:
    for usual in ("img", "image"):
        if usual in schema.names:
            return usual
    declared = [name for name in schema.names if _type(features.get(name)) == "Image"]
    binary = [field.name for field in schema if _is_encoded(field.type)]
    known = [name for name in schema.names if _IMAGES.fullmatch(name)]
    return _only("image_column", path, "image", schema, [n for n in known if n in binary], declared, binary, known)


def _label_column(path: Path, schema: pa.Schema, features: dict[str, Any], keys: Sequence[str], label: str) -> str:
    if label != "label":
        raise ValueError(f"dataset.label_column: {path} has no {label!r}{_nearest(label, schema.names)}")
    known = [name for name in [*schema.names, *keys] if _LABELS.fullmatch(name)]
    declared = [name for name in schema.names if _type(features.get(name)) == "ClassLabel"]
    return _only("label_column", path, label, schema, known, declared, [*keys])


def _only(key: str, path: Path, usual: str, schema: pa.Schema, *candidates: list[str]) -> str:
    """The only candidate of the first list that has any."""
    for each in candidates:
        several = list(dict.fromkeys(each))
        if len(several) == 1:
            return several[0]
        if several:
            names = ", ".join(map(shown, several[:10]))
            raise ValueError(f"dataset.{key}: {path} has no {usual!r} but {names}; set {key} to the one to read")
    raise ValueError(
        f"dataset.{key}: {path} has no {usual!r}{_nearest(usual, schema.names)}; set {key} to the one to read"
    )


def _nearest(word: str, names: Sequence[str]) -> str:
    few = [name if len(name) <= 60 else f"{name[:56]}..." for name in names[:50]]
    more = f" and {len(names) - 50} more" if len(names) > 50 else ""
    return plain(did_you_mean(word, few)) + more


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether a type can hold encoded images."""
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        return _is_encoded(kind.storage_type)
    if pa.types.is_dictionary(kind) or is_list(kind):
        return _is_encoded(kind.value_type)
    if pa.types.is_struct(kind):
        inside = [field.type for field in kind if field.name == "bytes"]
        return len(inside) == 1 and not pa.types.is_struct(inside[0]) and _is_encoded(inside[0])
    fits = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(fit(kind) for fit in fits)


def is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(fits(kind) for fits in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _can_be_images(path: Path, schema: pa.Schema, column: str) -> None:
    import pyarrow as pa

    kind = schema.field(column).type
    if _is_encoded(kind):
        return
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner):
        what, fix = "text, such as paths or addresses", "embed the bytes of the image files"
    elif pa.types.is_struct(inner):
        what, fix = (
            f"{shown(str(inner))[1:-1]}",
            "embed the bytes of the image files, not a path, as struct<bytes, path>",
        )
    else:
        what, fix = f"{shown(str(inner))[1:-1]}", "write each image as the bytes of a PNG or JPEG file"
    raise ValueError(f"{path}: the column {shown(column)} holds {what} and no encoded images; {fix}")


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the Hub's metadata says of each column; nothing where it is damaged or of another make."""
    try:
        node = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    for key in ("info", "features"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _type(feature: Any) -> str | None:
    feature = _single(feature)
    found = feature.get("_type")
    return found if isinstance(found, str) else None


def _single(feature: Any) -> dict[str, Any]:
    """A feature, or that of the elements where it is a list."""
    for _ in range(DEEPEST):
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict | list):
            feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def _names(feature: Any) -> tuple[str, ...]:
    """Class names, given as a list or by number; none where they are of neither form."""
    names = _single(feature).get("names")
    if isinstance(names, dict):
        numbered = [names.get(str(i)) for i in range(len(names))]
        names = numbered
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        return ()
    taken: dict[str, None] = {}
    for i, name in enumerate(map(str, names)):
        taken[name if name not in taken else f"{name} ({i})"] = None
    return tuple(taken) if len(taken) == len(names) else ()
