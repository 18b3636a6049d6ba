"""A profile: it changes nothing, its parts add up to the step, and it says what a run was too short for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.profiling import OPERATORS, PARTS, REPORT, REST, TIMED, TRACE, TRACED, WARM_UP, Profile
from tests.training.runs import few_digits, last, make, run, validate

STEPS = WARM_UP + TIMED + TRACED
CPU = torch.device("cpu")
EVERYTHING = {
    "averaging": {"name": "ema", "decay": 0.9},
    "weight_perturbation": {"gamma": 0.01},
    "epochs": 4,
}


@pytest.fixture
def profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Of a run of 4 epochs with 5 steps each, of which the trace is cut short by the end of the third."""
    few_digits(monkeypatch, 140)
    profile = Profile(CPU)
    fit(make(**EVERYTHING), validate(40), Context(tmp_path / "profiled", lambda row, replayed: False, part=profile))
    return profile


def test_a_profiled_run_computes_the_same_bits(profiled: Profile, tmp_path: Path) -> None:
    run(make(**EVERYTHING), validate(40), tmp_path / "plain")
    with_profile, plain = last(tmp_path / "profiled"), last(tmp_path / "plain")
    for mine, other in ((with_profile.method, plain.method), (with_profile.average, plain.average)):
        assert mine is not None
        assert other is not None
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_the_parts_of_a_step_add_up_to_it(profiled: Profile, tmp_path: Path) -> None:
    report = profiled.write(tmp_path / "profile")
    assert report.steps_timed == TIMED
    assert set(report.parts) == {*PARTS, REST}
    assert all(milliseconds > 0 for milliseconds in report.parts.values())
    mean = 1000 * sum(step["step"] for step in profiled.steps) / TIMED
    assert sum(report.parts.values()) == pytest.approx(mean)
    first, *_ = report.lines()
    assert all(part in first for part in ("attack", "forward", "backward"))
    written = json.loads((tmp_path / "profile" / REPORT).read_text())
    assert written["parts"] == report.parts
    assert written["trace"] == TRACE


def test_a_trace_holds_whole_steps_and_no_measurement(profiled: Profile, tmp_path: Path) -> None:
    report = profiled.write(tmp_path)
    events = json.loads(gzip.decompress((tmp_path / TRACE).read_bytes()))["traceEvents"]
    steps = [event for event in events if event.get("name") == "step"]
    assert len(steps) == report.steps_traced == 5 * 3 - WARM_UP - TIMED  # to the end of the third epoch
    assert {"attack", "forward", "backward"} <= {event.get("name") for event in events}
    end = max(step["ts"] + step["dur"] for step in steps)
    convolutions = [event for event in events if event.get("name") == "aten::convolution"]
    assert convolutions
    assert all(event["ts"] < end for event in convolutions)
    assert len(report.operators) == OPERATORS
    assert 0.5 < sum(report.operators.values()) < 1


def test_a_run_too_short_to_be_profiled_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 80)
    profile = Profile(CPU)
    fit(make(epochs=1), validate(20), Context(tmp_path, lambda row, replayed: False, part=profile))
    report = profile.report()
    assert profile.seen == WARM_UP
    assert report.lines() == ["no step was profiled: the run took no more than the 3 steps to warm up"]
    assert report.trace is None
