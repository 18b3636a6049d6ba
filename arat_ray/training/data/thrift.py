"""Thrift's compact protocol, as far as Parquet's headers need it: https://parquet.apache.org/docs/file-format."""

from __future__ import annotations

from collections.abc import Iterator

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_INTEGERS = (I16, I32, I64)
DEEPEST = 32
"""Structs within structs; Parquet's own are a few levels deep."""


class DamagedError(ValueError):
    """What is none of the protocol."""


class Compact:
    """Reads one value after another. Raises DamagedError where the bytes are none of the protocol, or end too early."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """(id, type) of each field of a struct; whoever asks reads or skips its value before the next."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15

    def integer(self) -> int:
        """A zigzag integer."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def elements(self) -> tuple[int, int]:
        """(number, type) of the elements of a list, whose values follow."""
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def skip(self, kind: int, depth: int = 0) -> None:
        """Go past a value."""
        if depth > DEEPEST:
            raise DamagedError("structs too deep within each other")
        if kind in (TRUE, FALSE):
            return
        if kind == BYTE:
            self._forward(1)
        elif kind in _INTEGERS:
            self._varint()
        elif kind == DOUBLE:
            self._forward(8)
        elif kind == BINARY:
            self._forward(self._varint())
        elif kind in (LIST, SET):
            count, element = self.elements()
            for _ in range(count):
                if element in (TRUE, FALSE):  # takes a byte within a list
                    self._forward(1)
                else:
                    self.skip(element, depth + 1)
        elif kind == STRUCT:
            for _, field in self.fields():
                self.skip(field, depth + 1)
        else:
            raise DamagedError(f"no type {kind} in a header of Parquet")

    def _byte(self) -> int:
        self._forward(1)
        return self.content[self.at - 1]

    def _forward(self, count: int) -> None:
        self.at += count
        if self.at > len(self.content):
            raise DamagedError("a header that ends too early")

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise DamagedError("an integer of more than 64 bits in a header")
