"""A run goes on, and its network is measured, wherever its data, its home and its folder have gone meanwhile."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from arat_ray.cli import main
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.storage import trust
from arat_ray.study import single
from arat_ray.study.trial_rows import config_hash
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint
from tests import moving
from tests.training.runs import assert_same_bits, assert_same_rows

PGD = ("--attack", "pgd", "--epsilon", "0.2", "--steps", "1", "--images", "10")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("ARAT_DATA", "ARAT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


class _Ctrl_C(io.StringIO):  # noqa: N801
    """A terminal at which somebody presses it after the first epoch."""

    def write(self, text: str) -> int:
        if "epoch 1/" in text:
            raise KeyboardInterrupt
        return super().write(text)


def write(path: Path, dataset: dict[str, Any], **train: Any) -> Path:
    path.write_text(yaml.safe_dump(moving.experiment(dataset, **train)))
    return path


def run(file: Path, results: Path, *, interrupted: bool = False, resume: bool = False) -> str:
    """`train`, in its own process's words; its folder is RESULTS/moved."""
    shown = _Ctrl_C() if interrupted else io.StringIO()
    experiment = load(file).without_search()
    single.run(experiment, file, results / "moved", resume=resume, console=Console(file=shown, width=400))
    return shown.getvalue()


def interrupt(file: Path, results: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(file, results, interrupted=True)


def state(results: Path) -> Checkpoint:
    return checkpoint.load(results / "moved/checkpoints/moved-00000/last.pt")


def call(*arguments: object, code: int = 0, **given: Any) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], **given)
    assert result.exit_code == code, (result.output, result.exception)
    return result


# ------------------------------------------------------------------------------------------------- going on


def moved_data(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says the new place."""
    shutil.move(old / "sets", new / "elsewhere")
    text = (old / "moved.yaml").read_text().replace(str(old / "sets"), str(new / "elsewhere"))
    (old / "moved.yaml").write_text(text)


def own_folder(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says the old place, and $ARAT_DATA the new one."""
    shutil.move(old / "sets", new / "elsewhere/sets")
    monkeypatch.setenv("ARAT_DATA", str(new / "elsewhere"))


def default_folder(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(old / "sets", Path.home() / ".cache/arat-ray/sets")


def moved_home(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(Path.home(), new / "home")
    monkeypatch.setenv("HOME", str(new / "home"))


def moved_study(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(old / "results", new / "results")


def another_mount(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, and the file says so."""
    moved_data(old, new, monkeypatch)
    moved_study(old, new, monkeypatch)
    moved_home(old, new, monkeypatch)


MOVES = [moved_data, own_folder, default_folder, moved_home, moved_study, another_mount]


@pytest.mark.parametrize("kind", ["parquet", "image_folder"])
@pytest.mark.parametrize("move", MOVES)
def test_a_run_that_was_moved_goes_on_bit_for_bit(
    move: Callable[..., None], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new, Path.home() / ".cache/arat-ray"):
        folder.mkdir(parents=True)
    file = write(old / "moved.yaml", moving.write_set(kind, old / "sets"))
    run(file, old / "whole")
    interrupt(file, old / "results")
    move(old, new, monkeypatch)
    results = new / "results" if (new / "results").exists() else old / "results"
    run(file, results, resume=True)
    there, whole = state(results), state(old / "whole")
    assert_same_bits(there.method, whole.method)
    assert_same_rows(there.history, whole.history)
    (trial,) = reader.read(results / "moved", "trials").to_pylist()
    assert (trial["status"], trial["epochs_done"]) == ("complete", 2)


def test_a_run_that_is_complete_needs_no_data(tmp_path: Path) -> None:
    file = write(tmp_path / "moved.yaml", moving.write_set("image_folder", tmp_path / "sets"))
    experiment = load(file).without_search()
    run(file, tmp_path)
    shutil.rmtree(tmp_path / "sets")
    shown = io.StringIO()
    single.run(experiment, file, tmp_path / "moved", resume=True, console=Console(file=shown, width=400))
    assert "is complete already" in shown.getvalue()
    assert json.loads((tmp_path / "moved/study.json").read_text())["content"]["train"]["images"] == 120


def test_data_may_be_given_by_a_variable_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moving.write_set("parquet", tmp_path / "a")
    monkeypatch.setenv("DATA", str(tmp_path / "a"))
    file = write(tmp_path / "moved.yaml", {"name": "parquet", "train": "$DATA/train.parquet"})
    interrupt(file, tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setenv("DATA", str(tmp_path / "b"))
    assert "epoch 2/2" in run(file, tmp_path, resume=True)


def test_data_given_on_the_command_line_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    dataset = moving.write_set("parquet", tmp_path / "sets")
    file = write(tmp_path / "moved.yaml", dataset)
    interrupt(file, tmp_path / "results")
    (tmp_path / "sets").rename(tmp_path / "new")
    lines = call("train", file, "--results", tmp_path / "results", "--resume", "--data", tmp_path / "new").output
    assert f"--data {tmp_path}/new" in lines  # in the command that measures it
    last = tmp_path / "results/moved/checkpoints/moved-00000/last.pt"
    call("evaluate", last, "--split", "test", *PGD)  # where it was trained, no question is asked
    (trial,) = reader.read(tmp_path / "results/moved", "trials").to_pylist()
    assert json.loads(trial["config"])["dataset"]["train"] == dataset["train"]  # as the file says


# ------------------------------------------------------------------------------------------- other content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": 1}, "other pixels and labels of the 120 train images"),
        ({"count": 110}, "120 train images then and 110 now"),
    ],
)
def test_data_with_other_content_is_refused_and_what_differs_is_said(
    change: dict[str, int], words: str, tmp_path: Path
) -> None:
    dataset = moving.write_set("parquet", tmp_path / "sets")
    interrupt(write(tmp_path / "moved.yaml", dataset), tmp_path)
    last = tmp_path / "moved/checkpoints/moved-00000/last.pt"
    moving.parquet(tmp_path / "other/train.parquet", **change)
    file = write(tmp_path / "moved.yaml", dataset | {"train": str(tmp_path / "other/train.parquet")})
    before = state(tmp_path)
    with pytest.raises(ValueError, match=f"holds results of other data: {words}.*--data PATH"):
        run(file, tmp_path, resume=True)
    (tmp_path / "moved/study.json").write_text(
        json.dumps(json.loads((tmp_path / "moved/study.json").read_text()) | {"content": None})
    )
    with pytest.raises(ValueError, match=rf"last\.pt was trained on other data: {words}"):
        run(file, tmp_path, resume=True)
    assert_same_bits(state(tmp_path).method, before.method)
    refused = call("evaluate", last, "--split", "validation", *PGD, "--data", tmp_path / "other", code=2)
    assert f"the data has changed since this checkpoint: {words}" in refused.output


def test_data_that_is_replaced_where_it_lies_is_refused(tmp_path: Path) -> None:
    dataset = moving.write_set("parquet", tmp_path / "sets")
    file = write(tmp_path / "moved.yaml", dataset)
    interrupt(file, tmp_path)
    moving.parquet(tmp_path / "sets/train.parquet", first=1)
    with pytest.raises(ValueError, match="other pixels and labels of the 120 train images"):
        run(file, tmp_path, resume=True)


def test_the_test_images_are_fingerprinted_where_they_are_measured_on(tmp_path: Path) -> None:
    given = moving.experiment(moving.write_set("parquet", tmp_path / "sets"))
    given["validate"]["split"] = "test"
    file = tmp_path / "moved.yaml"
    file.write_text(yaml.safe_dump(given))
    interrupt(file, tmp_path)
    moving.parquet(tmp_path / "new/sets/test.parquet", first=201, count=40)
    shutil.move(tmp_path / "sets/train.parquet", tmp_path / "new/sets/train.parquet")
    given["train"]["dataset"] |= {key: str(tmp_path / f"new/sets/{key}.parquet") for key in ("train", "test")}
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(ValueError, match="other pixels and labels of the 40 test images"):
        run(file, tmp_path, resume=True)


# -------------------------------------------------------------------------------------- what is there today


def as_before(results: Path, dataset: dict[str, Any]) -> None:
    """A study as versions wrote it that kept places and no fingerprints."""
    path = results / "moved/study.json"
    said = json.loads(path.read_text())
    del said["content"]
    said["identity"]["train"]["dataset"] |= {"train": dataset["train"], "test": dataset["test"]}
    path.write_text(json.dumps(said))
    last = results / "moved/checkpoints/moved-00000/last.pt"
    old = checkpoint.load(last)
    train = {**old.train, "dataset": {**old.train["dataset"], **dataset}}
    del train["label_smoothing"]  # and what was not known then
    checkpoint.save(Checkpoint(**{**vars(old), "content": None, "train": train}), last)


@pytest.mark.parametrize("kind", ["parquet", "image_folder"])
def test_studies_of_earlier_versions_go_on_after_a_move_and_say_what_is_not_checked(kind: str, tmp_path: Path) -> None:
    dataset = moving.write_set(kind, tmp_path / "sets")
    file = write(tmp_path / "moved.yaml", dataset)
    interrupt(file, tmp_path)
    as_before(tmp_path, dataset)
    (tmp_path / "sets").rename(tmp_path / "new")
    (tmp_path / "moved.yaml").write_text(file.read_text().replace(str(tmp_path / "sets"), str(tmp_path / "new")))
    shown = run(file, tmp_path, resume=True)
    assert "begun by a version that kept no fingerprint of its data" in shown
    assert "epoch 2/2" in shown
    assert "fingerprint" not in run(file, tmp_path, resume=True)


def test_a_checkpoint_of_an_earlier_version_is_measured_and_exported_after_a_move(tmp_path: Path) -> None:
    dataset = moving.write_set("parquet", tmp_path / "sets")
    run(write(tmp_path / "moved.yaml", dataset), tmp_path)
    as_before(tmp_path, dataset)
    (tmp_path / "sets").rename(tmp_path / "new")
    last = tmp_path / "moved/checkpoints/moved-00000/last.pt"
    for split in ("validation", "test"):
        lines = call("evaluate", last, "--split", split, *PGD, "--data", tmp_path / "new").output
        assert "kept no fingerprint of its data" in lines
    call("export", last, "-o", tmp_path / "net.safetensors", "--data", tmp_path / "new")
    refused = call("evaluate", last, "--split", "test", *PGD, code=2).output
    assert f"names its data: {dataset['train']}" in refused


def test_a_run_that_says_something_else_is_still_another_one(tmp_path: Path) -> None:
    dataset = moving.write_set("parquet", tmp_path / "sets")
    interrupt(write(tmp_path / "moved.yaml", dataset), tmp_path)
    for changed in ({"dataset": dataset | {"flip": False}}, {"seed": 1}):
        file = write(tmp_path / "moved.yaml", **({"dataset": dataset} | changed))
        with pytest.raises(ValueError, match="another experiment: train"):
            run(file, tmp_path, resume=True)


# --------------------------------------------------------------------------------- what makes two the same


def experiments(tmp_path: Path, **changes: Any) -> list[Experiment]:
    found = []
    for place in ("a", "b"):
        given = moving.experiment(moving.write_set("parquet", tmp_path / place)) | changes
        found.append(Experiment.model_validate(json.loads(json.dumps(given).replace("HERE", str(tmp_path / place)))))
    return found


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"seed": {"choice": [0, 1]}},
        {"dataset": {"choice": {"one": {"name": "parquet", "train": "HERE/train.parquet"}, "two": {"name": "digits"}}}},
        {"dataset.train": {"choice": {"one": "HERE/train.parquet", "two": "HERE/test.parquet"}}},
    ],
)
def test_an_experiment_is_the_same_wherever_its_data_lies(search: dict[str, Any], tmp_path: Path) -> None:
    one, two = experiments(tmp_path, search=search)
    assert one.identity() == two.identity()
    assert str(tmp_path) not in json.dumps(one.identity())
    runs = [each.base.model_dump(mode="json") for each in (one, two)]
    assert config_hash(runs[0]) == config_hash(runs[1])
    assert config_hash(runs[0]) != config_hash(runs[0] | {"seed": 7})


def test_an_experiment_may_be_called_what_a_data_set_is(tmp_path: Path) -> None:
    for name in ("parquet", "cifar10"):
        one, other = (experiments(tmp_path, name=name)[0] for _ in range(2))
        assert one.identity()["train"]["epochs"] == 2
        changed = other.model_copy(update={"train": other.train | {"epochs": 3}})
        assert one.identity() != changed.identity()


# -------------------------------------------------------------------- places that only a checkpoint names


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that somebody else trained, on data that is there."""
    run(write(tmp_path / "moved.yaml", moving.write_set("parquet", tmp_path / "theirs")), tmp_path)
    return tmp_path / "moved/checkpoints/moved-00000/last.pt"


def test_a_place_that_only_a_checkpoint_names_is_not_opened_unasked(foreign: Path, tmp_path: Path) -> None:
    refused = call("evaluate", foreign, "--split", "test", *PGD, code=2).output
    assert str(tmp_path / "theirs/train.parquet") in refused
    assert "--data PATH" in refused
    assert len(refused.splitlines()) == 1
    assert not (foreign.parent / "attacks").exists()


def test_it_is_opened_after_a_yes_and_then_remembered(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arat_ray.cli import data

    monkeypatch.setattr(data, "is_terminal", lambda: True)
    said_no = call("evaluate", foreign, "--split", "test", *PGD, code=2, input="n\n").output
    assert "is left alone" in said_no
    call("evaluate", foreign, "--split", "test", *PGD, input="y\n")
    assert trust.is_trusted(str(tmp_path / "theirs/train.parquet"))
    call("evaluate", foreign, "--split", "train", *PGD, input="")


def test_it_is_opened_where_the_users_own_file_named_it(foreign: Path, tmp_path: Path) -> None:
    call("validate", tmp_path / "moved.yaml")
    call("evaluate", foreign, "--split", "test", *PGD)


def test_a_copy_of_the_users_own_is_used_without_a_question(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "theirs", tmp_path / "own/theirs")
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "own"))
    call("evaluate", foreign, "--split", "test", *PGD)
    moving.parquet(tmp_path / "own/theirs/train.parquet", first=1)
    refused = call("evaluate", foreign, "--split", "train", *PGD, code=2).output
    assert "the data has changed since this checkpoint" in refused


def test_export_opens_no_place_that_only_a_checkpoint_names(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote = call("export", foreign, "-o", tmp_path / "net.safetensors").output
    assert "random images" in wrote
    wrote = call("export", foreign, "-o", tmp_path / "again.safetensors", "--data", tmp_path / "theirs").output
    assert "training images of parquet" in wrote


@pytest.mark.parametrize("address", ["s3://theirs/train", "gs://theirs/train", "file:///theirs/train"])
def test_a_bucket_that_only_a_checkpoint_names_is_not_asked(
    address: str, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arat_ray.storage import objects

    monkeypatch.setattr(objects, "store", lambda *place: pytest.fail(f"{place} was asked"))
    old = checkpoint.load(foreign)
    for content in (old.content, None):
        train = {**old.train, "augmentation": "rand_augment", "dataset": {**old.train["dataset"], "train": address}}
        checkpoint.save(Checkpoint(**{**vars(old), "train": train, "content": content}), foreign)
        assert address in call("evaluate", foreign, "--split", "train", *PGD, code=2).output
        wanted = 2 if content is None else 0
        call("export", foreign, "-o", tmp_path / "net.safetensors", "--force", code=wanted)


@pytest.mark.parametrize("verb", ["pick", "confirm"])
def test_a_study_that_only_names_its_data_itself_is_not_opened_unasked(
    verb: str, foreign: Path, tmp_path: Path
) -> None:
    options: list[object] = ["--max", "clean", "-o", tmp_path / "chosen.yaml"]
    if verb == "confirm":
        options = ["--seeds", 1, "--dry-run"]
    assert str(tmp_path / "theirs") in call(verb, tmp_path / "moved", *options, code=2).output
    call(verb, tmp_path / "moved", *options, "--data", tmp_path / "theirs")


def test_data_is_of_no_use_where_a_set_is_part_of_a_package(tmp_path: Path) -> None:
    file = write(tmp_path / "moved.yaml", {"name": "digits"})
    refused = call("train", file, "--results", tmp_path, "--data", tmp_path, code=2).output
    assert "digits is part of an installed package" in refused


def test_a_spec_is_validated_and_tables_are_made_again_without_the_data(foreign: Path, tmp_path: Path) -> None:
    from arat_ray.training.run import Train

    file = write(tmp_path / "moved.yaml", moving.write_set("parquet", tmp_path / "theirs"), augmentation="rand_augment")
    run(file, tmp_path / "augmented")
    shutil.rmtree(tmp_path / "theirs")
    Train.model_validate(yaml.safe_load(file.read_text())["train"])
    assert "epochs: 2 rows; as it was" in call("results", "rebuild", tmp_path / "augmented/moved").output


def test_a_node_keeps_the_checkpoints_of_a_run_whose_data_has_moved(tmp_path: Path) -> None:
    from arat_ray.cluster.trials.checkpoints import _remove_useless

    dataset = moving.write_set("parquet", tmp_path / "sets")
    run(write(tmp_path / "moved.yaml", dataset), tmp_path)
    last = tmp_path / "moved/checkpoints/moved-00000/last.pt"
    here = {**dataset, "train": "/elsewhere/train.parquet"}
    for changes, is_kept in (({"dataset": here}, True), ({"dataset": here, "seed": 1}, False)):
        given = moving.experiment(dataset) | {"train": moving.experiment(dataset)["train"] | changes}
        config: Any = {"train": given["train"], "validate": given["validate"]}
        _remove_useless(last.parent, config)
        assert last.exists() == is_kept


def test_a_node_sets_a_damaged_checkpoint_aside_that_a_bucket_has_given_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from arat_ray.cluster.trials.checkpoints import _remove_useless

    last = tmp_path / "last.pt"
    last.write_bytes(b"PK\x03\x04 and no more")
    given = moving.experiment({"name": "digits"})
    config: Any = {"train": given["train"], "validate": given["validate"]}
    _remove_useless(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt.damaged"]
    assert f"{last}: not a checkpoint of arat-ray" in caplog.text
    assert "begins anew" in caplog.text
