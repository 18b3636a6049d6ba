"""The report in a real browser, opened from disk: Debian's chromium, driven by playwright, where both are there."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arat_ray.frontier.importance import Effect, Importance, Moved
from arat_ray.report.live import Live
from arat_ray.report.page import page
from arat_ray.report.serving import Server
from tests.frontier.tables import evaluated
from tests.report import reports
from tests.report.reports import COMPLETE, HOSTILE, TRIALS, grow, write

AXE = "4.14.1"
CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt install chromium")
CIFAR10 = json.dumps({"dataset": {"name": "cifar10"}, "method": {"layers": ["last", HOSTILE]}})
SECOND = [{**row, "clean_accuracy": 0.92, "robust_accuracy": 0.43} for row in TRIALS[:1]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # tests may run as root
        yield started
        started.close()


def new_tab(browser: Any, **options: Any) -> Any:
    context = browser.new_context(**options)
    context.set_default_timeout(120_000)  # ms: what is waited for comes, on a busy machine too
    return context.new_page()


class Opened:
    """A report in a tab without a network, what its console said and what it asked for."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab = new_tab(browser, offline=True, **options)
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", self.refuse)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("#summary:not(:text('Unpacking'))")

    def refuse(self, dialog: Any) -> None:
        self.said.append(dialog.message)
        dialog.dismiss()

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    study = write(folder, *TRIALS)
    evaluated(study, "small-00001", clean=780, robust=420)
    for dial, clean, robust in ((0.5, 850, 380), (1.0, 890, 300)):
        evaluated(study, "small-00001", clean=clean, robust=robust, dial=dial, key=f"{dial}")
    (folder / "report.html").write_bytes(page([study, write(folder, *SECOND, name="other")]))
    return folder / "report.html"


IMPORTANCES = [
    Importance(
        "method.layers",
        [Moved("last", HOSTILE, Effect(0.031, 0.012, 0.05)), Moved(HOSTILE, "last", Effect(0.002, -0.01, 0.014))],
        Moved("last", HOSTILE, Effect(0.1, 0.05, 0.15)),
        {HOSTILE: [Effect(-0.031, -0.05, -0.012), Effect(0.002, -0.01, 0.014), Effect(-0.1, -0.15, -0.05)]},
    )
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the importance of a knob, three attacks of two networks, and a data set that has published points."""
    folder = tmp_path_factory.mktemp("full")
    rows = [{**row, "config": CIFAR10} for row in TRIALS[:3]]
    study = write(folder, *rows)
    for trial, robust in (("small-00000", 300), ("small-00001", 420)):
        for attack, more in (("autoattack", 0), ("pgd-20", 60), ("apgd-ce", 30)):
            known = {"attack": attack, "key": attack, "checkpoint_sha256": trial[::-1]}
            if (trial, attack) != ("small-00000", "apgd-ce"):
                evaluated(study, trial, clean=780, robust=robust + more, **known)
    (folder / "report.html").write_bytes(page([study], [IMPORTANCES]))
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    report = Opened(browser, file)
    yield report
    report.tab.context.close()
    assert report.said == []
    assert report.asked == [file.as_uri()]


def test_a_click_on_a_trial_shows_its_curve(opened: Opened) -> None:
    opened.tab.click("#tradeoff path.point.dominated")
    assert opened.text("#h-trial") == "Trial 2 of small"
    titles = opened.tab.locator("#detail svg[role=img]").nth(0).locator("title").all_text_contents()
    clean, robust = (
        [f"{name} accuracy: {value} at {i}" for i, value in enumerate(values, 1)]
        for name, values in (("clean", ("25", "50", "75")), ("robust", ("12.5", "25", "37.5")))
    )
    assert titles == clean + robust
    opened.tab.click("#detail summary >> text=The curves as numbers")
    assert "2.247" in opened.text("#detail table")  # the loss of epoch 1: 2 + 2 * 0.123456789


def test_a_member_of_the_front_is_chosen_by_the_keyboard_alone(opened: Opened) -> None:
    opened.tab.keyboard.press("Tab")  # only members of the front, by the first goal, are stops of the plot
    assert opened.text("#h-trial") == "Trial 1 of small"
    assert opened.tab.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "trial 1 of small, on the front: clean accuracy (%) 80, robust accuracy (%) 50"
    )
    assert "autoattack linf 8/255, test split, 1,000 images" in opened.text("#detail")


def test_settings_of_a_dial_are_points_that_a_line_joins(opened: Opened) -> None:
    titles = opened.tab.locator("#tradeoff path.dialled title").all_text_contents()
    assert titles == [
        f"trial 1 of small, last, dial {dial}: clean accuracy (%) {clean}, robust accuracy (%) {robust}"
        for dial, clean, robust in (("0.5", 85, 38), ("1", 89, 30))
    ]
    assert (opened.tab.get_attribute("#tradeoff path.dial", "d") or "").count("L") == 1
    opened.tab.select_option("#filter select", label="none")
    assert opened.tab.locator("#tradeoff path.dialled").count() == 0


def test_sets_of_layers_stand_beside_what_came_of_them(opened: Opened) -> None:
    rows = [row.split("\t") for row in opened.tab.locator("#layers tbody tr").all_inner_texts()]
    both, last = ("", "yes"), ("yes", "yes")  # the columns are hostile and last, by the alphabet
    assert rows == [
        ["last", *both, "3", "2", "89", "92", "39.33", "43"],
        [f"last, {HOSTILE}", *last, "1", "1", "80", "80", "50", "50"],
    ]
    opened.tab.click("#layers tbody tr:nth-child(2) button >> nth=0")
    assert opened.text("#h-trial") == "Trial 1 of small"


def test_what_knobs_move_stands_as_numbers_with_intervals(browser: Any, full: Path) -> None:
    report = Opened(browser, full)
    (row,) = report.tab.locator("#importance tbody tr").all_inner_texts()
    assert row.split("\t") == [
        "method.layers", "3.1 [1.2, 5]", f"last over {HOSTILE}", "0.2 [-1, 1.4]", f"{HOSTILE} over last",
        "10 [5, 15]", f"last over {HOSTILE}",
    ]  # fmt: skip
    assert report.tab.locator("#importance svg[role=img]").count() == 3
    assert report.tab.locator("#importance path.is-unsure").count() == 1  # its interval holds 0
    foot = [each.split("\t")[:3] for each in report.tab.locator("#layers tfoot tr").all_inner_texts()]
    assert foot[0] == ["included or not: clean accuracy (points)", "-3.1 [-5, -1.2]", ""]
    assert report.said == []
    report.tab.context.close()


def test_attacks_stand_from_weak_to_strong(browser: Any, full: Path) -> None:
    report = Opened(browser, full)
    heads = report.tab.locator("#ladder thead th").all_inner_texts()
    assert heads == ["trial", "weights", "pgd-20", "apgd-ce", "autoattack"]
    rows = [each.split("\t") for each in report.tab.locator("#ladder tbody tr").all_inner_texts()]
    assert [[row[0], *(cell.split(" ")[0] for cell in row[2:])] for row in rows] == [
        ["0", "36", "", "30"],
        ["1", "48", "45", "42"],
    ]
    assert [path.count("L") for path in attributes(report, "#ladder path.rung", "d")] == [1, 2]
    report.tab.locator("#ladder path.point >> nth=2").click()
    assert report.text("#h-trial") == "Trial 1"
    assert report.said == []
    report.tab.context.close()


def attributes(report: Opened, selector: str, name: str) -> list[str]:
    return [each.get_attribute(name) or "" for each in report.tab.locator(selector).all()]


def test_published_points_are_drawn_beside_what_was_measured_like_them(browser: Any, full: Path) -> None:
    report = Opened(browser, full)
    near = report.tab.locator("#tradeoff path.published > title").count()
    assert "24 published points, measured like autoattack linf 8/255" in report.text("#published")
    assert f"; {near} lie within the axes" in report.text("#published")
    report.tab.click("text=far points too")
    assert report.tab.locator("#tradeoff path.published > title").count() == 24
    report.tab.click("#published summary")
    row = report.tab.locator("#published tr:has-text('ARAT, ResNet-18')").inner_text().split("\t")
    assert row[1:4] == ["87.82 \u00b1 0.19", "49.02 \u00b1 0.47", "arXiv 2402.14648, Table 3"]
    report.tab.locator("#filter select").select_option(label="pgd-20 linf 8/255, test split, 1,000 images")
    assert report.tab.locator("#tradeoff path.published").count() == 0
    assert "attack (autoattack; here pgd-20)" in report.text("#published")
    assert report.said == []
    report.tab.context.close()


def test_without_a_model_of_the_knobs_the_command_is_named(opened: Opened) -> None:
    assert "arat-ray results importance" in opened.text("#importance")
    assert not opened.tab.is_visible("#s-ladder")


def test_how_far_a_goal_has_come_down_since_its_best_epoch(browser: Any, tmp_path: Path) -> None:
    study = write(tmp_path, TRIALS[0], curve={1: 0.25, 2: 0.5, 3: 0.375})
    (tmp_path / "report.html").write_bytes(page([study]))
    report = Opened(browser, tmp_path / "report.html")
    rows = [
        row.split("\t")
        for row in report.tab.locator('#detail table:has-text("Best and last") tbody tr').all_inner_texts()
    ]
    assert rows[1] == ["robust accuracy (%)", "50", "2", "37.5", "3", "12.5"]
    head = report.text("#trials thead").split("\t")
    cells = report.text("#trials tbody").split("\t")
    assert cells[head.index("robust accuracy, best - last")] == "12.5"
    report.tab.context.close()


def test_a_brush_filters_every_panel_of_trials(opened: Opened) -> None:
    place = opened.tab.locator("#tradeoff path[data-trial='1']").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    opened.tab.mouse.move(x - 2, y - 2)  # on the point itself
    opened.tab.mouse.down()
    opened.tab.mouse.move(x + 14, y + 14, steps=3)
    opened.tab.mouse.up()
    assert opened.text("#trials caption") == "1 of 1 trial"
    assert opened.tab.locator("#parallel path.parallel:not(.out)").count() == 1
    assert opened.tab.locator("#tradeoff path.point[data-trial]:not(.out)").count() == 1
    assert opened.tab.locator("#layers tbody tr").all_inner_texts() == [
        f"last, {HOSTILE}\tyes\tyes\t1\t1\t80\t80\t50\t50"
    ]
    assert opened.text("#shown").startswith("Shown: 1 of 8 trials")
    opened.tab.click("text=Show all trials")
    assert opened.text("#trials caption") == "8 of 8 trials"


def test_the_keyboard_alone_reaches_everything_and_leaves_again(opened: Opened) -> None:
    opened.tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    opened.tab.evaluate("window.visited = new Set()")
    for _ in range(300):
        opened.tab.keyboard.press("Tab")
        if opened.tab.evaluate("document.activeElement === document.body"):
            break
        opened.tab.evaluate("visited.add(document.activeElement)")
    missed = opened.tab.evaluate(
        "[...document.querySelectorAll('button, input, select, summary, [tabindex=\\'0\\']')]"
        ".filter((each) => each.checkVisibility() && !visited.has(each)).map((each) => each.outerHTML.slice(0, 100))"
    )
    assert missed == []
    shown = opened.tab.evaluate("[...visited].map((each) => each.getAttribute('aria-label') ?? '')")
    assert all(f"Show trial {number} of small" in shown for number in range(len(TRIALS)))


def test_the_table_is_sorted_by_a_column(opened: Opened) -> None:
    opened.tab.click("#trials thead button[data-column='robust accuracy (%)']")
    first = opened.tab.locator("#trials tbody tr").nth(0).inner_text()
    assert first.split("\t")[:3] == ["1", "small", "on the front"]
    assert opened.tab.locator("#trials th[aria-sort=descending]").count() == 1


def test_hostile_text_is_shown_as_it_is(opened: Opened) -> None:
    assert f"the loss became nan {HOSTILE}" in opened.text("#failed")
    assert HOSTILE in opened.text("#trials")
    assert opened.tab.locator("img").count() == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, from npm, where that answers soon."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"axe-core@{AXE}"]
    try:
        subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs npm and its registry")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["file", "full"])
def test_axe_finds_nothing_that_keeps_anybody_out(
    which: str, scheme: str, width: int, browser: Any, axe: str, request: pytest.FixtureRequest
) -> None:
    report = Opened(
        browser, request.getfixturevalue(which), viewport={"width": width, "height": 740}, color_scheme=scheme
    )
    report.tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    report.tab.evaluate(axe)
    rules = {"runOnly": {"type": "rule", "values": ["color-contrast"]}} if scheme == "dark" else {}  # colours alone
    found = report.tab.evaluate("(rules) => axe.run(rules)", rules)
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > (0 if rules else 20)
    report.tab.context.close()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"status": "failed", "error": "no memory"}], "there is nothing to draw"),
        ([{**TRIALS[0], "clean_accuracy": float("nan")}], "there is nothing to draw"),
        (TRIALS[:1], "clean accuracy (%)"),
    ],
    ids=["all failed", "a goal is no number", "one trial"],
)
def test_of_a_study_with_little_in_it_a_page_is_drawn(rows: list[Any], said: str, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(page([write(tmp_path, *rows)]))
    report = Opened(browser, tmp_path / "report.html")
    assert said in report.text("#tradeoff")
    assert report.text("#summary").startswith("1 trial, ")
    assert report.said == []
    report.tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(scheme: str, browser: Any, file: Path) -> None:
    report = Opened(browser, file, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert report.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert report.said == []
    report.tab.context.close()


def test_the_slider_shows_front_and_hypervolume_as_they_were_known(opened: Opened) -> None:
    tab = opened.tab
    assert tab.locator("#tradeoff path.point.front").count() == 3
    tab.focus("#until")
    tab.keyboard.press("Home")
    assert tab.locator("#tradeoff path.point.front").count() == 0
    for _ in range(60):  # of 200, in the first 0.117 hours: trials 0 and 1 have ended by then, trial 2 runs
        tab.keyboard.press("ArrowRight")
    assert tab.get_attribute("#until", "aria-valuetext") == "after 0.035 of 0.117 hours"
    assert opened.text("#summary").startswith("After 0.035 hours: 4 trials, 3 on the fronts")
    assert "small comes to 0.44 after 2" in (tab.get_attribute("#hypervolume svg", "aria-label") or "")
    states = [row.split("\t")[2] for row in tab.locator("#trials tbody tr").all_inner_texts()]
    assert states == ["on the front", "on the front", "unfinished", "on the front"]
    tab.keyboard.press("End")
    assert opened.text("#summary").startswith("8 trials, 3 on the fronts")


def test_the_hypervolume_is_drawn_over_hours_as_well(opened: Opened) -> None:
    opened.tab.select_option("#over", label="device-hours of what had ended")
    assert "over device-hours of what had ended: small comes to 0.44 after 3" in (
        opened.tab.get_attribute("#hypervolume svg", "aria-label") or ""
    )
    titles = opened.tab.locator("#hypervolume title").all_text_contents()
    assert titles[:3] == ["small: 0.36 at 0.01667", "small: 0.44 at 0.03333", "small: 0.44 at 0.05"]


@pytest.mark.parametrize(("motion", "steps"), [("no-preference", 100), ("reduce", 10)])
def test_playing_the_search_moves_less_where_that_is_asked_for(
    motion: str, steps: int, browser: Any, file: Path
) -> None:
    report = Opened(browser, file, reduced_motion=motion)
    report.tab.clock.install(time=0)
    report.tab.clock.pause_at(1000)  # from here it goes only where it is told to
    report.tab.click("#play")
    report.tab.clock.run_for(2000)
    assert report.tab.evaluate("state.until / clock.span") == pytest.approx(0.2)
    report.tab.clock.run_for(10_000 // steps)
    assert report.tab.evaluate("state.until / clock.span") == pytest.approx(0.2 + 1 / steps)
    report.tab.clock.run_for(9000)
    assert report.text("#then") == "as it stands"
    assert report.text("#play") == "Play the search"
    assert report.said == []
    report.tab.context.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    study = write(tmp_path, *TRIALS)
    with Server(Live([study], log=print)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, study
        server.shutdown()
        thread.join()


def test_a_new_trial_comes_up_without_a_reload_and_takes_nothing_from_the_user(
    served: tuple[Server, Path], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, study = served
    tab = new_tab(browser)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(server.address)
    tab.wait_for_selector("#live:text('Live.')")
    tab.click("#tradeoff path.point.dominated")
    tab.click("#detail summary >> text=The curves as numbers")
    tab.focus("#tradeoff path[data-trial='1']")
    tab.evaluate("window.isTheSame = true")
    grow(study, *TRIALS, {**COMPLETE, "clean_accuracy": 0.88, "robust_accuracy": 0.48})
    tab.wait_for_selector("#trials button[aria-label='Show trial 7']")
    assert tab.evaluate("window.isTheSame")
    assert tab.evaluate("document.activeElement.dataset.trial") == "1"
    assert tab.inner_text("#h-trial") == "Trial 1"
    assert tab.locator("#tradeoff path.point.front").count() == 3
    assert tab.inner_text("#summary").startswith("8 trials, 3 on the front")
    shutil.rmtree(study)
    monkeypatch.setattr(reports, "GOALS", ("robust_accuracy",))
    write(study.parent, TRIALS[1])  # another one in its place
    tab.wait_for_selector("#summary:has-text('1 trial, 1 on the front; best robust accuracy (%) 50')")
    tab.context.set_offline(True)
    tab.wait_for_selector("#live:has-text('Not up to date')")
    tab.context.set_offline(False)
    tab.wait_for_selector("#live:text('Live.')")
    assert [each for each in said if "ERR_INTERNET_DISCONNECTED" not in each] == []
    tab.context.close()
