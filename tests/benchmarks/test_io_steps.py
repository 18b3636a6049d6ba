"""The harness that lets a study's disk fail at a step sees what was lost, doubled or changed."""

from __future__ import annotations

import pytest
from breaking import contents
from breaking.shim import FAULTS, Step


def test_each_fault_has_its_steps() -> None:
    reading, writing = Step(1, "read", False, "/a"), Step(2, "write", True, "/a")
    assert [fault.name for fault in FAULTS if reading.suffers(fault)] == [
        "fails once (EIO)",
        "fails for a while (EIO)",
    ]
    assert all(writing.suffers(fault) for fault in FAULTS)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({}, "epochs: ('a', 1) is lost"),
        ({("a", 1): {"loss": 0.5}, ("b", 1): {"loss": 1.0}}, "epochs: ('b', 1) came out of nowhere"),
        ({("a", 1): {"loss": 0.25}}, "epochs: ('a', 1) changed: loss from 0.5 to 0.25"),
    ],
)
def test_what_differs_is_named(held: dict[tuple[str, int], dict[str, float]], said: str) -> None:
    assert list(contents.differences({"epochs": dict(held)}, {"epochs": {("a", 1): {"loss": 0.5}}})) == [said]
