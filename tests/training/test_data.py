"""Image sets: what is read, what is refused and with which words, and how a training set is split."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from arat_ray.training.data import (
    DATASETS,
    Cifar10,
    Cifar100,
    Dataset,
    Digits,
    FashionMnist,
    ImageFolder,
    ParquetImages,
    Svhn,
    hold_out,
    indices_sha256,
    load,
    read,
)

CIFAR10 = Path(os.environ.get("ARAT_CIFAR10") or Path(__file__).parents[3] / "shared/data/cifar10")
FASHION = Path("/usr/share/datasets/fashion-mnist")
needs_cifar10 = pytest.mark.skipif(
    not CIFAR10.is_dir(), reason=f"no CIFAR-10 Parquet in {CIFAR10}; set ARAT_CIFAR10 to its folder"
)


def image(value: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> Image.Image:
    """A random image, another for each value."""
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: list[Any],
    *,
    names: list[str] | None = None,
    plain: bool = False,
    columns: tuple[str, str] = ("img", "label"),
) -> Path:
    cells = pa.array(images, pa.binary())
    if not plain:
        paths = pa.array([f"{i}.png" for i in range(len(images))], pa.string())
        cells = pa.StructArray.from_arrays([cells, paths], ["bytes", "path"])
    table = pa.table({columns[0]: cells, columns[1]: labels})
    if names:
        feature = {"names": names, "_type": "ClassLabel"}
        info = {"info": {"features": {columns[1]: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def refusal(dataset: Any, split: Any = "train") -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        dataset.read(split)
    return str(caught.value)


# the menu


def test_every_data_set_of_the_menu_is_reached_by_its_name_and_can_be_a_cache_key() -> None:
    needed: dict[str, dict[str, Any]] = {
        "parquet": {"train": "x.parquet"},
        "image_folder": {"train": "x", "size": 8},
    }
    for name, kind in DATASETS.items():
        spec = {"name": name, **needed.get(name, {})}
        first, second = (TypeAdapter(Dataset).validate_python(spec) for _ in range(2))
        assert type(first) is kind
        assert first.name == name
        assert len({first, second}) == 1
        assert first.images is None


def test_the_augmentation_of_each_data_set_is_the_fields_standard() -> None:
    chosen = {
        name: (kind.model_fields["crop_padding"].default, kind.model_fields["flip"].default)
        for name, kind in DATASETS.items()
    }
    assert chosen == {
        "digits": (0, False),
        "cifar10": (4, True),
        "cifar100": (4, True),
        "svhn": (4, False),
        "fashion_mnist": (4, True),
        "parquet": (4, True),
        "image_folder": (4, True),
    }


def test_impossible_values_are_refused_by_field() -> None:
    with pytest.raises(ValidationError, match=r"images\n.*greater than 0"):
        Digits(images=0)
    with pytest.raises(ValidationError, match=r"crop_padding\n.*greater than or equal to 0"):
        Digits(crop_padding=-1)
    with pytest.raises(ValidationError, match="did you mean 'crop_padding'"):
        TypeAdapter(Dataset).validate_python({"name": "digits", "crop_pading": 2})


def test_the_folder_of_downloads_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAT_DATA", "~/sets")
    assert Cifar10().root == Path.home() / "sets"
    monkeypatch.delenv("ARAT_DATA")
    assert Cifar10().root == Path.home() / ".cache/arat-ray"


def test_importing_the_menu_loads_no_library_that_it_does_not_need() -> None:
    code = "import sys, arat_ray.training.data\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"ray", "optuna", "sklearn", "torchvision", "pyarrow", "pandas", "PIL"} & set(loaded.split())


# digits


def test_the_digits_are_split_for_good_into_stratified_train_and_test_images() -> None:
    train, test = Digits().read("train"), Digits().read("test")
    assert train.images.shape == (1437, *Digits.shape)
    assert test.images.shape == (360, *Digits.shape)
    for part in (train, test):
        assert part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert (int(part.images.min()), int(part.images.max())) == (0, 255)
        assert part.classes == tuple("0123456789")
    both = torch.cat([train.labels, test.labels]).bincount()
    assert (test.labels.bincount() - both * 360 / 1797).abs().max() < 1
    assert indices_sha256(test.labels) == "4493b2052e7b4258621d51f10f17a672594c5e3f2beaa1cf97c818dc583aafe7"


def test_only_the_first_training_images_are_used_and_all_test_images() -> None:
    few, every = Digits(images=100), Digits()
    assert torch.equal(few.read("train").images, every.read("train").images[:100])
    assert len(few.read("test").images) == 360
    assert set(few.read("train").labels.tolist()) == set(range(10))


def test_more_images_than_there_are_is_refused_with_both_numbers() -> None:
    assert refusal(Digits(images=1438)) == "dataset.images: 1438 is more than the 1437 training images there are"


# sets that torchvision finds or downloads


@pytest.mark.parametrize("kind", [Cifar10, Cifar100, Svhn, FashionMnist])
def test_without_internet_the_message_says_which_file_to_put_where(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    message = refusal(kind(root=tmp_path / "new"))
    assert message.startswith(f"dataset {kind.model_fields['name'].default}: no intact copy in {tmp_path / 'new'}")
    assert "Name or service not known" in message
    assert kind.files in message
    assert "ARAT_DATA" in message
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_the_archives_named_are_those_that_torchvision_accepts() -> None:
    for kind, theirs in ((Cifar10, torchvision.datasets.CIFAR10), (Cifar100, torchvision.datasets.CIFAR100)):
        assert f"{theirs.filename} (MD5 {theirs.tgz_md5})" in kind.files
        assert theirs.url.startswith(kind.files.split()[-1])
    for split in ("train", "test"):
        url, file, md5 = torchvision.datasets.SVHN.split_list[split]
        assert f"{file} (MD5 {md5})" in Svhn.files
        assert url.startswith(Svhn.files.split()[-1])
    for file, _ in torchvision.datasets.FashionMNIST.resources:
        assert file.removesuffix(".gz") in FashionMnist.files


@pytest.mark.parametrize(("kind", "theirs"), [(Cifar10, "CIFAR10"), (Cifar100, "CIFAR100")])
def test_cifar_is_read_from_its_pickled_batches(
    kind: Any, theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = getattr(torchvision.datasets, theirs)
    folder = tmp_path / layout.base_folder
    folder.mkdir()
    rows = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    key = "labels" if kind is Cifar10 else "fine_labels"
    for part in ("train_list", "test_list"):
        files = [name for name, _ in getattr(layout, part)]
        for i, name in enumerate(files):
            (folder / name).write_bytes(pickle.dumps({"data": rows + i, key: [i, 9]}))
        monkeypatch.setattr(layout, part, [[name, None] for name in files])  # any checksum
    names = [f"class {i}" for i in range(kind.num_classes)]
    (folder / layout.meta["filename"]).write_bytes(pickle.dumps({layout.meta["key"]: names}))
    monkeypatch.setitem(layout.meta, "md5", None)

    test = kind(root=tmp_path).read("test")
    assert torch.equal(test.images, torch.from_numpy(rows).reshape(2, *kind.shape))
    assert test.images.is_contiguous()
    assert test.labels.tolist() == [0, 9]
    assert test.classes == tuple(names)
    if kind is Cifar10:
        train = kind(root=tmp_path, images=4).read("train")
        assert train.labels.tolist() == [0, 9, 1, 9]


def test_svhn_is_read_from_its_matlab_file_with_digit_ten_as_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    scipy_io.savemat(tmp_path / "train_32x32.mat", {"X": images, "y": np.array([[10], [1], [2], [9], [10]])})
    monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", ["", "train_32x32.mat", None])
    train = Svhn(root=tmp_path, images=4).read("train")
    assert torch.equal(train.images, torch.from_numpy(images).permute(3, 2, 0, 1)[:4])
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [0, 1, 2, 9]
    assert train.classes == tuple("0123456789")


def idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_fashion_mnist_is_read_from_raw_idx_files_and_a_truncated_one_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    for part in ("train", "t10k"):
        idx(raw / f"{part}-images-idx3-ubyte", images)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(6))
    train = FashionMnist(root=tmp_path).read("train")
    assert torch.equal(train.images, torch.from_numpy(images.astype(np.uint8))[:, None])
    assert train.labels.tolist() == list(range(6))
    assert train.classes[5] == "Sandal"

    whole = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    assert f"no intact copy in {tmp_path}" in refusal(FashionMnist(root=tmp_path))


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Debian's dataset-fashion-mnist is not in {FASHION}")
def test_the_real_fashion_mnist_of_debian_is_read(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for archive in FASHION.glob("*.gz"):
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    train, test = (FashionMnist(root=tmp_path).read(split) for split in ("train", "test"))
    assert train.images.shape == (60_000, *FashionMnist.shape)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert abs(train.images.float().mean().item() / 255 - 0.2860) < 1e-4  # the mean that everybody quotes


# parquet


@needs_cifar10
def test_the_real_cifar10_parquet_gives_its_first_images_and_class_names() -> None:
    dataset = ParquetImages(train=CIFAR10, test=CIFAR10, images=300)
    assert dataset.shape == Cifar10.shape
    assert dataset.num_classes == 10
    train = dataset.read("train")
    assert train.images.shape == (300, 3, 32, 32)
    assert train.classes[:3] == ("airplane", "automobile", "bird")
    assert set(train.labels.tolist()) == set(range(10))
    row = next(pq.ParquetFile(CIFAR10 / "train.parquet").iter_batches(300)).to_pylist()[-1]
    with Image.open(io.BytesIO(row["img"]["bytes"])) as picture:
        for x, y in ((0, 0), (31, 0), (5, 30)):
            assert tuple(train.images[-1][:, y, x].tolist()) == picture.getpixel((x, y))
    assert train.labels[-1] == row["label"]


@needs_cifar10
def test_only_the_rows_asked_for_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Mock(wraps=Image.open)
    monkeypatch.setattr(Image, "open", opener)
    ParquetImages(train=CIFAR10 / "train.parquet", images=20).read("train")
    assert opener.call_count <= 20 + 1  # and once for the shape


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3), ("RGBA", 3), ("1", 1)])
def test_parquet_images_are_decoded_to_grey_or_rgb(mode: str, channels: int, plain: bool, tmp_path: Path) -> None:
    pictures = [image(i, mode=mode) for i in range(3)]
    path = write(tmp_path / "a.parquet", [png(one) for one in pictures], [2, 0, 1], plain=plain)
    dataset = ParquetImages(train=path)
    train = dataset.read("train")
    assert dataset.shape == train.images.shape[1:] == (channels, 3, 4)
    assert dataset.num_classes == 3
    assert train.labels.tolist() == [2, 0, 1]
    assert train.classes == ("0", "1", "2")
    for decoded, picture in zip(train.images, pictures, strict=True):
        expected = np.asarray(picture.convert("RGB" if channels == 3 else "L")).reshape(3, 4, channels)
        assert torch.equal(decoded.permute(1, 2, 0), torch.tensor(expected))


def test_a_folder_of_parts_is_read_in_order_and_train_parts_are_never_test_parts(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 6)):
        for part in range(2):
            labels = [start + 3 * part + i for i in range(3)]
            pictures = [png(image(label)) for label in labels]
            write(tmp_path / f"{split}-0000{part}-of-00002.parquet", pictures, labels, names=[*"abcdefghijkl"])
    dataset = ParquetImages(train=tmp_path, test=tmp_path)
    assert dataset.read("train").labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.read("test").labels.tolist() == [6, 7, 8, 9, 10, 11]
    assert dataset.read("test").classes == tuple("abcdefghijkl")
    for path in tmp_path.glob("test*"):
        path.unlink()
    assert refusal(dataset, "test") == f"dataset.test: no test*.parquet in {tmp_path}"


def test_parts_with_other_names_are_all_read(tmp_path: Path) -> None:
    for name in ("0001.parquet", "0000.parquet"):
        write(tmp_path / name, [png(image())], [int(name[3])])
    assert ParquetImages(train=tmp_path).read("train").labels.tolist() == [0, 1]


def test_a_missing_parquet_file_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    write(tmp_path / "sets/train.parquet", [png(image())], [0])
    message = refusal(ParquetImages(train=tmp_path / "sets/trian.parquet"))
    assert message == (
        f"dataset.train: no {tmp_path}/sets/trian.parquet; looked in {tmp_path}/sets; did you mean 'train.parquet'?"
    )
    assert "did you mean 'sets'?" in refusal(ParquetImages(train=tmp_path / "set/train.parquet"))
    (tmp_path / "empty").mkdir()
    assert refusal(ParquetImages(train=tmp_path / "empty/x")).endswith("/empty, which is empty")
    assert refusal(ParquetImages(train=tmp_path / "empty")).startswith("dataset.train: no train*.parquet in")
    missing = refusal(ParquetImages(train=tmp_path / "sets/train.parquet"), "test")
    assert missing == "dataset.test: not given; name the file or folder of the test images"


def test_a_missing_column_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image())], [0], columns=("picture", "labels"))
    message = refusal(ParquetImages(train=path))
    assert message == f"dataset.image_column: {path} has no 'image'; known: labels, picture"
    message = refusal(ParquetImages(train=path, image_column="picture"))
    assert message == f"dataset.label_column: {path} has no 'label'; did you mean 'labels'?"
    assert ParquetImages(train=path, image_column="picture", label_column="labels").num_classes == 1


def test_an_unreadable_image_is_named_by_file_row_and_reason(tmp_path: Path) -> None:
    good, noise = png(image()), png(image(1, size=(64, 64)))
    for bad, reason in (
        (b"no image", "unreadable image (no known format); repair or remove it"),
        (noise[: len(noise) // 2], "unreadable image (image file is truncated"),
        (png(image().convert("I;16")), "unreadable image (mode I;16, more than 8 bits a channel)"),
        (None, "no encoded image in img; embed the bytes, not a path"),
    ):
        path = write(tmp_path / "a.parquet", [good] * 1500 + [bad], [0] * 1501)
        message = refusal(ParquetImages(train=path))
        assert message.startswith(f"{path}, row 1500 (from 0): {reason}")
        assert len(ParquetImages(train=path, images=1500).read("train").images) == 1500


def test_images_of_another_size_or_mode_are_refused_and_the_mode_can_be_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image()), png(image(size=(4, 4)))], [0, 0])
    message = refusal(ParquetImages(train=path))
    assert message.startswith(f"{path}, row 1 (from 0): image of (3, 4, 4), but the first training image is (3, 3, 4)")
    path = write(tmp_path / "b.parquet", [png(image()), png(image(mode="L"))], [0, 0])
    assert "`channels: 3` makes all of them RGB" in refusal(ParquetImages(train=path))
    assert ParquetImages(train=path, channels=3).read("train").images.shape == (2, 3, 3, 4)
    assert ParquetImages(train=path, channels=1).shape == (1, 3, 4)


@pytest.mark.parametrize("label", [-1, 3, None])
def test_a_label_that_is_no_class_is_named_by_file_and_row(label: int | None, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image())] * 2, [0, label], names=["a", "b", "c"])
    assert refusal(ParquetImages(train=path)) == f"{path}, row 1 (from 0): label {label} is no integer in 0..2"


def test_labels_written_as_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image())], ["cat"])
    assert refusal(ParquetImages(train=path)) == f"{path}, row 0 (from 0): label 'cat' is no integer in 0..0"


def test_a_damaged_or_empty_parquet_file_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet", [png(image(i, size=(32, 32))) for i in range(200)], [0] * 200).read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[: len(whole) // 2])
    assert refusal(ParquetImages(train=cut)).startswith(f"{cut}: no intact Parquet file (")
    flipped = tmp_path / "flipped.parquet"
    flipped.write_bytes(whole[:4] + bytes(64) + whole[68:])
    assert re.match(rf"{flipped}(: no intact Parquet file|, row 0)", refusal(ParquetImages(train=flipped)))
    empty = write(tmp_path / "empty.parquet", [], pa.array([], pa.int64()))
    assert refusal(ParquetImages(train=empty)) == f"dataset.train: {empty} has no rows"


# image folders


def folder_of(root: Path, **classes: int) -> Path:
    for k, (name, n) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            image(100 * k + i, size=(12, 9)).save(root / name / f"{i}.png")
    return root


def test_an_image_folder_is_resized_cropped_and_read_in_a_fixed_shuffled_order(tmp_path: Path) -> None:
    train = folder_of(tmp_path / "train", dog=60, cat=60)
    (train / ".cache").mkdir()
    (train / "cat/notes.txt").write_text("not an image")
    (train / "stray.png").write_bytes(png(image()))
    dataset = ImageFolder(train=train, size=6)
    every = dataset.read("train")
    assert dataset.shape == every.images.shape[1:] == (3, 6, 6)
    assert dataset.num_classes == 2
    assert every.classes == ("cat", "dog")
    assert every.labels.bincount().tolist() == [60, 60]
    first = ImageFolder(train=train, size=6, images=40).read("train")
    assert torch.equal(first.images, every.images[:40])
    assert 10 < int(first.labels.sum()) < 30  # by chance, not by class
    assert torch.equal(dataset.read("train").images, every.images)


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    folder_of(tmp_path, only=1)
    picture = image(0, size=(12, 9))
    whole, half = (ImageFolder(train=tmp_path, size=size).read("train").images[0] for size in (9, 3))
    assert torch.equal(whole.permute(1, 2, 0), torch.tensor(np.asarray(picture.crop((2, 0, 11, 9)))))
    third = picture.resize((4, 3), Image.Resampling.BILINEAR).crop((0, 0, 3, 3))
    assert torch.equal(half.permute(1, 2, 0), torch.tensor(np.asarray(third)))


def test_grey_folders_have_one_channel(tmp_path: Path) -> None:
    folder_of(tmp_path, a=2)
    assert ImageFolder(train=tmp_path, size=8, channels=1).read("train").images.shape == (2, 1, 8, 8)


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    train = folder_of(tmp_path / "train", cat=2, dog=2)
    test = folder_of(tmp_path / "test", cats=1)
    dataset = ImageFolder(train=train, test=test, size=8)
    assert refusal(dataset, "test") == (
        f"dataset.test: {test / 'cats/0.png'} is of no training class; did you mean 'cat'?"
    )
    assert "did you mean 'train'?" in refusal(ImageFolder(train=tmp_path / "trains", size=8))
    assert refusal(ImageFolder(train=train, size=8, images=5)).startswith("dataset.images: 5 is more than the 4")
    bad = train / "dog/1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    assert refusal(dataset).startswith(f"{bad}: unreadable image (")
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match=r"dataset\.train: .*flat holds no folders; make one for each class"):
        _ = ImageFolder(train=tmp_path / "flat", size=8).num_classes
    (tmp_path / "flat/cat").mkdir()
    assert "dataset.train: no .bmp, .jpeg" in refusal(ImageFolder(train=tmp_path / "flat", size=8))


# splits


@pytest.mark.parametrize("images", [1, 10, 37, 99])
def test_each_class_is_held_out_by_its_share(images: int) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [3] * 20)[torch.randperm(100, generator=torch.manual_seed(0))]
    kept, held = hold_out(labels, images=images, seed=3)
    assert len(held) == images
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(100))
    for part in (kept, held):
        assert torch.equal(part, part.sort().values)
    share = torch.tensor([50, 30, 0, 20]) * images / 100
    assert (labels[held].bincount(minlength=4) - share).abs().max() < 1


def test_the_split_follows_the_seed_and_nothing_else() -> None:
    labels = Digits().read("train").labels
    torch.manual_seed(1)
    _, first = hold_out(labels, images=200, seed=0)
    torch.manual_seed(2)
    _, again = hold_out(labels, images=200, seed=0)
    _, other = hold_out(labels, images=200, seed=1)
    assert indices_sha256(first) == indices_sha256(again) != indices_sha256(other)


def test_the_fingerprint_is_the_hash_of_little_endian_int64() -> None:
    assert indices_sha256(torch.tensor([1, 256])) == hashlib.sha256(struct.pack("<qq", 1, 256)).hexdigest()


@pytest.mark.parametrize("images", [-1, 100, 101])
def test_a_validation_set_that_leaves_nothing_to_train_on_is_refused(images: int) -> None:
    with pytest.raises(ValueError, match=rf"^{images} validation images of 100 training images; choose 0 to 99$"):
        hold_out(torch.zeros(100, dtype=torch.int64), images=images, seed=0)


def test_loading_splits_the_training_set_and_never_opens_the_test_set(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [png(image(i)) for i in range(10)], [0, 1] * 5)
    dataset = ParquetImages(train=path, test=tmp_path / "absent.parquet", images=8)
    splits = load(dataset, validation_images=2, seed=0)
    kept, held = hold_out(torch.tensor([0, 1] * 4), images=2, seed=0)
    whole = read(dataset, "train")
    assert torch.equal(splits.train.images, whole.images[kept])
    assert torch.equal(splits.validation.images, whole.images[held])
    assert splits.validation.labels.tolist() in ([0, 1], [1, 0])
    assert splits.validation_sha256 == indices_sha256(held)
    assert splits.train.classes == ("0", "1")
    assert len(load(dataset, validation_images=0, seed=0).validation.images) == 0


def test_a_data_set_is_read_once_a_process() -> None:
    assert read(Digits(images=50), "train") is read(Digits(images=50), "train")
    assert read(Digits(images=50), "train") is not read(Digits(images=51), "train")
