"""Accuracy of a checkpoint, against a computation of its own on the same images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from arat_ray.attack_names import ENSEMBLES
from arat_ray.digests import sha256_of
from arat_ray.evaluation.accuracy import evaluate
from arat_ray.evaluation.autoattack import Attacker, run
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.evaluation.request import attack_from, record
from arat_ray.training import checkpoint
from arat_ray.training.attacks import Pgd
from arat_ray.training.context import Context
from arat_ray.training.data import splits
from arat_ray.training.data.splits import Digits
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate
from tests.evaluation.nets import digits

PGD = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=3, start="center")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "checkpoints" / "run-00000"
    train = Train.model_validate(
        {
            "dataset": {"name": "digits"},
            "model": {"name": "tiny", "width": 8},
            "method": {"name": "arat", "invariance_weight": 1, "layers": ["bn3"]},
            "attack": PGD.model_dump(),
            "epochs": 2,
            "batch_size": 32,
            "seed": 0,
        }
    )
    validate = Validate.model_validate({"every": 2, "images": 300, "attack": PGD.model_dump()})
    fit(train, validate, Context(folder, lambda row, replayed: False))
    return folder / checkpoint.LAST


def test_counts_equal_a_loop_over_single_images(trained: Path) -> None:
    report = evaluate(trained, split="test", attack=PGD, images=40, subset="first", seed=0, batch_size=16, device=CPU)
    model = checkpoint.network(checkpoint.load(trained))
    images, labels, _ = splits.read(Digits(), "test")
    clean = robust = 0
    for image, label in zip(images[:40], labels[:40], strict=True):
        x, y = image[None].float() / 255, label[None]
        if model(x).argmax(1) == y:
            clean += 1
            robust += int(model(PGD(model, x, y, noise=None)).argmax(1) == y)
    assert (report.clean.correct, report.robust.correct) == (clean, robust)
    assert report.clean.images == report.robust.images == 40
    assert 0 < robust < clean
    low, high = report.robust.interval
    assert low < report.robust.accuracy < high


def test_the_validation_split_is_the_one_that_the_run_held_out(trained: Path) -> None:
    state = checkpoint.load(trained)
    report = evaluate(trained, split="validation", attack=PGD, images=None, seed=0, batch_size=256, device=CPU)
    assert report.indices_sha256 == state.validation_sha256
    assert report.clean.accuracy == state.history[-1]["validation_clean_accuracy"]
    assert report.robust.accuracy == state.history[-1]["validation_robust_accuracy"]
    on_train = evaluate(trained, split="train", attack=PGD, images=None, seed=0, batch_size=256, device=CPU)
    assert report.clean.images + on_train.clean.images == 1437


def test_the_same_seed_gives_the_same_counts_whatever_ran_before(trained: Path) -> None:
    attack = PGD.model_copy(update={"start": "uniform"})
    counts = []
    for _ in range(2):
        torch.rand(13)
        report = evaluate(trained, split="test", attack=attack, images=64, seed=1, batch_size=32, device=CPU)
        counts.append(report.robust.correct)
    assert counts[0] == counts[1]


def test_each_image_has_a_verdict_that_adds_up_to_the_counts(trained: Path) -> None:
    report = evaluate(trained, split="validation", attack=PGD, images=50, seed=0, batch_size=16, device=CPU)
    rows = report.example_rows()
    train = splits.read(Digits(), "train")
    assert [row["label"] for row in rows] == train.labels[[row["index"] for row in rows]].tolist()
    assert sum(row["clean_correct"] for row in rows) == report.clean.correct
    assert sum(row["clean_correct"] and row["broken_by"] is None for row in rows) == report.robust.correct
    assert sum(row["margin"] > 0 for row in rows) == report.robust.correct
    assert {row["broken_by"] for row in rows if row["broken_by"]} == {"pgd-3"}
    assert {row["evaluation_id"] for row in rows} == {report.rows()[1]["evaluation_id"]}


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load, loaded = tmp_path / "last.pt", checkpoint.load, list[str]()
    shutil.copy(trained, path)

    def load_and_replace(file: Path, **options: Any) -> checkpoint.Checkpoint:
        loaded.append(sha256_of(file))
        state = load(file, **options)
        if len(loaded) == 1:
            newer = tmp_path / "newer.pt"
            torch.save(torch.load(file, weights_only=False) | {"epoch": 1}, newer)
            newer.replace(file)
        return state

    monkeypatch.setattr(checkpoint, "load", load_and_replace)
    report = evaluate(path, split="test", attack=PGD, images=20, seed=0, batch_size=20, device=CPU)
    assert loaded[0] != loaded[1] == report.checkpoint_sha256 == sha256_of(path)
    assert (len(loaded), report.epoch) == (2, 1)


def test_an_ensemble_is_measured_as_on_the_bare_network_and_again_from_its_records(trained: Path) -> None:
    apgd = Ensemble(name="apgd", norm="linf", epsilon=0.1)
    common: dict[str, Any] = {"split": "test", "attack": apgd, "images": 10, "seed": 0, "batch_size": 6, "device": CPU}
    common |= {"subset": "first"}
    told: list[str] = []
    report = evaluate(trained, **common, progress=told.append)
    bare = Attacker(checkpoint.network(checkpoint.load(trained)), digits(10), apgd.plan(10), seed=0)
    found = run(bare, batch_size=6)
    assert report.robust.correct == int(found.robust.sum())
    assert report.clean.correct == int(found.clean_correct.sum())
    assert [row["margin"] for row in report.example_rows()] == found.margins.tolist()
    clean, robust = report.rows()
    assert (clean["attack"], robust["attack"], robust["norm"], robust["epsilon"]) == ("none", "apgd", "linf", 0.1)
    assert robust["attack_version"] == "pyautoattack 0.2.0, exact"
    assert told[0] == f"clean 1/2 batches, {told[0].split()[3]} % of 10 images unbroken"
    assert told[-1].endswith("images unbroken, about 0 s left")
    assert list(trained.parent.glob("attacks/apgd-*/apgd-ce-00000.safetensors"))
    assert evaluate(trained, **common).rows() == report.rows()


def test_more_images_than_the_split_has_are_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="361 images of a test split of 360; choose 1 to 360"):
        evaluate(trained, split="test", attack=PGD, images=361, seed=0, batch_size=32, device=CPU)


def test_a_checkpoint_outside_of_a_study_is_measured_and_not_recorded(trained: Path) -> None:
    report = evaluate(trained, split="test", attack=PGD, images=8, seed=0, batch_size=8, device=CPU)
    assert record(report) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epsilon": "8"}, r"--epsilon: .*did you mean 8/255"),
        ({"epsilon": "abc"}, r"--epsilon: 'abc' is no radius"),
        ({"epsilon": "0"}, r"--epsilon: "),
        ({"epsilon": "8/255", "step_size": "nonsense"}, r"--step-size: "),
    ],
)
def test_a_radius_that_cannot_be_is_refused_by_its_option(words: dict[str, str], message: str) -> None:
    asked = {"norm": "linf", "steps": 20, "step_size": None} | words
    with pytest.raises(ValueError, match=message):
        attack_from("pgd", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_radius_that_was_not_divided_by_255_is_refused_for_every_ensemble(name: str) -> None:
    with pytest.raises(ValueError, match=r"--epsilon: .*did you mean 8/255"):
        attack_from(name, norm="linf", epsilon="8")


def test_fgsm_is_one_whole_step_from_the_image_itself() -> None:
    attack = attack_from("fgsm", norm="linf", epsilon="8/255")
    assert isinstance(attack, Pgd)
    assert (attack.steps, attack.start, attack.step_size) == (1, "center", 8 / 255)
    assert str(attack) == "fgsm linf 8/255"


def test_the_step_is_a_quarter_of_the_radius_unless_told() -> None:
    attack = attack_from("pgd", norm="l2", epsilon="128/255", steps=20, step_size=None)
    assert isinstance(attack, Pgd)
    assert attack.step_size == pytest.approx(32 / 255)
    assert str(attack) == "pgd-20 l2 128/255"


def test_a_run_that_validated_on_test_images_has_no_validation_split(tmp_path: Path) -> None:
    train = Train.model_validate(
        {
            "dataset": {"name": "digits", "images": 64},
            "model": {"name": "tiny", "width": 2},
            "method": {"name": "standard"},
            "epochs": 1,
            "batch_size": 32,
            "seed": 0,
            "averaging": {"name": "swa", "start": 0},
        }
    )
    settings = {"every": 1, "images": 50, "split": "test", "seed": 3, "attack": PGD.model_dump()}
    validate = Validate.model_validate(settings)
    folder = tmp_path / "checkpoints" / "run-00000"
    fit(train, validate, Context(folder, lambda row, replayed: False))
    path = folder / checkpoint.LAST
    common: dict[str, Any] = {"attack": PGD, "images": None, "seed": 0, "batch_size": 64, "device": CPU}
    with pytest.raises(ValueError, match="held no images out: it was validated on test images; choose split test"):
        evaluate(path, split="validation", **common)
    assert evaluate(path, split="train", **common).clean.images == 64
    averaged, raw = (evaluate(path, split="test", **common, averaged=averaged) for averaged in (True, False))
    assert [row["checkpoint"] for row in averaged.rows()] == ["swa", "swa"]
    assert [row["checkpoint"] for row in raw.rows()] == ["last", "last"]
    as_validated, other = (
        evaluate(path, split="test", **common | {"images": 50}, subset_seed=seed).indices_sha256 for seed in (3, 0)
    )
    assert as_validated == checkpoint.load(path).validation_sha256 != other
