"""The desk between a trial and its workers: who hears what."""

from __future__ import annotations

import asyncio

from arat_ray.cluster.trials.worker_group import Desk, Message


async def everything(desk: Desk) -> list[Message]:
    """All that is said of the present trial, which must have ended."""
    heard = []
    while (message := await asyncio.wait_for(desk.hear(), 1)) is not None:
        heard.append(message)
    return heard


def test_workers_get_one_trial_after_another_and_are_heard_in_order() -> None:
    async def scene() -> None:
        desk = Desk()
        waiting = asyncio.create_task(desk.take())
        await asyncio.sleep(0)
        assert not waiting.done(), "there is no trial yet"
        await desk.give("one")
        task = await waiting
        assert task.config == "one"
        for epoch in (1, 2):
            await desk.say(task.number, {"row": epoch})
        await desk.end(task.number)
        assert await everything(desk) == [{"row": 1}, {"row": 2}]

        waiting = asyncio.create_task(desk.take())
        await asyncio.sleep(0)
        assert not waiting.done(), "a trial that has ended is not taken again"
        await desk.give("two")
        assert (await waiting).config == "two"

    asyncio.run(scene())


def test_a_worker_that_gives_up_ends_its_trial_once_and_what_comes_late_is_dropped() -> None:
    async def scene() -> None:
        desk = Desk()
        await desk.give("one")
        task = await desk.take()
        await desk.end(task.number, {"failed": "OutOfMemoryError"})
        await desk.end(task.number)
        assert await everything(desk) == [{"failed": "OutOfMemoryError"}]
        await desk.give("two")
        await desk.say(task.number, {"row": 3})
        await desk.end(task.number)
        assert (await desk.take()).config == "two"
        assert not desk.outbox

    asyncio.run(scene())
