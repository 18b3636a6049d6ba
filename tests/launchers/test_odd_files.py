"""Files that are no cluster files, or have anything anywhere: problems with their place, and never a crash."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.spec import Resources
from arat_ray.launchers.aws_roles import policy, worker_types
from arat_ray.launchers.check import check, check_documents
from arat_ray.launchers.document import Document
from tests.launchers.filled import CLUSTERS, SHIPPED, filled
from tests.launchers.iam import VALUES

REMOVED = object()
ODD = {
    "removed": REMOVED,
    "null": None,
    "a number": 7,
    "no number": float("nan"),
    "endless": float("inf"),
    "negative": -1,
    "a truth": True,
    "a text": "x",
    "an empty text": "",
    "a list": [7],
    "an empty list": [],
    "a list of nothing": [None],
    "a mapping": {"x": 7},
    "a mapping of numbers": {7: [7]},
    "an empty mapping": {},
}
SOME = ("removed", "null", "a number", "a text", "a list")
TRIAL = Resources(workers=2, gpus_per_worker=1, cpus_per_worker=4)
YAML = [name for name in SHIPPED if name.endswith("yaml")]


def with_one_part(part: Any, by: object) -> Iterator[Any]:
    """The same nested data, each time with another of its parts replaced or removed."""
    for key, value in list(part.items()) if isinstance(part, dict) else list(enumerate(part)):
        copy = part.copy()
        if by is REMOVED:
            del copy[key]
        else:
            copy[key] = by
        yield copy
        if isinstance(value, dict | list):
            for other in with_one_part(value, by):
                yield part | {key: other} if isinstance(part, dict) else [*part[:key], other, *part[key + 1 :]]


def parts_of(name: str) -> list[Any]:
    """The documents of a shipped file, in KubeRay's without the RayCluster, whose parts the RayJob has as well."""
    return (
        [each for each in yaml.safe_load_all(filled(name)) if each["kind"] != "RayCluster"]
        if "kube" in name
        else [yaml.safe_load(filled(name))]
    )


def refusal(call: Callable[[], object]) -> str:
    """What a call refuses with; empty where it does not. Any other error is a crash."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "by"),
    [(name, by) for name in YAML for by in (SOME if name == "kuberay.yaml" else ODD)],  # its model takes milliseconds
)
def test_anything_anywhere_in_a_file_is_a_problem_or_nothing_and_never_a_crash(name: str, by: str) -> None:
    for data in with_one_part(parts_of(name), ODD[by]):
        read = [Document(each, {(): 1}, []) for each in data if each is not None]
        if not (refused := refusal(partial(check_documents, Path(name), read, TRIAL))):
            for line in check_documents(Path(name), read, TRIAL).problems if by == "a text" else ():
                assert re.fullmatch(rf"{re.escape(name)}:1: .+; .+", line), line
        assert refused == "" or "is no cluster file" in refused


@pytest.mark.parametrize("key", ["7", "null", "yes", "1.5", "2026-01-31"])
@pytest.mark.parametrize("name", YAML)
def test_a_key_that_yaml_takes_for_something_else_is_named_with_its_line(name: str, key: str, tmp_path: Path) -> None:
    text = filled(name)
    file = tmp_path / name
    file.write_text(f"{text}{key}: x\n")
    line = len(text.splitlines()) + 1 if key != "yes" else r"\d+"
    said = "true" if key == "yes" else re.escape(key)
    wanted = re.compile(rf":{line}: .*the key {said} is not text; write it in quotes")
    assert any(wanted.search(each) for each in check(file).problems)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n# nothing\n",
        b"---\n---\n",
        b"null",
        b"7",
        b"[]",
        b"provider",
        b"\x00\x01\x02",
        b"\xff\xfe\x00p",
        bytes(range(256)),
        b"PK\x03\x04" + b"\x00" * 50,
        b"a: b: c",
        b"a: [1",
        b"? [a]\n: 1\n",
        b"? {a: b}\n: 1\n",
        b"provider: &a [*a]\n",
        b"provider: *nobody\n",
        b"provider: !!python/object/apply:os.system [echo]\n",
        b"provider: 7\n",
        b"provider: {type: [aws]}\n",
        b"provider: {type: {}}\n",
        b"apiVersion: [ray.io/v1]\n",
        b"apiVersion: ray.io/v1\n",
        b"apiVersion: ray.io/v1\nkind: {}\n",
        b"apiVersion: ray.io/v1\nkind: RayJob\nspec: 7\n",
        b"{}",
        b'{"provider": {"type": "aws"}}',
        b"#!",
        b"#!/bin/bash\n",
        b"#!/bin/bash\n#SBATCH\n#SBATCH --\n#SBATCH --nodes\n#SBATCH --nodes==\n",
        b"#!/bin/bash\n#SBATCH --nodes=" + b"9" * 5000 + b" --cpus-per-task=" + b"9" * 5000 + b"\n",
        "#!/bin/bash\n#SBATCH --nodes=\u00b2 --cpus-per-task=\u0663 --gres=gpu:\u0663\n".encode(),
        b"#!/bin/bash\nRAY_TMPDIR=$RAY_TMPDIR\n",
        b"#!/bin/bash\n\x00\x07echo \x1b[2J\n",
        b"[" * 5000,
        b"a: " * 3000,
    ],
    ids=lambda content: repr(content)[:40],
)
def test_whatever_a_file_holds_it_is_named_in_one_line_each(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "odd"
    file.write_bytes(content)
    done = CliRunner().invoke(main, ["cluster", "check", str(file)])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert str(file) in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("verb", [["cluster", "check"], ["cluster", "check", "{}", "--experiment"]])
@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_file_that_is_none_is_named(verb: list[str], what: str, tmp_path: Path) -> None:
    (tmp_path / "aws.yaml").write_text(filled("aws.yaml"))
    (tmp_path / "folder").mkdir()
    words = [word.format(tmp_path / "aws.yaml") for word in verb]
    done = CliRunner().invoke(main, [*words, str(tmp_path / what)])
    assert done.exit_code == 2
    assert what in done.output
    assert isinstance(done.exception, SystemExit)


def test_any_line_of_a_script_may_be_missing_or_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)  # bash itself is asked elsewhere
    lines = filled("slurm.sh").splitlines(keepends=True)
    file = tmp_path / "slurm.sh"
    for index, line in enumerate(lines[1:], 1):
        for other in ("", line[: len(line) // 2], line.replace("=", " "), line * 2, "\x00" + line):
            file.write_text("".join([*lines[:index], other, *lines[index + 1 :]]))
            for said in check(file, TRIAL).problems:
                assert re.match(rf"{re.escape(str(file))}:\d+: .+; .+", said)


@pytest.mark.parametrize("by", [each for each in ODD.values() if each is not REMOVED])
def test_anything_in_the_place_of_the_policies_is_refused_by_name(by: object, tmp_path: Path) -> None:
    file = tmp_path / "iam.json"
    good = json.loads((CLUSTERS / "aws-iam.json").read_text())
    for broken in (by, good | {"head": by}, good | {"head": {"Statement": by}}, good | {"head": {"Statement": [by]}}):
        file.write_text(json.dumps(broken))
        refused = refusal(lambda: policy(file, "head", VALUES))
        assert refused.startswith(f"{file}: ") or all(
            isinstance(each, dict) for each in policy(file, "head", VALUES)["Statement"]
        )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe{}", "iam.json"),
        (b"{}", "head.Statement: null is no list of statements"),
        (b'{"head": {"Statement": [{"Resource": "<your-regoin>"}]}}', "<your-regoin> is nothing that `prepare` knows"),
    ],
)
def test_policies_that_are_none_are_refused_by_name(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "iam.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(says)):
        policy(file, "head", VALUES)


@pytest.mark.parametrize("by", ODD.values(), ids=list(ODD))
def test_anything_in_a_cluster_file_leaves_its_workers_types_known_or_refused(by: object, tmp_path: Path) -> None:
    file = tmp_path / "aws.yaml"
    config = yaml.safe_load(filled("aws.yaml"))
    kept = {key: config[key] for key in ("available_node_types", "head_node_type")}
    for index, broken in enumerate(with_one_part(kept, by)):
        if index % 9:
            continue
        file.write_text(yaml.safe_dump(broken))
        refused = refusal(lambda: worker_types(file))
        assert refused.startswith(f"{file}") or worker_types(file)


@pytest.mark.parametrize("name", ["aws.yaml", "slurm.sh"])
def test_escape_codes_in_a_file_do_not_reach_the_terminal(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    text = filled(name).replace("max_workers: 8", 'max_workers: "\\e[2J"').replace("--nodes=4", "--nodes=\x1b[2J")
    file.write_text(text)
    done = CliRunner().invoke(main, ["cluster", "check", str(file)])
    assert done.exit_code == 2
    assert "\\x1b[2J" in done.output
    assert "\x1b" not in done.output
