"""The events of a YAML text that others wrote, as far as it stays within bounds: bytes, values and levels.

Ten lines of aliases may stand for 10^9 values, and a line of brackets be deeper than any stack. What aliases stand for
is counted here as if it were written out, before anything is built of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml import AliasEvent, MappingStartEvent, MarkedYAMLError, ScalarEvent, SequenceStartEvent

BYTES_AT_MOST = 1 << 20
VALUES_AT_MOST = 50_000
"""Keys, values and collections of a file; each alias counts for all that it stands for."""
DEPTH_AT_MOST = 64
ASCII_OF_YAML = tuple(" :,[]{}-#'\"&*|>?!")


class YamlError(ValueError):
    """What is wrong with a YAML text, with its line and column where there is one."""

    def __init__(self, problem: str, mark: Any = None) -> None:
        super().__init__(f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem)
        self.problem, self.line = problem, mark.line + 1 if mark else None


def text_of(path: Path) -> str:
    """The text of a file. Raises YamlError where it cannot be read or is larger than any that people write."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_AT_MOST + 1)
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from error
    if len(data) > BYTES_AT_MOST:
        raise YamlError(f"is larger than {BYTES_AT_MOST >> 20} MiB, too large to be read")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise YamlError("cannot be read: is not UTF-8 text") from error


def events(text: str) -> Iterator[yaml.Event]:
    """The events of a text, as far as it stays within the bounds. Raises YamlError."""
    bounds = _Bounds()
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            bounds.take(event)
            yield event
    except MarkedYAMLError as error:
        problem = ", ".join(filter(None, [error.context, error.problem]))
        raise YamlError(problem + _hint(text, error), error.problem_mark) from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; \U00110000
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from error


def wrong(problem: str, event: yaml.Event) -> MarkedYAMLError:
    """An error that stands where the event does."""
    mark: Any = event.start_mark
    return MarkedYAMLError(problem=problem, problem_mark=mark)


class _Extent(NamedTuple):
    """How many values a node is, and how many levels."""

    values: int
    levels: int


class _Bounds:
    """Counts what a text stands for, aliases written out."""

    def __init__(self) -> None:
        self.values = 0
        self.open: list[tuple[str | None, int, int]] = []  # anchor, values before it, levels seen below it
        self.anchors: dict[str, _Extent | None] = {}  # None while it is open

    def take(self, event: yaml.Event) -> None:
        """Raises MarkedYAMLError where the text leaves the bounds."""
        if isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                raise wrong(f"alias *{event.anchor} stands for nothing; &{event.anchor} comes first", event)
            extent = self.anchors[event.anchor]
            if extent is None:
                raise wrong(f"alias *{event.anchor} stands within what it stands for", event)
            self._add(extent, event)
        elif isinstance(event, ScalarEvent):
            self._add(_Extent(1, 1), event)
            if event.anchor:
                self.anchors[event.anchor] = _Extent(1, 1)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            self._add(_Extent(1, 1), event)
            self.open.append((event.anchor, self.values, 0))
            if event.anchor:
                self.anchors[event.anchor] = None
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            anchor, before, below = self.open.pop()
            self._deepen(below + 1)
            if anchor:
                self.anchors[anchor] = _Extent(self.values - before + 1, below + 1)
        elif isinstance(event, yaml.DocumentEndEvent):
            self.anchors.clear()

    def _add(self, extent: _Extent, event: yaml.Event) -> None:
        self.values += extent.values
        if self.values > VALUES_AT_MOST:
            raise wrong(f"more than {VALUES_AT_MOST:,} values, with what aliases stand for", event)
        if len(self.open) + extent.levels > DEPTH_AT_MOST:
            raise wrong(f"nested more than {DEPTH_AT_MOST} levels deep", event)
        self._deepen(extent.levels)

    def _deepen(self, levels: int) -> None:
        if self.open:
            anchor, before, below = self.open[-1]
            self.open[-1] = anchor, before, max(below, levels)


def _hint(text: str, error: MarkedYAMLError) -> str:
    """What cannot be seen in an editor, or hardly, near a mistake: a tab, or a character that looks like another."""
    if error.problem and "'\\t'" in error.problem:
        return "; write spaces instead of tabs"
    first, last = (mark.line if mark else 0 for mark in (error.context_mark or error.problem_mark, error.problem_mark))
    for number, line in enumerate(text.splitlines()[max(first - 1, 0) : last + 1], max(first, 1)):
        for char in filter(_is_taken_for_another, line):
            name = unicodedata.name(char, "character").lower()
            return f"; line {number} holds a {name} (U+{ord(char):04X}), which is none of YAML's"
    if error.problem in ("could not find expected ':'", "mapping values are not allowed here"):
        return "; a key stands on a line of its own, with a colon and a space after it"
    return ""


def _is_taken_for_another(char: str) -> bool:
    """A space, quote, colon, comma or bracket that is not the one of ASCII, or a character without a width."""
    if char.isascii():
        return False
    return unicodedata.normalize("NFKC", char) in ASCII_OF_YAML or unicodedata.category(char) in (
        "Zs",
        "Cf",
        "Pi",
        "Pf",
    )
