"""`arat-ray dial`, and the dial in `export` and from Python: one network, a whole curve, in the tables."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import arat_ray
from arat_ray.evaluation.request import with_dials
from arat_ray.frontier.between import Proposal
from arat_ray.frontier.pick import Choice
from arat_ray.report.printing import choice_lines
from arat_ray.results import reader
from arat_ray.training import checkpoint
from tests.test_cli import PGD, call, last, refused, write
from tests.training.export.exports import untrained

ARAT = "{name: arat, invariance_weight: 1, layers: [bn3]}"
FEW = (*PGD, "--images", "40")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of one run of ARAT, two epochs of digits."""
    folder = tmp_path_factory.mktemp("dial")
    path = write(folder)
    attack = "  attack: {name: pgd, norm: linf, epsilon: 0.1, step_size: 0.05, steps: 2}\n"
    path.write_text(path.read_text().replace("  method: {name: standard}\n", f"{attack}  method: {ARAT}\n"))
    assert call("train", path, "--results", folder / "results").exit_code == 0
    return folder / "results" / "small"


def rows_of(study: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = reader.read(study, "evaluations").to_pylist()
    return rows


def test_the_curve_is_printed_drawn_and_added_to_the_tables(trained: Path, tmp_path: Path) -> None:
    output = call("dial", trained, "--front", *FEW, "--at", "0.5,0,1,-0.0", "--plot", tmp_path / "new" / "dial.svg")
    assert output.exit_code == 0, output.output
    assert f"{last(trained)}: the dial is defined above -" in output.stderr
    assert output.stdout.startswith("small-00000 last")
    assert "robust accuracy: PGD-2, Linf, 0.1; test split, 40 images" in output.output
    assert "deployed" in output.output
    assert "clean branch" in output.output
    assert f"added to {trained}/evaluations and examples" in output.output.replace("\n", "")
    assert "small-00000 last" in (tmp_path / "new" / "dial.svg").read_text()
    rows = [row for row in rows_of(trained) if row["dial"] is not None and row["images"] == 40]
    assert [(row["dial"], row["attack"]) for row in rows] == [
        (t, a) for t in (0.0, 0.5, 1.0) for a in ("none", "pgd-2")
    ]
    for row in rows:
        if row["attack"] != "none":
            where = ("evaluation_id", {row["evaluation_id"]})
            assert reader.read_rows(trained, "examples", ["index"], where=where).num_rows == 40


def test_the_dial_at_0_has_the_verdicts_of_evaluate_from_the_same_records(trained: Path, tmp_path: Path) -> None:
    options = (*FEW, "--records", tmp_path, "--json")
    (clean, robust) = json.loads(call("evaluate", last(trained), *options).stdout)
    there = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    at_0 = json.loads(call("dial", last(trained), *options, "--at", "0").stdout)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")} == there
    for before, now in zip((clean, robust), at_0, strict=True):
        assert before | {"dial": 0.0, "evaluation_id": now["evaluation_id"]} == now
        assert before["evaluation_id"] != now["evaluation_id"]
    ids = [row["evaluation_id"] for row in (robust, at_0[1])]
    columns = ["index", "label", "clean_correct", "broken_by", "margin"]
    verdicts = [reader.read_rows(trained, "examples", columns, where=("evaluation_id", {each})) for each in ids]
    assert verdicts[0].equals(verdicts[1])


def test_a_curve_goes_on_from_finished_batches_and_has_each_setting_once(trained: Path, tmp_path: Path) -> None:
    options = (*PGD, "--images", "30", "--batch-size", "8", "--records", tmp_path, "--points", "3", "--json")
    first = json.loads(call("dial", last(trained), *options).stdout)
    assert [row["dial"] for row in first] == [0, 0, 0.5, 0.5, 1, 1]
    records = sorted(tmp_path.glob("*/*.safetensors"))
    before, written = len(rows_of(trained)), {path: path.stat().st_mtime_ns for path in records[2:]}
    for path in records[:2]:
        path.unlink()
    again = json.loads(call("dial", last(trained), *options).stdout)
    assert [row["correct"] for row in again] == [row["correct"] for row in first]
    assert {path: path.stat().st_mtime_ns for path in records[2:]} == written
    assert len(rows_of(trained)) == before


def test_autoattack_s_attacks_measure_a_setting_as_they_measure_its_plain_network(trained: Path) -> None:
    how: dict[str, Any] = {"attack": "apgd", "epsilon": 0.1, "images": 12, "batch_size": 12, "device": "cpu"}
    network = checkpoint.network(checkpoint.load(last(trained)), dial=0.75)
    plain = arat_ray.evaluate(network, data=arat_ray.Digits(), split="test", **how)
    report = arat_ray.evaluate(last(trained), split="test", dial=0.75, **how)
    assert report.dial == 0.75
    assert report.examples.broken_by == plain.examples.broken_by
    assert torch.equal(report.examples.margins, plain.examples.margins)
    (same,) = arat_ray.Study(trained).evaluate(split="test", dial=0.75, **how)
    assert same.rows()[1]["evaluation_id"] == report.rows()[1]["evaluation_id"]


def test_trials_without_a_clean_branch_are_left_out_and_named(tmp_path: Path) -> None:
    arat, other, another = (tmp_path / f"{name}.pt" for name in ("arat", "pgd_at", "another"))
    untrained(arat)
    for path in (other, another):
        untrained(path, method={"name": "pgd_at"})
    said: list[str] = []
    assert with_dials([other, arat], [0.5], averaged=True, note=said.append) == [arat]
    domain = checkpoint.dial_range(checkpoint.load(arat))
    assert said == [f"left out, for want of a clean branch: {other}", f"{arat}: the dial is defined {domain}"]
    with pytest.raises(ValueError, match=r"pgd_at\.pt has no clean branch: .*; nor has any other of 2"):
        with_dials([other, another], [0.5], averaged=True, note=said.append)


def test_how_far_a_setting_is_is_said_with_its_name(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        arat_ray.evaluate(last(trained), split="test", attack="pgd", epsilon=0.15, images=10, dial=0.25)
    assert any(message.startswith("dial 0.25: pgd-20 1/1 batches") for message in caplog.messages)


def test_a_front_of_evaluations_counts_no_setting(trained: Path) -> None:
    options = ("--attack", "pgd", "--epsilon", "0.1", "--split", "train", "--steps", "1", "--images", "20")
    assert call("dial", trained, *options, "--at", "1", "--device", "cpu").exit_code == 0
    assert "was evaluated with" in refused("pareto", trained, "--attack", "pgd-1", "--split", "train")
    message = refused("pareto", trained, "--infeasible", "--dial")
    assert "--infeasible lists trials and draws no front" in message


def test_settings_compete_where_asked_and_one_between_two_is_proposed_measured_and_picked(
    trained: Path, tmp_path: Path
) -> None:
    measure = ("--attack", "pgd", "--epsilon", "0.03", "--split", "validation", "--steps", "3")
    assert call("dial", trained, *measure, "--at", "-0.6,0,0.9", "--device", "cpu").exit_code == 0
    asked = ("--attack", "pgd-3", "--split", "validation", "--dial")
    front = json.loads(call("pareto", trained, *asked, "--json").stdout)
    found = arat_ray.Study(trained).front(attack="pgd-3", split="validation", dials=True)
    assert (front["settings"], found.settings) == (3, 3)
    assert front["trials"] == found.trials
    assert {member["dial"] for member in found.trials} <= {-0.6, 0.0, 0.9}
    best = found.trials[0]
    output = call("pick", trained, *asked, "--max", "clean", "-o", tmp_path / "chosen.yaml").output
    assert f"small-00000 at t = {best['dial']:g} of " in output
    assert f"--dial {best['dial']:g} -o FILE" in output
    assert call("validate", tmp_path / "chosen.yaml").exit_code == 0
    (proposed,) = choice_lines(Choice(best, "", Proposal(best, 0.3, (0, 0.9), "clean_accuracy", 0.9)), found)[-1:]
    command = shlex.split(proposed.partition("pick again: arat-ray ")[2])
    assert call(*command).exit_code == 0, "the command is whole"
    again = json.loads(call("pareto", trained, *asked, "--json").stdout)
    assert again["settings"] == 4, "on the same images, by the same attack"


def test_a_network_without_a_clean_branch_gets_one_and_is_dialled_measured_and_exported(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert call("train", path, "--results", tmp_path).exit_code == 0
    study = tmp_path / "small"
    output = call("dial", study, "--fit", "1", *FEW, "--at", "0,0.5", "--json")
    assert output.exit_code == 0, output.output
    own = last(study).with_name("fitted-last.pt")
    assert f"{own}: a clean branch, 1 epochs of clean images in " in output.stderr
    assert {row["checkpoint"] for row in json.loads(output.stdout)} == {"fitted-last"}
    plain = json.loads(call("evaluate", study, *FEW, "--json").stdout)
    assert [row["correct"] for row in plain] == [row["correct"] for row in json.loads(output.stdout)[:2]], "t = 0"
    asked = ("--attack", "pgd-2", "--split", "test", "--dial", "--json")
    assert json.loads(call("pareto", study, *asked).stdout)["settings"] == 1
    out = tmp_path / "out.safetensors"
    assert "logits differ by at most 0 " in call("export", own, "--dial", "0.5", "-o", out).output
    assert json.loads(Path(f"{out}.json").read_text())["fitted"]["epochs"] == 1
    assert "fitted-last.pt has a clean branch; leave --fit out" in refused("dial", own, "--fit", "1", *FEW).replace(
        "\n", ""
    )


def test_fronts_without_a_search_are_measured_between_two_checkpoints(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "runs" / "another-00001" / "last.pt"
    other.parent.mkdir(parents=True)
    other.write_bytes(last(trained).read_bytes())
    few = ("--attack", "apgd", "--epsilon", "0.1", "--split", "test", "--images", "10", "--at", "0.5", "--json")
    deployed = json.loads(call("evaluate", last(trained), *few[:8], "--json").stdout)
    for way, words in (("mix", ["a mixture is two networks"]), ("soup", [])):
        output = call("dial", last(trained), f"--{way}", other, *few, *(("--mode", "fast") if way == "soup" else ()))
        assert output.exit_code == 0, output.output
        assert f"t = 0 is {last(trained)} and t = 1 {other}" in output.stderr
        assert all(each in output.stderr for each in words)
        rows = json.loads(output.stdout)
        assert {(row["trial_id"], row["checkpoint"], row["dial"]) for row in rows} == {
            ("small-00000", f"{way}-another-00001-last", 0.5)
        }
        if way == "mix":
            assert [row["correct"] for row in rows] == [row["correct"] for row in deployed], "of a network with itself"
        assert {row["evaluation_id"] for row in rows} <= {row["evaluation_id"] for row in rows_of(trained)}
    shown = call("dial", last(trained), "--mix", other, *few[:-3], "--at", "0,1").output
    assert "small-00000 mix-another-00001-last" in shown
    assert "another-00001-last" in shown.partition("hypervolume")[0].partition("deployed")[0]
    message = refused("pareto", trained, "--attack", "apgd", "--split", "test", "--images", "10", "--dial")
    assert "no setting of a dial was measured" in message, "a soup is no trial's network"


def test_mistakes_between_two_checkpoints_are_refused_in_a_line(trained: Path, tmp_path: Path) -> None:
    path = last(trained)
    assert "choose one of --fit, --soup and --mix" in refused("dial", path, *FEW, "--soup", path, "--mix", path)
    assert "goes from one checkpoint to another, and" in refused("dial", trained, *FEW, "--mix", path)
    assert "no such checkpoint" in refused("dial", path, *FEW, "--soup", tmp_path / "none.pt")
    assert "between two networks it goes from 0 to 1" in refused("dial", path, *FEW, "--soup", path, "--at", "-1")
    untrained(tmp_path / "wider.pt", model={"name": "tiny", "width": 6})
    assert "are of two architectures" in refused("dial", path, *FEW, "--soup", tmp_path / "wider.pt")


def test_mistakes_are_refused_in_a_line(trained: Path, tmp_path: Path) -> None:
    path, at = last(trained), ("--at", "0,0.5,9")
    message = refused("dial", path, *FEW, *at)
    assert f"dial 9: {path} is defined above -" in message.replace("\n", "")
    assert "; choose settings there" in message
    assert "--at: 'x' is no setting; write numbers with commas" in refused("dial", path, *FEW, "--at", "0,x")
    assert "--at: '' is no setting" in refused("dial", path, *FEW, "--at", "")
    assert "--at: 'nan' is no setting" in refused("dial", path, *FEW, "--at", "nan")
    assert "choose one of --at and --points" in refused("dial", path, *FEW, "--at", "0", "--points", "3")
    assert "Missing option '--attack'" in refused("dial", path)
    assert "cannot draw dial.txt" in refused("dial", path, *FEW, "--plot", "dial.txt")
    with pytest.raises(ValueError, match=r"^dial 9: "):
        arat_ray.evaluate(path, split="test", attack="pgd", epsilon=0.1, dial=9)
    call("train", write(tmp_path), "--results", tmp_path)
    one = last(tmp_path / "small")
    assert f"{one} has no clean branch: its norm layers are not split" in refused("dial", one, *FEW).replace("\n", "")
    out = tmp_path / "out.safetensors"
    assert "dial 0.5: the network has no clean branch" in refused("export", one, "--dial", "0.5", "-o", out)
    assert "dial 9: the network is defined above -" in refused("export", path, "--dial", "9", "-o", out)
    assert not out.exists()


def test_the_network_of_a_setting_is_exported_as_a_plain_one(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "dialled.safetensors"
    assert "logits differ by at most 0 " in call("export", last(trained), "--dial", "0.4", "-o", out).output
    state = checkpoint.load(last(trained))
    plain = state.train_spec.model.build(state.shape, state.num_classes).eval()
    plain.load_state_dict(safetensors.torch.load_file(out), strict=True)
    x = torch.rand(5, *state.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), checkpoint.network(state, dial=0.4)(x))
    assert not torch.equal(plain(x), checkpoint.network(state)(x))
    facts = json.loads(Path(f"{out}.json").read_text())
    assert (facts["dial"], facts["validation"]) == (0.4, None)
