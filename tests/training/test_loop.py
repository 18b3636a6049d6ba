"""The loop: resuming, several workers, and what a row says. Real digits, a tiny network, plain processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from arat_ray.digests import sha256_of
from arat_ray.evaluation import accuracy
from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.epoch_row import DivergenceError
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate
from tests.training.runs import Row, assert_same_bits
from tests.training.two_workers import both, group

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.05, "steps": 2}
ARAT = {"name": "arat", "invariance_weight": 3, "layers": ["bn3"]}
VALIDATE = Validate.model_validate({"every": 1, "images": 1200, "attack": PGD})


def make(**fields: Any) -> Train:
    defaults: dict[str, Any] = {
        "dataset": {"name": "digits", "crop_padding": 1, "flip": True},
        "model": {"name": "tiny", "width": 4},
        "method": ARAT,
        "attack": PGD,
        "epochs": 3,
        "batch_size": 32,
        "seed": 5,
    }
    return Train.model_validate(defaults | fields)


def train(spec: Train, folder: Path, *, stop_after: int | None = None, validate: Validate = VALIDATE) -> list[Row]:
    rows: list[Row] = []

    def report(row: Row, replayed: bool) -> bool:
        rows.append({**row, "replayed": replayed})
        return row["epoch"] == stop_after and not replayed

    fit(spec, validate, Context(folder, report))
    return rows


def state(folder: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(folder / checkpoint.LAST)


@pytest.mark.parametrize(
    "method",
    [{"name": "standard"}, {"name": "pgd_at"}, ARAT, ARAT | {"preset": "official"}],
    ids=["standard", "pgd_at", "arat", "arat-official"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(method: dict[str, Any], tmp_path: Path) -> None:
    spec = make(method=method, schedule={"name": "cosine"})
    whole = train(spec, tmp_path / "whole")
    for stop_after in (1, 2, None):
        rows = train(spec, tmp_path / "parts", stop_after=stop_after)
    assert [row["replayed"] for row in rows] == [True, True, False]
    for name in ("method", "optimizer"):
        assert_same_bits(getattr(state(tmp_path / "whole"), name), getattr(state(tmp_path / "parts"), name))
    timing = {"epoch_s", "attack_s", "images_per_s", "replayed"}
    for mine, theirs in zip(rows, whole, strict=True):
        assert {k: v for k, v in mine.items() if k not in timing} == {
            k: v for k, v in theirs.items() if k not in timing
        }


def test_a_run_goes_on_from_its_last_measured_epoch(tmp_path: Path) -> None:
    validate = VALIDATE.model_copy(update={"every": 2})
    train(make(), tmp_path, stop_after=1, validate=validate)
    assert not (tmp_path / checkpoint.LAST).exists()
    rows = train(make(), tmp_path, validate=validate)
    assert [row["replayed"] for row in rows] == [False] * 3
    assert [row.get("validation_images") for row in rows] == [None, 1200, 1200]


def test_a_finished_run_is_only_replayed(tmp_path: Path) -> None:
    first = train(make(epochs=1), tmp_path)
    before = (tmp_path / checkpoint.LAST).read_bytes()
    again = train(make(epochs=1), tmp_path)
    assert again == [{**first[0], "replayed": True}]
    assert (tmp_path / checkpoint.LAST).read_bytes() == before


def test_training_does_not_depend_on_torchs_global_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(make(epochs=1), tmp_path / "one")
    torch.manual_seed(2)
    torch.rand(7)
    train(make(epochs=1), tmp_path / "two")
    assert_same_bits(state(tmp_path / "one").method, state(tmp_path / "two").method)


def test_another_seed_is_another_run_on_the_same_split(tmp_path: Path) -> None:
    train(make(epochs=1), tmp_path / "one")
    train(make(epochs=1, seed=6), tmp_path / "two")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert not torch.equal(one.method["model.linear.weight"], two.method["model.linear.weight"])
    assert one.validation_sha256 == two.validation_sha256


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(make(epochs=1), tmp_path)
    with pytest.raises(ValueError, match=r"last\.pt is the checkpoint of another run"):
        train(make(epochs=2), tmp_path)


def test_a_diverging_loss_ends_the_run_with_its_epoch_and_a_fix(tmp_path: Path) -> None:
    spec = make(optimizer={"name": "sgd", "learning_rate": 1e20}, schedule={"name": "cosine"})
    with pytest.raises(DivergenceError, match=r"epoch 1; lower optimizer\.learning_rate \(1e\+20\)"):
        train(spec, tmp_path)
    assert not (tmp_path / checkpoint.LAST).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_replace_no_checkpoint(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update of an epoch ruins them: no loss has shown it yet."""
    train(make(), tmp_path, stop_after=1)
    before = sha256_of(tmp_path / checkpoint.LAST), sha256_of(tmp_path / checkpoint.BEST)
    step, steps = torch.optim.SGD.step, []

    def ruin(self: torch.optim.SGD, *arguments: Any) -> None:
        step(self, *arguments)
        steps.append(1)
        if len(steps) == (1437 - 1200) // 32:
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = value

    monkeypatch.setattr(torch.optim.SGD, "step", ruin)
    with pytest.raises(DivergenceError, match="the weights became infinite or nan in epoch 2; lower"):
        train(make(), tmp_path)
    assert (sha256_of(tmp_path / checkpoint.LAST), sha256_of(tmp_path / checkpoint.BEST)) == before


def test_a_batch_larger_than_the_training_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 300 is larger than the 237 training images"):
        train(make(batch_size=300), tmp_path)


def test_a_row_measures_what_its_columns_say(tmp_path: Path) -> None:
    (row,) = train(make(epochs=1), tmp_path)
    assert row["train_images"] == 7 * 32
    assert 0 <= row["train_robust_accuracy"] <= row["train_clean_accuracy"] <= 1
    assert row["learning_rate"] == pytest.approx(0.02)
    assert 0 <= row["balance"] <= 1
    assert 0 < row["attack_s"] < row["epoch_s"]
    assert row["images_per_s"] == pytest.approx(224 / row["epoch_s"])
    assert 0 <= row["validation_robust_accuracy"] <= row["validation_clean_accuracy"] <= 1
    (plain,) = train(make(epochs=1, method={"name": "standard"}, attack=None), tmp_path / "standard")
    assert plain["train_robust_accuracy"] is None
    assert plain["loss_adversarial"] == plain["loss_invariance"] == 0
    assert plain["balance"] is None


def test_a_plainly_trained_network_is_accurate_and_not_robust(tmp_path: Path) -> None:
    """The quick start's starting point: PGD-20 at its radius leaves next to nothing of a standard network."""
    pgd = PGD | {"steps": 20, "step_size": 0.025}
    spec = make(dataset={"name": "digits"}, model={"name": "tiny"}, method={"name": "standard"}, attack=None, epochs=10)
    rows = train(spec, tmp_path, validate=Validate.model_validate({"every": 10, "images": 400, "attack": pgd}))
    assert rows[-1]["validation_clean_accuracy"] > 0.96
    assert rows[-1]["validation_robust_accuracy"] < 0.03


def worker(rank: int, folder: Path, spec: Train, stop_after: int = 0) -> None:
    rows: list[Row] = []

    def report(row: Row, replayed: bool) -> bool:
        rows.append(row)
        return bool(row["epoch"] == stop_after)

    with group(rank, folder):
        fit(spec, VALIDATE, Context(folder, report, rank=rank, world_size=2))
    (folder / f"rows-{rank}.json").write_text(json.dumps(rows))


def train_on_two(spec: Train, folder: Path) -> list[Row]:
    """The same run on two processes; their rows, which must agree."""
    folder.mkdir()
    assert both(worker, folder, spec) == [0, 0]
    first, second = ([*json.loads((folder / f"rows-{rank}.json").read_text())] for rank in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert mine["validation_clean_accuracy"] == theirs["validation_clean_accuracy"]
        assert mine["loss_clean"] == theirs["loss_clean"]
    return list(first)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "model": {"name": "tiny", "width": 4, "norm": "none"},
            "method": ARAT
            | {"predictor": {"norm": "none"}, "layers": ["conv3"], "noisy_center": True, "split_norm": False},
            "optimizer": {"name": "sgd", "learning_rate": 0.02},
        },
        {"sync_batch_norm": True, "optimizer": {"name": "sgd", "learning_rate": 0.02}},
        {
            "sync_batch_norm": True,
            "method": {"name": "lbgat", "beta": 6},
            "optimizer": {"name": "sgd", "learning_rate": 0.02},
            "weight_perturbation": {"gamma": 0.01},
            "gradient_clipping": 0.5,
            "label_smoothing": 0.1,
            "augmentation": "trivial_augment",
            "averaging": {"name": "ema", "decay": 0.9, "norm_images": 128},
            "diagnostics": {"every": 1, "images": 64},
        },
    ],
    ids=["without-batch-norm", "sync-batch-norm", "lbgat-with-all-options"],
)
def test_two_workers_equal_one_up_to_rounding(fields: dict[str, Any], tmp_path: Path) -> None:
    """One attack step: the sign of a gradient near zero may flip by rounding, and more steps would amplify that."""
    spec = make(epochs=1, attack=PGD | {"steps": 1}, **fields)
    (alone,) = train(spec, tmp_path / "one")
    (shared,) = train_on_two(spec, tmp_path / "two")
    for name in ("loss_adversarial", "loss_clean", "loss_invariance", *(["balance"] if alone["balance"] else [])):
        assert shared[name] == pytest.approx(alone[name], rel=2e-3), name
    assert shared["train_images"] == alone["train_images"]
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name, value in one.method.items():
        torch.testing.assert_close(two.method[name], value, rtol=0.02, atol=2e-3)
    assert (one.average is None) == (two.average is None) == ("averaging" not in fields)
    for name, value in (one.average or {"method": {}})["method"].items():
        assert two.average is not None
        torch.testing.assert_close(two.average["method"][name], value, rtol=0.05, atol=5e-3)


def test_two_workers_whose_batch_norms_are_their_own_go_on_to_the_bit_and_measure_what_is_saved(tmp_path: Path) -> None:
    """Attacks and balance are of eval mode, in which a batch norm uses its running statistics."""
    spec = make(epochs=3, method=ARAT | {"attack_norm": "eval"})
    whole = train_on_two(spec, tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    assert both(worker, folder, spec, 1) == [0, 0]
    assert state(folder).epoch == 1
    (folder / "rendezvous").unlink()
    assert both(worker, folder, spec) == [0, 0]
    again = json.loads((folder / "rows-0.json").read_text())
    timing = {"epoch_s", "attack_s", "images_per_s"}
    for mine, theirs in zip(again, whole, strict=True):
        assert {k: v for k, v in mine.items() if k not in timing} == {
            k: v for k, v in theirs.items() if k not in timing
        }
    assert_same_bits(state(folder).method, state(tmp_path / "whole").method)
    measured = accuracy.evaluate(
        folder / checkpoint.LAST,
        split="validation",
        attack=VALIDATE.attack,
        images=VALIDATE.images,
        seed=VALIDATE.seed,
        batch_size=VALIDATE.batch_size,
        device=torch.device("cpu"),
    )
    assert measured.clean.accuracy == again[-1]["validation_clean_accuracy"]


def test_a_run_of_two_workers_is_resumed_by_one(tmp_path: Path) -> None:
    spec = make(epochs=2, sync_batch_norm=True)
    folder = tmp_path / "run"
    folder.mkdir()
    train(spec, folder, stop_after=1)
    (folder / "rendezvous").unlink(missing_ok=True)
    folder.rename(tmp_path / "kept")
    rows = train_on_two(spec, folder)
    assert len(rows) == 2
    (tmp_path / "kept" / checkpoint.LAST).replace(folder / checkpoint.LAST)
    assert [row["replayed"] for row in train(spec, folder)] == [True, False]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 33 cannot be shared out over 2 workers"):
        fit(make(batch_size=33), VALIDATE, Context(tmp_path, lambda row, replayed: False, world_size=2))
