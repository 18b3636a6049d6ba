"""What the numbers of a report depend on: versions, seeds, data, budgets, cost; a name and a text each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arat_ray.pixels import format_pixels
from arat_ray.report.overview import is_live
from arat_ray.results import reader

Row = Mapping[str, Any]


def of(study: Path, description: Row, rows: Sequence[Row], every: Sequence[Row]) -> Iterator[list[str]]:
    """Of one study, from its study.json, the last attempts of its trials and every attempt, which cost."""
    metadata, experiment = reader.metadata(study), description.get("experiment") or {}
    yield ["Folder", f"{study}"]
    if is_live(study):
        yield ["State", "running: this is how it stood when the report was written"]
    for key, title in (("started_at", "Started"), ("from", "Learned from")):
        if description.get(key):
            yield [title, _words(description[key])]
    yield ["Goals", ", ".join(metadata.goals)]
    yield ["Reference point", ", ".join(f"{value:g}" for value in metadata.reference_point)]
    how = {f"{measured(row)}, {row['images']:,} images" for row in rows if row["images"]}
    yield ["Measured", "; ".join(sorted(how)) or "nothing yet"]
    yield ["Device-hours", f"{sum(row['device_s'] or 0 for row in every) / 3600:.3g}"]
    costs = [row["cost_usd"] for row in every if row["cost_usd"] is not None]
    if costs:
        yield ["Cost", f"{sum(costs):.2f} usd"]
    seeds = sorted({row["seed"] for row in rows if row["seed"] is not None})
    yield ["Seeds of training", ", ".join(map(str, seeds[:20])) + (" ..." if len(seeds) > 20 else "") or "not known"]
    for key in ("sampler", "early_stopping", "budget", "constraints", "resources"):
        if experiment.get(key):
            yield [key.replace("_", " ").capitalize(), _words(experiment[key])]
    yield ["Data, fingerprint", _words(description["content"]) if description.get("content") else "not known"]
    yield ["Revision of arat-ray", metadata.revision]
    if description.get("versions"):
        yield ["Versions", _words(description["versions"])]


def _words(value: Any) -> str:
    """`trials 12, hours 3`: what JSON holds, without what is null or empty."""
    if isinstance(value, dict):
        parts = {key: _words(each) for key, each in value.items() if each not in (None, {}, [])}
        return ", ".join(f"{key} {words}" for key, words in parts.items())
    return "; ".join(map(_words, value)) if isinstance(value, list) else f"{value}"


def measured(row: Row) -> str:
    """`pgd-20 linf 8/255, validation split`."""
    radius = None if row["epsilon"] is None else format_pixels(row["epsilon"])
    return f"{' '.join(filter(None, (row['attack'], row['norm'], radius)))}, {row['split']} split"
