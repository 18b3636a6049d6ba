"""Each kind of file of a study, damaged in each way: it is named in one line, with what to do, and nothing is lost."""

from __future__ import annotations

import json
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
from arat_ray.results import evaluation_records, reader
from arat_ray.results.reading import Reading
from arat_ray.results.segments import line as line_of
from arat_ray.study import description, mending
from arat_ray.study import folder as study_folder
from tests.frontier.tables import judged
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
    assert (code, "study.json: made again" in output) == (0, True), output
    with study_folder.claim(study, experiment, study / "study.yaml", kind="tune", resume=True):
        pass
    assert call("results", "show", study)[0] == 0


@pytest.mark.parametrize("kind", ["empty", "cut", "zeros", "binary", "list", "number", "wrong types", "deep"])
def test_results_show_names_a_study_json_that_it_cannot_read(kind: str, study: Path) -> None:
    path = study / "study.json"
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    assert_named(path, *call("results", "show", study), fix=f"arat-ray results rebuild {study}")


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{",
        b"\x80\x81",
        b'{"epoch": 7}',
        b'{"epoch":{},"n":3,"crc":"00000000"}',
        bytes(20),
        b"",
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_garbled_line_of_the_record_is_named_and_costs_nothing(line: bytes, study: Path) -> None:
    before = {name: reader.read(study, name) for name in ("trials", "epochs")}
    path = study / "journal" / "record-00000.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:], b""]))
    assert_named(
        path, *call("tune", study / "study.yaml", "--results", study.parent, "--resume"), fix="results rebuild"
    )
    code, output = call("results", "rebuild", study)
    assert code == 0, output
    assert f"damaged: {path}, line 4 " in output
    assert {name: reader.read(study, name) for name in before} == before


def test_lines_with_the_right_checksum_that_say_what_cannot_be_are_named(study: Path) -> None:
    path = study / "journal" / "record-00000.jsonl"
    content = path.read_bytes()
    number = Reading(study / "journal")
    assert list(number)
    events: tuple[dict[str, Any], ...] = (
        {"epoch": {"trial_id": "small-00000", "attempt": 1, "epoch": 1}},
        {"started": {"trial_id": "small-00099", "attempt": 1, "number": 99}},
        {"ended": {"trial_id": "small-00000", "attempt": 1, "status": "complete"}},
        {"asked": {"number": 0, "sampled": {}}},
        {"tomorrow": {}},
    )
    for event in events:
        path.write_bytes(content + line_of(event, number.lines))
        code, output = call("tune", study / "study.yaml", "--results", study.parent, "--resume")
        assert (code, "cannot follow those before it" in output) == (2, True), output
        code, output = call("results", "verify", study)
        assert (code, "cannot follow those before it" in output) == (1, True), output


def test_half_a_last_line_of_the_record_is_no_problem(study: Path) -> None:
    with (study / "journal" / "record-00000.jsonl").open("ab") as file:
        file.write(b'{"epoch":{"tri')
    assert mending.rebuild(study).damages == []
    assert call("results", "verify", study)[0] == 0


@pytest.mark.parametrize("kind", ["empty", "cut", "zeros", "binary", "list", "other keys"])
def test_the_record_of_an_evaluation_that_cannot_be_read_is_named(kind: str, study: Path) -> None:
    judged(study, "small-00000", "rrc")
    evaluation_records.write(study, *(reader.read(study, name).to_pylist() for name in ("evaluations", "examples")))
    before = {name: reader.read(study, name) for name in ("evaluations", "examples")}
    (path,) = evaluation_records.files(study)
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    code, output = call("results", "verify", study)
    assert (code, f"{path}" in output) == (1, True), output
    code, output = call("results", "rebuild", study)
    assert (code, f"damaged: {path}" in output) == (0, True), output
    assert {name: reader.read(study, name) for name in before} == before
    assert call("results", "verify", study)[0] == 0


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
        assert description.read(folder)["kind"] == "tune"


@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": 1}])
@pytest.mark.parametrize(
    "path", ["kind", "identity", "identity.search", "identity.train", "started_at", "from", "content"]
)
def test_no_value_of_a_study_json_ends_in_a_traceback(path: str, value: Any, study: Path) -> None:
    there = description.read(study)
    *above, last = path.split(".")
    node = there
    for key in above:
        node = node[key]
    node[last] = value
    (study / "study.json").write_text(json.dumps(there))
    said = f"{study}"
    try:
        with study_folder.claim(study, load(study / "study.yaml"), study / "study.yaml", kind="tune", resume=True):
            pass
    except ValueError as error:
        said = str(error)
    assert str(study) in said
    assert "\n" not in said
    assert call("results", "show", study)[0] in (0, 2)
