"""What the Hugging Face hub and other writers put into Parquet: read where it can be meant in one way, else named."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from arat_ray.training.data.image_files import ParquetImages
from tests.training.data.pictures import image, png, refusal, write

N = 12
PNG = [png(image(i)) for i in range(N)]
CATS = ["cat", "dog", "emu"] * 4
NUMBERS = [0, 1, 2] * 4


BYTES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def with_metadata(path: Path, labels: Any, metadata: Any) -> Path:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    cells = pa.table({"image": pa.array(PNG, pa.binary()), "label": labels})
    pq.write_table(cells.replace_schema_metadata({"huggingface": text}), path)
    return path


def feature(**fields: Any) -> dict[str, Any]:
    return {"info": {"features": {"label": fields}}}


# labels


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        pytest.param(CATS, ("cat", "dog", "emu"), NUMBERS, id="text"),
        pytest.param(pa.array(CATS).dictionary_encode(), ("cat", "dog", "emu"), NUMBERS, id="dictionary"),
        pytest.param(pa.array(CATS, pa.large_string()), ("cat", "dog", "emu"), NUMBERS, id="large text"),
        pytest.param(pa.array(CATS, pa.string_view()), ("cat", "dog", "emu"), NUMBERS, id="text view"),
        pytest.param([name.encode() for name in CATS], ("cat", "dog", "emu"), NUMBERS, id="bytes"),
        pytest.param(["10", "9", "9"] * 4, ("9", "10"), [1, 0, 0] * 4, id="numbers as text"),
        pytest.param([True, False] * 6, ("0", "1"), [1, 0] * 6, id="bool"),
        pytest.param([float(n) for n in NUMBERS], ("0", "1", "2"), NUMBERS, id="whole floats"),
        pytest.param(pa.array(np.array(NUMBERS, np.float16)), ("0", "1", "2"), NUMBERS, id="half floats"),
        pytest.param([Decimal(n) for n in NUMBERS], ("0", "1", "2"), NUMBERS, id="decimals"),
        pytest.param(pa.array(NUMBERS, pa.uint64()), ("0", "1", "2"), NUMBERS, id="uint64"),
        pytest.param(pa.array(NUMBERS, pa.int8()), ("0", "1", "2"), NUMBERS, id="int8"),
        pytest.param([n + 1 for n in NUMBERS], ("1", "2", "3"), NUMBERS, id="from 1"),
        pytest.param([[n] for n in NUMBERS], ("0", "1", "2"), NUMBERS, id="lists of one"),
        pytest.param(
            pa.array([[n] for n in CATS], pa.list_(pa.string(), 1)), ("cat", "dog", "emu"), NUMBERS, id="1-lists"
        ),
    ],
)
def test_labels_of_every_kind_are_classes(
    labels: Any, classes: tuple[str, ...], expected: list[int], tmp_path: Path
) -> None:
    path = table(tmp_path / "a.parquet", image=pa.array(PNG, pa.binary()), label=labels)
    dataset = ParquetImages(train=path, test=path)
    for split in ("train", "test"):
        found = dataset.read(split)
        assert (found.classes, found.labels.tolist()) == (classes, expected)
    assert dataset.num_classes == len(classes)


LAST = "row 11 (from 0)"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param([*NUMBERS[:-1], None], f"{LAST}: no label (null); leave out the rows that have none", id="null"),
        pytest.param([*CATS[:-1], None], f"{LAST}: no label (null); leave out", id="null text"),
        pytest.param([*CATS[:-1], ""], f"{LAST}: label '' is no class", id="empty text"),
        pytest.param([*NUMBERS[:-1], -1], f"{LAST}: label -1 is no class; leave out the rows", id="-1"),
        pytest.param([0.0] * 11 + [float("nan")], f"{LAST}: label nan is no class", id="NaN"),
        pytest.param([0.0] * 11 + [float("inf")], f"{LAST}: label inf is no class", id="infinite"),
        pytest.param([0.0] * 11 + [0.5], f"{LAST}: label 0.5 is no class", id="half"),
        pytest.param(
            [Decimal("0.0")] * 11 + [Decimal("0.5")], f"{LAST}: label Decimal('0.5') is no class", id="decimal"
        ),
        pytest.param([*NUMBERS[:-1], 999], f"{LAST}: label 999, but no image has label 3 to 998; number", id="gap"),
        pytest.param(
            [*NUMBERS[:-1], 10**9], f"{LAST}: label 1000000000, but no image has label 3 to 999999999", id="far"
        ),
        pytest.param(
            pa.array([*NUMBERS[:-1], 2**64 - 1], pa.uint64()), f"{LAST}: label {2**64 - 1}, but no image", id="uint64"
        ),
        pytest.param([0, 2, 2] * 4, "row 1 (from 0): label 2, but no image has label 1; number", id="1 is missing"),
        pytest.param([5, 6, 7] * 4, "row 0 (from 0): label 5, but no image has label 1 to 4; number", id="from 5"),
        pytest.param([[0]] * 11 + [[0, 1]], f"{LAST}: 2 labels in one row, [0, 1]; an image has one", id="two"),
        pytest.param([[0]] * 11 + [[]], f"{LAST}: 0 labels in one row, []; an image has one", id="none"),
        pytest.param([[0]] * 11 + [None], f"{LAST}: no label (null)", id="null list"),
        pytest.param([0] * 12, ": all images are of one class, '0'; a classifier needs two", id="one class"),
        pytest.param(
            [datetime.datetime(2020, 1, 1)] * 12,
            "row 0 (from 0): labels of the type timestamp[us]; a label",
            id="times",
        ),
        pytest.param([{"a": 1}] * 12, "row 0 (from 0): labels of the type struct<a: int64>; a label", id="struct"),
        pytest.param([b"\xff\xfe"] * 12, "row 0 (from 0): label b'\\xff\\xfe' is no class", id="binary"),
    ],
)
def test_a_label_that_is_no_class_is_named_by_file_and_row(labels: Any, message: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", image=pa.array(PNG, pa.binary()), label=labels)
    told = refusal(ParquetImages(train=path))
    assert str(path) in told
    assert message in told
    assert len(told) - len(str(path)) < 250
    with pytest.raises(ValueError, match=r"a\.parquet"):
        _ = ParquetImages(train=path).num_classes  # so that `validate` says it too


def test_test_labels_that_no_training_image_has_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", PNG, CATS)
    test = write(tmp_path / "test.parquet", PNG[:2], ["dog", "cow"])
    told = refusal(ParquetImages(train=path, test=test), "test")
    assert told.startswith(f"{test}, row 1 (from 0): label 'cow' is none of the 3 classes of the training set")
    fewer = write(tmp_path / "few.parquet", PNG[:2], ["emu", "dog"])
    assert ParquetImages(train=path, test=fewer).read("test").labels.tolist() == [2, 1]


def test_classes_are_known_while_a_network_is_built_on_the_meta_device(tmp_path: Path) -> None:
    with torch.device("meta"):
        assert ParquetImages(train=write(tmp_path / "a.parquet", PNG, CATS)).num_classes == 3


def test_labels_that_a_terminal_would_obey_are_spelled_out_in_messages(tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", PNG[:2], ["\x1b[31mred", "blue"])
    test = write(tmp_path / "test.parquet", PNG[:2], ["green", "blue"])
    told = refusal(ParquetImages(train=train, test=test), "test")
    assert "\x1b" not in told
    assert "\\x1b[31mred" in told


# what the Hub's metadata says


@pytest.mark.parametrize(
    "metadata",
    [
        {"info": None},
        {"info": {"features": None}},
        {"info": {"features": [{"name": "label"}]}},
        {"info": {"features": {"label": None}}},
        {"info": {"features": {"label": "int64"}}},
        feature(names=[], _type="ClassLabel"),
        feature(names=None, _type="ClassLabel"),
        feature(names=[None, "a", "b"], _type="ClassLabel"),
        feature(names={"0": "a", "2": "b"}, _type="ClassLabel"),
        [],
        None,
        "{broken",
        "[" * 100_000,
    ],
    ids=lambda value: str(value)[:50],
)
def test_metadata_that_names_no_classes_is_as_good_as_none(metadata: Any, tmp_path: Path) -> None:
    dataset = ParquetImages(train=with_metadata(tmp_path / "a.parquet", NUMBERS, metadata))
    assert dataset.read("train").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "metadata",
    [
        feature(names=["ant", "bee", "cow"], _type="ClassLabel"),
        feature(names={"0": "ant", "1": "bee", "2": "cow"}, _type="ClassLabel"),
        {"info": {"features": {"label": [{"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}]}}},
        feature(feature={"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}, _type="Sequence"),
    ],
    ids=["list", "mapping", "of a list", "of a sequence"],
)
def test_class_names_are_those_of_the_metadata(metadata: Any, tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "a.parquet", [[n] for n in NUMBERS], metadata)
    assert ParquetImages(train=path).read("train").classes == ("ant", "bee", "cow")


def test_a_label_beyond_the_names_is_refused_and_a_name_without_an_image_is_said(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "a.parquet", NUMBERS, feature(names=["ant", "bee"]))
    told = refusal(ParquetImages(train=path))
    assert told.startswith(f"{path}, row 2 (from 0): label 2 is none of 0..1, the 2 classes that the file's")
    path = with_metadata(tmp_path / "b.parquet", NUMBERS, feature(names=["ant", "bee", "cow", "dog"]))
    dataset = ParquetImages(train=path)
    assert dataset.read("train").classes == ("ant", "bee", "cow", "dog")
    assert list(dataset.notes()) == ["1 of the 4 classes that are named have no training image: dog"]


def test_test_labels_are_told_by_name_where_their_file_numbers_them_otherwise(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "train.parquet", NUMBERS, feature(names=["ant", "bee", "cow"]))
    test = with_metadata(tmp_path / "test.parquet", NUMBERS, feature(names=["cow", "bee", "ant"]))
    assert ParquetImages(train=path, test=test).read("test").labels.tolist() == [2, 1, 0] * 4
    bare = write(tmp_path / "bare.parquet", PNG, NUMBERS)
    assert ParquetImages(train=path, test=bare).read("test").labels.tolist() == NUMBERS


# columns


@pytest.mark.parametrize("name", ["img", "image", "Image", "images", "pixel_values", "jpg", "png", "webp", "scan.bin"])
@pytest.mark.parametrize("label", ["label", "labels", "Label", "fine_label", "target", "targets", "class", "cls", "y"])
def test_columns_of_usual_names_are_found(name: str, label: str, tmp_path: Path) -> None:
    cells = pa.array([{"bytes": cell, "path": None} for cell in PNG])
    path = table(tmp_path / "a.parquet", **{"id": list(range(N)), name: cells, label: NUMBERS})
    assert ParquetImages(train=path).read("train").labels.tolist() == NUMBERS


def test_where_several_columns_can_be_meant_the_key_that_chooses_is_named(tmp_path: Path) -> None:
    cells = pa.array(PNG, pa.binary())
    path = table(tmp_path / "a.parquet", image=cells, fine_label=NUMBERS, coarse_label=NUMBERS)
    assert refusal(ParquetImages(train=path)) == (
        f"dataset.label_column: {path} has no 'label' but 'fine_label', 'coarse_label'; set label_column to the one to "
        "read"
    )
    assert ParquetImages(train=path, label_column="fine_label").num_classes == 3
    path = table(tmp_path / "b.parquet", jpg=cells, png=cells, label=NUMBERS)
    assert "dataset.image_column: " in refusal(ParquetImages(train=path))
    assert ParquetImages(train=path, image_column="png").num_classes == 3


def test_a_column_that_stands_twice_is_refused_by_its_key(tmp_path: Path) -> None:
    cells = pa.array(PNG, pa.binary())
    for key, names in (("label_column", ["image", "label", "label"]), ("image_column", ["image", "image", "label"])):
        columns = [cells if name == "image" else pa.array(NUMBERS) for name in names]
        pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "a.parquet")
        doubled = names[1]
        assert refusal(ParquetImages(train=tmp_path / "a.parquet")) == (
            f"dataset.{key}: {tmp_path}/a.parquet has 2 columns called {doubled!r}; write it with one"
        )


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(PNG, pa.large_binary()),
        pa.array(PNG, pa.binary_view()),
        pa.array(PNG).dictionary_encode(),
        pa.array([{"bytes": cell} for cell in PNG], pa.struct([("bytes", pa.large_binary())])),
        pa.array([[{"bytes": cell, "path": "x"}] for cell in PNG]),
        pa.array([cell.ljust(500, b"\0") for cell in PNG], pa.binary(500)),
    ],
    ids=lambda cells: str(cells.type)[:30],
)
def test_encoded_images_of_every_binary_type_are_read(cells: pa.Array, tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", image=cells, label=NUMBERS)
    found = ParquetImages(train=path).read("train")
    plain = ParquetImages(train=write(tmp_path / "b.parquet", PNG, NUMBERS)).read("train")
    assert torch.equal(found.images, plain.images)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a/b.png"] * N, "holds text, such as paths or addresses and no encoded images; embed the bytes"),
        (["https://example.org/b.png"] * N, "holds text, such as paths or addresses"),
        (pa.array(["a.png"] * N).dictionary_encode(), "holds text, such as paths or addresses"),
        ([[0, 1, 2]] * N, "holds list<element: int64> and no encoded images; write each image as the bytes of a PNG"),
        ([{"path": "a.png"}] * N, "holds struct<path: string> and no encoded images; embed the bytes"),
        ([{"image": {"bytes": b""}}] * N, "and no encoded images"),
        ([1.5] * N, "holds double and no encoded images"),
        (
            pa.array([{"bytes": None, "path": "a.png"}] * N, BYTES),
            "row 0 (from 0): no encoded image in image, only the path 'a.png'",
        ),
        (pa.array([None] * N, pa.binary()), "row 0 (from 0): no encoded image in image (null)"),
        (pa.array([PNG[:2]] * N), "row 0 (from 0): 2 images in image; a row has one"),
        (pa.array([b""] * N), "row 0 (from 0): unreadable image (no known format)"),
    ],
    ids=range(11),
)
def test_what_is_no_encoded_image_is_named_by_its_column(cells: Any, message: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", image=cells, label=NUMBERS)
    told = refusal(ParquetImages(train=path))
    assert told.startswith(str(path))
    assert message in told


# files and folders


def hive(root: Path, key: str = "label") -> None:
    for name, cells in (("cat", PNG[:5]), ("dog house", PNG[5:])):
        table(root / f"{key}={name.replace(' ', '%20')}/part-0.parquet", image=pa.array(cells, pa.binary()))


@pytest.mark.parametrize(
    ("lay_out", "train"),
    [
        pytest.param(hive, "", id="hive"),
        pytest.param(lambda root: hive(root / "train"), "", id="hive below a split"),
        pytest.param(
            lambda root: list(map(hive, (root / "split=train", root / "split=test"))), "", id="a split that hive names"
        ),
        pytest.param(lambda root: hive(root, "class"), "", id="hive by another usual name"),
        pytest.param(lambda root: list(map(hive, (root / "train", root / "test"))), "train", id="a split's folder"),
    ],
)
def test_folders_that_say_the_label_are_read(lay_out: Callable[[Path], Any], train: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    found = ParquetImages(train=tmp_path / train).read("train")
    assert found.classes == ("cat", "dog house")
    assert found.labels.tolist() == [0] * 5 + [1] * 7


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("plain_text/train-00000.parquet", "plain_text/test-00000.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train/part.parquet", "data/test/part.parquet", "data/validation/part.parquet"),
        ("train.parquet/part-0.parquet", "test.parquet/part-0.parquet"),
        ("train-00000.parquet", "test-00000.parquet", "validation-00000.parquet", "._train.parquet"),
    ],
)
def test_the_parts_of_a_split_are_found_below_the_folder_of_a_hub_repository(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for i, name in enumerate(names):
        write(tmp_path / name, PNG[i : i + 3], [0, 1, i])
    dataset = ParquetImages(train=tmp_path, test=tmp_path)
    assert dataset.read("train").labels.tolist() == [0, 1, 0]
    assert dataset.read("test").labels.tolist() == [0, 1, 1]


def test_parts_of_several_sets_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("small", "large"):
        write(tmp_path / name / "train.parquet", PNG, NUMBERS)
    assert refusal(ParquetImages(train=tmp_path)) == (
        f"dataset.train: {tmp_path} holds parts in several folders (large, small); name one of them"
    )


def test_rows_are_found_again_across_parts_and_row_groups(tmp_path: Path) -> None:
    cells, labels = [PNG[i % N] for i in range(300)], [i % 3 for i in range(300)]
    for part, rows in enumerate((slice(0, 130), slice(130, 300))):
        columns = {"image": pa.array(cells[rows], pa.binary()), "label": labels[rows]}
        pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet", row_group_size=7)
    whole = ParquetImages(train=tmp_path).read("train")
    assert whole.labels.tolist() == labels
    few = ParquetImages(train=tmp_path, images=30).read("train")
    assert few.labels.bincount().tolist() == [10, 10, 10]
    by_image = {tuple(each.flatten().tolist()): i for i, each in enumerate(whole.images[:N])}
    assert [by_image[tuple(each.flatten().tolist())] % 3 for each in few.images] == few.labels.tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Parquet file size is 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "it is a pointer of Git LFS); fetch the file"),
        (b"<!DOCTYPE html><html>404</html>", "it begins like a web page); download"),
        (b"PAR1" + b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1", ""),
        (b"PAR1" + bytes(40) + (2**31 - 1).to_bytes(4, "little") + b"PAR1", ""),
    ],
)
def test_what_is_no_parquet_file_is_named_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    told = refusal(ParquetImages(train=path))
    assert told.startswith(str(path))
    assert reason in told


# size and modes


def test_size_resizes_and_crops_as_for_folders(tmp_path: Path) -> None:
    pictures = [image(i, size=(12 + i, 9)) for i in range(3)]
    path = write(tmp_path / "a.parquet", [png(each) for each in pictures], [0, 1, 2])
    assert "set dataset.size" in refusal(ParquetImages(train=path))
    dataset = ParquetImages(train=path, size=3)
    found = dataset.read("train").images
    assert dataset.shape == found.shape[1:] == (3, 3, 3)
    half = pictures[0].resize((4, 3), Image.Resampling.BILINEAR).crop((0, 0, 3, 3))
    assert torch.equal(found[0].permute(1, 2, 0), torch.tensor(np.asarray(half)))


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "channels"),
    [
        (encoded(image(mode="LA")), 1),
        (encoded(image(mode="P"), transparency=bytes(range(200))), 3),
        (encoded(image(mode="1")), 1),
        (encoded(image(mode="CMYK"), "JPEG"), 3),
        (encoded(image(), "WEBP"), 3),
        (encoded(image(mode="P"), "GIF", save_all=True, append_images=[image(1, mode="P")]), 3),
        (encoded(image(mode="RGBA"), "TIFF"), 3),
        (encoded(image(), "BMP"), 3),
    ],
    ids=["LA", "P with transparency", "1", "CMYK", "webp", "moving", "tiff", "bmp"],
)
def test_every_mode_becomes_grey_or_rgb(content: bytes, channels: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [content] * 2, [0, 1])
    assert ParquetImages(train=path).read("train").images.shape == (2, channels, 3, 4)
    assert ParquetImages(train=path, channels=3).shape == (3, 3, 4)
