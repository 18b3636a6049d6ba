"""`arat-ray cluster check`: one file, offline, all that is wrong with it before a machine is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arat_ray.launchers import aws, azure, capacity, defaults, gcp, kuberay, pods, ray_up, slurm
from arat_ray.launchers.document import Document, documents, text_of
from arat_ray.launchers.problems import Problem, at, dotted, in_words, mapping, shown
from arat_ray.text import did_you_mean

if TYPE_CHECKING:
    from arat_ray.experiment.spec import Resources

CLOUDS = {"aws": aws, "gcp": gcp, "azure": azure}
"""Providers whose `node_config` has a model to hold it against."""


class CheckedFile(NamedTuple):
    """One line for each problem, in the order of the file; and what is worth knowing of a file without any."""

    problems: list[str]
    notes: list[str]


def check(file: Path, resources: Resources | None = None) -> CheckedFile:
    """Check a file of `ray up`, KubeRay or Slurm; with `resources`, also whether a trial fits.

    Raises ValueError where it cannot be read, is none of these, or a package that knows its model is not installed.
    """
    text = text_of(file)
    if text.startswith("#!"):
        return _slurm(file, text, resources)
    return check_documents(file, documents(file), resources)


def check_documents(file: Path, read: list[Document], resources: Resources | None = None) -> CheckedFile:
    """The same of the documents of a file of `ray up` or KubeRay, whatever they hold."""
    words = [(each, *in_words(each.data)) for each in read]
    found = [each._replace(data=data, placeholders=[*each.placeholders, *odd]) for each, data, odd in words]
    if any(str(at(each.data, "apiVersion")).startswith("ray.io/") for each in found):
        return _kuberay(file, found, resources)
    if len(found) == 1 and isinstance(found[0].data, dict) and "provider" in found[0].data:
        return _ray_up(file, found[0], resources)
    raise ValueError(
        f"{file}: is no cluster file: a file of `ray up` has `provider:`, one of KubeRay apiVersion: ray.io/v1, "
        "a batch script of Slurm begins with #!"
    )


def _ray_up(file: Path, document: Document, resources: Resources | None) -> CheckedFile:
    config = document.data
    kind = mapping(config["provider"]).get("type")
    if not isinstance(kind, str) or kind not in ray_up.PROVIDER_KEYS:
        fix = did_you_mean(str(kind), ray_up.PROVIDER_KEYS).removeprefix("; ")
        unknown = [Problem(("provider", "type"), f"{shown(kind)} cannot be checked", fix)]
        return CheckedFile(_lines(file, unknown, document), [])
    problems = ray_up.schema(config) + defaults.rules(config)
    if kind in CLOUDS:
        problems += CLOUDS[kind].schema(config) + CLOUDS[kind].rules(config)
    nodes, notes = capacity.of_ray_up(config), []
    if nodes is None:
        notes = ["what the machines have is not in the file; arat-ray doctor asks them"]
    elif resources is not None:
        problems += capacity.too_small(resources, nodes, ("available_node_types",))
    return CheckedFile(
        _lines(file, problems + document.placeholders, document), notes or _notes([nodes or []], resources)
    )


def _kuberay(file: Path, found: list[Document], resources: Resources | None) -> CheckedFile:
    data = [each.data for each in found]
    problems = kuberay.schema(data) + kuberay.rules(data)
    problems += [
        each._replace(path=(index, *each.path)) for index, one in enumerate(found) for each in one.placeholders
    ]
    nodes = capacity.of_kuberay(data)
    if resources is not None:
        for (path, _), each in zip(pods.clusters(data), nodes, strict=True):
            problems += capacity.too_small(resources, each, (*path, "workerGroupSpecs"))
    lines = []
    for index, one in enumerate(found):
        own = [each._replace(path=each.path[1:]) for each in problems if each.path[0] == index]
        lines += _lines(file, own, one, name=str(at(one.data, "kind")))
    return CheckedFile(lines, _notes(nodes, resources))


def _slurm(file: Path, text: str, resources: Resources | None) -> CheckedFile:
    problems = slurm.schema(text) + slurm.rules(text) + slurm.placeholders(text)
    nodes = capacity.of_slurm(text)
    if resources is not None and nodes:
        problems += capacity.too_small(resources, nodes, ("#SBATCH",))
    return CheckedFile(_lines(file, problems, None), _notes([nodes], resources))


def _lines(file: Path, problems: list[Problem], document: Document | None, *, name: str = "") -> list[str]:
    """FILE:LINE: KEY: what is wrong; the fix."""
    placed = [(each.line or (document.line(each.path) if document else 1), each) for each in problems]
    lines = []
    for line, each in sorted(placed, key=lambda pair: pair[0]):
        key = ".".join(filter(None, [name, dotted(each.path)]))
        lines.append(f"{file}:{line}: {key + ': ' if key else ''}{each.says}; {each.fix}")
    return list(dict.fromkeys(lines))


def _notes(groups: list[list[capacity.Nodes]], resources: Resources | None) -> list[str]:
    notes = []
    for nodes in groups:
        held = ", ".join(map(str, nodes))
        at_once = "" if resources is None else f": {capacity.trials_at_once(resources, nodes)} trials at once"
        notes.append(f"at most {held}{at_once}")
    return list(dict.fromkeys(notes))
