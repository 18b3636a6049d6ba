from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arat_ray.frontier import references
from arat_ray.frontier.references import Reference

LIKE_PAPERS = {"dataset": "cifar10", "split": "test", "attack": "autoattack", "norm": "linf", "epsilon": 8 / 255}
HEADS = "name,model,dataset,split,attack,norm,epsilon,clean_accuracy,robust_accuracy,robust_sd,source"
GOOD = 'Mine,ResNet-18,cifar10,test,autoattack,linf,8/255,0.87,0.49,0.004,"Doe 2026, Table 1"'


def written(folder: Path, *lines: str) -> Path:
    path = folder / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_ships_has_the_numbers_of_the_paper_and_a_source_for_each() -> None:
    there = references.published()
    assert len(there) == 47
    assert all(each.source.startswith(("arXiv 2402.14648, Table 3", "RobustBench 78fcc9e, ")) for each in there)
    (ours,) = (each for each in there if each.label == "ARAT, ResNet-18" and each.dataset == "cifar10")
    assert (ours.clean_accuracy, ours.clean_sd, ours.robust_accuracy, ours.robust_sd) == (
        0.8782,
        0.0019,
        0.4902,
        0.0047,
    )
    (trades,) = (each for each in there if each.name == "TRADES, Zhang 2019")
    assert trades.epsilon == 0.031
    assert all(0.2 < each.robust_accuracy + 0.1 < each.clean_accuracy < 1 for each in there)


def test_only_points_that_were_measured_alike_are_drawn() -> None:
    found, why = references.demanded(references.published(), LIKE_PAPERS)
    assert len(found) == 24
    assert {each.dataset for each in found} == {"cifar10"}
    assert not any(each.epsilon == 0.031 for each in found)
    assert why == ["21 differ in dataset (cifar100; here cifar10)", "2 differ in epsilon (0.031; here 8/255)"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "digits"}, "45 differ in dataset (cifar10, cifar100; here digits)"),
        ({"attack": "pgd-20"}, "attack (autoattack; here pgd-20)"),
        ({"norm": "l2"}, "norm (linf; here l2)"),
        ({"epsilon": 4 / 255}, "26 differ in epsilon (8/255, 0.031; here 4/255)"),
        ({"split": "validation"}, "split (test; here validation)"),
        ({"dataset": None}, "dataset (cifar10, cifar100; here not known)"),
    ],
)
def test_a_mismatch_is_refused_with_both_values(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="no point was measured like this front") as refused:
        references.demanded(references.published(), LIKE_PAPERS | changes)
    assert said in str(refused.value)


def test_a_file_of_the_users_own_is_read(tmp_path: Path) -> None:
    (found,) = references.load(str(written(tmp_path, HEADS, "", GOOD)))
    assert found == Reference(
        "Mine", "ResNet-18", "cifar10", "test", "autoattack", "linf", 8 / 255, 0.87, None, 0.49, 0.004,
        "Doe 2026, Table 1", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADS, GOOD, GOOD.replace("0.87", "87")], "line 3: clean_accuracy 87 is no share .*; of percent write 0.87"),
        ([HEADS, "", GOOD.replace("0.49", "x")], "line 3: robust_accuracy 'x' is no number"),
        ([HEADS, GOOD.replace("0.49", "nan")], "line 2: robust_accuracy nan is no share"),
        ([HEADS, GOOD.replace("8/255", "8")[:-3]], "line 2: unexpected end of data"),
        ([HEADS, GOOD.replace("8/255", "8/0")], "line 2: epsilon '8/0' is no radius"),
        ([HEADS, GOOD.replace("linf", "l1")], "line 2: norm 'l1' is none of linf, l2"),
        ([HEADS, GOOD.replace("cifar10", "")], "line 2: dataset is empty"),
        ([HEADS, GOOD + ",more"], "line 2: 12 cells, and 11 columns"),
        ([HEADS.replace("dataset", "data"), GOOD], "line 1: no column 'data'; did you mean 'dataset'"),
        ([HEADS.replace(",source", ""), GOOD], "line 1: there is no column source"),
        ([f"{HEADS},name", GOOD], "line 1: the column name stands there twice"),
        ([HEADS], "holds no point"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        references.read(written(tmp_path, *lines))


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2: byte 5 is no UTF-8"):
        references.read(tmp_path / "points.csv")
    with pytest.raises(ValueError, match=r"cannot be read: .*; the points that ship are called published"):
        references.load("publishd")
