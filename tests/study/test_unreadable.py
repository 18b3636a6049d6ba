"""Each kind of file of a study, damaged in each way: it is named in one line, with what to do, and nothing is lost."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.json_files import parse_json
from arat_ray.results import reader
from arat_ray.study import folder as study_folder
from arat_ray.study import rebuild
from arat_ray.study.trials import JOURNAL, StudyTrials
from tests.study import test_rebuild
from tests.study.conftest import EXPERIMENT

Make = Callable[..., Experiment]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "binary": lambda content: bytes(range(128, 256)) * 4,
    "list": lambda content: b"[1, 2]\n",
    "number": lambda content: b"7\n",
    "other keys": lambda content: b'{"a": 1}\n',
    "wrong types": lambda content: b'{"kind": 3, "identity": [], "experiment": "x", "started_at": 5}\n',
    "deep": lambda content: b"[" * 100_000,
}


NO_DAMAGE_TO_A_JOURNAL = {"empty", "cut", "deep"}
"""An empty one is a new one, the end of a cut one was written half, and deep has no line."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six trials with checkpoints, and the experiment file that it ran."""
    folder = tmp_path_factory.mktemp("whole")
    make = lambda **fields: Experiment.model_validate(EXPERIMENT | fields)  # noqa: E731
    return test_rebuild.study.__wrapped__(make, folder)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / whole.name))


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    change = DAMAGES[request.param]

    def damaged(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damaged


def call(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def assert_named(path: Path, code: int, output: str, *, fix: str) -> None:
    assert code == 2, output
    last = output.splitlines()[-1]
    assert last.startswith("Error: ")
    assert str(path) in last
    assert fix in last


def test_a_study_json_is_named_by_whatever_reads_it_and_made_again(study: Path, damage: Callable[[Path], None]) -> None:
    path, fix = study / "study.json", f"make it again with: arat-ray results rebuild {study}"
    damage(path)
    experiment = load(study / "study.yaml")
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        study_folder.claim(study, experiment, study / "study.yaml", kind="tune", resume=True).__enter__()
    assert str(path) in str(refused.value)
    assert fix in str(refused.value)
    assert "\n" not in str(refused.value)
    assert_named(path, *call("pick", study, "--max", "clean"), fix=fix)
    assert_named(path, *call("confirm", study, "--seeds", 2, "--dry-run"), fix=fix)
    for command in (["results", "trials", study], ["pareto", study]):
        assert call(*command)[0] == 0, "the tables are whole"
    code, output = call("results", "rebuild", study)
    assert (code, "study.json: made again from study.yaml" in output) == (0, True), output
    with study_folder.claim(study, experiment, study / "study.yaml", kind="tune", resume=True):
        pass
    assert call("results", "show", study)[0] == 0


@pytest.mark.parametrize("kind", ["empty", "cut", "zeros", "binary", "list", "number", "wrong types", "deep"])
def test_results_show_names_a_study_json_that_it_cannot_read(kind: str, study: Path) -> None:
    path = study / "study.json"
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    assert_named(path, *call("results", "show", study), fix=f"arat-ray results rebuild {study}")


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - NO_DAMAGE_TO_A_JOURNAL), indirect=True)
def test_a_journal_is_named_before_a_trial_begins_and_stays_as_it_is(
    study: Path, damage: Callable[[Path], None]
) -> None:
    path = study / JOURNAL
    damage(path)
    damaged = path.read_bytes()
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        StudyTrials(study, load(study / "study.yaml"))
    assert str(path) in str(refused.value)
    assert "bring back a copy, or move it away" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == damaged
    path.rename(path.with_name("optuna.log.damaged"))
    study_trials = StudyTrials(study, load(study / "study.yaml"))
    assert study_trials.adopt({number: {} for number in range(6)}) == 6


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{",
        b"\x80\x81",
        b"7",
        b'{"op_code": "x"}',
        b'{"op_code": 4, "worker_id": "w"}',
        bytes(20),
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_garbled_line_of_the_journal_is_named_with_its_number_or_as_no_history(line: bytes, study: Path) -> None:
    path = study / JOURNAL
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[4:], b""]))
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        StudyTrials(study, load(study / "study.yaml"))
    assert f"{path}, line 4 " in str(refused.value) or f"{path} is no history of a study" in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{",
        b"\x80\x81",
        b'{"table": "epochs"}',
        b'{"table": "epochs", "row": 7}',
        b'{"table": "epochs", "row": {}}',
        b'{"table": "nowhere", "row": {}}',
        b'{"table": "epochs", "row": {"trial_id": "small-00000", "attempt": 1, "epoch": 1, "loss_clean": "much"}}',
        b'{"table": "trials", "row": {"trial_id": "small-00000"}}',
        b'{"table": "trials", "row": {"trial_id": "small-00000", "attempt": 1, "ended_at": "yesterday"}}',
        bytes(20),
    ],
    ids=range(11),
)
def test_a_garbled_line_of_the_log_is_named_and_costs_nothing_but_itself(line: bytes, study: Path) -> None:
    before = {name: reader.read(study, name) for name in ("trials", "epochs")}
    path = study / "journal" / "rows-00000.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:], b""]))
    code, output = call("results", "rebuild", study)
    assert code == 0, output
    assert f"not readable: {path}, line 4 " in output
    assert "skipped" in output
    assert {name: reader.read(study, name) for name in before} == before


def test_half_a_last_line_of_the_log_is_no_problem(study: Path) -> None:
    with (study / "journal" / "rows-00000.jsonl").open("ab") as file:
        file.write(b'{"table": "epo')
    assert rebuild.rebuild(study).problems == []


@pytest.mark.parametrize("kind", ["empty", "cut", "binary", "list", "other keys"])
def test_a_kept_evaluation_and_a_full_log_that_cannot_be_read_are_named(kind: str, study: Path) -> None:
    content = DAMAGES[kind](b'{"evaluations": [], "examples": []}')
    for name in ("evaluations/abc.json.gz", "rows-00007.jsonl.gz"):
        path = study / "journal" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if kind in ("empty", "binary") else gzip.compress(content))
        problems = rebuild.rebuild(study).problems
        assert any(problem.startswith(f"{path}") for problem in problems) or (kind, name[0]) == ("empty", "r"), problems
        path.unlink()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x is empty; do so"),
        (bytes(9), "x holds nothing but zeros; do so"),
        (b'{"a": 1', "x is cut off at line 1; do so"),
        (b'{\n"a": "text', "x is cut off at line 2; do so"),
        (b'{"a" 1}', "x is no JSON (line 1, column 6: Expecting ':' delimiter); do so"),
        (b"\x80", "x is no text (byte 1); do so"),
        (b"[]", "x holds a list where a mapping should be; do so"),
        (b"null", "x holds a nothing where a mapping should be; do so"),
        (b"{}", "x lacks 'a'; do so"),
        (b'{"a": true}', "x holds a true or false where a whole number should be, at 'a'; do so"),
        (b'{"a": 1, "b": {"c": 1}}', "x holds a whole number where a text should be, at 'b.c'; do so"),
        (b"[" * 100_000, "x is nested too deeply; do so"),
    ],
)
def test_what_is_wrong_with_json_is_said_in_a_few_words(content: bytes, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse_json(content, "x", fix="do so", shape={"a": int, "b?": {"c?": str}})
    assert str(refused.value) == words


def test_a_study_that_a_full_disk_let_nobody_describe_can_be_begun_again(make: Make, tmp_path: Path) -> None:
    source, folder = tmp_path / "source.yaml", tmp_path / "small"
    source.write_text("name: small\n")
    folder.mkdir()
    for name in (".lock", ".study.json", "study.yaml"):
        (folder / name).touch()
    with study_folder.claim(folder, make(), source, kind="tune", resume=False):
        assert study_folder.described(folder)["kind"] == "tune"


@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": 1}])
@pytest.mark.parametrize(
    "path", ["kind", "identity", "identity.search", "identity.train", "started_at", "from", "content"]
)
def test_no_value_of_a_study_json_ends_in_a_traceback(path: str, value: Any, study: Path) -> None:
    description = study_folder.described(study)
    *above, last = path.split(".")
    node = description
    for key in above:
        node = node[key]
    node[last] = value
    study_folder._write(study / "study.json", description)
    said = f"{study}"
    try:
        with study_folder.claim(study, load(study / "study.yaml"), study / "study.yaml", kind="tune", resume=True):
            pass
    except ValueError as error:
        said = str(error)
    assert str(study) in said
    assert "\n" not in said
    assert call("results", "show", study)[0] in (0, 2)
