"""Text that is not ours: whatever a label, an error, a trial id or a folder is called, it is shown and never obeyed."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import rich.console
from click.testing import CliRunner

from arat_ray import terminal
from arat_ray.cli import jobs, main
from arat_ray.cli.common import BadInput, echo
from arat_ray.experiment import network
from arat_ray.frontier import confirm, pick
from arat_ray.frontier.compare import compare
from arat_ray.frontier.evaluations import Conditions
from arat_ray.frontier.pareto import load_front
from arat_ray.report import infeasible, listing, overview, printing
from arat_ray.report.figure import plot_front
from arat_ray.report.figure_confirm import plot_confirmation
from arat_ray.results.schema import Metadata
from arat_ray.study import rerun_config
from arat_ray.study.progress import Progress
from arat_ray.study.tables import StudyTables
from arat_ray.text import line, plain
from tests.frontier.tables import judged

PACKAGE = Path(__file__).parent.parent / "arat_ray"
GOALS = ("clean_accuracy", "robust_accuracy")
HOSTILE = (
    "[/x]",
    "[bold red]x[/] [link=file:///etc]y",
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer",
    "\x1b[2J\x1b]0;owned\x07\x1b]52;c;aGk=\x07",
    "a\x9b31mb\x08\x7f",
    "safe\u202egnp.\u2066exe",
    "one\nname: owned\r[9/9] trial 9 complete\u2028end\x85",
    ":smile: $\\foo$ $x^$ \\",
    "=cmd|' /C calc'!A0",
    "{0} %s %(x)s ${HOME}",
    "lone \udc80 surrogate",
)
ids = [f"{number}" for number in range(len(HOSTILE))]
hostile = pytest.mark.parametrize("foreign", HOSTILE, ids=ids)


def is_harmless(text: str) -> bool:
    return not [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")] and not (
        set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    )


def storable(foreign: str) -> str:
    """Parquet holds no lone surrogates."""
    return foreign.encode(errors="replace").decode()


def written(folder: Path, foreign: str, *, params: Sequence[str] = ("method.kind",), names: bool = True) -> Path:
    """A study of which every text that can be foreign is: folder, trial ids, labels, errors, reasons, conditions."""
    foreign = storable(foreign)
    metadata = Metadata(study=foreign, goals=GOALS, reference_point=(0.0, 0.0), revision=foreign)
    study = folder / foreign.replace("/", "-") if names else folder / "study"
    writer = StudyTables(study, params=dict.fromkeys(params, pa.string()), metadata=metadata)
    statuses = ("complete", "complete", "complete", "failed", "pruned")
    for number, (clean, status) in enumerate(zip((0.9, 0.8, 0.7, 0.2, 0.2), statuses, strict=True)):
        row: dict[str, Any] = {"trial_id": f"{foreign}-{number}", "attempt": 1, "number": number, "status": status}
        row |= {"is_full_fidelity": status == "complete", "images": 100, "attack": f"pgd {foreign}", "norm": "linf"}
        row |= {
            "clean_accuracy": clean,
            "robust_accuracy": 1 - clean,
            "epsilon": 0.2,
            "split": foreign,
            "epochs_done": 2,
        }
        row |= {"feasible": number != 2, "broken_constraints": foreign if number == 2 else None, "config": "{}"}
        row |= {"failed": {"error": foreign}, "pruned": {"stop_reason": foreign}}.get(status, {})
        row |= {f"param_{name}": foreign for name in params} | {"checkpoint": f"checkpoints/{foreign}/last.pt"}
        writer.trial(row)
    writer.flush()
    return study


def consoles(file: io.StringIO) -> Iterator[rich.console.Console]:
    """Any console is harmless, not only the command line's, with colours and without."""
    for kind in (rich.console.Console, terminal.Console):
        yield kind(file=file, width=200, color_system=None, force_terminal=False)


def drawn(what: Any, *arguments: Any) -> list[str]:
    texts = []
    for make in range(2):
        file = io.StringIO()
        what(*arguments, list(consoles(file))[make])
        texts.append(file.getvalue())
    return texts


@hostile
def test_every_table_shows_foreign_text_as_it_is(foreign: str, tmp_path: Path) -> None:
    study = written(tmp_path, foreign)
    front = load_front([study])
    a, b = (
        judged(study, f"{storable(foreign)}-{i}", "rrc", checkpoint_sha256="ab"[i] * 12, checkpoint=storable(foreign))
        for i in (0, 1)
    )
    found = compare(study / a, study / b, Conditions())
    front.trials[0]["warnings"] = foreign
    jobs_rows = [dict.fromkeys(jobs.COLUMNS, foreign)]
    layers = network.examine(network.model_from("tiny", []), (1, 8, 8), num_classes=10)
    layers = layers._replace(layers=[each._replace(name=foreign, kind=foreign) for each in layers.layers])
    for texts in (
        drawn(printing.print_table, front),
        drawn(infeasible.print_table, infeasible.load([study])),
        drawn(listing.print_table, listing.load(study)),
        drawn(listing.print_table, listing.load(study, columns=["trial_id", "error", "checkpoint"])),
        drawn(printing.print_comparison, found),
        drawn(network.print_table, layers),
        drawn(jobs.print_table, jobs_rows),
    ):
        for text in texts:
            assert is_harmless(text)
            assert line(storable(foreign)).split()[0][:4] in text  # there, not swallowed as markup


@hostile
def test_a_study_that_is_confirmed_and_its_figures_bear_any_name(foreign: str, tmp_path: Path) -> None:
    study = written(tmp_path / "a", foreign, params=("member", "seed"))
    members = load_front([study]).trials
    found = confirm.Confirmation(
        study=study,
        folder=study,
        goals=GOALS,
        attack=foreign,
        norm=foreign,
        epsilon=0.1,
        split=foreign,
        images=100,
        epochs=2,
        seeds=[1, 2],
        unfinished=0,
        members=[
            confirm.Member(
                number=trial["number"],
                trial_id=foreign,
                params={foreign: foreign},
                selected={goal: trial[goal] for goal in GOALS},
                epochs=2,
                runs={1: {goal: trial[goal] for goal in GOALS}},
                mean={goal: trial[goal] for goal in GOALS},
                std=dict.fromkeys(GOALS, 0.01),
                share=1.0,
            )
            for trial in members
        ],
        surfaces=[load_front([study]).others.points.reshape(-1, 2), load_front([study]).others.points.reshape(-1, 2)],
    )
    assert all(map(is_harmless, drawn(printing.print_confirmation, found)))
    plot_confirmation(found, tmp_path / "confirm.svg")
    plot_front(load_front([study]), tmp_path / "front.svg")
    for name in ("confirm.svg", "front.svg"):
        assert is_harmless((tmp_path / name).read_text())
    plot_front(load_front([study]), tmp_path / "front.png")


@hostile
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_shows_foreign_text_and_goes_on(foreign: str, is_terminal: bool) -> None:
    file = io.StringIO()
    console = rich.console.Console(
        file=file, width=160, height=30, color_system=None, force_terminal=is_terminal, legacy_windows=False
    )
    with Progress(console, goals=GOALS, total=4, ended=0, epochs=2) as progress:
        for number, status in enumerate(("failed", "pruned", "complete")):
            progress.started(number, {"method": foreign, "layers": foreign})
            row = {"epochs_done": 1, "clean_accuracy": 0.5, "robust_accuracy": 0.5}
            progress.reported(number, row)
            more = {"failed": {"error": foreign}, "pruned": {"stop_reason": foreign}}.get(status, {})
            progress.ended(number, row | {"status": status, **more, "broken_constraints": foreign})
    text = file.getvalue()
    for control in ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r"):  # how a live table moves the cursor
        text = text.replace(control, "") if is_terminal else text
    assert is_harmless(text)
    assert line(foreign)[:4] in text
    if not is_terminal:
        assert len(text.splitlines()) == 3


class Gone(io.StringIO):
    """A terminal that was closed, one that lacks letters, a full disk."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        OSError(28, "No space left on device"),
        BrokenPipeError(32, "Broken pipe"),
        ValueError("I/O operation on closed file"),
        UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_display_that_fails_ends_no_study(error: Exception, is_terminal: bool) -> None:
    console = terminal.Console(file=Gone(error), width=100, height=20, force_terminal=is_terminal)
    with Progress(console, goals=GOALS, total=2, ended=0, epochs=1) as progress:
        for number in range(2):
            progress.started(number, {"a": 1})
            progress._refreshed = 0
            progress.reported(number, {"epochs_done": 1, "clean_accuracy": 0.5, "robust_accuracy": 0.5})
            progress.ended(number, {"status": "complete"})
        terminal.report(console, "stopping", style="bold red")
    assert progress.ended_count == 2


def test_what_could_not_be_written_once_does_not_spoil_what_follows() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = terminal.Console(file=file, width=100)
    terminal.report(console, "étude")
    terminal.report(console, "plain")
    file.flush()
    assert file.buffer.getvalue() == b"plain\n"


@hostile
def test_no_command_lets_escape_codes_through(foreign: str, tmp_path: Path) -> None:
    study = written(tmp_path, foreign)
    for words in (
        ["pareto", study],
        ["pareto", study, "--csv"],
        ["pareto", study, "--json"],
        ["pareto", study, "--infeasible"],
        ["pareto", study, "--infeasible", "--csv"],
        ["pareto", study, "--plot", tmp_path / "front.svg"],
        ["results", "show", study],
        ["results", "trials", study],
        ["results", "trials", study, "--csv"],
        ["results", "why", study, "3"],
        ["results", "why", study, f"nobody {storable(foreign)}"],
        ["results", "trials", study, "--sort", storable(foreign)],
        ["pareto", study, "--attack", storable(foreign), "--split", "test"],
        ["pick", study, "--min", f"{storable(foreign)}=1"],
        ["compare", study, study],
        ["pareto", tmp_path / f"none {storable(foreign)}".replace("/", "-")],
        ["validate", tmp_path / f"none {storable(foreign)}".replace("/", "-")],
        ["tune", tmp_path / f"none {storable(foreign)}".replace("/", "-")],
        ["presets", storable(foreign)],
        ["layers", storable(foreign)],
        [storable(foreign)],
        ["pareto", f"--{storable(foreign)}"],
        ["pareto", study, "--split", storable(foreign)],
        ["stop", "a", storable(foreign)],
    ):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code in (0, 2), (words, result.output, result.exception)
        assert is_harmless(result.output), words


@hostile
def test_messages_and_lines_of_logs_are_harmless(foreign: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo(foreign)
    echo(foreign, err=True, fg="red")
    for error in (BadInput(foreign),):
        with pytest.raises(BadInput):
            raise error
    shown = capsys.readouterr()
    assert shown.out == f"{plain(foreign)}\n"
    assert is_harmless(shown.out + shown.err)


@hostile
def test_the_log_of_a_job_is_followed_without_its_escape_codes(
    foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    details = SimpleNamespace(
        status=SimpleNamespace(is_terminal=lambda: True, value="SUCCEEDED"), driver_exit_code=0, message=foreign
    )
    log = f"\x1b[36m(worker)\x1b[0m {foreign}\r\nlast"
    server = SimpleNamespace(get_job_info=lambda job: details, get_job_logs=lambda job: log)
    details.status.__eq__ = lambda other: other == "SUCCEEDED"
    jobs._write_until_end(server, "job")  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert shown.startswith("(worker) ")
    assert shown.endswith("\nlast")


@hostile
def test_a_comment_of_an_experiment_file_stays_a_comment(foreign: str) -> None:
    import yaml

    text = rerun_config.as_yaml({"name": "x", "label": storable(foreign)}, [f"trial {foreign}", foreign])
    assert yaml.safe_load(text) == {"name": "x", "label": storable(foreign)}
    assert is_harmless(text)


def test_why_and_overview_say_foreign_words_on_one_line_each(tmp_path: Path) -> None:
    study = written(tmp_path, "one\n\ntrials: 99: owned")
    for text in overview.lines(overview.overview(study)):
        assert "\n" not in text
    front = load_front([study])
    for text in printing.choice_lines(pick.pick(front, best="clean_accuracy"), front):
        assert "\n" not in text


def test_a_letter_that_the_terminal_lacks_is_spelled_out(tmp_path: Path) -> None:
    study = written(tmp_path, "étude 測試")
    program = "import sys; from arat_ray.cli import main; main(sys.argv[1:])"
    for words in (["pareto", str(study)], ["results", "why", str(study), "0"], ["pareto", f"{study}x"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            check=False,
            env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(PACKAGE.parent), "PATH": "/usr/bin:/bin"},
        )
        assert b"Traceback" not in done.stderr
        assert "étude".encode() in done.stdout + done.stderr or rb"\xe9tude" in done.stdout + done.stderr


SOURCES = sorted(PACKAGE.rglob("*.py"))


def calls_of(tree: ast.AST, *names: str) -> list[ast.Call]:
    """The calls of methods of these names."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in names]


def test_nothing_is_printed_but_through_one_function_of_each_kind() -> None:
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        if source.name != "common.py":
            echoes = {ast.unparse(call.func) for call in calls_of(tree, "echo", "secho")}
            assert not echoes & {"click.echo", "click.secho"}, source
        if source.name != "terminal.py":
            imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not {"rich.table", "rich.markup"} & imports, source
            prints = [call for call in calls_of(tree, "print") if ast.unparse(call.func).endswith("console.print")]
            assert all(ast.unparse(call.args[0]) == "table" for call in prints), source
