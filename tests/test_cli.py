"""The command line: messages instead of tracebacks, exit codes, and a run from its first epoch to its export."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner, Result
from torch import Tensor

from arat_ray.cli import main
from arat_ray.cli.studies import _again
from arat_ray.digests import sha256_of
from arat_ray.exit_codes import INTERRUPTED, NOT_SAVED
from arat_ray.experiment.config import load
from arat_ray.results import reader
from arat_ray.study.tables import StudyTables
from arat_ray.training import checkpoint
from arat_ray.training.data.splits import Digits, indices_sha256
from arat_ray.training.data.subset import choose
from arat_ray.training.models import MODELS, Tiny

ROOT = Path(__file__).parent.parent
VERBS = sorted(main.commands)
FILE = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 4}
  epochs: EPOCHS
  batch_size: 64
  seed: 0
  method: {name: standard}
validate: {every: EVERY, images: 300, attack: {name: pgd, norm: linf, epsilon: 0.1, step_size: 0.05, steps: 2}}
"""
PGD = ("--attack", "pgd", "--epsilon", "0.1", "--split", "test", "--steps", "2", "--device", "cpu")


def write(folder: Path, *, epochs: int = 2, every: int = 1, extra: str = "") -> Path:
    """An experiment file: standard training of a tiny network on digits, for seconds."""
    path = folder / f"small-{epochs}.yaml"
    path.write_text(FILE.replace("EPOCHS", str(epochs)).replace("EVERY", str(every)) + extra)
    return path


def call(*arguments: str | Path) -> Result:
    """Run a command in this process. What is neither a message nor an exit code is a bug, and raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: str | Path) -> str:
    """The message of a command that ends with exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    return result.output


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    program = "import sys; from arat_ray.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    result = call("train", write(folder), "--results", folder / "results")
    assert result.exit_code == 0, result.output
    assert "epoch 2/2" in result.output
    return folder / "results" / "small"


def last(study: Path) -> Path:
    return study / "checkpoints" / "small-00000" / "last.pt"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: arat-ray {verb} " in result.output


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
def test_threads_that_wait_leave_their_core_to_others_unless_told_otherwise(policy: str | None) -> None:
    """OpenMP says how often a thread looks, before it sleeps, whether it may go on."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": policy} if policy else {})
    command = [sys.executable, "-c", "from arat_ray.cli import main; main()", "layers", "tiny"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    (looks,) = re.findall(r"GOMP_SPINCOUNT *= *'(\w+)'", told)
    assert (looks == "0") == (policy is None)


def test_version_and_the_list_of_commands() -> None:
    assert call("--version").output.startswith("arat-ray, version ")
    listed = call("--help").output
    assert all(verb in listed for verb in VERBS)


@pytest.mark.parametrize("verb", ["validate", "train", "tune"])
def test_a_bad_file_ends_with_2_and_one_line(verb: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("epochs:", "epoch:"))
    result = call(verb, path)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {path}: train: unknown key 'epoch'; did you mean 'epochs'?\n"
    assert result.stdout == ("" if verb == "validate" else f"checking {path}\n")


def test_a_bad_file_leaves_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    process = start("validate", tmp_path / "nowhere.yaml")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err == f"Error: {tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory\n"


def test_validate_prints_the_plan(tmp_path: Path) -> None:
    result = call("validate", write(tmp_path))
    assert result.exit_code == 0
    assert "small: standard on digits, tiny, 2 epochs" in result.output
    assert result.output.endswith("is valid\n")


def test_layers_lists_what_a_method_can_regularise_and_marks_what_the_paper_does() -> None:
    result = call("layers", "resnet18", "--set", "width=16", "--pattern", "layer3.*.bn2", "--pattern", "avgpool")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.strip()}
    assert rows["resnet18:"][:3] == ["0.70", "million", "parameters,"]
    assert rows["layer"] == ["kind", "output", "d", "paper", "pattern"]
    assert rows["conv1"] == ["Conv2d", "16x32x32", "16"]
    assert rows["layer4.1.bn1"] == ["BatchNorm2d", "128x4x4", "128", "*"]
    assert rows["avgpool"] == ["AdaptiveAvgPool2d", "128x1x1", "128", "*"]
    assert [name for name, row in rows.items() if row[-1] == "*"] == [
        *("layer3.0.bn2", "layer3.1.bn2"),
        *("layer4.0.bn1", "layer4.0.bn2", "layer4.1.bn1", "layer4.1.bn2", "avgpool"),
    ]
    assert result.output.endswith('the ARAT paper regularises: layers: ["layer4.*.bn?"]\n')


@pytest.mark.parametrize("model", list(MODELS))
def test_the_layers_of_every_model_come_as_json(model: str) -> None:
    options = ("--input", "1x8x8", "--classes", "7", *(("--set", "patch=2") if model == "vit" else ()))
    shown = json.loads(call("layers", model, *options, "--pattern", "avgpool", "--json").output)
    assert (shown["model"]["name"], shown["input"]) == (model, [1, 8, 8])
    by_name = {layer["name"]: layer for layer in shown["layers"]}
    assert shown["layers"][-1]["output"] == [7]
    assert all(layer["width"] > 0 for layer in shown["layers"])
    assert [name for name, layer in by_name.items() if layer["matched"]] == ["avgpool"]
    assert any(layer["in_paper"] for layer in shown["layers"]) == bool(shown["paper_layers"])
    assert shown["representation"] in by_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "model: unknown name 'resnet'; did you mean 'resnet18'?"),
        (["resnet18", "--set", "wdth=2"], "model: unknown key 'wdth'; did you mean 'width'?"),
        (["wide_resnet", "--set", "depth=15"], "model: depth: a WideResNet's depth is 6n + 4"),
        (["tiny", "--set", "width"], "--set width: write KEY=VALUE"),
        (["tiny", "--set", "name=vit"], "--set name=vit: write KEY=VALUE"),
        (["tiny", "--set", "width={"], "--set width={: while parsing a flow node"),
        (["tiny", "--input", "32x32"], "--input 32x32: write CHANNELSxHEIGHTxWIDTH, such as 3x32x32"),
        (["vit", "--input", "3x30x32"], "model.patch is 4, which does not divide images of 30x32 pixels"),
        (["tiny", "--pattern", "avg_pool"], "layer pattern 'avg_pool' matches no layer of this model; did you mean"),
    ],
)
def test_layers_refuses_what_cannot_be_with_one_line(arguments: list[str], message: str) -> None:
    output = refused("layers", *arguments)
    assert output.startswith(f"Error: {message}")
    assert output.count("\n") == 1


def described(folder: Path, train: dict[str, Any]) -> str:
    """What `validate` prints of a file with this `train:`."""
    path = folder / "described.yaml"
    attack = {"name": "pgd", "norm": "linf", "epsilon": "8/255", "step_size": "2/255", "steps": 20}
    file = {"name": "described", "train": train, "validate": {"every": 10, "images": 5000, "attack": attack}}
    path.write_text(yaml.safe_dump(file))
    result = call("validate", path)
    return result.output


def test_presets_are_listed_and_one_is_printed_as_yaml_that_a_file_can_say(tmp_path: Path) -> None:
    assert "trades/resnet18: 76 epochs, learning rate 0.1" in call("presets").output.splitlines()
    shown = yaml.safe_load(call("presets", "trades/resnet18").output)
    assert shown["method"] == {"name": "trades", "beta": 6.0, "attack_norm": "eval", "repeat_clean_forward": True}
    own = {"dataset": {"name": "cifar10"}, "seed": 0}
    by_name = described(tmp_path, {"preset": "trades/resnet18", **own})
    assert by_name.startswith("described: trades on cifar10, resnet18, 76 epochs, batch size 128\n")
    assert by_name == described(tmp_path, {**shown, **own})


def test_an_unknown_preset_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = "no preset 'arat/resnet8'; did you mean 'arat/resnet18'?"
    assert refused("presets", "arat/resnet8") == f"Error: {message}\n"
    assert message in described(tmp_path, {"preset": "arat/resnet8", "dataset": {"name": "cifar10"}, "seed": 0})


def test_a_search_may_not_choose_on_test_images(tmp_path: Path) -> None:
    def with_search(search: str) -> Path:
        path = write(tmp_path, extra=f"search: {{{search}}}\nsampler: {{name: grid, seed: 0}}\n")
        path.write_text(path.read_text().replace("images: 300", "images: 300, split: test"))
        return path

    message = "validate.split: test would choose label_smoothing on the test images; use split: validation"
    assert message in refused("validate", with_search("label_smoothing: {choice: [0, 0.1]}"))
    assert call("validate", with_search("seed: {choice: [0, 1]}")).exit_code == 0


def test_tune_without_a_search_names_the_other_command(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert f"a single run is `arat-ray train {path}`" in refused("tune", path)


def test_a_study_to_learn_from_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    search = "search: {optimizer.learning_rate: {loguniform: [0.01, 1]}}\nsampler: {name: tpe, seed: 0}\n"
    file = write(tmp_path, extra=search + "budget: {trials: 2}\n")
    for options in ([], ["--dry-run"]):
        message = refused("tune", file, "--results", tmp_path / "out", "--from", tmp_path / "none", *options)
        assert f"there is no folder {tmp_path}/none" in message
    assert not (tmp_path / "out").exists()


def test_a_budget_in_usd_needs_a_price(tmp_path: Path) -> None:
    search = "search: {optimizer.learning_rate: {loguniform: [0.01, 1]}}\nsampler: {name: gp, seed: 0}\n"
    file = write(tmp_path, extra=search + "budget: {trials: 2}\n")
    message = refused("tune", file, "--budget-usd", "5")
    assert "--budget-usd 5 needs a price; write `resources: {price: {usd_per_device_hour: 2.5}}`" in message


def test_pareto_needs_results(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path / 'nowhere'}" in refused("pareto", tmp_path / "nowhere")
    assert f"{tmp_path} is not a results folder" in refused("pareto", tmp_path)


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        ("8", "did you mean 8/255?"),
        ("abc", "'abc' is no radius"),
        ("0", "--epsilon"),
        ("8/0", "is no radius; write it as 8/255"),
        ("nan", "'nan' is no radius; write it as 8/255"),
        ("1e999", "'1e999' is no radius; write it as 8/255"),
        ("nan", "--eps"),
    ],
)
def test_evaluate_refuses_an_impossible_epsilon(epsilon: str, message: str, trained: Path) -> None:
    output = refused("evaluate", last(trained), "--attack", "pgd", "--epsilon", epsilon, "--split", "test")
    assert message in output


@pytest.mark.parametrize("verb", ["evaluate", "export"])
def test_what_is_no_checkpoint_is_named(verb: str, tmp_path: Path) -> None:
    options = PGD if verb == "evaluate" else ("-o", str(tmp_path / "out.safetensors"))
    assert "nowhere.pt: no such checkpoint" in refused(verb, tmp_path / "nowhere.pt", *options)
    corrupt = tmp_path / "corrupt.pt"
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 and no more"):
        corrupt.write_bytes(content)
        assert "corrupt.pt: not a checkpoint of arat-ray" in refused(verb, corrupt, *options)
    torch.save({"weight": torch.zeros(2)}, corrupt)
    assert "corrupt.pt: not a checkpoint of arat-ray" in refused(verb, corrupt, *options)


def test_a_truncated_checkpoint_is_named(trained: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.pt"
    content = last(trained).read_bytes()
    half.write_bytes(content[: len(content) // 2])
    assert "half.pt: not a checkpoint of arat-ray" in refused("evaluate", half, *PGD)


def test_evaluate_names_the_checkpoint_within_a_folder_that_is_no_study(trained: Path, tmp_path: Path) -> None:
    folder = trained / "checkpoints"
    message = f"is a folder and no study; name a study or one checkpoint; it holds {last(trained)}"
    assert message in refused("evaluate", folder, *PGD)
    assert "is a folder and no study; name a study or one checkpoint" in refused("evaluate", tmp_path, *PGD)


def test_evaluate_says_what_is_wrong_with_the_attack(trained: Path) -> None:
    def answer(*options: str) -> str:
        return refused("evaluate", last(trained), "--split", "test", *options)

    assert "--attack: no attack 'autoatack'; did you mean 'autoattack'?" in answer("--attack", "autoatack")
    assert "--epsilon is missing: the radius in pixel units, such as 8/255" in answer("--attack", "autoattack")
    assert "--steps and --step-size are for pgd" in answer("--attack", "apgd", "--epsilon", "0.1", "--steps", "5")
    assert "--front is for a study" in answer("--attack", "apgd", "--epsilon", "0.1", "--front")


def test_a_study_without_complete_trials_or_without_its_checkpoints_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "trials", tmp_path / "copy" / "trials")
    message = f"lacks 1 of the 1 checkpoints to measure, {tmp_path}/copy/checkpoints/small-00000/last.pt first"
    assert message in refused("evaluate", tmp_path / "copy", *PGD).replace("\n", "")
    writer = StudyTables(tmp_path / "new", params={}, metadata=reader.metadata(trained))
    writer.trial({"trial_id": "new-00000", "attempt": 1, "number": 0, "status": "running", "study": "new"})
    writer.flush()
    assert "has no complete trial yet" in refused("evaluate", tmp_path / "new", *PGD)


def test_the_front_of_a_study_is_attacked_into_its_tables(trained: Path) -> None:
    options = ("--attack", "apgd", "--epsilon", "0.05", "--split", "test", "--images", "6", "--device", "cpu")
    first = call("evaluate", trained, "--front", *options)
    assert first.exit_code == 0, first.output
    assert "apgd linf 0.05: " in first.output
    assert f"added to {trained}/evaluations and examples" in first.output.replace("\n", "")
    rows = {row["evaluation_id"]: row for row in _evaluations(trained) if row["attack"] == "apgd"}
    (row,) = rows.values()
    assert (row["trial_id"], row["images"], row["epsilon"], row["split"]) == ("small-00000", 6, 0.05, "test")
    examples = [
        each for each in reader.read(trained, "examples").to_pylist() if each["evaluation_id"] == row["evaluation_id"]
    ]
    labels = Digits().read("test").labels
    assert [each["index"] for each in examples] == choose(labels, 6, subset="stratified").tolist()
    assert [each["label"] for each in examples] == labels[[each["index"] for each in examples]].tolist()
    assert sum(each["clean_correct"] and each["broken_by"] is None for each in examples) == row["correct"]
    before = reader.read(trained, "evaluations").num_rows
    again = json.loads(call("evaluate", trained, *options, "--json").stdout)
    assert again[1] == row | {"subset": "stratified"}
    assert reader.read(trained, "evaluations").num_rows == before, "the same measurement has one row"


def test_the_first_images_are_measured_where_they_are_asked_for(trained: Path) -> None:
    options = (*PGD, "--images", "5", "--subset", "first")
    assert "of 5 test images (the first)" in call("evaluate", last(trained), *options).output
    (row, _) = json.loads(call("evaluate", last(trained), *options, "--json").stdout)
    assert (row["subset"], row["indices_sha256"]) == ("first", indices_sha256(torch.arange(5)))
    drawn = call("evaluate", last(trained), *PGD, "--images", "5").output
    assert "of 5 test images (of each class by its share)" in drawn
    assert "add --images N" in refused("evaluate", last(trained), *PGD, "--subset", "first")


def test_fast_mode_is_asked_for_and_named_in_the_result(trained: Path) -> None:
    options = ("--epsilon", "0.05", "--split", "test", "--images", "6", "--device", "cpu", "--mode", "fast")
    output = call("evaluate", last(trained), "--attack", "apgd", *options).output
    assert "apgd linf 0.05, fast mode: " in output
    (row,) = (row for row in _evaluations(trained) if row["attack_version"].endswith(", fast"))
    assert (row["attack"], row["images"]) == ("apgd", 6)
    assert "--mode fast is for autoattack" in refused("evaluate", last(trained), "--attack", "pgd", *options)


def test_pgd_leaves_records_too_and_the_same_measurement_has_one_row(trained: Path, tmp_path: Path) -> None:
    options = (*PGD, "--images", "30", "--batch-size", "8", "--records", tmp_path, "--json")
    rows = json.loads(call("evaluate", last(trained), *options).stdout)
    records = sorted(tmp_path.glob("pgd-2-*/*.safetensors"))
    assert {path.name[:-18] for path in records} == {"clean", "pgd-2"}
    before = reader.read(trained, "evaluations").num_rows
    assert json.loads(call("evaluate", last(trained), *options).stdout) == rows
    assert reader.read(trained, "evaluations").num_rows == before


def test_a_full_disk_ends_an_evaluation_with_a_message_and_it_goes_on(trained: Path, tmp_path: Path) -> None:
    options = ("evaluate", last(trained), *PGD, "--images", "300", "--batch-size", "300", "--records", tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))  # the record is larger, what it is a record of smaller
    try:
        full = call(*options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.exit_code == NOT_SAVED, full.output
    assert "when that is mended the same command goes on from the finished batches" in full.output
    assert list(tmp_path.glob("pgd-2-*/identity.json"))
    assert not list(tmp_path.glob("pgd-2-*/*.safetensors"))
    assert call(*options).exit_code == 0


def test_a_network_with_masked_gradients_is_measured_under_a_warning(trained: Path, tmp_path: Path) -> None:
    fields = torch.load(last(trained), weights_only=True)
    for name in fields["method"]:
        if "linear" in name:
            fields["method"][name] *= 1e5
    torch.save(fields, tmp_path / "steep.pt")
    options = ("--attack", "apgd", "--epsilon", "0.1", "--split", "test", "--images", "12", "--device", "cpu")
    output = call("evaluate", tmp_path / "steep.pt", *options).output
    assert "warning: saturated: the cross-entropy is flat in float32 on" in output
    clean, robust = json.loads(call("evaluate", tmp_path / "steep.pt", *options, "--json").stdout)
    assert robust["warnings"].startswith("saturated: ")
    assert clean["warnings"] is None


def test_evaluate_refuses_more_images_than_there_are_and_unknown_devices(trained: Path) -> None:
    assert "choose 1 to 360" in refused("evaluate", last(trained), *PGD, "--images", "361")
    assert "'tpu' is not one of 'cpu', 'cuda'" in refused("evaluate", last(trained), *PGD, "--device", "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    path = write(tmp_path, extra="resources: {gpus_per_worker: 1}\n")
    message = refused("train", path, "--results", tmp_path / "results")
    assert "resources.gpus_per_worker is 1, but torch sees no GPU" in message
    assert not (tmp_path / "results").exists()


def test_a_profile_says_where_the_time_goes_and_leaves_a_trace(tmp_path: Path) -> None:
    result = call("train", write(tmp_path, epochs=4), "--results", tmp_path, "--profile")
    assert result.exit_code == 0, result.output
    assert "profile: a step takes " in result.output
    assert "backward " in result.output
    written = json.loads((tmp_path / "small" / "profile" / "profile.json").read_text())
    assert written["steps_timed"] > 0
    assert (written["trace"] is None) != (tmp_path / "small" / "profile" / "trace.json.gz").exists()
    again = call("train", write(tmp_path, epochs=4), "--results", tmp_path, "--profile").output
    assert "is complete already: nothing is left to profile" in again


def test_a_profile_of_several_workers_is_refused_before_ray_starts(tmp_path: Path) -> None:
    message = refused(
        "train", write(tmp_path, extra="resources: {workers: 2}\n"), "--results", tmp_path / "results", "--profile"
    )
    assert "a profile is taken of one process, but resources.workers is 2; set it to 1" in message


def test_a_run_leaves_a_row_for_each_epoch_and_a_complete_trial(trained: Path) -> None:
    assert reader.read(trained, "epochs")["epoch"].to_pylist() == [1, 2]
    (trial,) = reader.read(trained, "trials").to_pylist()
    assert (trial["status"], trial["epochs_done"], trial["is_full_fidelity"]) == ("complete", 2, True)


def test_evaluations_are_printed_and_added_to_the_study(trained: Path) -> None:
    before = _evaluations(trained)
    printed = json.loads(call("evaluate", last(trained), *PGD, "--images", "50", "--json").output)
    assert [(row["attack"], row["images"]) for row in printed] == [("none", 50), ("pgd-2", 50)]
    assert printed[0]["correct"] >= printed[1]["correct"]
    added = _evaluations(trained)[len(before) :]
    assert [row["checkpoint_sha256"] for row in added] == [sha256_of(last(trained))] * 2
    assert [row["correct"] for row in added] == [row["correct"] for row in printed]
    text = call("evaluate", last(trained), *PGD, "--images", "50").output
    assert "of 50 test images" in text


def _evaluations(study: Path) -> list[dict[str, Any]]:
    if not reader.part_files(study / "evaluations"):
        return []
    rows: list[dict[str, Any]] = reader.read(study, "evaluations").to_pylist()
    return rows


def test_pareto_prints_the_front_as_text_csv_and_json(trained: Path) -> None:
    assert "front: 1 of 1 trials" in call("pareto", trained).output
    front = json.loads(call("pareto", trained, "--json").output)
    (row,) = csv.DictReader(io.StringIO(call("pareto", trained, "--csv").output))
    (trial,) = front["trials"]
    assert row["trial_id"] == trial["trial_id"] == "small-00000"
    assert float(row["clean_accuracy"]) == trial["clean_accuracy"]
    assert "choose one of --csv, --json and --latex" in refused("pareto", trained, "--csv", "--json")


MINE = ("--attack", "pgd", "--epsilon", "0.15", "--split", "train", "--images", "40", "--device", "cpu")


def test_pareto_and_compare_show_what_evaluate_measured(trained: Path, tmp_path: Path) -> None:
    clean, robust = json.loads(call("evaluate", trained, *MINE, "--steps", "3", "--json").stdout)
    chosen = ("--attack", "pgd-3", "--split", "train")
    drawn = call("pareto", trained, *chosen, "--json", "--plot", tmp_path / "front.svg")
    front = json.loads(drawn.stdout)
    (trial,) = front["trials"]
    assert (trial["clean_accuracy"], trial["robust_accuracy"]) == (clean["accuracy"], robust["accuracy"])
    assert (trial["robust_accuracy_low"], trial["robust_accuracy_high"]) == (robust["ci_low"], robust["ci_high"])
    assert (front["attack"], front["epsilon"], front["split"], front["images"]) == ("pgd-3", 0.15, "train", 40)
    assert front["coverage"] == {"evaluated": 1, "trials": 1, "are_complete": True}
    assert (
        "PGD-3, Linf, 0.15; train split, 40 images; 1 of 1 complete trials" in call("pareto", trained, *chosen).output
    )
    (row,) = csv.DictReader(io.StringIO(call("pareto", trained, *chosen, "--csv").output))
    assert (float(row["robust_accuracy"]), row["attack"], row["split"]) == (robust["accuracy"], "pgd-3", "train")
    assert f"drew {tmp_path}/front.svg: 1 of 1 complete trials evaluated, 1 on the front" in drawn.stderr

    weak = json.loads(call("evaluate", last(trained), *MINE, "--steps", "1", "--json").stdout)[1]
    command = ("compare", trained / robust["evaluation_id"], trained / weak["evaluation_id"])
    found = json.loads(call(*command, "--json").stdout)
    assert (found["images"], found["clean_accuracy"]["a"]) == (40, clean["accuracy"])
    assert (found["clean_accuracy"]["only_a"], found["clean_accuracy"]["only_b"]) == (0, 0)
    assert (found["robust_accuracy"]["a"], found["robust_accuracy"]["b"]) == (robust["accuracy"], weak["accuracy"])
    text = call(*command).output
    assert "40 train images that both measured" in text
    assert "clean accuracy: A and B get the same images right" in text
    assert "A: PGD-3, Linf, 0.15 B: PGD-1, Linf, 0.15" in text
    by_file = json.loads(call("compare", last(trained), command[2], *chosen, "--json").stdout)
    assert by_file["a"]["evaluation_id"] == robust["evaluation_id"]


def test_a_front_or_a_comparison_that_cannot_be_is_refused_with_what_can(trained: Path) -> None:
    if not _evaluations(trained):
        call("evaluate", last(trained), *PGD, "--images", "50")
    assert "there is no --split: " in refused("pareto", trained, "--attack", "pgd")
    assert "there is no --attack: " in refused("pareto", trained, "--split", "test")
    message = refused("pareto", trained, "--attack", "square", "--split", "test", "--epsilon", "8/255")
    assert "was evaluated with --attack square --split test --epsilon 8/255; there is " in message
    assert f"measure it with: arat-ray evaluate {trained} --attack square --epsilon 8/255 --split test" in message
    assert "'8/o' is no radius" in refused("pareto", trained, "--attack", "pgd", "--split", "test", "--epsilon", "8/o")
    assert "is a study; name one of its checkpoints" in refused("compare", trained, last(trained))
    assert "there is no such checkpoint" in refused("compare", last(trained).with_name("first.pt"), last(trained))
    assert "no evaluation 'abc'; there is" in refused("compare", trained / "abc", last(trained))


def test_the_file_that_pick_writes_trains_the_trial_again_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "chosen.yaml"
    picked = call("pick", trained, "--min", "clean=10%", "-o", file)
    assert picked.exit_code == 0, picked.output
    assert picked.output.startswith(f"small-00000 of {trained}: clean accuracy ")
    assert f"wrote {file}; train it with: arat-ray train {file}\n" in picked.output
    assert "warning" not in picked.output
    assert call("validate", file).output.endswith("is valid\n")
    again = call("train", file, "--results", tmp_path / "again")
    assert again.exit_code == 0, again.output
    study = tmp_path / "again" / "small-00000"
    (mine,), (theirs,) = (reader.read(folder, "trials").to_pylist() for folder in (study, trained))
    for column in (
        "config",
        "config_hash",
        "clean_accuracy",
        "robust_accuracy",
        "images",
        "attack",
        "epsilon",
        "split",
    ):
        assert mine[column] == theirs[column], column
    (ours,), (original,) = (list((folder / "checkpoints").glob("*/last.pt")) for folder in (study, trained))
    weights, expected = (tensors(checkpoint.load(path).method) for path in (ours, original))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_pick_prints_a_file_where_it_is_not_told_to_write_one_and_replaces_no_other(
    trained: Path, tmp_path: Path
) -> None:
    printed = call("pick", trained, "--max", "robust_accuracy").output
    assert printed.startswith(f"# small-00000 of {trained}: clean accuracy ")
    file = tmp_path / "chosen.yaml"
    for _ in range(2):  # the same choice again is no other file
        assert call("pick", trained, "--max", "robust_accuracy", "-o", file).exit_code == 0
        assert file.read_text() == printed
    assert f"{file} exists; choose another name" in refused("pick", trained, "--min", "clean=0", "-o", file)
    assert "nowhere/chosen.yaml cannot be written (No such file" in refused(
        "pick", trained, "--max", "clean", "-o", tmp_path / "nowhere" / "chosen.yaml"
    ).replace("\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen.yaml"]


def test_pick_chooses_among_evaluations_and_refuses_with_one_line(trained: Path, tmp_path: Path) -> None:
    assert call("evaluate", trained, *MINE, "--steps", "3").exit_code == 0
    printed = call("pick", trained, "--max", "robust", "--attack", "pgd-3", "--split", "train").output
    assert "# robust accuracy: PGD-3, Linf, 0.15; train split, 40 images; 1 of 1 complete trials evaluated; " in printed
    for arguments, message in (
        ((trained, "--min", "robust=100%"), "no member of the front has robust accuracy of at least 100 %; the best "),
        ((trained,), "say which member: --min robust_accuracy=VALUE"),
        ((trained, "--max", "speed"), "--max: no goal 'speed' in these results"),
        ((trained, "--knee"), "the front has no knee: 1 member(s)"),
        ((tmp_path / "nowhere", "--knee"), f"there is no folder {tmp_path / 'nowhere'}"),
    ):
        answer = refused("pick", *arguments)
        assert answer.startswith("Error: ")
        assert message in answer
        assert answer.count("\n") == 1


def test_confirm_shows_its_plan_and_refuses_with_one_line(trained: Path, tmp_path: Path) -> None:
    plan = call("confirm", trained, "--seeds", "2", "--results", tmp_path, "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert plan.output.startswith("small-confirm: standard on digits, tiny, 2 epochs")
    assert "varies: member, one of 0\n" in plan.output
    assert "search: grid, 2 trials" in plan.output
    assert list(tmp_path.iterdir()) == []
    assert f"there is no folder {tmp_path / 'nowhere'}" in refused("confirm", tmp_path / "nowhere", "--seeds", "2")
    assert "51 is not in the range 1<=x<=50" in refused("confirm", trained, "--seeds", "51")
    shutil.copytree(trained / "trials", tmp_path / "copy" / "trials")
    message = refused("confirm", tmp_path / "copy", "--seeds", "2")
    assert message.startswith(f"Error: {tmp_path}/copy/study.json cannot be read (No such file or directory): it says")
    assert message.count("\n") == 1


def test_an_export_computes_the_logits_of_the_checkpoint(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    assert call("export", last(trained), "-o", output).exit_code == 0
    model = Tiny(width=4).build((1, 8, 8), 10).eval()
    model.load_state_dict(safetensors.torch.load_file(output))
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), checkpoint.network(checkpoint.load(last(trained)))(x), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".onnx"])
def test_an_export_says_how_far_its_logits_are_and_replaces_a_file_only_when_told_to(
    suffix: str, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"model{suffix}"
    output.write_text("old")
    assert f"{output} exists; choose another name, or --force" in refused("export", last(trained), "-o", output)
    assert output.read_text() == "old"
    written = call("export", last(trained), "-o", output, "--force")
    assert written.exit_code == 0
    assert re.match(r"logits differ by at most \S+ where the largest is .* training images of digits\n", written.output)
    assert written.output.endswith(f"wrote {output} and {output}.json\n")
    facts = json.loads((tmp_path / f"{output.name}.json").read_text())
    assert facts["checkpoint_sha256"] == sha256_of(last(trained))
    assert facts["sha256"] == sha256_of(output)


def test_export_refuses_names_that_it_cannot_write(trained: Path, tmp_path: Path) -> None:
    def answer(output: Path) -> str:
        message = refused("export", last(trained), "-o", output)
        assert message.startswith("Error: ")
        assert message.count("\n") == 1
        return message

    for name in ("model.pt", "model", ".onnx"):
        assert f"{name}: end it in one of .safetensors, .pt2, .onnx" in answer(tmp_path / name)
    (tmp_path / "folder.pt2").mkdir()
    assert "folder.pt2 is a folder; choose another name" in answer(tmp_path / "folder.pt2")
    (tmp_path / "file").touch()
    assert "model.pt2: cannot be written ([Errno 17] File exists: " in answer(tmp_path / "file" / "model.pt2")
    assert "cannot be written ([Errno 36] File name too long: " in answer(tmp_path / ("x" * 300 + ".safetensors"))
    (tmp_path / "model.safetensors.json").touch()
    assert "model.safetensors.json exists; choose another name" in answer(tmp_path / "model.safetensors")


def test_training_again_what_is_complete_computes_nothing_new(trained: Path) -> None:
    digest = sha256_of(last(trained))
    result = call("train", write(trained.parent.parent), "--results", trained.parent)
    assert result.exit_code == 0
    assert sha256_of(last(trained)) == digest
    assert reader.read(trained, "epochs")["epoch"].to_pylist() == [1, 2]


def test_another_experiment_s_folder_is_refused_with_what_differs(trained: Path, tmp_path: Path) -> None:
    output = refused("train", write(tmp_path, epochs=3), "--results", trained.parent)
    assert "train.epochs is 2 there and 3 here" in output


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.tex").touch()
    assert "holds other files and no study" in refused("train", write(tmp_path), "--results", tmp_path)


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"epoch {epoch}/"):
            return
    pytest.fail(f"no epoch {epoch}: {process.stderr.read() if process.stderr else ''}")


def tensors(node: Any, path: str = "") -> dict[str, Any]:
    """Everything in a checkpoint's state, by its path."""
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list | tuple):
        children = dict(enumerate(node)).items()
    else:
        return {path: node}
    return {name: value for key, child in children for name, value in tensors(child, f"{path}/{key}").items()}


def test_an_interrupted_run_resumes_to_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Interrupted between two checkpoints; meanwhile a second process is kept out."""
    epochs, results = 40, tmp_path / "interrupted"
    path = write(tmp_path, epochs=epochs, every=4)
    process = start("train", path, "--results", results)
    wait_for_epoch(process, 6)
    assert "is being written to by another process" in refused("train", path, "--results", results, "--resume")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert f"go on with: arat-ray train {path} --results {results} --resume" in err
    assert "Traceback" not in err
    study = results / "small"
    (trial,) = reader.read(study, "trials").to_pylist()
    assert (trial["status"], trial["stop_reason"]) == ("stopped", "interrupted")
    assert 6 <= trial["epochs_done"] < epochs

    assert "go on with --resume, or remove the folder" in refused("train", path, "--results", results)
    began = time.monotonic()
    resumed = call("train", path, "--results", results, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "epoch 1/" not in resumed.output, f"began anew, after {time.monotonic() - began} s"
    assert call("train", path, "--results", tmp_path / "whole").exit_code == 0

    assert reader.read(study, "epochs")["epoch"].to_pylist() == list(range(1, epochs + 1))
    (trial,) = reader.read(study, "trials").to_pylist()
    assert (trial["status"], trial["epochs_done"], trial["stop_reason"]) == ("complete", epochs, None)
    ours, whole = (checkpoint.load(last(folder / "small")) for folder in (results, tmp_path / "whole"))
    for name in ("method", "optimizer"):
        mine, theirs = tensors(getattr(ours, name)), tensors(getattr(whole, name))
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            if isinstance(value, Tensor):
                assert torch.equal(mine[key], value), key
            else:
                assert mine[key] == value, key


FLOATS = [
    (command, option)
    for command in main.commands.values()
    for option in command.params
    if isinstance(option.type, click.types.FloatParamType)
]


@pytest.mark.parametrize(("command", "option"), FLOATS, ids=lambda each: each.name)
@pytest.mark.parametrize("value", ["nan", "NaN", "-nan", "inf", "Infinity", "1e999"])
def test_numbers_of_options_are_finite(command: click.Command, option: click.Parameter, value: str) -> None:
    message = refused(
        command.name or "", *(["file.yaml"] if command.name == "tune" else []), f"{option.opts[0]}={value}"
    )
    assert f"Invalid value for '{option.opts[0]}'" in message
    assert "is no finite number" in message or "is not in the range" in message


def test_options_with_numbers_are_there() -> None:
    assert {option.opts[0] for _, option in FLOATS} >= {"--hours", "--device-hours", "--budget-usd", "--timeout"}


SEARCH = """
search: {optimizer.learning_rate: {loguniform: [0.01, 0.1]}}
sampler: {name: random}
budget: {trials: 2}
"""


@pytest.mark.parametrize("verb", [("validate",), ("tune", "--dry-run"), ("train",)])
def test_a_slip_is_told_and_does_not_stop_anything(verb: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, extra=SEARCH)
    path.write_text(path.read_text().replace("  seed: 0", "  seed: 0\n  gradient_clipping: 1e-9"))
    where = ("--results", str(tmp_path)) if verb[0] == "train" else ()
    result = call(verb[0], path, *verb[1:], *where)
    assert result.exit_code == 0, result.output
    assert "warning: train.gradient_clipping: 1e-09 leaves next to no gradient" in result.stderr


@pytest.mark.parametrize("verb", ["validate", "tune", "train"])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("images: 300", "images: 100000", "validate.images: 100000 cannot be held out of 1437 training images"),
        ("batch_size: 64", "batch_size: 1200", "train.batch_size: 1200 is larger than the 1137 images to train on"),
    ],
)
def test_what_the_data_makes_impossible_is_refused_before_anything_begins(
    verb: str, old: str, new: str, says: str, tmp_path: Path
) -> None:
    path = write(tmp_path, extra=SEARCH)
    path.write_text(path.read_text().replace(old, new))
    options = [] if verb == "validate" else ["--results", str(tmp_path / "results")]
    assert f"Error: {path}: {says}" in refused(verb, path, *options)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("section", ["search", "first", "constraints", "budget", "resources", "sampler", "maximize"])
def test_an_empty_section_is_as_if_left_out(section: str, tmp_path: Path) -> None:
    assert call("validate", write(tmp_path, extra=f"{section}:\n")).exit_code == 0


def test_a_search_without_a_seed_of_the_sampler_begins_at_0(tmp_path: Path) -> None:
    experiment = load(write(tmp_path, extra=SEARCH))
    assert experiment.sampler is not None
    assert experiment.sampler.seed == 0


def test_an_empty_search_is_no_study(tmp_path: Path) -> None:
    message = refused("tune", write(tmp_path, extra="search:\n"), "--results", tmp_path)
    assert "there is no `search:`; a single run is `arat-ray train" in message


def test_labels_of_a_plan_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    labels = 'search: {gradient_clipping: {choice: {"\\e[2Ja": 1, "b\\u202e": 2}}}\n'
    result = call("validate", write(tmp_path, extra=labels + SEARCH.split("\n", 2)[2]))
    assert "varies: gradient_clipping, one of \\x1b[2Ja, b\\u202e" in result.output


# ------------------------------------------------------------------------------------------------- everyday use


def every_command(group: click.Group = main, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    for name, command in group.commands.items():
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += every_command(command, (*path, name))
    return found


GROUPS = [(), *(path for path, command in every_command() if isinstance(command, click.Group))]


@pytest.mark.parametrize("path", GROUPS, ids="-".join)
def test_no_summary_in_a_list_of_commands_is_cut_or_broken(path: tuple[str, ...]) -> None:
    output = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output
    inside = [(inner, command) for inner, command in every_command() if inner[:-1] == path]
    assert inside
    for (*_, name), command in inside:
        (listed,) = [line for line in output.splitlines() if line.startswith(f"  {name} ")]
        assert len(listed) <= 80
        assert listed.split(maxsplit=1)[1] == command.get_short_help_str(1000)
        assert "..." not in listed
        assert listed.rstrip().endswith(".")


def test_commands_are_listed_in_the_order_of_work_under_headings() -> None:
    lines = call("--help").output.splitlines()
    shown = [line.split()[0] for line in lines[lines.index("Start:") :] if line.startswith("  ")]
    assert shown == [
        *("validate", "tune", "train", "layers", "presets", "results", "pareto", "report", "watch"),
        *("evaluate", "dial", "compare", "confirm", "pick", "export", "doctor", "cluster", "submit", "status", "stop"),
    ]
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", "Start:", "Look:", "Measure:", "Choose:", "On a cluster:"]
    assert sorted(shown) == VERBS


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["pareto", "S", "--split", "tset"], "'test'"),
        (["pareto", "S", "--split", "val"], "'validation'"),
        (["pareto", "S", "--norm", "Linf"], "'linf'"),
        (["pareto", "S", "--mode", "exakt"], "'exact'"),
        (["pareto", "S", "--attack", "autoatack"], "'autoattack'"),
        (["pareto", "S", "--attack", "autoatack", "--split", "test"], "'autoattack'"),
        (["pick", "S", "--max", "clena"], "'clean_accuracy'"),
        (["pick", "S", "--min", "robsut=1%"], "'robust_accuracy'"),
        (["results", "trials", "S", "--sort", "robust"], "'robust_accuracy'"),
        (["results", "trials", "S", "--columns", "number,eror"], "'error'"),
        (["results", "trials", "S", "--status", "fail"], "'failed'"),
        (["results", "shwo", "S"], "'show'"),
        (["evaluate", "S", "--attack", "autoatack", "--epsilon", "0.1", "--split", "test"], "'autoattack'"),
        (["evaluate", "S", "--attack", "pgd", "--epsilon", "0.1", "--split", "tests"], "'test'"),
        (["evaluate", "S", "--attack", "pgd", "--epsilon", "0.1", "--split", "test", "--device", "cdua"], "'cuda'"),
        (["presets", "trades/resnet"], "'trades/resnet18'"),
        (["paretto", "S"], "'pareto'"),
    ],
)
def test_a_misspelled_name_is_answered_with_the_one_that_was_meant(words: list[str], meant: str, trained: Path) -> None:
    output = refused(*(str(trained) if word == "S" else word for word in words))
    assert re.search(rf"[Dd]id you mean {re.escape(meant)}\?", output), output


def test_a_figure_goes_into_a_folder_that_is_made_for_it(trained: Path, tmp_path: Path) -> None:
    result = call("pareto", trained, "--plot", tmp_path / "new" / "deeper" / "front.svg")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "deeper" / "front.svg").read_text().startswith("<?xml")


def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_computed(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in [
        ("file/front.png", f"{tmp_path}/file is no folder"),
        ("front.jpg", "the suffix must be one of .pdf, .png, .svg"),
        ("no suffix", "the suffix must be one of .pdf, .png, .svg"),
        (f"{'ü' * 130}.png", "its name is too long"),
        (f"{'x' * 300}/front.png", "File name too long"),
    ]:
        output = refused("pareto", trained, "--plot", tmp_path / name)
        assert message in output
        assert output.startswith("Error: ")
        assert output.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_confirm_says_before_it_trains_which_members_which_seeds_and_what_is_done(
    trained: Path, tmp_path: Path
) -> None:
    def plan() -> list[str]:
        return call("confirm", trained, "--seeds", "2", "--results", tmp_path, "--dry-run").output.splitlines()

    folder = tmp_path / "small-confirm"
    lines = plan()
    assert f"  confirms 1 member of the front of {trained}, in {folder}" in lines
    assert "    2 runs, 0 of them done already, 2 to train" in lines
    assert "    trial 0: seeds 1, 2; done: none" in lines
    metadata = replace(reader.metadata(trained), study="small-confirm")
    writer = StudyTables(folder, params={"member": pa.int64(), "seed": pa.int64()}, metadata=metadata)
    for number, status in enumerate(("complete", "stopped")):
        row: dict[str, Any] = {"trial_id": f"small-confirm-{number}", "attempt": 1, "number": number, "status": status}
        writer.trial(row | {"param_member": 0, "param_seed": number + 1})
    writer.flush()
    assert "    2 runs, 1 of them done already, 1 to train" in plan()
    assert "    trial 0: seeds 1, 2; done: 1" in plan()


def test_what_goes_on_is_printed_as_a_shell_reads_it_with_the_options_that_were_given(tmp_path: Path) -> None:
    given = {"--trials": 24, "--hours": 1.5, "--device-hours": None, "--address": "ray://head:1"}
    command = _again("tune", Path("my file.yaml"), tmp_path / "a b", given, [Path("old; rm -rf")])
    assert shlex.split(command) == [
        *("arat-ray", "tune", "my file.yaml", "--results", f"{tmp_path}/a b", "--trials", "24", "--hours", "1.5"),
        *("--address", "ray://head:1", "--from", "old; rm -rf", "--resume"),
    ]


def test_a_run_says_at_once_what_begins_and_where_it_goes(trained: Path, tmp_path: Path) -> None:
    file = write(tmp_path)
    output = call("train", file, "--results", tmp_path / "out").output
    first = [f"checking {file}", f"small: 2 epochs, into {tmp_path}/out/small"]
    assert output.splitlines()[:2] == first
    (measure,) = [line for line in output.splitlines() if line.startswith("measure it: ")]
    words = shlex.split(measure.partition(": ")[2])
    assert words[:2] == ["arat-ray", "evaluate"]
    assert words[3:] == ["--attack", "autoattack", "--epsilon", "0.1", "--split", "test"]
