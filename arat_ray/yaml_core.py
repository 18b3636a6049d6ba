"""YAML that others wrote: read within bounds, by the core schema of YAML 1.2, whose numbers are decimal.

PyYAML reads YAML 1.1, where `010` is 8, `1:30` is 90 and `no` is false. So only its parser is used, whose events become
dicts, lists, text, numbers, booleans and null here. Aliases and the merge key `<<` are known. What looks like a number
but is no decimal one is refused. https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml import AliasEvent, DocumentStartEvent, MappingStartEvent, MarkedYAMLError, ScalarEvent, SequenceStartEvent

from arat_ray.text import plain as harmless
from arat_ray.yaml_bounds import YamlError, events, wrong

WHOLE_AT_MOST = 2**63 - 1
SHOWN_AT_MOST = 40

INT = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NULL, TRUE, FALSE = ("", "~", "null", "Null", "NULL"), ("true", "True", "TRUE"), ("false", "False", "FALSE")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
NOT_DECIMAL = re.compile(
    r"[-+]?(0[xX][0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|(?=[0-9.]+_)[0-9]*[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?)"
)
"""What YAML 1.1 reads as other numbers than people write, and the hexadecimal and octal ones of 1.2."""
NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""A surrogate alone cannot be written to any file, and no name may hold a NUL."""
CORE = "tag:yaml.org,2002:"


def parse(text: str) -> Any:
    """What the one document of a text says; None where there is none. Raises YamlError."""
    root: list[Any] = []
    reading = _Reading([_Sequence((), root)])
    for event in events(text):
        if isinstance(event, DocumentStartEvent) and root:
            raise YamlError("a second document begins; a file holds one", event.start_mark)
        reading.take(event)
    return root[0] if root else None


def dump(data: Any, *, width: int = 120) -> str:
    """Plain data as YAML that `parse`, and readers of YAML 1.1, read back as it is."""
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": width}
    text: str = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, **options)
    return text if harmless(text) == text else str(yaml.dump(data, Dumper=_Dumper, allow_unicode=False, **options))


class _Dumper(yaml.SafeDumper):
    """Quotes text that either schema would read as something else."""


_Dumper.add_implicit_resolver(f"{CORE}float", re.compile(f"^(?:{FLOAT.pattern}|{NOT_DECIMAL.pattern})$"), None)


@dataclass
class _Sequence:
    """A list that is being read."""

    path: tuple[str, ...]
    value: list[Any]
    anchor: str | None = None

    def next_path(self) -> tuple[str, ...]:
        return (*self.path[:-1], f"{self.path[-1]}[{len(self.value)}]") if self.path else ()

    def put(self, value: Any, event: yaml.Event, *, plain: bool) -> None:
        self.value.append(value)

    def end(self) -> Any:
        return self.value


@dataclass
class _Mapping:
    """A mapping that is being read; what is merged into it stands below its own keys."""

    path: tuple[str, ...]
    anchor: str | None = None
    value: dict[Any, Any] = field(default_factory=dict)
    merged: dict[Any, Any] = field(default_factory=dict)
    key: Any = None
    state: str = "key"  # then value, or merge

    def next_path(self) -> tuple[str, ...]:
        return self.path if self.state == "key" else (*self.path, str(self.key))

    def put(self, value: Any, event: yaml.Event, *, plain: bool) -> None:
        if self.state == "key":
            if isinstance(value, dict | list):
                raise wrong("a key must be a word", event)
            if value == "<<" and plain:
                self.state = "merge"
                return
            if value in self.value:
                raise wrong(f"key {value!r} stands twice", event)
            self.key, self.state = value, "value"
        elif self.state == "value":
            self.value[self.key], self.state = value, "key"
        else:
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise wrong("`<<` takes a mapping, or a list of them", event)
            for source in reversed(sources):  # the first goes before the others
                self.merged.update(source)
            self.state = "key"

    def end(self) -> Any:
        return {**self.merged, **self.value}


class _Reading:
    """The collections that are open, and what anchors stand for."""

    def __init__(self, opened: list[_Sequence | _Mapping]) -> None:
        self.open, self.anchors = opened, dict[str, Any]()

    def take(self, event: yaml.Event) -> None:
        try:
            self._take(event)
        except MarkedYAMLError as error:
            raise YamlError(str(error.problem), error.problem_mark) from None

    def _take(self, event: yaml.Event) -> None:
        around = self.open[-1]
        if isinstance(event, ScalarEvent):
            if found := NO_CHARACTER.search(event.value):
                raise wrong(f"text holds {found[0]!a}, which is no character", event)
            plain = bool(event.implicit[0]) and event.style is None
            self._put(_scalar(event, ".".join(around.next_path())), event, event.anchor, plain=plain)
        elif isinstance(event, AliasEvent):  # a copy, so that no two places share what one of them may change
            self._put(copy.deepcopy(self.anchors[str(event.anchor)]), event, None)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            is_list = isinstance(event, SequenceStartEvent)
            if event.tag not in (None, "!", f"{CORE}{'seq' if is_list else 'map'}"):
                raise wrong(f"the tag {event.tag!r} is not read here; leave it out", event)
            if isinstance(around, _Mapping) and around.state == "key":
                raise wrong("a key must be a word", event)
            path = around.next_path()
            self.open.append(_Sequence(path, [], event.anchor) if is_list else _Mapping(path, event.anchor))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            ended = self.open.pop()
            self._put(ended.end(), event, ended.anchor)

    def _put(self, value: Any, event: yaml.Event, anchor: str | None, *, plain: bool = False) -> None:
        if anchor:
            self.anchors[anchor] = value
        self.open[-1].put(value, event, plain=plain)


def _scalar(event: ScalarEvent, path: str) -> Any:
    """Text, or what the core schema makes of a word without quotes."""
    where = f"{path}: " if path else ""
    if event.tag in (None, "!"):
        if not event.implicit[0] or event.tag == "!":
            return event.value
        value = _resolved(event.value)
    elif event.tag == f"{CORE}str":
        return event.value
    else:
        kinds: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (float, int),
            "bool": (bool,),
            "null": (type(None),),
        }
        wanted = kinds.get(event.tag.removeprefix(CORE))
        if wanted is None:
            raise wrong(f"{where}the tag {event.tag!r} is not read here; leave it out", event)
        value = _resolved(event.value)
        if type(value) not in wanted:
            raise wrong(f"{where}{_short(event.value)} is not what its tag says; leave the tag out", event)
        value = float(value) if event.tag == f"{CORE}float" else value
    if isinstance(value, _Refused):
        raise wrong(f"{where}{value.why}", event)
    return value


class _Refused(NamedTuple):
    why: str


def _resolved(word: str) -> Any:
    if word in NULL:
        return None
    if word in TRUE or word in FALSE:
        return word in TRUE
    if INT.fullmatch(word):
        if len(word) > len(str(WHOLE_AT_MOST)) + 1 or abs(int(word)) > WHOLE_AT_MOST:
            return _Refused(f"{_short(word)} is too large; whole numbers go up to {WHOLE_AT_MOST}")
        return int(word)
    if FLOAT.fullmatch(word):
        number = float(word)
        return number if math.isfinite(number) else _Refused(f"{_short(word)} is too large; numbers go up to 1.7e308")
    if NOT_FINITE.fullmatch(word):
        return _Refused(f"{word} is no finite number; write a number, or leave the key out")
    if NOT_DECIMAL.fullmatch(word):
        return _Refused(f"{_short(word)} is no decimal number; write {_decimal(word)}'{_short(word)}' if it is text")
    return word


def _decimal(word: str) -> str:
    """What was meant, where that is plain: `1000, or ` for 1_000 and `16, or ` for 0x10."""
    digits = word.replace("_", "")
    if ":" in digits:
        return "a number of one unit, such as 1.5, or "
    if INT.fullmatch(digits) or FLOAT.fullmatch(digits):
        return f"{_short(digits)}, or "
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits.removeprefix("+"))
    base = {"x": 16, "o": 8, "b": 2}.get(digits[1:2].lower())
    if base is None or len(digits) > 18 or not digits[2:]:
        return "it in decimal digits, or "
    return f"{sign}{int(digits[2:], base)}, or "


def _short(word: str) -> str:
    return word if len(word) <= SHOWN_AT_MOST else f"{word[:SHOWN_AT_MOST]}..."
