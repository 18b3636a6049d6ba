"""The trial queue between a Tune actor and its workers: who receives what."""

from __future__ import annotations

import asyncio

from arat_ray.cluster.trials.trial_queue import Message, TrialQueue


async def everything(queue: TrialQueue) -> list[Message]:
    """All that is said of the present trial, which must have ended."""
    received = []
    while (message := await asyncio.wait_for(queue.receive(), 1)) is not None:
        received.append(message)
    return received


def test_workers_get_one_trial_after_another_and_are_received_in_order() -> None:
    async def scene() -> None:
        queue = TrialQueue()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not waiting.done(), "there is no trial yet"
        await queue.put("one")
        trial = await waiting
        assert trial.config == "one"
        for epoch in (1, 2):
            await queue.send(trial.number, {"row": epoch})
        await queue.end(trial.number)
        assert await everything(queue) == [{"row": 1}, {"row": 2}]

        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not waiting.done(), "a trial that has ended is not taken again"
        await queue.put("two")
        assert (await waiting).config == "two"

    asyncio.run(scene())


def test_a_worker_that_gives_up_ends_its_trial_once_and_what_comes_late_is_dropped() -> None:
    async def scene() -> None:
        queue = TrialQueue()
        await queue.put("one")
        trial = await queue.get()
        await queue.end(trial.number, {"failed": "OutOfMemoryError"})
        await queue.end(trial.number)
        assert await everything(queue) == [{"failed": "OutOfMemoryError"}]
        await queue.put("two")
        await queue.send(trial.number, {"row": 3})
        await queue.end(trial.number)
        assert (await queue.get()).config == "two"
        assert not queue.outbox

    asyncio.run(scene())
