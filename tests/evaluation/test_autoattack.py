"""AutoAttack as jobs, against the reference code bit for bit; in any order, killed and resumed, for few classes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from arat_ray.evaluation import autoattack
from arat_ray.evaluation.autoattack import Attacker, AttackProgress, AttackResult, Job, Verdicts, one_after_another
from arat_ray.evaluation.ensembles import AttackPlan, Ensemble
from arat_ray.evaluation.records import Records
from arat_ray.training.data.splits import ImageSet
from tests.evaluation.nets import digits, nearest_mean, plan, steps_of, trained_in, unit, with_queries

BATCH = 8
"""Of 12 digits: ragged without an attack, and again of those that an attack leaves."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_in(tmp_path_factory.mktemp("trained"))


def reference(model: nn.Module, data: ImageSet, chosen: AttackPlan, *, seed: int, batch_size: int) -> Tensor:
    """Adversarial images [N, C, H, W] of the published code's standard version, with a plan's targets and steps."""
    norm = {"linf": "Linf", "l2": "L2"}[chosen.norm]
    attack = AutoAttack(model, norm=norm, eps=chosen.epsilon, seed=seed, version="standard")
    fab, square = steps_of(chosen)[-2:]
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = fab.targets
    attack.square.n_queries = square.steps
    if fab.steps != 100:
        common: dict[str, Any] = {"norm": norm, "eps": chosen.epsilon, "device": "cpu", "n_iter": fab.steps}
        attack.apgd = APGDAttack(model, logger=attack.logger, **common)
        attack.apgd_targeted = APGDAttack_targeted(model, logger=attack.logger, n_target_classes=fab.targets, **common)
        attack.fab.n_iter = fab.steps
    tracer = sys.gettrace()  # its check for dynamic models takes the tracer away
    try:
        x_adv: Tensor = attack.run_standard_evaluation(unit(data), data.labels, batch_size=batch_size)[0]
    finally:
        sys.settrace(tracer)
    return x_adv


def verdicts(model: nn.Module, x_adv: Tensor, data: ImageSet) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(x_adv)
    return logits.argmax(1) == data.labels


def attacker(model: nn.Module, chosen: AttackPlan, data: ImageSet, seed: int = 1) -> Attacker:
    return Attacker(model, data, chosen, seed=seed, keep_images=True)


def assert_same(left: AttackResult, right: AttackResult) -> None:
    assert left.attacks == right.attacks
    for a, b in ((left.broken_by, right.broken_by), (left.margins, right.margins), (left.images, right.images)):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


@pytest.mark.parametrize(("norm", "epsilon", "queries"), [("linf", 0.16, 400), ("l2", 0.6, 200)])
def test_verdicts_and_images_equal_the_reference_bit_for_bit(
    norm: str, epsilon: float, queries: int, trained: nn.Module
) -> None:
    whole = plan("autoattack", epsilon, norm=norm)
    published = AutoAttack(trained, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, version="standard")
    assert steps_of(whole)[-1].steps == published.square.n_queries == 5000
    data, chosen = digits(12), with_queries(whole, queries)  # its schedule is stretched to so many
    found = autoattack.run(attacker(trained, chosen, data, seed=3), batch_size=BATCH)
    x_adv = reference(trained, data, chosen, seed=3, batch_size=BATCH)
    assert found.images is not None
    assert torch.equal(found.images, x_adv)
    assert torch.equal(found.robust, verdicts(trained, x_adv, data))
    assert 0 < int(found.robust.sum()) < int(found.clean_correct.sum())
    assert found.attacks == ("clean", "apgd-ce", "apgd-t", "fab-t", "square")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_batches_of_one_and_survivors_that_leave_one_equal_the_reference(norm: str) -> None:
    """Each attack of the reference squeezes its tensors, which is another path for a single image."""
    model, data = nearest_mean(), digits(13)
    chosen = plan("autoattack", {"linf": 0.05, "l2": 0.35}[norm], norm=norm, steps=12)
    for batch_size in (6, 1):
        some = data._replace(images=data.images[:2], labels=data.labels[:2]) if batch_size == 1 else data
        found = autoattack.run(attacker(model, chosen, some), batch_size=batch_size)
        assert found.images is not None
        assert torch.equal(found.images, reference(model, some, chosen, seed=1, batch_size=batch_size))


def test_few_classes_have_fewer_targets_and_equal_the_reference_given_them() -> None:
    model, data = nearest_mean(classes=6), digits(10, classes=6)
    chosen = with_queries(plan("autoattack", 0.05, classes=6), 300)
    found = autoattack.run(attacker(model, chosen, data), batch_size=8)
    assert found.images is not None
    assert torch.equal(found.images, reference(model, data, chosen, seed=1, batch_size=8))
    assert 0 < int(found.robust.sum()) < int(found.clean_correct.sum())


@pytest.mark.parametrize(
    ("classes", "label", "attacks"),
    [
        (2, "ensemble-without-dlr", ["apgd-ce", "fab-t", "square"]),
        (3, "ensemble-without-targeted-dlr", ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
        (4, "autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (10, "autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (100, "autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
)
def test_two_and_three_classes_are_attacked_under_another_name(classes: int, label: str, attacks: list[str]) -> None:
    chosen = plan("autoattack", 0.1, classes=classes)
    assert chosen.label == label
    assert [step.name for step in steps_of(chosen)] == attacks
    assert [step.restarts for step in steps_of(chosen) if "ce" in step.name] == [5 if classes < 4 else 1]
    assert {step.targets for step in steps_of(chosen) if step.targets} == {min(9, classes - 1)}
    if classes < 10:
        model, data = nearest_mean(classes=classes), digits(8, classes=classes)
        short = plan("autoattack", 0.3, classes=classes, steps=10)
        found = autoattack.run(attacker(model, short, data), batch_size=3)
        assert int(found.robust.sum()) < int(found.clean_correct.sum())


def test_the_ten_step_variant_has_torchattacks_settings() -> None:
    chosen = plan("autoattack-10-steps", 0.1, classes=100)
    assert [(step.name, step.steps, step.targets, step.rescaled) for step in steps_of(chosen)] == [
        ("apgd-ce", 10, None, False),
        ("apgd-t", 10, 99, False),
        ("fab-t", 10, 99, False),
        ("square", 5000, None, True),
    ]
    assert str(chosen) == "autoattack-10-steps linf 0.1"


def test_a_single_class_cannot_be_attacked() -> None:
    with pytest.raises(ValueError, match="1 class: there is no wrong one"):
        Ensemble(name="square", norm="linf", epsilon=0.1).plan(1)


def test_no_attack_leaves_the_ball_or_the_unit_cube_and_margins_belong_to_its_images() -> None:
    model, data = nearest_mean(), digits(20)
    for norm, epsilon in (("linf", 0.06), ("l2", 0.4)):
        found = autoattack.run(attacker(model, plan("autoattack", epsilon, norm=norm, steps=20), data), batch_size=8)
        assert found.images is not None
        order = torch.inf if norm == "linf" else 2
        distance = torch.linalg.vector_norm((found.images - unit(data)).flatten(1), ord=order, dim=1)
        assert distance.max() <= epsilon * (1 + 1e-5)
        assert found.images.min() >= 0
        assert found.images.max() <= 1
        assert torch.equal(distance > 0, found.broken_by > 0)
        with torch.no_grad():
            logits = model(found.images)
        others = logits.scatter(1, data.labels[:, None], -torch.inf).max(1).values
        expected = logits.gather(1, data.labels[:, None]).squeeze(1) - others
        torch.testing.assert_close(found.margins, expected)
        assert torch.equal(found.margins > 0, found.robust)


def shuffled(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
    return one_after_another(attacker, random.Random(0).sample(jobs, len(jobs)))


def test_the_order_of_the_jobs_changes_no_bit() -> None:
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
    assert_same(autoattack.run(who, batch_size=4, runner=shuffled), autoattack.run(who, batch_size=4))


def test_neither_the_global_generator_nor_the_network_is_changed() -> None:
    model = nn.Sequential(nearest_mean(), nn.Dropout(0.5)).train()
    model.get_parameter("0.1.weight").requires_grad_(False)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    autoattack.run(attacker(model, plan("autoattack", 0.06, steps=3), digits(6)), batch_size=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_progress_tells_each_batch_and_how_many_images_are_left() -> None:
    told: list[AttackProgress] = []
    who = attacker(nearest_mean(), plan("apgd", 0.06, steps=5), digits(10))
    found = autoattack.run(who, batch_size=4, progress=told.append)
    assert [(each.attack, each.done, each.jobs) for each in told[:3]] == [
        ("clean", 1, 3),
        ("clean", 2, 3),
        ("clean", 3, 3),
    ]
    assert [each.unbroken for each in told] == sorted((each.unbroken for each in told), reverse=True)
    assert told[-1].unbroken == int(found.robust.sum())
    assert told[-1].images == 10
    assert [each.left_s for each in told[:3]] == [None] * 3
    assert all(each.left_s and each.left_s > 0 for each in told[3:-1])
    assert told[-1].left_s == 0


def test_images_outside_of_pixel_units_are_refused() -> None:
    data = digits(2)
    with pytest.raises(ValueError, match=r"images leave \[0, 1\]: give them in pixel units"):
        attacker(nearest_mean(), plan("square", 0.1), data._replace(images=data.images.float()))
    with pytest.raises(ValueError, match=r"images are torch.float64; give them as uint8, 0 to 255, or as float32"):
        attacker(nearest_mean(), plan("square", 0.1), data._replace(images=data.images.double() / 255))


def test_images_as_floats_get_the_verdicts_of_the_same_images_as_bytes() -> None:
    data = digits(6)
    as_bytes = autoattack.run(attacker(nearest_mean(), plan("square", 0.1), data), batch_size=4)
    floats = data._replace(images=data.images.float() / 255)
    as_floats = autoattack.run(attacker(nearest_mean(), plan("square", 0.1), floats), batch_size=4)
    assert torch.equal(as_bytes.broken_by, as_floats.broken_by)
    assert torch.equal(as_bytes.margins, as_floats.margins)


def records(who: Attacker, folder: Path, batch_size: int = 4) -> Records:
    return Records(folder, who.plan.label, who.identity(batch_size, "cpu"))


class KilledError(Exception):
    """In the middle of an evaluation."""


def test_what_was_killed_goes_on_from_its_finished_jobs_to_the_same_bits(tmp_path: Path) -> None:
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
    whole = autoattack.run(who, batch_size=4)
    ran: list[tuple[str, int]] = []

    def killed_after(jobs_left: int) -> Any:
        def runner(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
            for job, found in shuffled(attacker, jobs):
                if len(ran) >= jobs_left:
                    raise KilledError
                ran.append((job.attack, job.number))
                yield job, found

        return runner

    for jobs_left in (3, 11, 14):
        with pytest.raises(KilledError):
            autoattack.run(who, batch_size=4, records=records(who, tmp_path), runner=killed_after(jobs_left))
    resumed = autoattack.run(who, batch_size=4, records=records(who, tmp_path), runner=killed_after(1000))
    assert_same(resumed, whole)
    assert len(ran) == len(set(ran)), "a finished job ran again"
    again = autoattack.run(who, batch_size=4, records=records(who, tmp_path), runner=killed_after(0))
    assert_same(again, whole)
    assert again.wall_s == resumed.wall_s > 0


def test_records_that_are_gone_or_damaged_or_of_other_images_are_computed_again(tmp_path: Path) -> None:
    who = attacker(nearest_mean(), plan("apgd", 0.06, steps=5), digits(20))
    whole = autoattack.run(who, batch_size=4, records=records(who, tmp_path))
    files = sorted(records(who, tmp_path).folder.glob("*.safetensors"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-7])
    files[2].write_bytes(b"")
    files[3].write_bytes(files[-1].read_bytes())
    assert_same(autoattack.run(who, batch_size=4, records=records(who, tmp_path)), whole)


def test_another_network_seed_batch_size_or_attack_has_records_of_its_own(tmp_path: Path) -> None:
    model, data, chosen = nearest_mean(), digits(4), plan("apgd", 0.06, steps=2)
    other = nearest_mean()
    with torch.no_grad():
        other.get_parameter("1.bias")[0] += 1e-6
    folders = {
        records(attacker(model, chosen, data), tmp_path).folder,
        records(attacker(other, chosen, data), tmp_path).folder,
        records(attacker(model, chosen, data, seed=2), tmp_path).folder,
        records(attacker(model, chosen, data), tmp_path, batch_size=5).folder,
        records(attacker(model, plan("apgd", 0.07, steps=2), data), tmp_path).folder,
        records(attacker(model, chosen, digits(5)), tmp_path).folder,
    }
    assert len(folders) == 6
    assert records(attacker(nearest_mean(), chosen, data), tmp_path).folder in folders


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    who = attacker(nearest_mean(), plan("apgd", 0.06), digits(1))
    with pytest.raises(ValueError, match=r"cannot be written to \(Not a directory\); choose another --records"):
        records(who, tmp_path / "file")


PROGRAM = """
import sys
from pathlib import Path
from tests.evaluation.test_autoattack import attacker, digits, nearest_mean, plan, records
from arat_ray.evaluation import autoattack
who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
show = lambda progress: print(progress.attack, progress.done, flush=True)
autoattack.run(who, batch_size=4, records=records(who, Path(sys.argv[1])), progress=show)
"""


def test_a_process_ended_by_sigkill_leaves_whole_records_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("apgd-t"):
                process.send_signal(signal.SIGKILL)
                break
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
    finished = len(list(records(who, tmp_path).folder.glob("*.safetensors")))
    ran: list[Job] = []

    def counting(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        ran.extend(jobs)
        return one_after_another(attacker, jobs)

    resumed = autoattack.run(who, batch_size=4, records=records(who, tmp_path), runner=counting)
    assert_same(resumed, autoattack.run(who, batch_size=4))
    jobs = len(list(records(who, tmp_path).folder.glob("*.safetensors")))
    assert 9 <= finished < jobs == finished + len(ran)


def test_the_authors_own_package_is_taken_where_it_is_installed(tmp_path: Path) -> None:
    """The same code under the name that it has in its repository, as pip would install it from there."""
    import pyautoattack

    (tmp_path / "autoattack").symlink_to(Path(pyautoattack.__file__).parent)
    (tmp_path / "autoattack-0.1.dist-info").mkdir()
    (tmp_path / "autoattack-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: autoattack\nVersion: 0.1\n"
    )
    script = (
        "import sys, torch; from arat_ray.evaluation.attack_classes import VERSION, Step, perturb\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))\n"
        "x = torch.rand(2, 3, 2, 2); y = net(x).argmax(1)\n"
        "perturb(Step(name='apgd-ce', steps=3), net, x, y, norm='linf', epsilon=0.1, seed=0)\n"
        "print(VERSION, 'pyautoattack' in sys.modules, 'autoattack.autopgd_base' in sys.modules)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ran = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ran.stdout.split("\n")[0] == "autoattack 0.1 False True", ran.stderr
