"""A model card: what an exported network is, how it was measured, and what that does not say, as Hugging Face reads it.

The metadata are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arat_ray import whole_files
from arat_ray.frontier.dominance import wilson
from arat_ray.frontier.evaluations import AVERAGES, NO_ATTACK
from arat_ray.pixels import format_pixels
from arat_ray.results import reader
from arat_ray.text import command, line
from arat_ray.training.checkpoint import BEST, Checkpoint
from arat_ray.yaml_core import dump

NAME = "README.md"
LOADED = {
    ".safetensors": "safetensors.torch.load_file({file!r})  # into the architecture below",
    ".pt2": "torch.export.load({file!r}).module()",
    ".onnx": "onnxruntime.InferenceSession({file!r})",
}
Row = Mapping[str, Any]


def place(output: Path, *, overwrite: bool) -> Path:
    """Where the card of an exported file stands; ValueError where one is there already."""
    path = output.with_name(NAME)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another folder, or --force to replace it")
    return path


def write(source: Path, state: Checkpoint, description: Path, path: Path, *, license: str | None) -> Path:
    """The card of the network that `description` tells of, from the checkpoint `source` and its study's evaluations."""
    facts = json.loads(description.read_text())
    text = card(facts, state, source, _evaluations(source, facts), license=license)
    try:
        whole_files.replace(path, text.encode())
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error
    return path


def card(facts: Row, state: Checkpoint, source: Path, rows: Sequence[Row], *, license: str | None) -> str:
    """The card as text: metadata in YAML, then Markdown."""
    name = Path(facts["file"]).stem
    train = state.train
    metadata: dict[str, Any] = {"license": license} if license else {}
    metadata |= {
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["adversarial-robustness", "adversarial-training", facts["method"], facts["architecture"]["name"]],
        "datasets": [facts["dataset"]],
        "metrics": ["accuracy"],
    }
    if rows:
        metadata["model-index"] = [{"name": name, "results": list(_results(facts, rows))}]
    attack = facts["attack"]
    trained = f"under {attack['name']}, {_threat(attack)}" if attack else "without an attack"
    dial = "" if facts["dial"] is None else f" at {facts['dial']:g} of its dial (0 adversarial branch, 1 clean)"
    branch = dial or (", its adversarial branch" if facts["method"] in ("arat", "arrest") else "")
    parts = [
        f"---\n{dump(metadata)}---",
        f"# {line(name)}",
        f"A {facts['architecture']['name']} for {facts['num_classes']} classes of {facts['dataset']}: the network as "
        f"deployed{branch}, weights {facts['weights']}, after epoch {facts['epoch']} of {train['epochs']}.",
        "## Accuracy",
        *_measured(facts, state, source, rows),
        "## Read with care",
        "\n".join(f"- {warning}" for warning in _warnings(facts, source, rows)),
        "## Training",
        f"Method {facts['method']}, {trained}; seed {train['seed']}. All settings:",
        f"```yaml\n{dump({key: value for key, value in train.items() if key != 'dataset'}, width=100)}```",
        "## Data",
        "\n".join(_data(facts, state)),
        "## How to load it",
        "Give it pixels in [0, 1], not normalised, of shape "
        f"[N, {', '.join(map(str, facts['input']['shape']))}]; it returns logits.",
        f"```python\nnetwork = {LOADED[Path(facts['file']).suffix].format(file=facts['file'])}\n```",
        f"Architecture: `{json.dumps(facts['architecture'])}`. SHA-256 of the file: `{facts['sha256']}`; of the "
        f"checkpoint: `{facts['checkpoint_sha256']}`. Written by arat-ray {facts['arat_ray']}, torch {facts['torch']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _evaluations(source: Path, facts: Row) -> list[Row]:
    """The rows of `evaluations` of these weights, in the study that the checkpoint lies in; the newest a condition."""
    folders = source.absolute().parents
    if len(folders) < 3 or not reader.part_files(folders[2] / "evaluations"):
        return []
    found: dict[tuple[Any, ...], Row] = {}
    for row in reader.read(folders[2], "evaluations").to_pylist():
        is_average = row["checkpoint"] in AVERAGES
        fits = row["checkpoint"] == facts["weights"] if facts["weights"] in AVERAGES else not is_average
        if (
            fits
            and row["checkpoint_sha256"] == facts["checkpoint_sha256"]
            and (row["dial"] or 0) == (facts["dial"] or 0)
        ):
            found[tuple(row[key] for key in ("split", "attack", "attack_version", "norm", "epsilon", "images"))] = row
    return list(found.values())


def _results(facts: Row, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        data = {"type": facts["dataset"], "name": facts["dataset"], "split": row["split"]}
        metric = {"type": "accuracy", "name": _under(row), "value": row["accuracy"]}
        yield {"task": {"type": "image-classification"}, "dataset": data, "metrics": [metric]}


def _under(row: Row) -> str:
    return "clean accuracy" if row["attack"] == NO_ATTACK else f"robust accuracy, {row['attack']}, {_threat(row)}"


def _threat(attack: Row) -> str:
    return f"{attack['norm']} {format_pixels(attack['epsilon'])}"


def _measured(facts: Row, state: Checkpoint, source: Path, rows: Sequence[Row]) -> Iterator[str]:
    """What was measured, or that nothing was and how it is."""
    if rows:
        lines = ["| accuracy | split | right of images | % [95 %] | by |", "|---|---|---|---|---|"]
        for row in rows:
            low, high = wilson(row["correct"], row["images"])
            share = f"{100 * row['accuracy']:.2f} [{100 * float(low):.2f}, {100 * float(high):.2f}]"
            counts = f"{row['correct']:,} of {row['images']:,}"
            lines.append(f"| {_under(row)} | {row['split']} | {counts} | {share} | {line(row['attack_version'])} |")
        yield "\n".join(lines)
        yield "Radii are in pixel units of [0, 1]; intervals are Wilson's. Robust images are right clean, too."
        return
    attack = state.validate_spec.attack
    norm = [] if attack.norm == "linf" else ["--norm", attack.norm]
    words = ["--attack", "autoattack", *norm, "--epsilon", format_pixels(attack.epsilon), "--split", "test"]
    verb = "evaluate" if facts["dial"] is None else "dial"
    yield "No evaluation of this network was found. Measure it, then export it again:"
    yield f"```\n{command('arat-ray', verb, source, *words)}\n```"
    if said := facts["validation"]:
        clean, robust = 100 * said["clean_accuracy"], 100 * said["robust_accuracy"]
        yield (
            f"While it was trained: {clean:.1f} % clean, {robust:.1f} % under {said['attack']['label']}, "
            f"{_threat(said['attack'])}, on {said['images']:,} images of the {said['split']} split."
        )


def _warnings(facts: Row, source: Path, rows: Sequence[Row]) -> Iterator[str]:
    attacked = [row for row in rows if row["attack"] != NO_ATTACK]
    if not any(row["attack"] == "autoattack" for row in attacked):
        yield "It was not measured under AutoAttack. Accuracy under PGD or another single attack is an upper bound."
    if attacked and (fewest := min(row["images"] for row in attacked)) < 10_000:
        yield f"Measured on {fewest:,} images: read the intervals, not the last digits."
    if any(row["split"] == "validation" for row in rows):
        yield "The validation images also chose among trials or epochs, so accuracies on them are too high."
    if source.name == BEST:
        yield "The epoch was chosen for its robust accuracy on the validation images; the last one may be less robust."
    yield from (line(row["warnings"]) for row in attacked if row["warnings"])
    threats = {_threat(row) for row in attacked} | ({_threat(facts["attack"])} if facts["attack"] else set())
    told = " and ".join(sorted(threats)) or "no attack"
    yield f"Trained or measured for {told}: it promises nothing for other norms and radii."


def _data(facts: Row, state: Checkpoint) -> Iterator[str]:
    yield f"Data set {facts['dataset']}. Fingerprints, of the pixels and of the labels in their order (SHA-256):\n"
    if not state.content:
        yield "not kept by the version that trained it."
    for split, said in (state.content or {}).items():
        digests = f"pixels `{said['pixels_sha256']}`, labels `{said['labels_sha256']}`"
        yield f"- {split}: {said['images']:,} images, {digests}"
