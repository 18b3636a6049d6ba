"""A network in words, for choosing layers to regularise: its modules, what each gives, which the paper takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from arat_ray.experiment.errors import explain
from arat_ray.training import layers
from arat_ray.training.data.images import Shape
from arat_ray.training.layers import Layer
from arat_ray.training.models import Model
from arat_ray.training.outlines import outlined
from arat_ray.yaml_bounds import YamlError
from arat_ray.yaml_core import parse

if TYPE_CHECKING:
    from rich.console import Console


class Network(NamedTuple):
    """One network's layers, and the names of those that the paper and the user's patterns select."""

    spec: Any
    shape: Shape
    parameters: int
    layers: list[Layer]
    in_paper: list[str]
    matched: list[str]


def model_from(name: str, settings: Sequence[str]) -> Model:
    """The model of command-line words: its name, then KEY=VALUE with values as in YAML.

    Raises ValueError naming the word that cannot be.
    """
    raw: dict[str, Any] = {"name": name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key == "name":
            raise ValueError(f"--set {setting}: write KEY=VALUE, such as width=32, with a key of the model")
        try:
            raw[key] = parse(value)
        except YamlError as error:
            raise ValueError(f"--set {setting}: {error.problem}") from error
    try:
        model: Model = TypeAdapter(Model).validate_python(raw)
    except ValidationError as error:
        raise ValueError("\n".join(f"model: {problem}" for problem in explain(error, raw))) from error
    return model


def shape_from(text: str) -> Shape:
    """`3x32x32` as channels, height, width. Raises ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise ValueError(f"--input {text}: write CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])


def examine(spec: Any, shape: Shape, *, num_classes: int, patterns: Sequence[str] = ()) -> Network:
    """A network's layers, without memory or data (meta device).

    Raises ValueError for a pattern that matches nothing, or a layer that gives no feature.
    """
    with outlined():
        model = spec.build(shape, num_classes)
    matched = layers.select(model, patterns)
    layers.widths(model, matched, shape)
    return Network(
        spec,
        shape,
        sum(parameter.numel() for parameter in model.parameters()),
        layers.survey(model, shape),
        layers.select(model, spec.paper_layers),
        matched,
    )


def as_json(network: Network) -> dict[str, Any]:
    """Everything, for programs; shapes are those for one image."""
    return {
        "model": network.spec.model_dump(),
        "input": network.shape,
        "parameters": network.parameters,
        "representation": network.spec.representation,
        "paper_layers": network.spec.paper_layers,
        "layers": [
            layer._asdict() | {"in_paper": layer.name in network.in_paper, "matched": layer.name in network.matched}
            for layer in network.layers
        ],
    }


def print_table(network: Network, console: Console) -> None:
    """One line a module: its name, kind, output for an image, pooled feature width d, and who selects it."""
    from arat_ray.terminal import Table, say

    millions = f"{network.parameters / 1e6:.2f} million parameters"
    table = Table(title=f"{network.spec.name}: {millions}, {_by(network.shape)} images")
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("output", "d"):
        table.add_column(heading, justify="right", no_wrap=True)
    marks = {"paper": network.in_paper, "pattern": network.matched}
    marks = {heading: names for heading, names in marks.items() if names}
    for heading in marks:
        table.add_column(heading, justify="center")
    for layer in network.layers:
        table.add_row(
            layer.name,
            layer.kind,
            "no tensor" if layer.output is None else _by(layer.output),
            "none" if layer.width is None else str(layer.width),
            *("*" if layer.name in names else "" for names in marks.values()),
        )
    console.print(table)
    say(console, "d: width of the feature after ReLU and the mean over positions")
    if network.in_paper:
        patterns = ", ".join(f'"{pattern}"' for pattern in network.spec.paper_layers)
        say(console, f"the ARAT paper regularises: layers: [{patterns}]")


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
