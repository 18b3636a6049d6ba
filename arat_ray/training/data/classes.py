"""What classes a data set has, and the one check of its labels, after reading and for all sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from arat_ray.text import did_you_mean, plain

SHOWN = 60
"""Characters of a foreign value that a message repeats."""


def refuse_impossible(where: str, split: str, labels: Tensor, classes: Sequence[str]) -> None:
    """ValueError where there is nothing to tell apart, or where a label [N] is of no class."""
    if len(classes) < 2:
        raise ValueError(f"{where}: all images are of one class, {_names(classes)}; a classifier needs two or more")
    counts = labels.bincount(minlength=len(classes)).tolist()
    if len(counts) > len(classes):
        raise ValueError(f"{where}: label {len(counts) - 1} of the {split} split is none of {len(classes)} classes")
    there = [name for name, count in zip(classes, counts, strict=True) if count]
    if split == "train" and len(there) == 1:
        raise ValueError(
            f"{where}: all {len(labels)} training images are of one class, {_names(there)}, of {len(classes)}; "
            "give all parts of the training set"
        )


def notes(labels: Tensor, classes: Sequence[str], *, is_declared: bool) -> Iterator[str]:
    """What to know of the classes of training labels [N]: how they came by their names, and which have no image."""
    if not is_declared and not all(map(_is_number, classes)):
        yield f"{len(classes)} classes, one for each label that occurs: {_few(classes)}"
    elif not is_declared and classes[0] != "0":
        yield f"labels {_few(classes)} are the {len(classes)} classes, numbered from 0 in this order"
    counts = labels.bincount(minlength=len(classes)).tolist()
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        yield f"{len(empty)} of the {len(classes)} classes that are named have no training image: {_few(empty)}"


def that_occur(places: Mapping[int | str, str]) -> tuple[str, ...]:
    """The classes of labels whose names nothing declares: 0..K-1 or 1..K, else each text that occurs.

    `places` says where each label comes first. ValueError for numbers with gaps: one that strays among the others would
    make a class of its own, or a million classes that no image is of.
    """
    texts = sorted(value for value in places if isinstance(value, str))
    numbers = sorted(value for value in places if isinstance(value, int))
    if texts and numbers:
        raise ValueError(
            f"{places[texts[0]]}: label {shown(texts[0])} is text, but {numbers[0]} ({places[numbers[0]]}) is a "
            "number; write all labels in the same way"
        )
    if texts:
        return tuple(sorted(texts, key=int) if all(map(_is_number, texts)) else texts)
    if numbers[0] < 0:
        raise ValueError(f"{places[numbers[0]]}: label {numbers[0]} is no class; leave out the rows that have no label")
    expected = min(numbers[0], 1)
    for value in numbers:
        if value != expected:
            gap = f"{expected} to {value - 1}" if value > expected + 1 else f"{expected}"
            raise ValueError(
                f"{places[value]}: label {shown(value)}, but no image has label {gap}; number the classes 0, 1, 2 ... "
                "without gaps, or write the labels as text, and each text that occurs is a class"
            )
        expected += 1
    return tuple(map(str, numbers))


def index_of(value: int | str, classes: dict[str, int], place: str) -> int:
    """The class that a label is; ValueError where it is none of these."""
    name = str(value)
    if name not in classes:
        hint = did_you_mean(name, classes) if len(classes) <= 20 or isinstance(value, str) else ""
        known = plain(hint) if len(hint) <= 300 else ""
        raise ValueError(
            f"{place}: label {shown(value)} is none of the {len(classes)} classes of the training set{known}"
        )
    return classes[name]


def shown(value: object) -> str:
    """A foreign value in a message: as Python writes it, cut."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]}...{text[-1]}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(name if len(name) <= SHOWN else shown(name) for name in names[:10]) + more


def _names(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names) or "none"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
