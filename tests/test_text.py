"""What is printed of foreign text, and of commands."""

import shlex
from pathlib import Path

import pytest

from arat_ray.storage.place import path_of
from arat_ray.text import command, plain


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
