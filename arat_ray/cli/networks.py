"""Verbs of networks: layers to regularise, published runs, exports."""

from __future__ import annotations

import json
from pathlib import Path

import click

from arat_ray.cli.common import HERE, PATH, Number, bring_any, console, echo, user_errors
from arat_ray.cli.data import DATA, data_of


@click.command(short_help="The layers of a network that a method can regularise.")
@click.argument("model")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of the model; repeatable.")
@click.option("--input", "shape", metavar="CxHxW", default="3x32x32", show_default=True, help="Of an image.")
@click.option("--classes", type=click.IntRange(min=1), default=10, show_default=True, help="Number of classes.")
@click.option("--pattern", "patterns", multiple=True, help="Mark the layers that it matches; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def layers(
    model: str, settings: tuple[str, ...], shape: str, classes: int, patterns: tuple[str, ...], as_json: bool
) -> None:
    """The layers of a network that a method can regularise: names, outputs, feature widths, the paper's choice.

    MODEL is a `name:` under `model:`, such as resnet18 or wide_resnet.

    \b
    Example: arat-ray layers resnet18 --pattern 'layer4.*.bn?'
             arat-ray layers wide_resnet --set depth=16 --set width=2
    """
    with user_errors():
        from arat_ray.experiment import network

        found = network.examine(
            network.model_from(model, settings), network.shape_from(shape), num_classes=classes, patterns=patterns
        )
        if as_json:
            echo(json.dumps(network.as_json(found), indent=2))
        else:
            network.print_table(found, console())


@click.command(short_help="Published training runs that an experiment can name.")
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """The published training runs that `preset:` under `train:` can name; with NAME, all that it says, as YAML.

    Example: arat-ray presets trades/resnet18
    """
    with user_errors():
        from arat_ray.text import did_you_mean
        from arat_ray.training.presets import PRESETS
        from arat_ray.yaml_core import dump

        if name is None:
            for known, run in PRESETS.items():
                echo(f"{known}: {run['epochs']} epochs, learning rate {run['optimizer']['learning_rate']}")
        elif name in PRESETS:
            echo(dump(PRESETS[name], width=80), nl=False)
        else:
            raise ValueError(f"no preset {name!r}{did_you_mean(name, PRESETS)}")


@click.command(short_help="Write a network for use without arat-ray: weights, torch, ONNX.")
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=HERE, required=True, help="FILE.safetensors, FILE.pt2 or FILE.onnx.")
@click.option("--raw", is_flag=True, help="Export the weights trained last, not their average (swa, ema).")
@click.option("--dial", type=Number(), metavar="T", help="The network at T between its norm branches: 1 is the clean.")
@click.option("--card", "carded", is_flag=True, help="Write a model card beside it, README.md as Hugging Face has it.")
@click.option("--license", metavar="NAME", help="For the card, such as mit; else it says none.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@DATA
def export(
    checkpoint: Path,
    output: Path,
    raw: bool,
    dial: float | None,
    carded: bool,
    license: str | None,
    force: bool,
    data: str | None,
) -> None:
    """Write a checkpoint's deployed network (adversarial branch folded in) for use without arat-ray.

    FILE.safetensors holds the weights; FILE.pt2 is a program for plain torch, which gradients go through; FILE.onnx one
    for ONNX runtimes. The file is loaded back and its logits are compared before it is kept. FILE.json, the suffix
    added to the name, says what it is. The card says what `evaluate` measured of it, and what that does not say.

    \b
    Example: arat-ray export results/quickstart/checkpoints/quickstart-00000/last.pt -o model.pt2
             arat-ray export results/quickstart/checkpoints/quickstart-00000/last.pt --dial 0.4 -o model.pt2
             arat-ray export results/quickstart/checkpoints/quickstart-00000/last.pt -o hub/model.pt2 --card
    """
    if license and not carded:
        raise click.UsageError("--license stands in the card: give --card as well")
    with user_errors():
        from arat_ray.training.checkpoint import load
        from arat_ray.training.export import card
        from arat_ray.training.export.network import export as write

        bring_any(checkpoint)
        state = load(checkpoint, mmap=True)
        readme = card.place(output, overwrite=force) if carded else None
        with data_of(checkpoint, [state.train], data, test=False, is_needed=state.content is None):
            written = write(checkpoint, output, averaged=not raw, dial=dial, overwrite=force)
        echo(f"{written.comparison}")
        echo(f"wrote {written.path} and {written.description}")
        if readme:
            echo(f"wrote {card.write(checkpoint, state, written.description, readme, license=license)}")
