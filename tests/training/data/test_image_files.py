"""Image files, in Parquet and in folders: what is read, what is refused and with which words."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from arat_ray.training.data.image_files import ImageFolder, ParquetImages
from arat_ray.training.data.images import ImageSet
from arat_ray.training.data.torchvision_sets import Cifar10
from tests.training.data.pictures import folder_of, image, png, refusal, write

CIFAR10 = Path(os.environ.get("ARAT_CIFAR10", "nowhere"))
needs_cifar10 = pytest.mark.skipif(
    not CIFAR10.is_dir(), reason="set ARAT_CIFAR10 to a folder with CIFAR-10 in Parquet, as on the Hugging Face hub"
)


# parquet


@needs_cifar10
def test_the_real_cifar10_parquet_gives_its_first_images_and_class_names() -> None:
    dataset = ParquetImages(train=CIFAR10, test=CIFAR10, images=300, subset="first")
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
    ParquetImages(train=CIFAR10 / "train.parquet", images=20, subset="first").read("train")
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
    write(tmp_path / "sets/train.parquet", [png(image())] * 2, [0, 1])
    message = refusal(ParquetImages(train=tmp_path / "sets/trian.parquet"))
    assert message.startswith(
        f"dataset.train: no {tmp_path}/sets/trian.parquet; looked in {tmp_path}/sets; did you mean 'train.parquet'?"
    )
    assert "--data or ARAT_DATA" in message
    assert "did you mean 'sets'?" in refusal(ParquetImages(train=tmp_path / "set/train.parquet"))
    (tmp_path / "empty").mkdir()
    assert "/empty, which is empty" in refusal(ParquetImages(train=tmp_path / "empty/x"))
    assert refusal(ParquetImages(train=tmp_path / "empty")).startswith("dataset.train: no train*.parquet in")
    missing = refusal(ParquetImages(train=tmp_path / "sets/train.parquet"), "test")
    assert missing == "dataset.test: not given; name the file or folder of the test images"


def test_a_missing_column_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image())] * 2, [0, 1], columns=("drawing", "kind"))
    message = refusal(ParquetImages(train=path, image_column="drawings"))
    assert message == f"dataset.image_column: {path} has no 'drawings'; did you mean 'drawing'?"
    message = refusal(ParquetImages(train=path, image_column="drawing"))
    assert message == (
        f"dataset.label_column: {path} has no 'label'; known: drawing, kind; set label_column to the one to read"
    )
    message = refusal(ParquetImages(train=path, label_column="kinds"))
    assert message == f"dataset.label_column: {path} has no 'kinds'; did you mean 'kind'?"
    assert ParquetImages(train=path, image_column="drawing", label_column="kind").num_classes == 2


def test_an_unreadable_image_is_named_by_file_row_and_reason(tmp_path: Path) -> None:
    good, noise = png(image()), png(image(1, size=(64, 64)))
    for bad, reason in (
        (b"no image", "unreadable image (no known format); repair or remove it"),
        (noise[: len(noise) // 2], "unreadable image (image file is truncated"),
        (png(image().convert("I;16")), "unreadable image (mode I;16, more than 8 bits a channel); convert it to 8"),
        (None, "no encoded image in img, only the path '1500.png'; embed the bytes, not a path"),
    ):
        path = write(tmp_path / "a.parquet", [good] * 1500 + [bad], [0] * 1500 + [1])
        message = refusal(ParquetImages(train=path))
        assert message.startswith(f"{path}, row 1500 (from 0): {reason}")
        assert len(ParquetImages(train=path, images=1500, subset="first").read("train").images) == 1500


def test_images_of_another_size_or_mode_are_refused_and_the_mode_can_be_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(image()), png(image(size=(4, 4)))], [0, 1])
    message = refusal(ParquetImages(train=path))
    assert message.startswith(f"{path}, row 1 (from 0): image of (3, 4, 4), but the first training image is (3, 3, 4)")
    assert message.endswith("all must have one shape: set dataset.size")
    path = write(tmp_path / "b.parquet", [png(image()), png(image(mode="L"))], [0, 1])
    assert refusal(ParquetImages(train=path)).endswith("set dataset.channels (3 makes all of them RGB)")
    assert ParquetImages(train=path, channels=3).read("train").images.shape == (2, 3, 3, 4)
    assert ParquetImages(train=path, channels=1).shape == (1, 3, 4)


def test_a_damaged_or_empty_parquet_file_is_named(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(200)]
    whole = write(tmp_path / "a.parquet", [png(image(i, size=(32, 32))) for i in range(200)], labels).read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[: len(whole) // 2])
    assert refusal(ParquetImages(train=cut)).startswith(f"{cut}: no intact Parquet file (")
    flipped = tmp_path / "flipped.parquet"
    flipped.write_bytes(whole[:4] + bytes(64) + whole[68:])
    assert re.match(rf"{flipped}(: no intact Parquet file|, row 0)", refusal(ParquetImages(train=flipped)))
    empty = write(tmp_path / "empty.parquet", [], pa.array([], pa.int64()))
    assert refusal(ParquetImages(train=empty)) == f"dataset.train: {empty} has no rows"


# image folders


def _of_class_0(images: ImageSet) -> torch.Tensor:
    return images.images[images.labels == 0][0]


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
    first = ImageFolder(train=train, size=6, images=40, subset="first").read("train")
    assert torch.equal(first.images, every.images[:40])
    assert 10 < int(first.labels.sum()) < 30  # by chance, not by class
    drawn = ImageFolder(train=train, size=6, images=40).read("train")
    assert drawn.labels.bincount().tolist() == [20, 20]
    assert torch.equal(dataset.read("train").images, every.images)


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    folder_of(tmp_path, one=1, two=1)
    picture = image(0, size=(12, 9))
    whole, half = (_of_class_0(ImageFolder(train=tmp_path, size=size).read("train")) for size in (9, 3))
    assert torch.equal(whole.permute(1, 2, 0), torch.tensor(np.asarray(picture.crop((2, 0, 11, 9)))))
    third = picture.resize((4, 3), Image.Resampling.BILINEAR).crop((0, 0, 3, 3))
    assert torch.equal(half.permute(1, 2, 0), torch.tensor(np.asarray(third)))


def test_grey_folders_have_one_channel(tmp_path: Path) -> None:
    folder_of(tmp_path, a=1, b=1)
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
