from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure

from arat_ray.cli import main
from arat_ray.frontier.pareto import load_front
from arat_ray.frontier.references import published
from arat_ray.report.figure import plot_front
from arat_ray.report.looks import look, size_of
from tests.frontier.tables import evaluated
from tests.frontier.test_evaluations import trial
from tests.frontier.test_pareto import write

PARAMS = {"method.layers": pa.string(), "method.invariance_weight": pa.float64()}
NAMES = ("arat", "trades", "arat", "mart")


def rows(shift: float = 0.0, dataset: str = "cifar10", count: int = 12) -> list[dict[str, Any]]:
    drawn = np.random.default_rng(0).uniform(0.4, 0.6, (count, 2)) + shift
    found = []
    for number, (clean, robust) in enumerate(drawn.tolist()):
        config = {"dataset": {"name": dataset}, "method": {"name": NAMES[number % 4]}, "seed": 0}
        row = trial(number, clean, robust, config=json.dumps(config), seed=number % 9)
        row |= {"param_method.layers": f"stage{number % 2}", "param_method.invariance_weight": 10.0**number}
        found.append(row)
    return found


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("studies")
    found = [write(folder / name, *rows(by), params=PARAMS) for name, by in (("a", 0.0), ("b", 0.02))]
    for study in found:
        evaluated(study, "t0", clean=800, robust=300)
    return found


def drawn(studies: list[Path], **options: Any) -> Figure:
    return plot_front(load_front(studies), None, look(studies, **options))


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    assert found
    return [text.get_text() for text in found.get_texts()]


def called(*words: object) -> Result:
    return CliRunner().invoke(main, ["pareto", *map(str, words)], prog_name="arat-ray")


def test_each_of_several_studies_has_a_label_a_colour_and_a_front(studies: list[Path]) -> None:
    figure = drawn(studies, labels=["Ours", "Theirs $x$"])
    assert legend(figure) == ["Ours", "Theirs $x$"]
    bars: list[Any] = list(figure.axes[0].containers)
    assert len({each.lines[0].get_color() for each in bars}) == len({each.lines[0].get_marker() for each in bars}) == 2
    for container, study in zip(bars, studies, strict=True):
        points = {(100 * each["clean_accuracy"], 100 * each["robust_accuracy"]) for each in load_front([study]).trials}
        assert {tuple(map(float, xy)) for xy in container.lines[0].get_xydata()} == points
    assert legend(drawn(studies)) == ["a", "b"]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("method", ["arat", "mart", "trades"]),
        ("layers", ["stage0", "stage1"]),
        ("param_method.layers", ["stage0", "stage1"]),
        ("status", ["complete"]),
    ],
)
def test_groups_are_named_by_what_they_are_coloured_by(studies: list[Path], by: str, said: list[str]) -> None:
    assert legend(drawn(studies[:1], by=by)) == said


def test_numbers_of_many_values_are_a_scale(studies: list[Path]) -> None:
    figure = drawn(studies[:1], by="invariance_weight")
    assert figure.axes[1].get_ylabel() == "invariance weight"
    assert figure.axes[1].get_yscale() == "log"
    assert not any("$" in each.get_text() for each in figure.axes[1].get_yticklabels())
    assert drawn(studies[:1], by="seed").axes[1].get_yscale() == "linear"


def test_more_groups_than_colours_share_the_last(tmp_path: Path) -> None:
    params = {"method.layers": pa.string()}
    several = [{**row, "param_method.layers": f"stage{i}"} for i, row in enumerate(rows(count=12))]
    for row in several:
        del row["param_method.invariance_weight"]
    found = legend(drawn([write(tmp_path / "s", *several, params=params)], by="layers"))
    assert len(found) == 7
    assert found[-1] == "others"


def test_the_figure_has_the_size_in_inches_and_its_words_fit(studies: list[Path], tmp_path: Path) -> None:
    figure = drawn(studies, size="3.5x2.6", title="Split norms")
    assert tuple(figure.get_size_inches()) == (3.5, 2.6)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        box = axis.label.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("words", ["3", "3x", "0x3", "3x400", "nanx3", "3,5x2"])
def test_what_is_no_size_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"no width and height in inches from 1 to 40; write it as 3.5x2.6"):
        size_of(words)


def test_published_points_are_drawn_where_they_were_measured_alike(studies: list[Path], tmp_path: Path) -> None:
    measured = ("--attack", "autoattack", "--split", "test", "--reference", "published")
    result = called(*studies, *measured, "--plot", tmp_path / "front.svg")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "front.svg").read_text()
    assert ">published<" in text
    assert sum(f">{each.label}<" in text for each in published()) >= 5  # names that fit
    assert "21 differ in dataset (cifar100; here cifar10)" in result.output
    assert "published points: arXiv 2402.14648, Table 3; RobustBench 78fcc9e" in result.output
    table = called(studies[0], *measured, "--latex")
    assert r"87.82 $\pm$ 0.19" in table.stdout
    refused = called(*studies, "--reference", "published", "--plot", tmp_path / "no.svg")
    assert refused.exit_code == 2
    assert "attack (autoattack; here pgd-20)" in refused.output
    assert not (tmp_path / "no.svg").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--color-by", "wieght", "--plot", "f.png"], "no column 'wieght'"),
        (["--label", "x", "--label", "y", "--plot", "f.png"], "2 for 1 studies; give one a study"),
        (["--title", "x"], "--title goes with --plot"),
        (["--reference", "published"], "--reference goes with --plot or --latex"),
        (["--latex", "--csv"], "choose one of --csv, --json and --latex"),
        (["--infeasible", "--seeds"], "--infeasible lists trials"),
        (["--seeds"], "no two of the 3 trials differ only in the seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str], said: str, studies: list[Path]) -> None:
    result = called(studies[0], *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
