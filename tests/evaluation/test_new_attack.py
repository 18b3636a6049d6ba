"""An attack that is added to the menu works wherever attacks do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arat_ray.attack_names import ATTACKS, ENSEMBLES, SHORTHANDS, attack_words, counted, name_and_steps
from arat_ray.results import reader
from arat_ray.training.attacks import SPECS, Attack

ROOT = Path(__file__).parents[2]
WITH_COIN = """
import sys
from arat_ray.attack_names import ATTACKS
ATTACKS["coin"] = "tests.evaluation.coin:Coin"
from arat_ray.cli import main
main(sys.argv[1:])
"""
FILE = """
name: tossed
train:
  dataset: {name: digits}
  model: {name: tiny, width: 4}
  method: {name: pgd_at}
  attack: {name: coin, norm: linf, epsilon: 0.1}
  epochs: 1
  batch_size: 64
  seed: 0
validate: {every: 1, images: 100, attack: {name: coin, norm: linf, epsilon: 0.1}}
"""


def arat_ray(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_COIN, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_an_attack_on_the_menu_trains_validates_and_evaluates_and_makes_a_front(tmp_path: Path) -> None:
    file = tmp_path / "tossed.yaml"
    file.write_text(FILE)
    ran = arat_ray("train", file, "--results", tmp_path)
    assert ran.returncode == 0, ran.stderr
    study = tmp_path / "tossed"
    (trial,) = reader.read(study, "trials").to_pylist()
    assert (trial["status"], trial["attack"], trial["norm"], trial["epsilon"]) == ("complete", "coin", "linf", 0.1)
    assert json.loads(trial["config"])["attack"] == {"name": "coin", "norm": "linf", "epsilon": 0.1, "tosses": 3}
    asked = ("--attack", "coin", "--split", "test")
    measured = arat_ray("evaluate", study, *asked, "--epsilon", "25.5/255", "--images", 50)
    assert measured.returncode == 0, measured.stderr
    rows = {row["attack"]: row for row in reader.read(study, "evaluations").to_pylist()}
    assert (rows["coin"]["attack_version"], rows["coin"]["epsilon"]) == ("arat-ray", 0.1)
    assert 0 < rows["coin"]["correct"] <= rows["none"]["correct"]
    front = arat_ray("pareto", study, *asked, "--json")
    assert front.returncode == 0, front.stderr
    assert json.loads(front.stdout)["trials"][0]["robust_accuracy"] == rows["coin"]["correct"] / 50


def test_it_is_in_the_help_and_what_it_does_not_take_is_refused(tmp_path: Path) -> None:
    assert "autoattack-10-steps, pgd, pgd-any, coin or fgsm." in " ".join(arat_ray("evaluate", "--help").stdout.split())
    refused = arat_ray("evaluate", tmp_path, "--attack", "coin", "--epsilon", "0.1", "--split", "test", "--steps", "3")
    assert "--steps and --step-size are for pgd, pgd-any; what coin does is in its name" in refused.stderr


@pytest.mark.parametrize("name", SPECS)
def test_each_attack_has_its_own_name_and_says_what_it_costs(name: str) -> None:
    assert name not in {*ENSEMBLES, *SHORTHANDS}
    attack = SPECS[name].asked(name, {"norm": "linf", "epsilon": 8 / 255})
    assert isinstance(attack, Attack)
    assert attack.name == name == name_and_steps(attack.label)[0]
    assert attack.passes > 0


def test_every_word_is_unlike_the_others() -> None:
    words = attack_words()
    assert len(set(words)) == len(words)
    assert {*ATTACKS} == {*SPECS}


@pytest.mark.parametrize(
    ("label", "read"),
    [
        (counted("pgd", 20), ("pgd", 20)),
        ("fgsm", ("fgsm", None)),
        ("autoattack-10-steps", ("autoattack-10-steps", None)),
        ("pgd-0", ("pgd-0", None)),
        ("cw-3", ("cw-3", None)),
    ],
)
def test_a_label_says_its_attack_and_its_steps(label: str, read: tuple[str, int | None]) -> None:
    assert name_and_steps(label) == read
