"""A clean branch for a network that was trained without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from arat_ray.training import checkpoint, clean_branch
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.split_norm import SplitNorm
from tests.training.export.exports import ARAT
from tests.training.runs import make, run, validate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of two epochs of PGD-AT on digits."""
    return trained(tmp_path_factory.mktemp("pgd_at"))


def trained(folder: Path, **fields: Any) -> Path:
    run(make(**({"batch_size": 200} | fields)), validate(100, every=9), folder)
    return folder / "last.pt"


def fitted(path: Path, *, epochs: int = 1, averaged: bool = True, said: list[str] | None = None) -> Checkpoint:
    say: Callable[[str], None] = (said if said is not None else []).append
    return checkpoint.load(clean_branch.fitted(path, epochs=epochs, averaged=averaged, device=CPU, say=say))


def clean_loss(state: Checkpoint, dial: float) -> float:
    data = state.train_spec.dataset.read("train")
    with torch.no_grad():
        logits = checkpoint.network(state, dial=dial)(data.images.float() / 255)
    return float(torch.nn.functional.cross_entropy(logits, data.labels))


def test_the_clean_branch_learns_clean_images(tmp_path: Path) -> None:
    source = trained(tmp_path, model={"name": "tiny", "width": 8}, epochs=4, batch_size=50)
    state = fitted(source)
    assert clean_loss(state, 1) < clean_loss(state, 0.5) < clean_loss(state, 0)


def test_the_deployed_network_stays_bit_for_bit(source: Path) -> None:
    before, state = checkpoint.load(source), fitted(source, epochs=2)
    plain = checkpoint.network(before).state_dict()
    for dial in (None, 0.0):
        same = checkpoint.network(state, dial=dial).state_dict()
        assert plain.keys() == same.keys()
        assert all(torch.equal(plain[name], same[name]) for name in plain)


def test_nothing_but_the_copies_of_the_norm_layers_moves(source: Path) -> None:
    before, state = checkpoint.load(source), fitted(source)
    ended = checkpoint.network(state, dial=1).state_dict()
    norms = {
        name.removeprefix("model.")
        for name, module in checkpoint.method(state).named_modules()
        if isinstance(module, SplitNorm)
    }
    for name, value in checkpoint.network(before).state_dict().items():
        assert torch.equal(value, ended[name]) is (name.rpartition(".")[0] not in norms), name


def test_it_is_the_same_each_time_and_is_kept_until_something_else_is_asked_for(source: Path) -> None:
    said: list[str] = []
    path = source.with_name("fitted-last.pt")
    path.unlink(missing_ok=True)
    first = fitted(source, said=said)
    assert first.fitted == {"epochs": 1, "of": first.fitted["of"]} if first.fitted else False
    written = path.stat().st_mtime_ns
    fitted(source, said=said)
    assert path.stat().st_mtime_ns == written
    path.unlink()
    again = fitted(source, said=said)
    assert all(torch.equal(value, again.method[name]) for name, value in first.method.items())
    other = fitted(source, epochs=2, said=said)
    assert other.fitted is not None
    assert other.fitted["epochs"] == 2
    assert len(said) == 3


def test_what_it_cost_is_said_as_a_share_of_the_training(source: Path) -> None:
    said: list[str] = []
    source.with_name("fitted-last.pt").unlink(missing_ok=True)
    fitted(source, epochs=2, said=said)
    assert said[0].startswith(f"{source.with_name('fitted-last.pt')}: a clean branch, 2 epochs of clean images in ")
    assert said[0].endswith(" s that its epochs took")
    assert " % of the " in said[0]


def test_it_is_dialled_exported_and_read_like_any_other(source: Path) -> None:
    state = fitted(source)
    assert state.weights is None
    domain = checkpoint.dial_range(state)
    assert domain is not None
    assert 0.5 in domain
    assert checkpoint.dial_range(checkpoint.load(source)) is None


def test_of_a_run_that_averaged_the_average_gets_the_branch(tmp_path: Path) -> None:
    source = trained(tmp_path, averaging={"name": "ema"})
    state = fitted(source)
    assert (state.average, state.weights) == (None, None)
    assert sorted(path.name for path in tmp_path.glob("fitted-*")) == ["fitted-ema.pt"]
    plain = checkpoint.network(checkpoint.load(source)).state_dict()
    assert all(torch.equal(plain[name], value) for name, value in checkpoint.network(state).state_dict().items())
    raw = fitted(source, averaged=False)
    assert (tmp_path / "fitted-last.pt").is_file()
    plain = checkpoint.network(checkpoint.load(source), averaged=False).state_dict()
    assert all(torch.equal(plain[name], value) for name, value in checkpoint.network(raw).state_dict().items())


def test_mistakes_are_refused_before_anything_is_trained(source: Path, tmp_path: Path) -> None:
    arat = trained(tmp_path / "arat", method=ARAT)
    with pytest.raises(ValueError, match=r"--fit: .*arat/last\.pt has a clean branch; leave --fit out"):
        fitted(arat)
    state = checkpoint.load(source)
    moved = tmp_path / "last.pt"
    checkpoint.save(replace(state, validation_sha256="other"), moved)
    with pytest.raises(ValueError, match="the training set has changed since"):
        fitted(moved)
    assert state.content is not None
    train = state.content["train"] | {"images": 7}
    checkpoint.save(replace(state, content={"train": train}), moved)
    with pytest.raises(ValueError, match=r"the data has changed since this checkpoint: 7 train images then"):
        fitted(moved)
    assert list(tmp_path.glob("fitted-*")) == []


def test_a_network_without_norm_layers_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_branch, "has_norm", lambda model: False)
    with pytest.raises(ValueError, match="has no norm layers, and a dial turns nothing else"):
        fitted(source)


def test_a_checkpoint_of_before_has_no_fitted_branch(source: Path, tmp_path: Path) -> None:
    fields = dict(vars(checkpoint.load(source)))
    del fields["fitted"]
    torch.save(fields, tmp_path / "old.pt")
    assert checkpoint.load(tmp_path / "old.pt").fitted is None
