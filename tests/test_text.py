"""What is printed of foreign text, and of commands."""

import re
import shlex
from pathlib import Path

import pytest

from arat_ray import text
from arat_ray.cli import main
from arat_ray.storage.address import path_of
from arat_ray.text import command, did_you_mean, line, plain, uncoloured


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("a\rb\x08", r"a\rb\x08"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("two\nlines\tétude-测试 [/x] :smile:", "two\nlines\tétude-测试 [/x] :smile:"),
    ],
)
def test_a_terminal_obeys_nothing_in_foreign_text(foreign: str, shown: str) -> None:
    assert plain(foreign) == shown


def test_a_printed_command_is_read_by_a_shell_as_it_was_meant() -> None:
    words = ("arat-ray", "tune", Path("my study/x.yaml"), "--trials", 3, "$(touch owned)", "it's")
    assert shlex.split(command(*words)) == [str(word) for word in words]
    assert command("arat-ray", "pareto", Path("results/a")) == "arat-ray pareto results/a"


def test_a_study_in_a_bucket_is_named_by_its_address() -> None:
    assert command("arat-ray", "pareto", path_of("s3://bucket/a b")) == "arat-ray pareto 's3://bucket/a b'"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("robust", "robust_accuracy"),
        ("Robust_Acuracy", "robust_accuracy"),
        ("accuracy", "clean_accuracy"),
        ("ep", None),
    ],
)
def test_a_word_that_is_none_is_answered_with_the_one_that_was_meant(word: str, meant: str | None) -> None:
    known = ("robust_accuracy", "clean_accuracy", "epochs_done")
    answer = f"; did you mean {meant!r}?" if meant else "; known: clean_accuracy, epochs_done, robust_accuracy"
    assert did_you_mean(word, known) == answer


def test_a_path_that_begins_with_a_dash_is_no_option_in_a_printed_command() -> None:
    assert command("arat-ray", "pareto", Path("./-x"), "--plot") == "arat-ray pareto ./-x --plot"


def test_one_thing_stays_on_one_line_and_keeps_its_indent() -> None:
    assert line("  a\n\n  b\tc\r\n") == r"  a b c\r"


def test_the_colours_of_a_log_are_left_out_and_nothing_else_of_it() -> None:
    assert uncoloured("\x1b[1;36m(x)\x1b[0m \x1b[2J\r\n") == "(x) \x1b[2J\n"


def test_no_command_with_a_value_is_printed_but_through_one_function() -> None:
    sources = (Path(__file__).parent.parent / "arat_ray").rglob("*.py")
    verbs = "|".join(main.commands)
    found = [
        f"{source}: {match[0]}"
        for source in sources
        for match in re.finditer(rf"arat-ray ({verbs}) [^\"'`\n]*\{{.*", source.read_text())
    ]
    assert found == []


def test_what_was_meant_is_guessed_in_one_place() -> None:
    sources = Path(text.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "import difflib" in path.read_text()] == ["text.py"]
