"""McNemar's test and its interval against their definitions, and what a user may name A and B by."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from arat_ray.frontier.compare import PairedTest, as_json, compare, find, mcnemar, paired_interval
from arat_ray.frontier.evaluations import Conditions
from arat_ray.report.printing import print_comparison
from tests.frontier.tables import add, evaluated, judged
from tests.frontier.test_pareto import accuracies, write

ANY = Conditions()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two trials with a checkpoint each, and no evaluation yet."""
    folder = tmp_path / "study"
    rows = [accuracies(0.9, 0.5, checkpoint=f"checkpoints/t{i}/last.pt") for i in (0, 1)]
    write(folder, *rows)
    for i in (0, 1):
        path = folder / "checkpoints" / f"t{i}"
        path.mkdir(parents=True)
        (path / "last.pt").write_bytes(b"weights %d" % i)
    return folder


def checkpoint(study: Path, trial: int) -> Path:
    return study / "checkpoints" / f"t{trial}" / "last.pt"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measure(study: Path, trial: int, verdicts: str, **changes: Any) -> str:
    known = {"checkpoint_sha256": digest(checkpoint(study, trial))}
    return judged(study, f"t{trial}", verdicts, **(known | changes))


def printed(comparison: PairedTest) -> str:
    from io import StringIO

    from rich.console import Console

    file = StringIO()
    print_comparison(comparison, Console(file=file, width=160))
    return file.getvalue()


# ----------------------------------------------------------------------------------------- the statistics


def test_the_p_of_one_against_five_by_hand() -> None:
    # Of six fair tosses at most one lands on the rarer side, either way: 2 (1 + 6) / 64.
    assert mcnemar(1, 5) == mcnemar(5, 1) == 14 / 64


def test_the_p_without_a_difference_is_one() -> None:
    assert mcnemar(0, 0) == mcnemar(7, 7) == mcnemar(7, 8) == 1.0


@pytest.mark.parametrize("only_a", [0, 1, 2, 9, 40, 300])
@pytest.mark.parametrize("only_b", [0, 1, 3, 10, 61, 344])
def test_the_p_is_that_of_scipy_s_binomial_test(only_a: int, only_b: int) -> None:
    if only_a + only_b:
        expected = binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_the_p_is_exact_where_floats_overflow() -> None:
    ways = sum(comb(1200, i) for i in range(571))
    assert mcnemar(570, 630) == float(Fraction(2 * ways, 2**1200))
    assert mcnemar(0, 5_000) == 0.0


def test_the_interval_is_that_of_its_author_s_own_program() -> None:
    """statpsych's documented ci.prop.ps(.05, 12, 4, 26, 6): 26 and 4 of 48 pairs disagree."""
    assert paired_interval(26, 4, 48) == pytest.approx((0.2548067, 0.6251933), abs=1e-7)
    low, high = paired_interval(4, 26, 48)
    assert (low, high) == pytest.approx((-0.6251933, -0.2548067), abs=1e-7)


def test_the_interval_stays_among_differences_that_can_be() -> None:
    assert paired_interval(1, 0, 1)[1] == 1.0
    assert paired_interval(0, 1, 1)[0] == -1.0
    low, high = paired_interval(0, 0, 10)
    assert low == -high < 0


# ------------------------------------------------------------------------------------------- a comparison


def test_a_comparison_by_hand(study: Path) -> None:
    measure(study, 0, "rrrrrrrccx")
    measure(study, 1, "rrcxxxxrcr")
    found = compare(checkpoint(study, 0), checkpoint(study, 1), ANY)
    assert found.images == 10
    clean, robust = found.clean, found.robust
    assert (clean.both, clean.only_a, clean.only_b, clean.a, clean.b) == (5, 4, 1, 0.9, 0.6)
    assert (robust.both, robust.only_a, robust.only_b, robust.a, robust.b) == (2, 5, 2, 0.7, 0.4)
    assert clean.difference == pytest.approx(0.3)
    assert clean.interval == paired_interval(4, 1, 10)
    assert clean.p == 2 * (1 + 5) / 32
    assert robust.p == 2 * (1 + 7 + 21) / 128


def test_only_images_that_both_measured_count_and_it_is_said(study: Path) -> None:
    measure(study, 0, "rrrrrx")
    measure(study, 1, "xxrr", first=4)
    found = compare(checkpoint(study, 0), checkpoint(study, 1), ANY)
    assert (found.images, found.a.images, found.b.images) == (2, 6, 4)
    assert (found.clean.only_a, found.clean.only_b, found.clean.both) == (1, 0, 0)
    assert "2 test images that both measured, of 6 of A and 4 of B" in printed(found)


def test_what_cannot_be_told_apart_is_said_in_words(study: Path) -> None:
    measure(study, 0, "rrrrc" + "r" * 10)
    measure(study, 1, "rrrxr" + "c" * 10)
    text = printed(compare(checkpoint(study, 0), checkpoint(study, 1), ANY))
    assert "clean accuracy: A and B cannot be told apart: right by A alone 1, by B alone 0; a fair coin" in text
    assert "robust accuracy: A is above B by 66.67 points: right by A alone 11, by B alone 1; p = 0.0063" in text
    assert "A: AutoAttack, Linf, 8/255 (0.031)" in text
    measure(study, 1, "rrrrc" + "r" * 10, key="later")
    text = printed(compare(checkpoint(study, 0), checkpoint(study, 1), ANY))
    assert text.count("A and B get the same images right") == 2


def test_two_attacks_on_one_checkpoint_head_their_own_columns(study: Path) -> None:
    strong = measure(study, 0, "rrcc")
    weak = measure(study, 0, "rrrc", attack="pgd-20")
    found = compare(study / strong, study / weak, ANY)
    assert (found.clean.only_a, found.clean.only_b) == (0, 0)
    assert (found.robust.a, found.robust.b) == (0.5, 0.75)
    text = printed(found)
    assert "A: AutoAttack, Linf, 8/255 (0.031)" in text
    assert "B: PGD-20, Linf, 8/255 (0.031)" in text


def test_json_has_all_that_the_table_shows(study: Path) -> None:
    a, b = measure(study, 0, "rcx"), measure(study, 1, "rrr")
    answer = as_json(compare(study / a, study / b, ANY))
    assert (answer["a"]["evaluation_id"], answer["b"]["evaluation_id"]) == (a, b)
    assert (answer["a"]["study"], answer["split"], answer["images"]) == (str(study), "test", 3)
    low, high = paired_interval(0, 2, 3)
    robust = answer["robust_accuracy"]
    assert [robust[name] for name in ("both", "only_a", "only_b", "p", "low", "high")] == [1, 0, 2, 0.5, low, high]
    assert [robust[name] for name in ("a", "b", "difference")] == pytest.approx([1 / 3, 1, -2 / 3])


def test_evaluations_of_other_data_other_splits_or_no_common_image_are_refused(study: Path) -> None:
    a = measure(study, 0, "rrr")
    apart = measure(study, 1, "rrr", first=3)
    validation = measure(study, 1, "rrr", split="validation")
    with pytest.raises(ValueError, match="have no image in common"):
        compare(study / a, study / apart, ANY)
    with pytest.raises(ValueError, match="A is of the test split and B of the validation split"):
        compare(study / a, study / validation, ANY)
    with pytest.raises(ValueError, match=f"are the same evaluation, {a}"):
        compare(study / a, checkpoint(study, 0), ANY)
    other = measure(study, 1, "rrr", key="other")
    add(study, "examples", {"evaluation_id": other, "index": 1, "label": 7, "clean_correct": True})
    with pytest.raises(ValueError, match="1 of 3 images have other labels, image 1 has 1 in A and 7 in B"):
        compare(study / a, study / other, ANY)
    bare = evaluated(study, "t1", clean=3, robust=3, key="bare")
    with pytest.raises(ValueError, match=f"no verdicts of {bare} in `examples`; evaluate it again"):
        compare(study / a, study / bare, ANY)


# ------------------------------------------------------------------------------------ what A and B may be


def test_of_equal_conditions_the_newest_counts(study: Path) -> None:
    measure(study, 0, "rrr")
    newer = measure(study, 0, "rrc", key="newer")
    assert find(checkpoint(study, 0), ANY) == find(study / newer, ANY)


def test_an_exact_evaluation_counts_before_a_fast_one_under_equal_conditions_only(study: Path) -> None:
    fast = {"attack_version": "arat-ray 0.1, fast"}
    exact = measure(study, 0, "rrr")
    measure(study, 0, "rrc", key="fast", **fast)
    assert find(checkpoint(study, 0), ANY)[1].evaluation_id == exact
    assert find(checkpoint(study, 0), Conditions(mode="fast"))[1].evaluation_id.endswith("-fast")
    measure(study, 0, "rrc", key="other", norm="l2", **fast)
    with pytest.raises(ValueError, match=r"has 2 evaluations; choose with .* or --mode"):
        find(checkpoint(study, 0), ANY)


def test_several_evaluations_are_listed_with_how_to_choose(study: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"attack": "pgd-20"}, {"epsilon": 0.5, "key": "wide"}]
    ids = [measure(study, 0, "rr", **change) for change in changes]
    with pytest.raises(ValueError, match=r"has 3 evaluations; choose with --attack, --split, --norm") as caught:
        find(checkpoint(study, 0), ANY)
    assert f"\n  {study}/{ids[1]}: t0 last, pgd-20 linf 8/255, test split, 2 images" in str(caught.value)
    assert f"\n  {study}/{ids[2]}: t0 last, autoattack linf 0.5, test split, 2 images" in str(caught.value)
    for asked, expected in [
        (Conditions(attack="pgd-20"), ids[1]),
        (Conditions(attack="pgd"), ids[1]),
        (Conditions(epsilon=0.5), ids[2]),
        (Conditions(attack="autoattack", epsilon=8 / 255), ids[0]),
    ]:
        assert find(checkpoint(study, 0), asked)[1].evaluation_id == expected


def test_the_deployed_average_is_preferred_to_the_weights_trained_last(study: Path) -> None:
    measure(study, 0, "rr", checkpoint="swa")
    measure(study, 0, "rc", key="raw")
    assert find(checkpoint(study, 0), ANY)[1].checkpoint == "swa"


def test_the_folder_of_a_trial_is_the_checkpoint_that_it_names(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation_id = measure(study, 0, "rr")
    (study / "checkpoints" / "t0" / "best.pt").write_bytes(b"better")
    assert find(study / "checkpoints" / "t0", ANY)[1].evaluation_id == evaluation_id
    monkeypatch.chdir(study / "checkpoints" / "t0")
    assert find(Path("last.pt"), ANY)[1].evaluation_id == evaluation_id
    assert find(Path("."), ANY)[1].evaluation_id == evaluation_id


def test_a_beginning_of_an_id_is_enough_where_it_is_unique(study: Path) -> None:
    a = measure(study, 0, "rr", checkpoint_sha256="abc1")
    b = measure(study, 1, "rr", checkpoint_sha256="abd2")
    longer = measure(study, 1, "rc", checkpoint_sha256="abd2", key="kk")
    assert find(study / "abc", ANY)[1].evaluation_id == a
    assert find(study / b, ANY)[1].evaluation_id == b != longer
    with pytest.raises(ValueError, match="3 evaluations begin with 'ab'; there is\n"):
        find(study / "ab", ANY)
    with pytest.raises(ValueError, match=f"no evaluation 'zz'; there is\n  {study}/abc1-test-autoattack-k: t0 last"):
        find(study / "zz", ANY)


def test_what_is_no_evaluation_says_what_there_is_and_how_to_measure_it(study: Path, tmp_path: Path) -> None:
    def refused(target: Path, asked: Conditions = ANY) -> str:
        with pytest.raises(ValueError, match=re.escape(str(target))) as caught:
            find(target, asked)
        return str(caught.value)

    path = checkpoint(study, 0)
    assert refused(path) == (
        f"{path} was not evaluated; there is nothing of this file, and of the study's others none yet; "
        f"measure it with: arat-ray evaluate {path} --attack ATTACK --epsilon 8/255 --split SPLIT"
    )
    measure(study, 0, "rr")
    assert "there is autoattack linf 8/255, test split, 2 images (last of 1 trial); measure it with: " in refused(
        path, Conditions(attack="pgd-50", norm="l2", epsilon=0.5, split="validation")
    )
    asked = Conditions(attack="pgd-50", norm="l2", epsilon=0.5, split="validation", images=7)
    command = f"evaluate {path} --attack pgd --steps 50 --norm l2 --epsilon 0.5 --split validation --images 7"
    assert refused(path, asked).endswith(command)
    assert "was not evaluated with --attack pgd-50 --split validation --norm l2 --epsilon 0.5" in refused(path, asked)
    assert "is a study; name one of its checkpoints" in refused(study)
    assert "has no trial 't7'" in refused(_folder(study / "checkpoints" / "t7"))
    assert "is a folder and not checkpoints/TRIAL of a study" in refused(_folder(tmp_path / "a" / "b"))
    assert "there is no such checkpoint, and" in refused(study / "checkpoints" / "t0" / "first.pt")
    loose = tmp_path / "loose.pt"
    loose.touch()
    assert "belongs to no study" in refused(loose)
    path.unlink()
    assert f"the trial's checkpoint is not there; name an evaluation:\n  {study}/" in refused(path.parent)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("named", ["../../elsewhere.pt", "/etc/hostname", "checkpoints/../../x", "checkpoints\\t0", ""])
def test_a_table_that_names_a_checkpoint_outside_of_its_study_is_refused(named: str, tmp_path: Path) -> None:
    from arat_ray.evaluation.request import checkpoints_of

    folder = tmp_path / "study"
    write(folder, accuracies(0.9, 0.5, checkpoint=named))
    (folder / "checkpoints" / "t0").mkdir(parents=True)
    for refuse in (lambda: find(folder / "checkpoints" / "t0", ANY), lambda: checkpoints_of(folder, front=True)):
        with pytest.raises(ValueError, match="is no name of a file below"):
            refuse()


# --------------------------------------------------------------------------------- where several evaluations fit


def test_the_only_evaluation_that_both_have_is_taken(study: Path) -> None:
    measure(study, 0, "rrc")
    measure(study, 0, "rrr", attack="pgd-20")
    measure(study, 0, "rrr", split="validation")
    measure(study, 1, "rcc")
    measure(study, 1, "rcc", attack="pgd-50")
    found = compare(checkpoint(study, 0), checkpoint(study, 1), ANY)
    assert (found.a.attack, found.b.attack, found.a.split) == ("autoattack", "autoattack", "test")
    with pytest.raises(ValueError, match=r"t1/last.pt has 2 evaluations; choose with"):
        find(checkpoint(study, 1), ANY)


def test_of_a_single_evaluation_that_of_the_same_conditions_is_taken_from_the_other(study: Path) -> None:
    measure(study, 0, "rrc", attack="pgd-20")
    measure(study, 1, "rcc", attack="pgd-20")
    measure(study, 1, "rcc")
    for a, b in ((0, 1), (1, 0)):
        found = compare(checkpoint(study, a), checkpoint(study, b), ANY)
        assert (found.a.attack, found.b.attack) == ("pgd-20", "pgd-20")
    single = read_only(study, 0)
    assert compare(study / single, checkpoint(study, 1), ANY).b.attack == "pgd-20"


def read_only(study: Path, trial: int) -> str:
    return find(checkpoint(study, trial), ANY)[1].evaluation_id


@pytest.mark.parametrize("other", [{"attack": "pgd-20"}, {"norm": "l2", "epsilon": 0.5}])
def test_two_networks_under_different_attacks_are_compared_by_id_only(study: Path, other: dict[str, Any]) -> None:
    ids = measure(study, 0, "rrcx"), measure(study, 1, "rcrx", **other)
    with pytest.raises(ValueError, match=r"two networks are compared under one attack; measure both alike") as error:
        compare(checkpoint(study, 0), checkpoint(study, 1), ANY)
    assert all(each in str(error.value) for each in ids)
    assert compare(study / ids[0], study / ids[1], ANY).images == 4


def test_of_several_in_common_those_are_listed_and_none_is_taken(study: Path) -> None:
    for trial in (0, 1):
        measure(study, trial, "rrc")
        measure(study, trial, "rrr", attack="pgd-20")
    measure(study, 0, "rrr", attack="pgd-50")
    with pytest.raises(ValueError, match=r"both have 2 evaluations; choose with --attack") as caught:
        compare(checkpoint(study, 0), checkpoint(study, 1), ANY)
    assert "pgd-50" not in str(caught.value)
    assert compare(checkpoint(study, 0), checkpoint(study, 1), Conditions(attack="pgd")).a.attack == "pgd-20"


def test_without_one_in_common_the_ambiguous_side_is_named(study: Path) -> None:
    measure(study, 0, "rrc")
    measure(study, 1, "rcc", attack="pgd-20")
    measure(study, 1, "rcc", attack="pgd-50")
    with pytest.raises(ValueError, match=r"t1/last.pt has 2 evaluations"):
        compare(checkpoint(study, 0), checkpoint(study, 1), ANY)


def test_a_misspelled_attack_is_answered_with_the_nearest(study: Path) -> None:
    measure(study, 0, "rrc")
    with pytest.raises(ValueError, match=r"no attack 'autoatack' \(evaluated: autoattack\); did you mean 'autoattack'"):
        find(checkpoint(study, 0), Conditions(attack="autoatack"))
