"""Worker group: the workers of a trial of several workers, kept together from one trial to the next.

Starting a Ray Train run costs some 25 seconds of processor time in nine processes, more than many a trial. So each
reused Tune actor keeps one run, whose workers train one trial after another. A trial queue, an actor of its own, hands
them their next trial and takes the rows of the present one. When a worker is lost, so is the run: Tune starts the trial
again, as it does where there is one worker, with a new group.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray.exceptions import GetTimeoutError

from arat_ray.cluster.node_affinity import actor_on
from arat_ray.cluster.torch_trainer import torch_trainer
from arat_ray.cluster.trials.trial_queue import Message, QueuedTrial, TrialQueue
from arat_ray.experiment.spec import Resources

ENDING_S = 60.0
"""How long to wait for the end of a run whose worker gave up."""
LOOK_S = 2.0
"""How often whoever waits for rows looks whether the run is still there."""

PATIENCE = timedelta(days=365)
"""How long workers wait for their next trial."""

Agree = Callable[[bool], bool]
"""Whether it is so for any of the workers; all must ask."""
Work = Callable[[Any, Callable[[Message], None], Callable[[Message], None], Agree], None]


class WorkerGroup:
    """Workers of one Ray Train run; `work(config, send, give_up, agree)` trains a trial in each of them."""

    def __init__(self, resources: Resources, *, workers: int, work: Work) -> None:
        self.queue = actor_on(ray.get_runtime_context().get_node_id(), TrialQueue)
        self.error: BaseException | None = None
        self.resources, self.workers, self.work = resources, workers, work
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def is_there(self) -> bool:
        return self.thread.is_alive()

    def train(self, config: Any) -> Iterator[Message]:
        """The messages of the workers while they train one trial. Raises what ended the run, where it has ended."""
        ray.get(self.queue.put.remote(config))
        given_up = False
        while True:
            received = self.queue.receive.remote()
            while True:
                try:
                    message = ray.get(received, timeout=LOOK_S)
                    break
                except GetTimeoutError:
                    if not self.is_there:
                        raise self.error or RuntimeError("the workers' run ended by itself") from None
            if message is None:
                break
            given_up = message.pop("gives_up", False)
            yield message
        if given_up:
            self.thread.join(timeout=ENDING_S)  # who gave up ends the run: the next trial must not go to it

    def shut_down(self) -> None:
        """End the workers' run, between two trials."""
        ray.get(self.queue.put.remote(None))
        self.thread.join(timeout=ENDING_S)

    def _run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="arat-ray-", ignore_cleanup_errors=True) as scratch:
            # Tune starts a trial again that lost a worker: so attempts are counted once
            failures = ray_train.FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=2)
            trainer = torch_trainer(
                _work,
                {"queue": self.queue, "work": self.work},
                self.resources,
                workers=self.workers,
                name="worker-group",
                storage=scratch,
                failures=failures,
            )
            try:
                trainer.fit()
            except BaseException as error:  # noqa: BLE001  of whatever kind: it is raised where rows are waited for
                self.error = error


def _work(given: dict[str, Any]) -> None:
    """A worker: one trial after another, until the group is shut down or its process is ended."""
    queue, work = given["queue"], given["work"]
    # the trial comes from the first worker to all, so that they never disagree; NCCL would not wait so long
    wires = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(wires, dist.ProcessGroup)
    is_first = dist.get_rank() == 0

    def agree(is_so: bool) -> bool:
        answer = torch.tensor([is_so], dtype=torch.uint8)
        dist.all_reduce(answer, dist.ReduceOp.MAX, group=wires)
        return bool(answer.item())

    while True:
        box: list[QueuedTrial | None] = [ray.get(queue.get.remote()) if is_first else None]
        dist.broadcast_object_list(box, src=0, group=wires)
        trial = box[0]
        assert trial is not None
        if trial.config is None:
            return
        number = trial.number

        def send(message: Message, number: int = number) -> None:
            if is_first:
                ray.get(queue.send.remote(number, message))

        def give_up(message: Message, number: int = number) -> None:
            ray.get(queue.end.remote(number, message | {"gives_up": True}))

        work(trial.config, send, give_up, agree)
        if is_first:
            ray.get(queue.end.remote(number))
