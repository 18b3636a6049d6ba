from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from arat_ray.frontier.references import published
from arat_ray.report import latex
from tests.report.test_figure import SMALL, make_front

NASTY = r"""a\input{x} & 50% $x^2$ _#~{}<>|"[*]"""


def cells(lines: list[str]) -> list[list[str]]:
    """The rows of a table, as LaTeX takes them: comments off, cells between unescaped &, a row up to \\\\.

    Asserts what LaTeX would stop at: unbalanced braces or mathematics, rows that are wider than their columns.
    """
    code = [re.sub(r"(?<!\\)%.*", "", line).strip() for line in lines]
    text = "\n".join(filter(None, code))
    found = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}\n(.*)\n\\end\{tabular\}", text, re.DOTALL)
    assert found
    rows = []
    for line in found[2].split("\n"):
        if line in (r"\toprule", r"\midrule", r"\bottomrule"):
            continue
        assert line.endswith(r" \\")
        depth = 0
        for token in re.findall(r"\\.|[{}]", line[:-3]):
            depth += {"{": 1, "}": -1}.get(token, 0)
            assert depth >= 0
        assert depth == 0
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert not re.search(r"(?<!\\)[#_~]", line)
        row = [cell.strip() for cell in re.split(r"(?<!\\)&", line[:-3])]
        wide = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(row) + wide == len(found[1])
        assert not row[0].startswith(("[", "*"))  # after a row's end these are its options
        rows.append(row)
    return rows


def front_of(**changes: Any) -> Any:
    front = make_front(SMALL, **changes)
    for trial in front.trials:
        trial["params"] = {"method.layers": "stage4", "method.invariance_weight": 12.3456}
    return front


def test_rows_are_the_front_with_its_intervals() -> None:
    lines = list(latex.lines(front_of()))
    assert lines[0] == "% robust accuracy: PGD-20, Linf, 8/255 (0.031); validation split, 1,000 images"
    head, first, second = cells(lines)
    assert head == [
        "Trial", "layers", r"invariance\_weight", r"Clean (\%)", r"95\,\% interval", r"Robust (\%)", r"95\,\% interval",
    ]  # fmt: skip
    assert first[:4] == ["0", "stage4", "12.35", "85.00"]
    assert re.fullmatch(r"\{\[8[23]\.\d, 8[67]\.\d\]\}", first[4])
    assert second[3] == "82.00"


def test_means_over_seeds_are_printed_as_papers_print_them() -> None:
    front = front_of(over_seeds=True)
    for trial in front.trials:
        trial |= {"seeds": [0, 1, 2], "clean_accuracy_sd": 0.0019, "robust_accuracy_sd": None}
    lines = list(latex.lines(front))
    assert lines[0].endswith("mean and standard deviation over 3 seeds")
    assert cells(lines)[1][3:] == [r"85.00 $\pm$ 0.19", "50.00"]


def test_published_points_stand_below_with_their_sources() -> None:
    lines = list(latex.lines(front_of(), references=published()))
    rows = cells(lines)
    assert len(rows) == 3 + 47
    assert [r"\multicolumn{3}{l}{ARAT, ResNet-18}", r"87.82 $\pm$ 0.19", "", r"49.02 $\pm$ 0.47", ""] in rows
    assert sum("% arXiv 2402.14648, Table 3" in line for line in lines) == 27


@pytest.mark.parametrize("name", [NASTY, "[1]", "*", "two\nlines \x1b[2J", r"\end{tabular}"])
def test_foreign_text_is_text(name: str) -> None:
    front = front_of()
    for trial in front.trials:
        trial["params"] = {name: name}
        trial["number"], trial["trial_id"] = None, name
    lines = list(latex.lines(front))
    rows = cells(lines)
    assert len({tuple(row[:2]) for row in rows[1:]}) == 1
    assert not any(re.search(r"\\(input|end\{(?!tabular\}$))", line) for line in lines)
    assert "\x1b" not in "".join(lines)


def test_what_latex_would_draw_together_stays_apart() -> None:
    """`---` is a dash there, and ?` a question mark upside down."""
    assert latex.escaped("a--b --- '' `` ?` !` -' - '") == "a-{}-b -{}-{}- '{}' `{}` ?{}` !{}` -' - '"


def test_labels_name_the_studies(tmp_path: Path) -> None:
    front = front_of(studies=("results/layers", "results/other"))
    front.trials[0]["study"] = "results/other"
    rows = cells(list(latex.lines(front, labels={"results/other": "Ours & theirs"})))
    assert [row[0] for row in rows] == ["Study", r"Ours \& theirs", "layers"]
