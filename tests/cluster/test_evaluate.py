"""Jobs of an evaluation on Ray: any number of workers, in any order, and some that die; the reference code's bits."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import ray
import torch
from torch import nn

from arat_ray.cluster.evaluate import spread
from arat_ray.evaluation import autoattack
from arat_ray.evaluation.autoattack import Attacker, AttackResult, Job, Runner, Verdicts
from tests.cluster import nodes
from tests.cluster.nodes import Nodes
from tests.cluster.studies import ray_processes, title
from tests.evaluation.nets import digits, nearest_mean, plan, trained_in
from tests.evaluation.test_autoattack import assert_same, attacker, records, reference, verdicts

pytestmark = pytest.mark.ray
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A head of one CPU and a node of two."""
    with nodes.started(1, 2) as found:
        yield found


@pytest.fixture
def _joined(cluster: Nodes) -> Iterator[None]:
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


def struck(runner: Runner, *, after: int, strike: Callable[[], None]) -> Runner:
    """The runner, and a blow after so many jobs."""
    done = 0

    def run(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        nonlocal done
        for each in runner(attacker, jobs):
            yield each
            done += 1
            if done == after:
                strike()

    return run


def workers() -> list[int]:
    """Process ids of Ray's workers that run a job."""
    return [pid for pid in ray_processes() if title(pid).startswith(b"ray::_run")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """As the workers have: the last bits of a convolution depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def attacked(network: nn.Module) -> Attacker:
    return attacker(network, plan("autoattack", 0.16, steps=10), digits(24))


def in_disorder(runner: Runner) -> Runner:
    def run(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        yield from runner(attacker, random.Random(0).sample(jobs, len(jobs)))

    return run


PROGRAM = """
import sys
from pathlib import Path
import ray, torch
from arat_ray.evaluation import autoattack
from tests.cluster.test_evaluate import CPU, attacked, records, spread
_, folder, network, address = sys.argv
ray.init(address=address, log_to_driver=False)
who = attacked(torch.load(network, weights_only=False))
show = lambda progress: print(progress.attack, progress.done, flush=True)
autoattack.run(who, batch_size=4, records=records(who, Path(folder)), runner=spread(2, device=CPU), progress=show)
"""


@pytest.mark.usefixtures("_joined", "_one_thread")
def test_any_number_of_workers_finds_the_reference_s_bits_also_after_the_driver_was_killed(
    network: nn.Module, tmp_path: Path
) -> None:
    who = attacked(network)
    x_adv = reference(network, who.data, who.plan, seed=who.seed, batch_size=4)

    def assert_reference(found: AttackResult) -> None:
        assert found.images is not None
        assert torch.equal(found.images, x_adv)
        assert torch.equal(found.robust, verdicts(network, x_adv, who.data))
        assert 0 < int(found.robust.sum()) < int(found.clean_correct.sum())

    for number in (1, 2, 3):
        assert_reference(autoattack.run(who, batch_size=4, runner=in_disorder(spread(number, device=CPU))))
    with pytest.raises(ValueError, match="--workers 4: this cluster has 3 CPU; lower it"):
        spread(4, device=CPU)

    torch.save(network, tmp_path / "network.pt")
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / "network.pt"), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("apgd-t"):
                driver.send_signal(signal.SIGKILL)
                break
    kept = records(who, tmp_path)
    finished, ran = len(list(kept.folder.glob("*.safetensors"))), list[Job]()

    def counting(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        ran.extend(jobs)
        yield from spread(3, device=CPU)(attacker, jobs)

    assert_reference(autoattack.run(who, batch_size=4, records=kept, runner=counting))
    jobs = len(list(kept.folder.glob("*.safetensors")))
    assert 6 < finished < jobs == finished + len(ran)


@pytest.mark.usefixtures("_joined")
def test_a_worker_that_is_killed_has_its_job_run_again_to_the_same_bits() -> None:
    slow = attacker(nearest_mean(), plan("autoattack", 0.06, steps=150), digits(30))
    alone = autoattack.run(slow, batch_size=4)
    killed, over = list[int](), threading.Event()

    def kill() -> None:
        while not killed and not over.is_set():  # without a pause: jobs are short
            for pid in workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    blow = threading.Thread(target=kill)  # beside the runner: between two jobs of its own there may be none
    runner = struck(spread(2, device=CPU), after=11, strike=blow.start)
    assert_same(autoattack.run(slow, batch_size=4, runner=runner), alone)
    over.set()
    blow.join()
    assert killed, "the blow met a worker at its job"


@pytest.mark.usefixtures("_joined")
def test_a_node_that_is_lost_leaves_its_jobs_to_the_others(cluster: Nodes) -> None:
    """The last test of this file: the node does not come back."""
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=60), digits(30))
    alone = autoattack.run(who, batch_size=4)
    lost = list[str]()

    def lose() -> None:
        cluster.tell("lose")
        lost.append("the node")

    assert_same(autoattack.run(who, batch_size=4, runner=struck(spread(3, device=CPU), after=10, strike=lose)), alone)
    assert lost, "the blow came before the last job"
