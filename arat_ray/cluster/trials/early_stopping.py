"""Early stopping under Ray Tune. Who stops is decided in `frontier`, by one of its rules, and recorded by the study's
recorder.

A trial in a Tune actor is stopped by Tune. A trial of several workers is never: its placement group would stay behind
and the next trial wait for its resources. There Tune is told to go on, the decision is put up on a board, and the
workers, who ask at each rung, end by themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from arat_ray.cluster.node_affinity import actor_on

if TYPE_CHECKING:
    from arat_ray.study.recorder import Recorder

BOARD = "early-stopping"
ANSWER_S = 300.0
"""How long workers wait for a decision before they fail, and are started again from their checkpoint."""


class StoppingScheduler(FIFOScheduler):
    """Trials run in the order of their numbers; each row is judged before it is recorded."""

    def __init__(self, recorder: Recorder, board: Any = None) -> None:
        super().__init__()
        self.recorder, self.board = recorder, board

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        row: Any = {key.removeprefix("row/"): value for key, value in result.items() if key.startswith("row/")}
        decision = self.recorder.decide(trial.config["number"], row) if row else None
        if decision is None:
            return str(TrialScheduler.CONTINUE)
        if self.board is not None:
            self.board.put.remote(decision.number, decision.rung, not decision.goes_on)
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.CONTINUE if decision.goes_on else TrialScheduler.STOP)

    def debug_string(self) -> str:
        return "early stopping"

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its scheduler along; there is nothing in it to keep


class DecisionBoard:
    """Decisions for workers: (trial number, rung) -> whether to stop there."""

    def __init__(self) -> None:
        self.stops: dict[tuple[int, int], bool] = {}
        self.changed = asyncio.Condition()

    async def put(self, number: int, rung: int, stops: bool) -> None:
        async with self.changed:
            self.stops[number, rung] = stops
            self.changed.notify_all()

    async def ask(self, number: int, rung: int) -> bool:
        async with self.changed:
            await self.changed.wait_for(lambda: (number, rung) in self.stops)
        return self.stops[number, rung]


def open_board() -> Any:
    """A board of this driver, there as long as its handle is kept.

    It is on the driver's node: Ray puts an actor that takes nothing on any, and with that node it would be gone.
    """
    return actor_on(ray.get_runtime_context().get_node_id(), DecisionBoard, name=BOARD)


def ask(number: int, rung: int) -> bool:
    """From a worker: whether the trial stops at this rung, as soon as that is decided.

    RuntimeError where there is no board, which is no fault of the trial.
    """
    try:
        board = ray.get_actor(BOARD)
    except ValueError as error:
        raise RuntimeError(f"nobody says whether it stops: {error}") from error
    return bool(ray.get(board.ask.remote(number, rung), timeout=ANSWER_S))
