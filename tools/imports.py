"""The import graph of the package: rooms in their order, with no circle and no arrow upward.

    python -m tools.imports            # the graph of rooms, as Mermaid
    python -m tools.imports --modules  # each module and what it imports of other rooms

Counted are all imports, also those inside functions and under `TYPE_CHECKING`: an arrow is an arrow whenever it is
drawn. Exit code 1 where there is a circle between modules or an arrow upward, with their names.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "arat_ray"
FLOORS = (
    {"base"},
    {"storage", "results"},
    {"frontier"},
    {"report", "tracking", "training"},
    {"evaluation"},
    {"experiment"},
    {"study", "launchers"},
    {"cluster"},
    {"api"},
    {"arat_ray"},
    {"cli"},
)
"""The rooms, from the ground up; a room imports only what lies below it. `base` are the modules that belong to no room,
`arat_ray` is the package itself: the Python API's names."""

Graph = dict[str, set[str]]


def graph(package: Path = PACKAGE) -> Graph:
    """Which modules of the package each of its modules imports."""
    files = {_module(path, package): path for path in sorted(package.rglob("*.py"))}
    return {name: set(_imported(path, files)) - {name} for name, path in files.items()}


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names = [module if module in known else node.module for module in below.values()]
        yield from (name for name in names if name in known)


def room(module: str) -> str:
    """The room of a module: `arat_ray.cluster.jobs.client` is of `cluster`, `arat_ray.text` of `base`."""
    parts = module.split(".")
    if len(parts) == 1:
        return parts[0]
    return parts[1] if (PACKAGE / parts[1]).is_dir() else "base"


def circle(modules: Graph) -> list[str]:
    """One circle of modules, the first again at its end; empty where there is none."""
    try:
        TopologicalSorter(modules).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def upward(modules: Graph) -> list[tuple[str, str]]:
    """Imports of a module by one of the same floor's other room, or of a floor below."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return [
        (name, other)
        for name, others in modules.items()
        for other in sorted(others)
        if room(name) != room(other) and floor[room(other)] >= floor[room(name)]
    ]


def of_rooms(modules: Graph) -> Graph:
    """Which rooms each room imports."""
    found: Graph = {name: set() for names in FLOORS for name in sorted(names)}
    for name, others in modules.items():
        found[room(name)] |= {room(other) for other in others} - {room(name)}
    return found


def mermaid(rooms: Graph) -> str:
    """The rooms from the top down, without `base`, which all import, and without an arrow that two others imply."""
    lines = ["graph TD"]
    for name, others in reversed(rooms.items()):
        lines += [f"  {name} --> {other}" for other in sorted(_direct(name, rooms, others))]
    return "\n".join(lines) + "\n"


def _direct(name: str, rooms: Graph, others: set[str]) -> set[str]:
    implied = {far for near in others for far in _below(near, rooms)}
    return others - implied - {"base", name}


def _below(name: str, rooms: Graph) -> set[str]:
    return {far for near in rooms[name] for far in {near, *_below(near, rooms)}}


def main() -> None:
    parser = argparse.ArgumentParser(description="The import graph of the package.")
    parser.add_argument("--modules", action="store_true", help="each module and what it imports of other rooms")
    modules = graph()
    arrows, around = upward(modules), circle(modules)
    if arrows or around:
        lines = [f"upward: {name} imports {other}" for name, other in arrows]
        sys.exit("\n".join(lines + ([f"circle: {' -> '.join(around)}"] if around else [])))
    if parser.parse_args().modules:
        for name, others in sorted(modules.items()):
            far = sorted(other for other in others if room(other) != room(name))
            sys.stdout.write(f"{name}: {', '.join(far)}\n" if far else "")
    else:
        sys.stdout.write(mermaid(of_rooms(modules)))


if __name__ == "__main__":
    main()
