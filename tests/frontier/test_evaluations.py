"""A front of evaluations: which row counts for which trial, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arat_ray.frontier.dominance import wilson
from arat_ray.frontier.evaluations import Conditions, read
from arat_ray.frontier.pareto import Front, load_front
from arat_ray.report import printing
from arat_ray.report.figure import caption, plot_front
from tests.frontier.tables import AUTOATTACK, add, evaluated
from tests.frontier.test_pareto import accuracies, numbers, write

ASKED = Conditions(attack="autoattack", split="test")
AVERAGED = json.dumps({"averaging": {"name": "swa"}, "epochs": 100}, sort_keys=True)


def trial(number: int, clean: float = 0.9, robust: float = 0.5, **changes: Any) -> dict[str, Any]:
    known = {"checkpoint": f"checkpoints/t{number}/last.pt", "config": '{"averaging": null}'}
    return accuracies(clean, robust, **(known | changes))


def front_of(*studies: Path, **conditions: Any) -> Front:
    return load_front(studies, asked=Conditions(**({"attack": "autoattack", "split": "test"} | conditions)))


def shown(front: Front) -> list[tuple[int, float, float]]:
    return [(each["number"], each["clean_accuracy"], each["robust_accuracy"]) for each in front.trials]


def refused(*studies: Path, **conditions: Any) -> str:
    with pytest.raises(ValueError, match=r"evaluat|--attack") as caught:
        front_of(*studies, **conditions)
    return str(caught.value)


def test_the_front_of_evaluations_by_hand(tmp_path: Path) -> None:
    study = write(tmp_path / "s", trial(0, 0.9, 0.1), trial(1, 0.1, 0.9), trial(2, 0.8, 0.8), trial(3, 1.0, 1.0))
    evaluated(study, "t0", clean=800, robust=300)
    evaluated(study, "t1", clean=700, robust=400)
    evaluated(study, "t2", clean=700, robust=300)
    front = front_of(study)
    assert shown(front) == [(0, 0.8, 0.3), (1, 0.7, 0.4)]
    assert front.hypervolume == pytest.approx(0.8 * 0.3 + 0.7 * 0.1)
    assert (front.attack, front.norm, front.epsilon) == ("autoattack", "linf", 8 / 255)
    assert (front.split, front.images) == ("test", 1000)
    assert front.others.points.tolist() == [[0.7, 0.3]]
    assert front.coverage == (3, 4, True)
    first = front.trials[0]
    assert (first["robust_accuracy_low"], first["robust_accuracy_high"]) == wilson(300, 1000)
    assert (first["attack"], first["split"], first["images"]) == ("autoattack", "test", 1000)
    assert first.keys() - load_front([study]).trials[0].keys() == {"warnings"}
    assert numbers(load_front([study])) == [3], "without --attack the trials' own values count"


def test_how_many_trials_were_evaluated_is_said_everywhere(tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    study = write(tmp_path / "s", trial(0), trial(1), trial(2, status="stopped", is_full_fidelity=False))
    evaluated(study, "t0", clean=800, robust=300)
    evaluated(study, "t2", clean=900, robust=300)
    front, file = front_of(study), StringIO()
    printing.print_table(front, Console(file=file, width=160))
    line = "robust accuracy: AutoAttack, Linf, 8/255 (0.031); test split, 1000 images; 1 of 2 complete trials evaluated"
    assert line in file.getvalue()
    assert printing.as_json(front)["coverage"] == {"evaluated": 1, "trials": 2, "are_complete": True}
    assert "1 of 2 complete trials evaluated, 1 on the front" in caption(front)
    partial = load_front([study], include_partial=True, asked=ASKED)
    assert str(partial.coverage) == "2 of 3 trials evaluated"
    assert numbers(partial) == [2]
    assert printing.as_json(load_front([study]))["coverage"] is None


def test_what_makes_an_evaluation_doubtful_is_shown_with_the_front(tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    study = write(tmp_path / "s", trial(0), trial(1))
    evaluated(study, "t0", clean=800, robust=300, warnings="saturated: the cross-entropy is flat")
    evaluated(study, "t1", clean=900, robust=200)
    front, file = front_of(study), StringIO()
    assert [each["warnings"] for each in front.trials] == [None, "saturated: the cross-entropy is flat"]
    printing.print_table(front, Console(file=file, width=160))
    assert "warning: t0: saturated: the cross-entropy is flat" in file.getvalue()


def test_a_goal_that_is_no_accuracy_keeps_the_value_of_the_trial(tmp_path: Path) -> None:
    goals = ("robust_accuracy", "train_s")
    study = write(tmp_path, trial(0, train_s=3.0), trial(1, train_s=2.0), trial(2, train_s=None), goals=goals)
    for number in range(3):
        evaluated(study, f"t{number}", clean=800, robust=300 + number)
    front = front_of(study)
    assert [(each["robust_accuracy"], each["train_s"]) for each in front.trials] == [(0.301, 2.0), (0.3, 3.0)]
    assert front.coverage == (2, 2, True)
    other = write(tmp_path / "other", trial(0, train_s=3.0), goals=("train_s",), reference=(0.0,))
    assert "no goal of train_s is an accuracy: leave --attack autoattack --split test out" in refused(other)


def test_of_equal_conditions_the_newest_counts_with_the_clean_accuracy_measured_with_it(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0))
    evaluated(study, "t0", clean=800, robust=300)
    evaluated(study, "t0", clean=801, robust=299, key="newer")
    evaluated(study, "t0", clean=900, robust=500, key="validation", split="validation")
    evaluated(study, "t0", clean=700, robust=600, key="weak", attack="pgd-20", indices_sha256="others")
    assert shown(front_of(study)) == [(0, 0.801, 0.299)]
    assert shown(front_of(study, attack="pgd")) == [(0, 0.7, 0.6)]


def test_the_checkpoint_that_the_trial_names_counts(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0, checkpoint="checkpoints/t0/best.pt"), trial(1))
    for number in (0, 1):
        evaluated(study, f"t{number}", clean=800, robust=300, checkpoint="best", checkpoint_sha256=f"best {number}")
        evaluated(study, f"t{number}", clean=900, robust=200, checkpoint="last", checkpoint_sha256=f"last {number}")
    assert {each["trial_id"]: each["robust_accuracy"] for each in front_of(study).trials} == {"t0": 0.3, "t1": 0.2}


def test_of_two_files_with_averages_the_named_one_counts_wherever_its_row_stands(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0, checkpoint="checkpoints/t0/best.pt", config=AVERAGED))
    path = study / "checkpoints" / "t0" / "best.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the best")
    best = hashlib.sha256(b"the best").hexdigest()
    evaluated(study, "t0", clean=800, robust=300, checkpoint="swa", checkpoint_sha256=best)
    evaluated(study, "t0", clean=900, robust=400, checkpoint="swa", checkpoint_sha256="of last.pt")
    assert shown(front_of(study)) == [(0, 0.8, 0.3)]
    path.unlink()
    assert shown(front_of(study)) == [(0, 0.9, 0.4)], "where only the tables were copied, the newest"


def test_where_the_run_averaged_only_the_average_counts(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0, config=AVERAGED), trial(1, config=AVERAGED))
    for number, weights in ((0, "swa"), (0, "last"), (1, "last")):
        evaluated(study, f"t{number}", clean=800, robust=300, checkpoint=weights, key=weights)
    front = front_of(study)
    assert (numbers(front), front.coverage) == ([0], (1, 2, True))


def test_a_front_over_studies_needs_an_evaluation_in_each(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", trial(0)), write(tmp_path / "b", trial(0))
    evaluated(first, "t0", clean=800, robust=300)
    assert f"{second}: no checkpoint that its trials name was evaluated" in refused(first, second)
    evaluated(second, "t0", clean=700, robust=400, checkpoint_sha256="of b")
    assert [each["study"] for each in front_of(first, second).trials] == [str(first), str(second)]


def test_without_the_evaluation_there_is_said_what_there_is_and_how_to_measure_it(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0), trial(1))
    problem = f"{study}: no checkpoint that its trials name was evaluated with --attack"
    command = f"arat-ray evaluate {study} --attack autoattack --epsilon 8/255 --split test"
    assert refused(study) == f"{problem} autoattack --split test; there is none yet; measure it with: {command}"
    for number in (0, 1):
        evaluated(study, f"t{number}", clean=800, robust=300, attack="pgd-20", norm="l2", epsilon=0.5)
    there = "there is pgd-20 l2 0.5, test split, 1,000 images (last of 2 trials)"
    assert there in refused(study)
    assert refused(study, attack="pgd-50").endswith("--attack pgd --steps 50 --epsilon 8/255 --split test")
    assert there in refused(study, attack="pgd-20", epsilon=0.25)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"split": None}, "beside --attack autoattack there is no --split: "),
        ({"attack": None}, "beside --split test there is no --attack: "),
        ({"attack": None, "split": None, "norm": "l2"}, "beside --norm l2 there is no --attack and no --split: "),
    ],
)
def test_attack_and_split_belong_together(tmp_path: Path, conditions: dict[str, Any], message: str) -> None:
    study = write(tmp_path, trial(0))
    evaluated(study, "t0", clean=800, robust=300)
    there = f"{study} has autoattack linf 8/255, test split, 1,000 images (last of 1 trial)"
    assert refused(study, **conditions) == f"--attack and --split belong together, and {message}{there}"


def test_clean_accuracy_alone_is_no_front() -> None:
    with pytest.raises(ValueError, match="--attack none: clean accuracy is shown beside that under any attack"):
        Conditions(attack="none", split="test")


@pytest.mark.parametrize(
    ("asked", "changes", "option"),
    [
        ({"attack": "pgd"}, {"attack": "pgd-50"}, {"attack": "pgd-20"}),
        ({"attack": "pgd-20"}, {"attack": "pgd-20", "norm": "l2"}, {"norm": "linf"}),
        ({"attack": "pgd-20"}, {"attack": "pgd-20", "epsilon": 0.5}, {"epsilon": 0.03137}),
        ({"attack": "pgd-20"}, {"attack": "pgd-20", "images": 900}, {"images": 1000}),
    ],
)
@pytest.mark.parametrize("where", ["t0", "t1"])
def test_mixed_conditions_are_listed_and_an_option_chooses(
    tmp_path: Path, asked: dict[str, Any], changes: dict[str, Any], option: dict[str, Any], where: str
) -> None:
    study = write(tmp_path, trial(0), trial(1))
    evaluated(study, "t0", clean=800, robust=300, attack="pgd-20")
    evaluated(study, where, clean=700, robust=400, key="other", **changes)
    (name,) = option
    message = refused(study, **asked)
    assert f"differ in {name}: pgd-20 linf 8/255, test split, 1,000 images (last of 1 trial); " in message
    assert message.endswith(f"choose with --{name}")
    assert shown(front_of(study, **(asked | option))) == [(0, 0.8, 0.3)]


@pytest.mark.parametrize("column", ["attack_version", "indices_sha256"])
def test_another_version_or_other_images_are_refused_until_all_are_measured_anew(tmp_path: Path, column: str) -> None:
    study = write(tmp_path, trial(0), trial(1))
    evaluated(study, "t0", clean=800, robust=300)
    evaluated(study, "t1", clean=700, robust=400, **{column: "new"})
    message = refused(study)
    assert f"differ in {column}: " in message
    assert "new (1 of the trials); measure all anew with: arat-ray evaluate " in message
    evaluated(study, "t0", clean=801, robust=300, key="newer", **{column: "new"})
    assert shown(front_of(study)) == [(0, 0.801, 0.3), (1, 0.7, 0.4)]


FAST = {"attack_version": "arat-ray 0.1, fast", "key": "fast"}


def test_exact_evaluations_count_before_fast_ones_and_mode_chooses(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0), trial(1))
    evaluated(study, "t0", clean=800, robust=300)
    evaluated(study, "t0", clean=800, robust=301, **FAST)
    evaluated(study, "t1", clean=700, robust=402, **FAST)
    message = refused(study)
    assert "differ in attack_version: " in message
    assert "choose with --mode, or measure all anew with: arat-ray evaluate" in message
    assert shown(front_of(study, mode="fast")) == [(0, 0.8, 0.301), (1, 0.7, 0.402)]
    assert shown(front_of(study, mode="exact")) == [(0, 0.8, 0.3)]
    evaluated(study, "t1", clean=700, robust=400)
    evaluated(study, "t1", clean=700, robust=402, **FAST)
    assert shown(front_of(study)) == [(0, 0.8, 0.3), (1, 0.7, 0.4)]
    assert "--mode fast" in refused(study, mode="fast", norm="l2")


def test_a_row_without_its_clean_accuracy_is_no_evaluation(tmp_path: Path) -> None:
    study = write(tmp_path, trial(0))
    assert read(study) == []
    evaluation_id = evaluated(study, "t0", clean=800, robust=300)
    add(study, "evaluations", {"evaluation_id": "alone", **AUTOATTACK, "trial_id": "t0", "correct": 1})
    (row,) = read(study)
    assert (row.evaluation_id, row.clean_correct, row.correct, row.images) == (evaluation_id, 800, 300, 1000)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("autoatack", "did you mean 'autoattack'?"),
        ("AutoAttack", "did you mean 'autoattack'?"),
        ("auto", "did you mean 'autoattack'?"),
        ("pgd20", "did you mean 'pgd-20'?"),
        ("pgd-0", "did you mean 'pgd-20'?"),
        ("sqare", "did you mean 'square'?"),
        ("cw", "known: apgd, autoattack, autoattack-10-steps, fgsm, pgd, pgd-20, pgd-any, square"),
    ],
)
@pytest.mark.parametrize("split", ["test", None])
def test_an_attack_that_is_none_is_answered_with_what_was_meant_and_what_there_is(
    word: str, meant: str, split: str | None, tmp_path: Path
) -> None:
    study = write(tmp_path, trial(0))
    evaluated(study, "t0", clean=800, robust=300, attack="pgd-20")
    assert refused(study, attack=word, split=split) == f"--attack: no attack {word!r} (evaluated: pgd-20); {meant}"


def test_the_command_that_measures_can_be_pasted(tmp_path: Path) -> None:
    study = write(tmp_path / "my study; $(x)", trial(0))
    command = refused(study).partition("measure it with: ")[2]
    assert shlex.split(command)[:3] == ["arat-ray", "evaluate", str(study)]
    assert "--norm" not in command


def test_the_command_that_measures_names_the_norm_of_the_search(tmp_path: Path) -> None:
    study = write(tmp_path / "small", trial(0, norm="l2", epsilon=0.5))
    assert shlex.split(refused(study).partition("measure it with: ")[2])[3:] == [
        *("--attack", "autoattack", "--norm", "l2", "--epsilon", "0.5", "--split", "test"),
    ]


def test_what_was_measured_before_a_trial_went_on_is_not_what_it_has(tmp_path: Path) -> None:
    study = write(tmp_path / "s", trial(0, 0.9, 0.37, epochs_done=30), trial(1, 0.6, 0.7, epochs_done=30))
    evaluated(study, "t0", clean=850, robust=219, epoch=12, checkpoint_sha256="as it was at epoch 12")
    evaluated(study, "t1", clean=620, robust=586, epoch=30)
    assert [each["trial_id"] for each in front_of(study).trials] == ["t1"]
    evaluated(study, "t0", clean=880, robust=300, epoch=30)
    assert [each["clean_accuracy"] for each in front_of(study).trials] == [0.88, 0.62]


def test_of_a_trial_that_was_interrupted_between_two_checkpoints_the_last_one_counts(tmp_path: Path) -> None:
    stopped = {"status": "stopped", "is_full_fidelity": False, "epochs_done": 14}
    study = write(tmp_path / "s", trial(0, 0.9, 0.37), trial(1, 0.6, 0.7, **stopped))
    evaluated(study, "t1", clean=620, robust=586, epoch=10)
    front = load_front([study], asked=Conditions(attack="autoattack", split="test"), include_partial=True)
    assert [each["trial_id"] for each in front.trials] == ["t1"]


@pytest.mark.parametrize("written", [(8 / 255, 0.031373), (16 / 255, 0.062745)])
@pytest.mark.parametrize("asked", [None, 0, 1])
def test_one_epsilon_that_was_written_in_two_ways_is_one(
    written: tuple[float, float], asked: int | None, tmp_path: Path
) -> None:
    study = write(tmp_path / "s", trial(0, 0.9, 0.37), trial(1, 0.6, 0.7))
    evaluated(study, "t0", clean=850, robust=219, epsilon=written[0])
    evaluated(study, "t1", clean=620, robust=586, epsilon=written[1])
    assert len(front_of(study, epsilon=None if asked is None else written[asked]).trials) == 2


def test_the_front_of_evaluations_shows_beside_it_what_the_search_measured(tmp_path: Path) -> None:
    study = write(tmp_path / "s", trial(0, 0.9, 0.37, split="validation"), trial(1, 0.6, 0.7, split="validation"))
    evaluated(study, "t0", clean=850, robust=219)
    evaluated(study, "t1", clean=620, robust=586)
    front = front_of(study)
    assert front.searched is not None
    assert front.searched.points.tolist() == [[0.9, 0.37], [0.6, 0.7]]
    assert (front.searched.attack, front.searched.split) == ("pgd-20", "validation")
    assert load_front([study]).searched is None
    file = io.StringIO()
    printing.print_table(front, Console(file=file, width=160))
    lines = file.getvalue().splitlines()
    assert "in the search" in lines[1]
    assert [line.split("  ")[0] for line in lines[2:4]] == ["t0", "t1"]
    assert ("37.0" in lines[2], "70.0" in lines[3]) == (True, True)
    assert "in the search: robust accuracy under PGD-20, " in file.getvalue()
    plot_front(front, tmp_path / "front.svg")
    assert "in the search: PGD-20, validation split" in (tmp_path / "front.svg").read_text()
