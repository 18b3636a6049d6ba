"""The report: what it shows, that nothing foreign is markup in it, and that its tables come back."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.frontier.dominance import wilson
from arat_ray.report import carried, epoch_curves, timeline, view
from arat_ray.report.page import page
from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.study import importances
from tests.frontier.tables import evaluated
from tests.report.reports import COMPLETE, HOSTILE, KINDS, TRIALS, view_in, write
from tests.report.test_importance import study_of


class Tags(HTMLParser):
    """Which elements a page has, and with which attributes."""

    def __init__(self, report: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(report.decode(errors="replace"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["report", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_every_trial_is_shown_by_what_became_of_it(tmp_path: Path) -> None:
    (study,) = view_in(page([write(tmp_path, *TRIALS)]))["studies"]
    assert [trial["kind"] for trial in study["trials"]] == KINDS
    assert study["trials"][3]["reason"] == "pareto_asha: beaten"
    assert [each["why"] for each in study["trials"][3]["decisions"]] == ["rung 1, rank 1 of 1, front 1"]
    assert study["trials"][5]["reason"] == "too slow"


def test_the_curves_of_a_trial_are_those_of_the_epochs_table(tmp_path: Path) -> None:
    folder = write(tmp_path, *TRIALS)
    table = reader.read(folder, "epochs").to_pylist()
    for trial in view.of([folder])["studies"][0]["trials"]:
        rows = [row for row in table if row["trial_id"] == trial["id"]]
        for name, curve in trial["curves"].items():
            values = [number / 10 ** curve["places"] for number in accumulate(curve["steps"])]
            assert values == pytest.approx([row[name] for row in rows], abs=5.1e-4), name
        assert trial["curves"]["epoch"] == {"places": 0, "steps": [1, 1, 1]}


@pytest.mark.parametrize(
    ("values", "places", "steps"),
    [
        ([0.25, None, 0.5, float("nan"), 0.125], 2, [25, None, 25, None, -38]),
        ([12345.6, 1.0], -1, [1235, -1235]),
        ([], 3, []),
    ],
)
def test_a_curve_is_kept_as_steps_of_whole_numbers(values: list[float | None], places: int, steps: list[int]) -> None:
    assert epoch_curves.steps(values, places) == {"places": places, "steps": steps}


def test_intervals_and_hypervolume_are_those_of_the_front(tmp_path: Path) -> None:
    (study,) = view.of([write(tmp_path, *TRIALS)])["studies"]
    assert study["trials"][0]["intervals"][1] == pytest.approx([0.37007, 0.43070], abs=1e-4)
    device_hours = (0.016667, 0.033333, 0.05)  # a minute each; the hypervolume is 0.9 x 0.4, and 0.8 x 0.1 more
    assert [point[:4] for point in study["hypervolume"]] == [
        [count, value, hours, spent]
        for count, value, hours, spent in zip(
            (1, 2, 3), (0.36, 0.44, 0.44), (0.0167, 0.0333, 0.05), device_hours, strict=True
        )
    ]
    assert {point[4] for point in study["hypervolume"]} == {None}  # nothing has a price


def test_evaluations_stand_beside_what_the_search_measured(tmp_path: Path) -> None:
    folder = write(tmp_path, *TRIALS)
    evaluated(folder, "small-00001", clean=780, robust=420)
    (study,) = view.of([folder])["studies"]
    assert study["beside"] == [
        {"how": "autoattack linf 8/255, test split, 1,000 images", "points": {"small-00001": [0.78, 0.42]}}
    ]
    assert [each["robust"] for each in study["trials"][1]["evaluations"]] == [0.42]


def test_settings_of_a_dial_are_a_curve_of_their_network_and_nobodys_evaluation(tmp_path: Path) -> None:
    folder = write(tmp_path, *TRIALS)
    evaluated(folder, "small-00001", clean=780, robust=420)
    for dial, clean, robust in ((1.0, 900, 100), (0.5, 850, 300)):
        evaluated(folder, "small-00001", clean=clean, robust=robust, dial=dial, key=f"{dial}")
    mixed = {"checkpoint": "mix-small-00000-last", "checkpoint_sha256": "of two"}
    evaluated(folder, "small-00001", clean=870, robust=350, dial=0.5, **mixed)
    (study,) = view.of([folder])["studies"]
    how = "autoattack linf 8/255, test split, 1,000 images"
    points = [[0.5, 0.85, 0.3], [1.0, 0.9, 0.1]]
    assert study["dials"] == [
        {
            "how": how,
            "curves": [
                {"trial": "small-00001", "weights": "last", "points": points},
                {"trial": "small-00001", "weights": "mix-small-00000-last", "points": [[0.5, 0.87, 0.35]]},
            ],
        }
    ]
    assert study["beside"] == [{"how": how, "points": {"small-00001": [0.78, 0.42]}}]
    assert len(study["trials"][1]["evaluations"]) == 4


def test_settings_that_the_search_itself_measured_are_a_curve_too_and_stand_with_the_evaluations(
    tmp_path: Path,
) -> None:
    last = {"-0.5": (0.7, 0.52), "0": (0.8, 0.5), "0.5": (0.9, 0.25), "1e-05": (0.81, 0.49)}
    folder = write(tmp_path, *TRIALS, dials={1: {"0": (0.5, 0.25)}, 3: last})
    (study,) = view.of([folder])["studies"]
    how = "in the search, pgd-20 linf 8/255, validation split, 1,000 images"
    points = [[-0.5, 0.7, 0.52], [0.0, 0.8, 0.5], [1e-05, 0.81, 0.49], [0.5, 0.9, 0.25]]
    curve = {"trial": "small-00001", "weights": "last", "points": points}
    assert study["dials"] == [{"how": how, "curves": [curve]}]
    assert [len(trial["evaluations"]) for trial in study["trials"]] == [0, 4, 0, 0, 0, 0, 0]
    shown = study["trials"][1]["evaluations"][3]
    assert (shown["how"], shown["clean"], shown["robust"]) == (f"{how}, dial 0.5", 0.9, 0.25)
    assert shown["intervals"] == pytest.approx(np.array([wilson(900, 1000), wilson(250, 1000)]), abs=1e-4)
    (study,) = view.of([write(tmp_path / "without", *TRIALS)])["studies"]
    assert study["dials"] == []


def test_why_a_trial_was_proposed_and_what_to_type_about_it(tmp_path: Path) -> None:
    folder = write(tmp_path, *TRIALS)
    trials = view.of([folder])["studies"][0]["trials"]
    assert [trial["proposed"] for trial in trials[:2]] == ["given in the file, under first:", "by the sampler tpe"]
    assert f"arat-ray results why {folder} 0" in trials[0]["commands"]


def test_only_the_script_and_the_style_of_the_page_may_run(tmp_path: Path) -> None:
    report = page([write(tmp_path, *TRIALS)]).decode(errors="replace")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report)
    (style,), scripts = (
        re.findall(r"<style>(.*?)</style>", report, re.S),
        re.findall(r"<script>(.*?)</script>", report, re.S),
    )
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (*scripts, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert "eval(" not in scripts[0]
    assert "innerHTML" not in scripts[0]


def test_foreign_text_is_never_markup(tmp_path: Path) -> None:
    study = write(tmp_path, *TRIALS, name="hostile")
    study.rename(tmp_path / "<img onerror=alert(1)>")
    (tmp_path / "<img onerror=alert(1)>" / "study.json").unlink()
    named, plain = page([tmp_path / "<img onerror=alert(1)>"]), page([write(tmp_path, {**COMPLETE, "error": "none"})])
    assert [tag for tag, _ in Tags(named).found] == [tag for tag, _ in Tags(plain).found]
    assert not [each for each in Tags(named).found if any(name.startswith("on") for name in each[1])]
    assert b"<title>&lt;img onerror=alert(1)&gt; - " in named
    assert HOSTILE.encode() not in named
    assert view_in(named)["studies"][0]["trials"][1]["params"][0] == HOSTILE


def test_text_that_reorders_what_stands_around_it_is_spelled_out(tmp_path: Path) -> None:
    (study,) = view.of([write(tmp_path, {"status": "failed", "error": "safe\u202egnp.exe\x1b[2J"})])["studies"]
    assert study["trials"][0]["reason"] == "safe\\u202egnp.exe\\x1b[2J"


def test_the_tables_come_back_byte_for_byte(tmp_path: Path) -> None:
    folders = [write(tmp_path / place, *TRIALS) for place in "ab"]
    evaluated(folders[0], "small-00001", clean=780, robust=420)
    output = run(*folders, "-o", tmp_path / "new" / "report.html")
    assert "open it in a browser" in output
    output = run("--extract", tmp_path / "new" / "report.html", "-o", tmp_path / "back")
    assert f"arat-ray results show {tmp_path}/back/small-2" in output
    for folder, name in zip(folders, ("small", "small-2"), strict=True):
        parts = [path for table in TABLES for path in reader.part_files(folder / table)]
        assert len(parts) >= 3
        for path in [*parts, folder / "study.json"]:
            assert (tmp_path / "back" / name / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert "is there already" in run("--extract", tmp_path / "new" / "report.html", "-o", tmp_path / "back", code=2)


def test_no_byte_of_the_tables_can_be_markup(tmp_path: Path) -> None:
    study = write(tmp_path, *TRIALS, note=f"{HOSTILE} \\l \\b \\")
    report = page([study])
    carried_bytes = re.findall(rb'id="tables">(.*?)</script>', report, re.S)
    assert b"alert(1)" in carried_bytes[0]  # a study.json lies in the page as it is
    assert b"<" not in carried_bytes[0]
    (tmp_path / "report.html").write_bytes(report)
    (back,) = carried.extract(tmp_path / "report.html", tmp_path / "back")
    assert (back / "study.json").read_bytes() == (study / "study.json").read_bytes()


def test_a_report_of_before_whose_tables_are_base64_still_gives_them_back(tmp_path: Path) -> None:
    study = write(tmp_path, *TRIALS)
    before = re.sub(rb'(?s)(id="tables">)[^<]*', rb"\1" + base64.b64encode(carried.pack([study])), page([study]))
    (tmp_path / "report.html").write_bytes(before)
    (back,) = carried.extract(tmp_path / "report.html", tmp_path / "back")
    assert (back / "study.json").read_bytes() == (study / "study.json").read_bytes()


def changed(report: bytes, change: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        change(archive)
    return re.sub(rb'(id="tables">)[^<]*', rb"\1" + base64.b64encode(buffer.getvalue()), report)


@pytest.mark.parametrize(
    "name", ["../x/study.json", "a/../../study.json", "/a/study.json", "../study.json", "a/x.py", "a/b/study.json"]
)
def test_a_report_writes_nothing_but_tables_and_only_below_the_folder(name: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_bytes(changed(page([write(tmp_path, *TRIALS)]), lambda archive: archive.writestr(name, "{}")))
    with pytest.raises(ValueError, match="which no report does"):
        carried.extract(report, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_what_would_unpack_to_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    bomb = changed(
        page([write(tmp_path, *TRIALS)]),
        lambda archive: archive.writestr("a/study.json", bytes(10**6), compress_type=zipfile.ZIP_DEFLATED),
    )
    report.write_bytes(bomb)
    with pytest.raises(ValueError, match="which no report does"):
        carried.extract(report, tmp_path / "back")


def test_entries_that_share_their_bytes_do_not_unpack_to_more_than_the_file_holds(tmp_path: Path) -> None:
    def overlap(archive: zipfile.ZipFile) -> None:
        archive.writestr("a/study.json", bytes(1000))
        for number in range(50):
            entry = copy.copy(archive.infolist()[0])
            entry.filename = f"a/trials/part-{number:05d}.parquet"
            archive.filelist.append(entry)

    report = tmp_path / "report.html"
    report.write_bytes(changed(page([write(tmp_path, *TRIALS)]), overlap))
    with pytest.raises(ValueError, match="more than it holds"):
        carried.extract(report, tmp_path / "back")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    def encrypt(archive: zipfile.ZipFile) -> None:
        archive.writestr("a/study.json", "{}")
        archive.infolist()[0].flag_bits |= 1

    report = tmp_path / "report.html"
    report.write_bytes(changed(page([write(tmp_path, *TRIALS)]), encrypt))
    with pytest.raises(ValueError, match="which no report does"):
        carried.extract(report, tmp_path / "back")


def test_a_study_named_by_dots_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write(tmp_path, *TRIALS)
    monkeypatch.chdir(study / "trials")
    (tmp_path / "report.html").write_bytes(page([Path("..")]))
    assert carried.extract(tmp_path / "report.html", tmp_path / "back") == [tmp_path / "back" / "small"]


def test_a_list_of_contents_that_changed_on_the_way_is_named(tmp_path: Path) -> None:
    whole = page([write(tmp_path, *TRIALS)])
    tables = re.search(rb'id="tables">([^<]*)', whole)
    assert tables
    report = tmp_path / "report.html"
    report.write_bytes(whole.replace(tables[1], tables[1][:-6] + b"\xff\xff\xff\0" + tables[1][-2:]))
    with pytest.raises(ValueError, match=rf"{report} is damaged"):  # where it begins, at the end of the archive
        carried.extract(report, tmp_path / "back")


def test_a_report_that_is_none_or_cut_off_is_named(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>hello</p>")
    assert f"{report} carries no tables" in run("--extract", report, "-o", tmp_path / "back", code=2)
    whole = page([write(tmp_path, *TRIALS)])
    report.write_bytes(re.sub(rb'(id="tables">)([^<]{400})[^<]*', rb"\1\2", whole))
    assert "is damaged" in run("--extract", report, "-o", tmp_path / "back", code=2)
    assert "cannot be read" in run("--extract", tmp_path / "none.html", "-o", tmp_path / "back", code=2)


def test_how_far_each_trial_was_at_which_hour(tmp_path: Path) -> None:
    trials = view.of([write(tmp_path, *TRIALS)])["studies"][0]["trials"]
    assert trials[2]["knots"] == [[0.0333, 0], [0.05, 3]]
    assert [trial["ended"] for trial in (trials[2], trials[6])] == [0.05, None]  # the last one runs
    first = datetime(2026, 1, 1, tzinfo=UTC)
    attempts = [
        {"trial_id": "a", "attempt": 2, "started_at": first + timedelta(hours=2), "train_s": 7200.0, "epochs_done": 9},
        {"trial_id": "a", "attempt": 1, "started_at": first, "train_s": 3600.0, "epochs_done": 5},
        {"trial_id": "of before", "attempt": 1, "started_at": None, "train_s": None, "epochs_done": 3},
    ]
    ended = {"ended_at": first + timedelta(hours=4), "status": "complete"}
    knots, ends = timeline.of([{**row, **ended} for row in attempts])
    assert knots == {"a": [[0.0, 0], [1.0, 5], [2.0, 5], [4.0, 9]], "of before": []}
    assert ends == {"a": 4.0, "of before": 4.0}


def test_what_had_been_spent_is_that_of_the_attempts_that_had_ended() -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {"started_at": first, "ended_at": first + timedelta(hours=hours), "device_s": 3600.0, "cost_usd": usd}
        for hours, usd in ((3, 1.5), (1, None), (2, 0.5))
    ]
    by = timeline.spent([*rows, {"started_at": first, "ended_at": None, "device_s": 7200.0, "cost_usd": None}])
    assert by(first) == (0.0, 0.0, 0.0)
    assert by(first + timedelta(hours=2)) == (2.0, 2.0, 0.5)
    assert by(first + timedelta(hours=3)) == (3.0, 3.0, 2.0)
    assert timeline.spent(rows[1:2])(None) == (0.0, 0.0, None)


def test_what_can_be_drawn_of_little_is_drawn(tmp_path: Path) -> None:
    failed = view.of([write(tmp_path / "1", {"status": "failed", "error": "no memory"})])["studies"][0]
    assert (failed["hypervolume"], failed["trials"][0]["goals"]) == ([], [None, None])
    half = view.of([write(tmp_path / "2", {**COMPLETE, "clean_accuracy": 0.9})])["studies"][0]
    assert half["trials"][0]["kind"] == "unfinished"
    nan = view.of([write(tmp_path / "4", {**TRIALS[0], "robust_accuracy": float("nan")}, TRIALS[1])])["studies"][0]
    assert [trial["kind"] for trial in nan["trials"]] == ["unfinished", "front"]
    assert [point[:2] for point in nan["hypervolume"]] == [[1, 0.4]]
    study = write(tmp_path / "3", *TRIALS)
    (study / "study.json").unlink()
    assert "study.json" in view.of([study])["studies"][0]["trials"][0]["proposed"]


def test_studies_that_do_not_belong_on_one_plot_are_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "b", {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4, "epsilon": 0.1})
    message = run(write(tmp_path / "a", *TRIALS), other, "-o", tmp_path / "report.html", code=2)
    assert "measured unlike" in message
    assert "linf 0.1" in message
    assert not (tmp_path / "report.html").exists()


def test_studies_are_shown_or_a_report_is_extracted(tmp_path: Path) -> None:
    assert "not both" in run("-o", tmp_path / "report.html", code=2)
    assert "there is no folder" in run(tmp_path / "none", "-o", tmp_path / "report.html", code=2)


def test_of_importance_the_numbers_are_carried_or_the_reason(tmp_path: Path) -> None:
    study = write(tmp_path, *TRIALS)
    assert view.of([study])["studies"][0]["importance"]["why"] == view.NOT_LIVE
    shown = view.of([study], [importances.of(study)])["studies"][0]["importance"]
    assert shown["why"] == "Nothing varies in this study."
    assert shown["command"] == f"arat-ray results importance {study}"
    known = study_of(tmp_path / "known", 12)
    found = importances.of(known)
    assert not isinstance(found, str)
    knobs = view.of([known], [found])["studies"][0]["importance"]["knobs"]
    assert [each["knob"] for each in knobs] == [each.knob for each in found]
    assert knobs[0]["moved"][-1][2] == pytest.approx(found[0].front.by.effect, rel=1e-4)


@pytest.mark.parametrize(
    ("search", "trials", "said"),
    [
        ({"a": {}}, 3, "needs 8 trials .* there are 3"),
        ({f"{number}": {} for number in range(21)}, 9, "more than 20 knobs"),
    ],
)
def test_importance_is_computed_only_where_that_takes_seconds(
    search: dict[str, Any], trials: int, said: str, tmp_path: Path
) -> None:
    study = write(tmp_path, *[TRIALS[0]] * trials)
    (study / "study.json").write_text(json.dumps({"experiment": {"search": search}}))
    found = importances.of(study)
    assert isinstance(found, str)
    assert re.search(said, found)


def test_fast_verdicts_and_networks_of_one_attack_are_no_rungs(tmp_path: Path) -> None:
    study = write(tmp_path, *TRIALS)
    evaluated(study, "small-00000", clean=800, robust=300, checkpoint_sha256="a")
    fast = {"attack_version": "pyautoattack 0.2.0, fast", "key": "fast"}
    for attack, robust, more in (("autoattack", 310, fast), ("autoattack", 320, {}), ("pgd-20", 400, {})):
        evaluated(study, "small-00001", clean=800, robust=robust, attack=attack, checkpoint_sha256="b", **more)
    (ladder,) = view.of([study])["studies"][0]["ladders"]
    assert ladder["attacks"] == ["pgd-20", "autoattack"]
    (member,) = ladder["members"]
    low, high = wilson(400, 1000)
    assert member["values"][0] == [0.4, pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4)]
    assert member["values"][1][0] == 0.32
