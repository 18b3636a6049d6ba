"""Checkpoints: whole files, safe loading, and the deployed network."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an ARAT run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    train = {
        "dataset": {"name": "digits"},
        "model": {"name": "tiny", "width": 4},
        "method": {"name": "arat", "invariance_weight": 3, "layers": ["bn3"]},
        "attack": PGD,
        "epochs": 1,
        "batch_size": 64,
        "seed": 0,
    }
    validate = Validate.model_validate({"every": 1, "images": 1000, "attack": PGD})
    fit(Train.model_validate(train), validate, Context(folder, lambda row, replayed: False))
    return folder / checkpoint.LAST


def test_saving_and_loading_keeps_every_field(trained: Path, tmp_path: Path) -> None:
    state = checkpoint.load(trained)
    checkpoint.save(state, tmp_path / "copy.pt")
    again = checkpoint.load(tmp_path / "copy.pt")
    assert again.epoch == state.epoch == 1
    assert again.history == state.history
    assert again.train_spec == state.train_spec
    assert again.validation_sha256 == state.validation_sha256
    for name, value in state.method.items():
        assert torch.equal(again.method[name], value)
    assert any("momentum_buffer" in entry for entry in again.optimizer["state"].values())


def test_a_checkpoint_is_replaced_whole(trained: Path, tmp_path: Path) -> None:
    """A disk that fails while a new checkpoint is written leaves the old one as it was."""
    path = tmp_path / "last.pt"
    state = checkpoint.load(trained)
    checkpoint.save(state, path)
    before = path.read_bytes()
    (tmp_path / f".last.pt.{os.getpid()}").mkdir()  # in the way of the temporary file
    with pytest.raises(IsADirectoryError):
        checkpoint.save(state, path)
    assert path.read_bytes() == before


def test_weights_of_another_architecture_are_refused(trained: Path) -> None:
    state = checkpoint.load(trained)
    other = dataclasses.replace(state, train=state.train | {"model": {"name": "tiny", "width": 6}})
    with pytest.raises(
        ValueError, match=r"not of the model that the checkpoint names, .*'width': 6.*size mismatch for"
    ):
        checkpoint.network(other)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("true",)

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "method": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.pt: not a checkpoint of arat-ray"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"format": 1})])
def test_a_file_that_is_no_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pt: not a checkpoint"):
        checkpoint.load(path)
    with pytest.raises(ValueError, match=r"none\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "none.pt")


def test_a_checkpoint_that_the_disk_does_not_give_is_no_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.symlink_to("/proc/self/mem")  # its first byte cannot be read: EIO
    with pytest.raises(checkpoint.NotNowError, match=r"last\.pt: cannot be read now \(Input/output error\)"):
        checkpoint.load(path)


def test_a_read_of_its_checksums_that_fails_breaks_no_checkpoint(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them, once; where it is that of its end zipfile itself says that the file is none."""
    real, left, failed = zipfile.ZipFile, 0, 0

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    monkeypatch.setattr(zipfile, "ZipFile", lambda path: real(Failing(Path(path).read_bytes())))
    while True:
        left = failed + 1
        with suppress(checkpoint.NotNowError):
            assert checkpoint.load(trained).epoch == 1
            break
        failed += 1
    assert failed > 10


def test_a_single_flipped_bit_of_a_weight_is_refused(trained: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "flipped.pt", bytearray(trained.read_bytes())
    with zipfile.ZipFile(trained) as file:
        largest = max(file.infolist(), key=lambda each: each.file_size)
    content[largest.header_offset + len(largest.FileHeader()) + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.pt: not a checkpoint of arat-ray \(its checksums are others\)"):
        checkpoint.load(path)


def test_half_a_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    whole = trained.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(checkpoint.NotACheckpointError, match=r"half\.pt: not a checkpoint") as refused:
        checkpoint.load(path)
    from_another_process = pickle.loads(pickle.dumps(refused.value))
    assert (str(from_another_process), from_another_process.path) == (str(refused.value), path)


@pytest.mark.parametrize("obstacle", ["memory", "right", "version"])
def test_a_whole_checkpoint_that_cannot_be_read_here_is_not_called_damaged(
    obstacle: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(trained.read_bytes())
    if obstacle == "version":
        torch.save({**vars(checkpoint.load(trained)), "added_later": 1}, path)
    else:
        error = torch.OutOfMemoryError("CUDA out of memory") if obstacle == "memory" else PermissionError(13, "no")
        monkeypatch.setattr(torch, "load", mock.Mock(side_effect=error))
    with pytest.raises(ValueError, match=r"last\.pt: not a checkpoint of arat-ray \(.+\)") as refused:
        checkpoint.load(path)
    assert not isinstance(refused.value, checkpoint.NotACheckpointError)


def test_the_deployed_network_is_plain_and_gives_the_adversarial_branchs_logits(trained: Path) -> None:
    state = checkpoint.load(trained)
    method = state.train_spec.build()
    method.load_state_dict(state.method)
    plain = checkpoint.network(state)
    names = set(plain.state_dict())
    assert names == set(state.train_spec.model.build((1, 8, 8), 10).state_dict())
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(plain(x), method.model.eval()(x))


CONTENT = {"images": 9, "shape": [1, 8, 8], "classes": 10, "pixels_sha256": "", "labels_sha256": ""}


@pytest.mark.parametrize(
    "fields",
    [
        {"train": [1]},
        {"train": {}},
        {"train": {"dataset": {"name": "parquet", "train": b"s3://theirs/train"}, "model": {}, "method": {}}},
        {"validate": "x"},
        {"validate": {"every": torch.zeros(1)}},
        {"validation_sha256": None},
        {"epoch": 1.5},
        {"method": torch.zeros(1)},
        {"history": {"epoch": 1}},
        {"history": [{"epoch": "1"}]},
        {"partway": [1]},
        {"content": [1]},
        {"content": {"test": CONTENT}},
        {"content": {"train": {"images": 9}}},
        {"content": {"train": CONTENT | {"shape": [1, 8]}}},
        {"content": {"train": CONTENT | {"shape": [1, 1 << 20, 1 << 20]}}},
        {"content": {"train": CONTENT | {"classes": 1 << 31}}},
        {"content": {"train": CONTENT | {"classes": -1}}},
        {"content": {"train": CONTENT, "../x": CONTENT}},
        {"format": "2"},
        {"format": torch.zeros(3)},
        {"another": 1},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_fields_is_refused_in_one_line(
    fields: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    torch.save(vars(checkpoint.load(trained)) | fields, path)
    with pytest.raises(ValueError, match=r"last\.pt: (not a checkpoint of arat-ray|checkpoint format)") as refused:
        checkpoint.load(path)
    assert len(str(refused.value).splitlines()) == 1


def test_a_run_that_this_version_cannot_read_is_refused_in_one_line(trained: Path) -> None:
    state = checkpoint.load(trained)
    other = dataclasses.replace(state, train=state.train | {"dataset": {"name": "martians"}})
    with pytest.raises(ValueError, match="a run that this version cannot read: dataset: ") as refused:
        checkpoint.network(other)
    assert len(str(refused.value).splitlines()) == 1
