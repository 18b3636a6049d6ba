"""Text for people: what is not ours made harmless, commands that can be pasted into a shell, and what was meant.

Labels, trial ids, paths, errors of libraries and what stands in a bucket are foreign: they may hold escape codes, which
a terminal obeys, and brackets, which rich reads as markup. What is printed goes through `plain`: in tables and on a
console by `arat_ray.terminal`, elsewhere by `cli.common.echo`.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable

_BIDI = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They reorder what stands around them, so that a reader sees another text than there is."""
_BREAK = re.compile(r" *[\n\t][ \n\t]*")
_PARTS = re.compile(r"[_./-]+")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def plain(text: object) -> str:
    """The text without anything that a terminal obeys: control characters but line ends and tabs are spelled out."""
    text = str(text)
    return text if text.isprintable() else "".join(char if _is_harmless(char) else _spelled(char) for char in text)


def line(text: object) -> str:
    """The same in one line, for a cell of a table, or a line that stands for one thing."""
    return _BREAK.sub(" ", plain(text).strip("\n"))


def uncoloured(log: str) -> str:
    """The log of another program, without its colours and with line ends as they are here."""
    return _COLOUR.sub("", log).replace("\r\n", "\n")


def command(*words: object) -> str:
    """A command line, each word quoted as a POSIX shell needs it; paths as they read in an f-string."""
    return shlex.join(_path(f"{word}") if isinstance(word, os.PathLike) else str(word) for word in words)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or one that begins with it, else the list of what is known."""
    names = sorted(known)
    near = nearest(word, names)
    return f"; did you mean {near!r}?" if near else f"; known: {', '.join(names)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if there is one: spelled alike, begun alike, or a part of it is."""
    import difflib

    lower, by_lower = word.lower(), {name.lower(): name for name in known}
    near = difflib.get_close_matches(lower, by_lower, n=1, cutoff=0.6)
    if not near and len(lower) > 2:
        near = [name for name in by_lower if name.startswith(lower)]
    if not near:
        by_part = {part: name for name in reversed(by_lower) for part in _PARTS.split(name)}
        near = [by_part[part] for part in difflib.get_close_matches(lower, by_part, n=1, cutoff=0.75)]
    return by_lower[near[0]] if near else None


def _path(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path  # what begins with a dash is read as an option


def _is_harmless(char: str) -> bool:
    if char.isprintable() or char in "\n\t":
        return True
    return char not in _BIDI and unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()
