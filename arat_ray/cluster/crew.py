"""A crew: the workers of trials of several workers, kept together from one trial to the next.

Starting a Ray Train run costs some 25 seconds of processor time in nine processes, more than many a trial. So each
reused Tune actor keeps one run, whose workers train one trial after another. A desk, an actor of its own, hands them
their next trial and takes the rows of the present one. Workers that are lost with their node are replaced by Ray
Train; the new ones find the trial still on the desk, and go on with it from its checkpoint as another attempt.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import ray
import torch.distributed as dist
from ray import train as ray_train
from ray.exceptions import GetTimeoutError
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arat_ray.experiment.config import Resources

LOSSES = 3
"""How often a trial's workers may be lost before it counts as failed."""
GROUPS = 50
"""How many groups of workers a run goes through before it is given up."""
LOOK_S = 2.0
"""How often whoever waits for rows looks whether the run is still there."""

PATIENCE = timedelta(days=365)
"""How long workers wait for their next trial."""

Message = dict[str, Any]
Work = Callable[[Any, Callable[[Message], None], Callable[[str], None]], None]


class Task(NamedTuple):
    """A trial on the desk."""

    number: int
    config: Any


class Desk:
    """Trials to train one after another, and what their workers have to say. An actor."""

    def __init__(self) -> None:
        self.task: Task | None = None
        self.takes = 0
        self.ended = 0
        self.outbox: deque[Message | None] = deque()
        self.changed = asyncio.Condition()

    async def give(self, config: Any) -> None:
        """The next trial; whatever was left of the one before is dropped."""
        async with self.changed:
            self.task = Task(self.task.number + 1 if self.task else 1, config)
            self.takes = 0
            self.outbox.clear()
            self.changed.notify_all()

    async def take(self) -> Task:
        """The trial to train now, as soon as there is one; the present one again where its workers were lost."""
        async with self.changed:
            while True:
                await self.changed.wait_for(lambda: self.task is not None and self.task.number > self.ended)
                assert self.task is not None
                self.takes += 1
                if self.takes == 1:
                    return self.task
                if self.takes <= LOSSES + 1:
                    self._say({"lost": "a worker was lost"})
                    return self.task
                self._end(self.task.number, {"failed": f"its workers were lost {LOSSES + 1} times"})

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
    """Workers of one Ray Train run; `work(config, say, give_up)` trains a trial in each of them."""

    def __init__(self, resources: Resources, *, storage: str, work: Work) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.desk: Any = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote()
        self.error: BaseException | None = None
        per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
        self.trainer = TorchTrainer(
            _work,
            train_loop_config={"desk": self.desk, "work": work},
            scaling_config=ray_train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker={kind: amount for kind, amount in per_worker.items() if amount},
            ),
            run_config=ray_train.RunConfig(
                name=f"crew-{uuid4().hex[:8]}",
                storage_path=storage,
                failure_config=ray_train.FailureConfig(max_failures=GROUPS, controller_failure_limit=2),
            ),
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def train(self, config: Any) -> Iterator[Message]:
        """What the workers say while they train one trial. Raises what ended the run, where it has ended."""
        ray.get(self.desk.give.remote(config))
        while True:
            heard = self.desk.hear.remote()
            while True:
                try:
                    message = ray.get(heard, timeout=LOOK_S)
                    break
                except GetTimeoutError:
                    if not self.thread.is_alive():
                        raise self.error or RuntimeError("the workers' run ended by itself") from None
            if message is None:
                return
            yield message

    def _run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:  # noqa: BLE001  of whatever kind: it is raised where the rows are waited for
            self.error = error


def _work(given: dict[str, Any]) -> None:
    """A worker's days: one trial after another, until its process is ended."""
    desk, work = given["desk"], given["work"]
    # the trial comes from the first worker to all, so that they never disagree; NCCL would not wait so long
    wires = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(wires, dist.ProcessGroup)
    is_first = dist.get_rank() == 0
    while True:
        box: list[Task | None] = [ray.get(desk.take.remote()) if is_first else None]
        dist.broadcast_object_list(box, src=0, group=wires)
        task = box[0]
        assert task is not None
        number = task.number

        def say(message: Message, number: int = number) -> None:
            if is_first:
                ray.get(desk.say.remote(number, message))

        def give_up(reason: str, number: int = number) -> None:
            ray.get(desk.end.remote(number, {"failed": reason}))

        work(task.config, say, give_up)
        if is_first:
            ray.get(desk.end.remote(number))
