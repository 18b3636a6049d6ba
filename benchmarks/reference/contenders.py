"""Contenders of a race in training steps, each in a process of its own, which takes its turn when it is told to.

A process is started with `--contender NAME`, says `ready`, and answers every line of its input with the CPU and wall
seconds a step of its next steps, and the CPU seconds of their parts. Between turns it sleeps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arat_ray.training.context import Context
from arat_ray.training.data.batches import Batches
from arat_ray.training.data.images import ImageSet
from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.methods import Arat, Method
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch
from reference import authors, checkout, ours

AUTHORS = "arat, the authors' code"
PARTS = ("attack", "forward", "backward", "optimiser", "everything else", "data")
CPU = torch.device("cpu")
Step = Callable[[Tensor, Tensor], object]
Turn = dict[str, float]
"""`cpu` and `wall`, seconds a step without its data; CPU seconds a step of each of PARTS, the authors' without data."""


@dataclass
class Clock:
    """CPU seconds by part. The forward pass lies between the attack, where there is one, and the backward pass."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    forward_began: float = 0.0

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keywords: Any) -> Any:
            began = time.process_time()
            if part == "backward":
                self.parts["forward"] += began - self.forward_began
            result = work(*args, **keywords)
            ended = time.process_time()
            self.parts[part] += ended - began
            if part == "attack":
                self.forward_began = ended
            return result

        return timed

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step without its data."""
        before = sum(self.parts.values())
        self.forward_began = began = time.process_time()
        yield
        self.parts["everything else"] += time.process_time() - began - (sum(self.parts.values()) - before)


def contender(name: str, *, reference: Path | None, width: int, batch_size: int, clock: Clock) -> Callable[[], float]:
    """A function that takes one step of ResNet-18 in float32 and returns its wall seconds without its data."""
    is_ours = name != AUTHORS
    switches = {"teacher": {"width": width}} if name == "lbgat" else {}
    preset = f"{name if is_ours else 'arat'}/resnet18"
    train = ours.spec(preset, batch_size=batch_size, method=switches, model={"width": width})
    method = ours.built(train, torch.float32)
    draws = torch.Generator().manual_seed(2)
    pictures = torch.randint(256, (batch_size, 3, 32, 32), generator=draws, dtype=torch.uint8)
    images = ImageSet(pictures, torch.randint(10, (batch_size,), generator=draws), ())
    data = Batches(images, train.dataset, policy=None, channels_last=is_ours and train.channels_last, device=CPU)
    next_batch = clock.around("data", lambda: data.batch(torch.arange(batch_size), draws))
    torch.Tensor.backward = clock.around("backward", torch.Tensor.backward)  # type: ignore[method-assign]
    if is_ours:
        step = _ours(train, method, clock)
    else:
        assert reference is not None, "the authors' code takes part where there is a checkout"
        step = _theirs(train, method, clock, reference)

    def timed() -> float:
        x, y = next_batch()
        began = time.perf_counter()
        with clock.step():
            step(x, y)
        return time.perf_counter() - began

    return timed


def _ours(train: Train, method: Method, clock: Clock) -> Step:
    keep_freed_memory()  # as `fit` does
    method.start_epoch(train.epochs, lambda model, images, fresh: 0.5)
    optimizer = train.optimizer.build([value for value in method.parameters() if value.requires_grad])
    step = TrainingStep(train, method, optimizer, Context(Path(), lambda row, replayed: False))
    noise, watch = Noise(torch.Generator().manual_seed(3), train.batch_size), Stopwatch(CPU)
    method.perturb = clock.around("attack", method.perturb)  # type: ignore[method-assign]
    optimizer.step = clock.around("optimiser", optimizer.step)  # type: ignore[method-assign]
    return lambda x, y: step(x, y, noise, watch, perturbs_weights=False)


def _theirs(train: Train, method: Method, clock: Clock, reference: Path) -> Step:
    assert isinstance(method, Arat)
    theirs = authors.Authors(checkout.load(reference), train, method.state_dict(), method.layers, {})
    theirs.balance = 0.5
    theirs.adversary = clock.around("attack", theirs.adversary)
    theirs.optimizer.step = clock.around("optimiser", theirs.optimizer.step)  # type: ignore[method-assign]
    return lambda x, y: theirs.epoch([(x, y)])


def serve(name: str, *, reference: Path | None, width: int, batch_size: int, steps: int) -> None:
    """Take `steps` steps for every line of the input, in this process."""
    torch.set_num_threads(1)
    clock = Clock()
    step = contender(name, reference=reference, width=width, batch_size=batch_size, clock=clock)
    print("ready", flush=True)
    for _ in sys.stdin:
        clock.parts.update(dict.fromkeys(PARTS, 0.0))
        wall = sum(step() for _ in range(steps)) / steps
        parts = {part: seconds / steps for part, seconds in clock.parts.items()}
        cpu = sum(seconds for part, seconds in parts.items() if part != "data")
        if name == AUTHORS:
            del parts["data"]  # which is this project's
        print(json.dumps({"cpu": cpu, "wall": wall, **parts}), flush=True)


def race(names: Sequence[str], options: Sequence[str], *, rounds: int) -> dict[str, list[Turn]]:
    """Turns by contender, in rounds: all take their turns one after the other, beginning with another one each round.

    The first round is not counted.
    """
    command = [sys.executable, sys.argv[0], *options, "--contender"]
    processes = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    }
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    try:
        for process in processes.values():
            _answer(process)
        for number in range(rounds + 1):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                turn = json.loads(_answer(processes[name], "go\n"))
                if number:
                    turns[name].append(turn)
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    return turns


def _answer(process: subprocess.Popen[str], question: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"a contender ended with exit code {process.wait()}: {process.args!r}")
    return answer
