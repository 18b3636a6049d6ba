"""Text for people: what is not ours made harmless, and commands that can be pasted into a shell.

Labels, trial ids, paths, errors of libraries and what stands in a bucket are foreign: they may hold escape codes, which
a terminal obeys, and brackets, which rich reads as markup. Whoever prints them prints `plain(text)`, and lets no markup
be read in it (`cli.common.console`).
"""

from __future__ import annotations

import os
import shlex
import unicodedata

_BIDI = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They reorder what stands around them, so that a reader sees another text than there is."""


def plain(text: object) -> str:
    """The text without anything that a terminal obeys: control characters but line ends and tabs are spelled out."""
    return "".join(char if _is_harmless(char) else _spelled(char) for char in str(text))


def command(*words: object) -> str:
    """A command line, each word quoted as a POSIX shell needs it; paths as they read in an f-string."""
    return shlex.join(f"{word}" if isinstance(word, os.PathLike) else str(word) for word in words)


def _is_harmless(char: str) -> bool:
    if char.isprintable() or char in "\n\t":
        return True
    return char not in _BIDI and unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()
