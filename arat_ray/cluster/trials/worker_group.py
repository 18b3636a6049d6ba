"""A crew: the workers of trials of several workers, kept together from one trial to the next.

Starting a Ray Train run costs some 25 seconds of processor time in nine processes, more than many a trial. So each
reused Tune actor keeps one run, whose workers train one trial after another. A desk, an actor of its own, hands them
their next trial and takes the rows of the present one. When a worker is lost, so is the run: Tune starts the trial
again, as it does where there is one worker, with a new crew.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import ray
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray.exceptions import GetTimeoutError

from arat_ray.cluster.node_affinity import actor_on
from arat_ray.cluster.torch_trainer import torch_trainer
from arat_ray.experiment.spec import Resources

ENDING_S = 60.0
"""How long to wait for the end of a run whose worker gave up."""
LOOK_S = 2.0
"""How often whoever waits for rows looks whether the run is still there."""

PATIENCE = timedelta(days=365)
"""How long workers wait for their next trial."""

Message = dict[str, Any]
Agree = Callable[[bool], bool]
"""Whether it is so for any of the workers; all must ask."""
Work = Callable[[Any, Callable[[Message], None], Callable[[Message], None], Agree], None]


class Task(NamedTuple):
    """A trial on the desk; without a configuration it is the word that there will be none."""

    number: int
    config: Any


class Desk:
    """Trials to train one after another, and what their workers have to say. An actor."""

    def __init__(self) -> None:
        self.task: Task | None = None
        self.ended = 0
        self.outbox: deque[Message | None] = deque()
        self.changed = asyncio.Condition()

    async def give(self, config: Any) -> None:
        """The next trial; whatever was left of the one before is dropped."""
        async with self.changed:
            self.task = Task(self.task.number + 1 if self.task else 1, config)
            self.outbox.clear()
            self.changed.notify_all()

    async def take(self) -> Task:
        """The next trial, as soon as there is one."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.task is not None and self.task.number > self.ended)
            assert self.task is not None
            return self.task

    async def say(self, task: int, message: Message) -> None:
        async with self.changed:
            if self.task is not None and self.task.number == task:
                self._say(message)

    async def end(self, task: int, message: Message | None = None) -> None:
        """The trial has ended, with a last message or without."""
        async with self.changed:
            self._end(task, message)

    async def hear(self) -> Message | None:
        """The next message about the present trial; None after the last one."""
        async with self.changed:
            await self.changed.wait_for(lambda: bool(self.outbox))
            return self.outbox.popleft()

    def _say(self, message: Message | None) -> None:
        self.outbox.append(message)
        self.changed.notify_all()

    def _end(self, task: int, message: Message | None) -> None:
        if self.task is None or self.task.number != task or self.ended >= task:
            return
        self.ended = task
        if message is not None:
            self._say(message)
        self._say(None)


class Crew:
    """Workers of one Ray Train run; `work(config, say, give_up, agree)` trains a trial in each of them."""

    def __init__(self, resources: Resources, *, workers: int, work: Work) -> None:
        self.desk = actor_on(ray.get_runtime_context().get_node_id(), Desk)
        self.error: BaseException | None = None
        self.resources, self.workers, self.work = resources, workers, work
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def is_there(self) -> bool:
        return self.thread.is_alive()

    def train(self, config: Any) -> Iterator[Message]:
        """What the workers say while they train one trial. Raises what ended the run, where it has ended."""
        ray.get(self.desk.give.remote(config))
        given_up = False
        while True:
            heard = self.desk.hear.remote()
            while True:
                try:
                    message = ray.get(heard, timeout=LOOK_S)
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

    def dismiss(self) -> None:
        """End the workers' run, between two trials."""
        ray.get(self.desk.give.remote(None))
        self.thread.join(timeout=ENDING_S)

    def _run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="arat-ray-", ignore_cleanup_errors=True) as scratch:
            # Tune starts a trial again that lost a worker: so attempts are counted once
            failures = ray_train.FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=2)
            trainer = torch_trainer(
                _work,
                {"desk": self.desk, "work": self.work},
                self.resources,
                workers=self.workers,
                name="crew",
                storage=scratch,
                failures=failures,
            )
            try:
                trainer.fit()
            except BaseException as error:  # noqa: BLE001  of whatever kind: it is raised where rows are waited for
                self.error = error


def _work(given: dict[str, Any]) -> None:
    """A worker's days: one trial after another, until it is dismissed or its process is ended."""
    desk, work = given["desk"], given["work"]
    # the trial comes from the first worker to all, so that they never disagree; NCCL would not wait so long
    wires = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(wires, dist.ProcessGroup)
    is_first = dist.get_rank() == 0

    def agree(is_so: bool) -> bool:
        answer = torch.tensor([is_so], dtype=torch.uint8)
        dist.all_reduce(answer, dist.ReduceOp.MAX, group=wires)
        return bool(answer.item())

    while True:
        box: list[Task | None] = [ray.get(desk.take.remote()) if is_first else None]
        dist.broadcast_object_list(box, src=0, group=wires)
        task = box[0]
        assert task is not None
        if task.config is None:
            return
        number = task.number

        def say(message: Message, number: int = number) -> None:
            if is_first:
                ray.get(desk.say.remote(number, message))

        def give_up(message: Message, number: int = number) -> None:
            ray.get(desk.end.remote(number, message | {"gives_up": True}))

        work(task.config, say, give_up, agree)
        if is_first:
            ray.get(desk.end.remote(number))
