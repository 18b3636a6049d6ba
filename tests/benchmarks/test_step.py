"""The race in training steps: what a turn measures, and how turns are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import step
import torch
from reference.contenders import AUTHORS, PARTS, Clock, Turn, contender

from arat_ray.training.methods import METHODS


def turn(cpu: float) -> Turn:
    return {"cpu": cpu, "wall": 2 * cpu, **dict.fromkeys(PARTS, cpu / 5), "data": 0.0}


def test_the_parts_of_a_step_add_up_to_it_and_the_forward_pass_lies_between_attack_and_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 1.0, 11.0, 14.0, 19.0, 19.5, 20.5, 22.0])
    monkeypatch.setattr("reference.contenders.time.process_time", lambda: next(seconds))
    clock = Clock()
    with clock.step():  # from 0 to 22
        clock.around("attack", lambda: None)()  # 1 to 11
        clock.around("backward", lambda: None)()  # 14 to 19
        clock.around("optimiser", lambda: None)()  # 19.5 to 20.5
    parts = clock.parts
    assert (parts["attack"], parts["forward"], parts["backward"], parts["optimiser"]) == (10, 3, 5, 1)
    assert parts["everything else"] == 3
    assert parts["data"] == 0


def test_ratios_are_taken_within_a_round() -> None:
    turns = {"pgd_at": [turn(1.0), turn(2.0), turn(4.0)], "arat": [turn(1.2), turn(2.4), turn(4.8)]}
    assert step.ratio(turns, "arat", "pgd_at") == pytest.approx([1.2, 1.2, 1.2])
    lines = step.report(turns, batch_size=12)
    assert "| arat | 2400.0 (1800.0 to 3600.0) | 4800.0 (3600.0 to 7200.0) | 5 | 1.20 (1.20 to 1.20) |" in lines
    assert not any("authors" in line for line in lines)


def test_the_authors_time_is_told_over_ours() -> None:
    theirs = [{part: seconds for part, seconds in turn(cpu).items() if part != "data"} for cpu in (1.1, 2.2)]
    turns = {AUTHORS: theirs, "pgd_at": [turn(1.0), turn(2.0)], "arat": [turn(1.0), turn(2.0)]}
    lines = step.report(turns, batch_size=1)
    assert "The authors' code takes 1.100 (1.100 to 1.100) times the CPU time of `arat`." in lines
    assert any(line.startswith(f"| {AUTHORS} | 20.0 |") and line.endswith(" - |") for line in lines)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_every_method_is_measured_in_its_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", torch.Tensor.backward)  # which the contender times
    clock = Clock()
    wall = contender(name, reference=None, width=1, batch_size=4, clock=clock)()
    assert wall > 0
    idle = {part for part, seconds in clock.parts.items() if seconds <= 0}
    assert idle == ({"attack"} if name == "standard" else set())


def test_a_race_is_run_by_processes_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--width=1", "--batch-size=4", "--steps=1", "--rounds=2", "--methods=pgd_at"]
    monkeypatch.setattr(sys, "argv", [step.__file__, *options, f"--output={tmp_path / 'step.md'}"])
    step.main()
    (taken,) = json.loads((tmp_path / "step.json").read_text())["turns"].values()
    assert len(taken) == 2
    for each in taken:
        assert each["cpu"] == pytest.approx(sum(each[part] for part in PARTS if part != "data"))
    assert "| pgd_at |" in (tmp_path / "step.md").read_text()
