"""YAML of others: bombs are refused with file and reason, numbers are decimal, what is written is read back."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from arat_ray import yaml_bounds, yaml_core
from arat_ray.experiment.errors import ExperimentError, read_yaml
from arat_ray.launchers.document import documents
from arat_ray.yaml_bounds import YamlError

ROOT = Path(__file__).parents[1]
LINES = 200_000


def laughs(line: str, lines: int) -> str:
    return "a0: &a0 {x: 0, y: 0}\n" + "".join(line.format(n, n - 1) + "\n" for n in range(1, lines))


BOMBS = {  # what it is -> (text, what is said of it)
    "doubled": (laughs("a{0}: &a{0} [*a{1}, *a{1}]", 60), "line 14, column 12: more than 50,000 values, with what"),
    "tenfold": (laughs("a{0}: &a{0} [" + "*a{1}, " * 10 + "]", 12), "more than 50,000 values, with what aliases stand"),
    "merged": (laughs("a{0}: &a{0} {{<<: [" + "*a{1}, " * 10 + "], k{0}: 1}}", 12), "more than 50,000 values"),
    "in keys": (laughs("a{0}: &a{0} {{x: *a{1}, y: *a{1}}}", 60), "more than 50,000 values"),
    "a chain": (laughs("a{0}: &a{0} [*a{1}]", 2000), "nested more than 64 levels deep"),
    "a chain of merges": (laughs("a{0}: &a{0} {{<<: *a{1}}}", 2000), "nested more than 64 levels deep"),
    "more aliases": (laughs("a{0}: &a{0} [*a{1}, *a{1}]", LINES), "is larger than 1 MiB, too large to be read"),
    "more keys": ("".join(f"key{n}: 1\n" for n in range(LINES)), "is larger than 1 MiB"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(90_000)), "more than 50,000 values"),
    "a huge text": ("name: " + "x" * 2_000_000, "is larger than 1 MiB"),
    "brackets": ("name: " + "[" * 500_000, "nested more than 64 levels deep"),
    "braces": ("name: " + "{a: " * 200_000, "nested more than 64 levels deep"),
    "dashes": ("- " * 500_000, "nested more than 64 levels deep"),
    "indented": ("".join(" " * n + "a:\n" for n in range(1000)), "nested more than 64 levels deep"),
    "itself": ("name: &a [*a]\n", "line 1, column 11: alias *a stands within what it stands for"),
    "nothing": ("name: *a\n", "line 1, column 7: alias *a stands for nothing"),
    "a number": (
        "name: " + "9" * 1_000_000,
        "line 1, column 7: name: 9999999999999999999999999999999999999999... is too",
    ),
    "a fraction": ("name: 0." + "9" * 1_000_000 + "e999", "is too large; numbers go up to"),
}
READ_ALL = """
import resource, sys
from pathlib import Path
from arat_ray.experiment.errors import ExperimentError, read_yaml
from arat_ray.launchers.document import documents

resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_yaml, documents):
        try:
            read(path)
        except ValueError as error:
            print(read.__name__, *str(error).splitlines())
        else:
            print(read.__name__, path)
"""


def test_bombs_are_refused_within_a_gigabyte_with_file_and_reason(tmp_path: Path) -> None:
    for name, (text, _) in BOMBS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    for name, (_, reason) in BOMBS.items():
        (experiment, cluster) = (line for line in said if f"{name}.yaml" in line)
        assert reason in experiment
        assert name in ("a number", "a fraction") or reason.split(": ", 1)[-1] in cluster  # to be read by others


def test_what_does_not_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ExperimentError, match=r"/dev/zero: is larger than 1 MiB"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("010", 10),
        ("08", 8),
        ("-010", -10),
        ("+12", 12),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e2", 100.0),
        ("1E-4", 1e-4),
        ("12e03", 12_000.0),
        ("00.5", 0.5),
        ("9223372036854775807", 2**63 - 1),
        ("!!float 1", 1.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("2026-11-27", "2026-11-27"),
        ("2026-13-45", "2026-13-45"),
        ("8/255", "8/255"),
        ("1:75", "1:75"),
        ("nan", "nan"),
        ("'1:30'", "1:30"),
        ("!!str 010", "010"),
        ("! 12", "12"),
    ],
)
def test_words_are_read_by_the_core_schema_of_yaml_1_2(word: str, value: Any) -> None:
    (read,) = yaml_core.parse(f"[{word}]")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("1:30", "no decimal number; write a number of one unit, such as 1.5, or '1:30' if it is text"),
        ("1:30:00", "no decimal number; write a number of one unit"),
        ("12:30.5", "no decimal number; write a number of one unit"),
        ("1_000", "no decimal number; write 1000, or '1_000' if it is text"),
        ("-1_0.5", "no decimal number; write -10.5, or"),
        ("0x10", "no decimal number; write 16, or"),
        ("-0x1F", "no decimal number; write -31, or"),
        ("0b101", "no decimal number; write 5, or"),
        ("0o17", "no decimal number; write 15, or"),
        (".inf", "no finite number; write a number, or leave the key out"),
        ("-.Inf", "no finite number"),
        (".NaN", "no finite number"),
        ("1e999", "too large; numbers go up to 1.7e308"),
        ("9223372036854775808", "too large; whole numbers go up to 9223372036854775807"),
        ("!!int 1.5", "not what its tag says; leave the tag out"),
        ("!!bool yes", "not what its tag says"),
    ],
)
def test_what_is_no_decimal_number_is_refused_with_its_key_and_what_to_write(word: str, says: str) -> None:
    with pytest.raises(YamlError) as raised:
        yaml_core.parse(f"budget:\n  trials: 3\n  hours: [1, {word}]")
    assert str(raised.value).startswith(f"line 3, column 14: budget.hours[1]: {word.split()[-1]} is {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {b: 1, b: 2}", "line 1, column 11: key 'b' stands twice"),
        ("? [a]\n: b", "line 1, column 3: a key must be a word"),
        ("a: 1\n--- \nb: 2", "line 2, column 1: a second document begins; a file holds one"),
        ("a: !!binary aGk=", "line 1, column 4: a: the tag 'tag:yaml.org,2002:binary' is not read here; leave it out"),
        ("a: !!set {b}", "the tag 'tag:yaml.org,2002:set' is not read here"),
        ("a: !mine [b]", "the tag '!mine' is not read here"),
        ("a: {<<: 3}", "`<<` takes a mapping, or a list of them"),
        ("a:\n\t- b", "found character '\\t' that cannot start any token; write spaces instead of tabs"),
        ("a: 1\nb:\t2", "cannot start any token; write spaces instead of tabs"),
        ("a: 1\nb:2\nc: 3", "could not find expected ':'; a key stands on a line of its own, with a colon and a space"),
        ("a: 1 b: 2", "mapping values are not allowed here; a key stands on a line of its own"),
        ("a:\u00a01\nb: 2", "line 1 holds a no-break space (U+00A0), which is none of YAML's"),
        ("a\uff1a 1\nb: 2", "line 1 holds a fullwidth colon (U+FF1A), which is none of YAML's"),
        ("a: [1\uff0c 2\n", "line 1 holds a fullwidth comma (U+FF0C)"),
        ("a: 1\nb:\u200b c\nd: 3", "line 2 holds a zero width space (U+200B)"),
        ('a: "\\ud800"', "text holds '\\ud800', which is no character"),
        ('a: "x\\0"', "text holds '\\x00', which is no character"),
        ('a: "\\U00110000"', "is not YAML: chr() arg not in range"),
        ("a: \x01", "is not YAML: unacceptable character"),
    ],
)
def test_other_mistakes_are_one_line(text: str, says: str) -> None:
    with pytest.raises(YamlError) as raised:
        yaml_core.parse(text)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_merged_keys_stand_below_those_given_and_the_first_source_goes_first() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\nd: {<<: *b, '<<': 4}"
    read = yaml_core.parse(text)
    assert read["c"] == yaml.safe_load(text.splitlines()[0] + "\n" + "\n".join(text.splitlines()[1:3]))["c"]
    assert read["c"] == {"x": 1, "y": 3, "z": 2}
    assert read["d"] == {"x": 2, "z": 2, "<<": 4}


def test_what_two_aliases_stand_for_is_not_shared() -> None:
    read = yaml_core.parse("a: &a {x: [1]}\nb: *a\nc: *a")
    read["b"]["x"].append(2)
    assert read["a"] == read["c"] == {"x": [1]}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffa: 1", "a: 1\r\nb: [2]\r\n"])
def test_plain_files_are_read_as_pyyaml_reads_them(text: str) -> None:
    assert yaml_core.parse(text) == yaml.safe_load(text)


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_files_are_far_within_the_bounds(file: Path) -> None:
    read = yaml_core.parse(yaml_bounds.text_of(file))
    assert sum(1 for _ in yaml_bounds.events(file.read_text())) < yaml_bounds.VALUES_AT_MOST / 100
    assert all(isinstance(key, str) for key in read)


TEXTS = [
    "010",
    "08",
    "1e5",
    "1.5e3",
    "+.5",
    "0o17",
    "0x1F",
    "1:30",
    "1_0",
    "no",
    "y",
    "true",
    "",
    "~",
    "<<",
    "=",
    "a: b",
]


@pytest.mark.parametrize("value", [*TEXTS, 1e-5, 1e22, 1.0, 5, True, None, 123456789.125, 2**62])
def test_what_is_written_is_read_back_by_either_schema(value: Any) -> None:
    written = yaml_core.dump({"key": value, "list": [value]} | ({value: 1} if isinstance(value, str) else {}))
    read = yaml_core.parse(written)
    assert read == yaml.safe_load(written)
    assert read["key"] == value
    assert type(read["key"]) is type(value)


def test_a_cluster_file_keeps_the_numbers_that_its_readers_see(tmp_path: Path) -> None:
    file = tmp_path / "volume.yaml"
    file.write_text("defaultMode: 0400\nsecond: 1_000\n---\nanother: .inf\n")
    first, second = documents(file)
    assert first.data == {"defaultMode": 256, "second": 1000}
    assert math.isinf(second.data["another"])
