"""Several narrow trials as one model: ARAT's attack and gradients by torch.func, beside the trials one by one.

    python benchmarks/fused.py --output benchmarks/fused.md

Trials of one architecture differ in weights, epsilon and invariance weight. `separate` takes them in turn, as
processes of their own do; `fused` stacks their weights (`torch.func.stack_module_state`) and maps attack and loss
over them (`vmap`). Norm layers take the statistics of the batch and keep no running ones, on both sides, because
`vmap` cannot change them. Before anything is timed, gradients of both sides are compared at the same adversarial
images in float64. Both take turns in one process on one thread; ratios of CPU time are taken within a round. HFTA,
https://arxiv.org/abs/2102.02344, reports what this brings on GPUs; there `--device cuda` measures wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reference import ours
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.methods import Arat

STEPS, STEP_SIZE = 10, 2 / 255
Parts = dict[str, Tensor]
Gradients = list[dict[str, Tensor]]
"""Of each trial, by parameter."""


class Trials:
    """K trials of one architecture on one batch, with radii and invariance weights [K] of their own."""

    def __init__(self, count: int, *, width: int, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self.methods = [_method(seed, width, dtype).to(device) for seed in range(count)]
        self.base = self.methods[0]
        self.parameters, self.buffers = stack_module_state(self.methods)
        draws = torch.Generator().manual_seed(1)
        self.x = torch.rand(batch_size, 3, 32, 32, generator=draws, dtype=dtype).to(device)
        self.y = torch.randint(10, (batch_size,), generator=draws).to(device)
        self.epsilon = torch.linspace(4 / 255, 8 / 255, count, dtype=dtype, device=device)
        self.weight = torch.logspace(0, 2, count, dtype=dtype, device=device)

    def separate(self) -> Gradients:
        """One trial after the other: attack, then the gradients of its loss."""
        return [
            self.gradients(k, self._ascend(self.x, self.epsilon[k], lambda x_adv, k=k: self._climb(k, x_adv)))  # type: ignore[misc]
            for k in range(len(self.methods))
        ]

    def gradients(self, k: int, x_adv: Tensor) -> dict[str, Tensor]:
        """Of trial `k` at x_adv [N, C, H, W]."""
        method = self.methods[k]
        names, values = zip(*method.named_parameters(), strict=True)
        loss = _weighted(method(self.x, x_adv, self.y), self.weight[k])
        return dict(zip(names, torch.autograd.grad(loss, values), strict=True))

    def fused(self) -> Parts:
        """All at once: gradients by parameter, [K, ...]."""
        x = self.x.expand(len(self.methods), *self.x.shape)
        x_adv = self._ascend(x, self.epsilon.view(-1, 1, 1, 1, 1), self._climb_together)
        return self.fused_gradients(x_adv)

    def fused_gradients(self, x_adv: Tensor) -> Parts:
        """At x_adv [K, N, C, H, W]."""

        def loss(parameters: Parts, buffers: Parts, x_adv: Tensor, weight: Tensor) -> Tensor:
            return _weighted(functional_call(self.base, (parameters, buffers), (self.x, x_adv, self.y)), weight)

        found: Parts = vmap(grad(loss))(self.parameters, self.buffers, x_adv, self.weight)
        return found

    def _climb(self, k: int, x_adv: Tensor) -> Tensor:
        return F.cross_entropy(self.methods[k].model(x_adv), self.y, reduction="sum")

    def _climb_together(self, x_adv: Tensor) -> Tensor:
        def climb(parameters: Parts, buffers: Parts, x_adv: Tensor) -> Tensor:
            logits = functional_call(self.base.model, (_of_model(parameters), _of_model(buffers)), (x_adv,))
            return F.cross_entropy(logits, self.y, reduction="sum")

        return vmap(climb)(self.parameters, self.buffers, x_adv).sum()

    def _ascend(self, x: Tensor, epsilon: Tensor, climb: Callable[[Tensor], Tensor]) -> Tensor:
        """PGD in linf from x itself."""
        x_adv = x
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(climb(x_adv), x_adv)
            stepped = x_adv.detach() + STEP_SIZE * gradient.sign()
            x_adv = torch.minimum(torch.maximum(stepped, x - epsilon), x + epsilon).clamp(0, 1)
        return x_adv


def _method(seed: int, width: int, dtype: torch.dtype) -> Arat:
    train = ours.spec("arat/resnet18", batch_size=2, method={"invariance_weight": 1}, model={"width": width})
    method = train.model_copy(update={"seed": seed}).build((3, 32, 32), 10)
    assert isinstance(method, Arat)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    method.start_epoch(1, lambda model, images, fresh: 0.5)
    return method.to(dtype).train()


def _weighted(losses: Any, weight: Tensor) -> Tensor:
    total: Tensor = losses.classification + weight * losses.invariance
    return total


def _of_model(parts: Parts) -> Parts:
    return {name.removeprefix("model."): value for name, value in parts.items() if name.startswith("model.")}


def apart(trials: Trials) -> float:
    """The largest difference between both sides' gradients at equal x_adv, over the largest entry of its tensor."""
    noise = torch.rand(trials.x.shape, generator=torch.Generator().manual_seed(2), dtype=trials.x.dtype)
    moves = trials.epsilon.view(-1, 1, 1, 1, 1) * (2 * noise.to(trials.x.device) - 1)
    x_adv = (trials.x + moves).clamp(0, 1)
    together, largest = trials.fused_gradients(x_adv), 0.0
    for k in range(len(trials.methods)):
        for name, gradient in trials.gradients(k, x_adv[k]).items():
            scale = float(gradient.abs().max()) or 1.0
            largest = max(largest, float((together[name][k] - gradient).detach().abs().max()) / scale)
    return largest


def race(trials: Trials, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of all trials, by side: of CPU, on a GPU of wall. The first round is not counted."""
    is_cuda = trials.x.device.type == "cuda"
    turns: dict[str, list[float]] = {"separate": [], "fused": []}
    for number in range(rounds + 1):
        for name in turns if number % 2 else reversed(turns):
            if is_cuda:
                torch.cuda.synchronize()
            clock = time.perf_counter if is_cuda else time.process_time
            began = clock()
            getattr(trials, name)()
            if is_cuda:
                torch.cuda.synchronize()
            if number:
                turns[name].append(clock() - began)
    return turns


def row(width: int, count: int, difference: float, turns: dict[str, list[float]]) -> str:
    ratios = [a / b for a, b in zip(turns["separate"], turns["fused"], strict=True)]
    first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
    each = [f"{1000 * statistics.median(turns[name]):.0f}" for name in turns]
    return f"| {width} | {count} | {difference:.0e} | {' | '.join(each)} | {median:.2f} ({first:.2f} to {third:.2f}) |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 16], help="of ResNet-18")
    parser.add_argument("--trials", type=int, nargs="+", default=[2, 4], help="fused into one")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; 2 or more")
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need 2 or more")
    device = torch.device(options.device)
    torch.set_num_threads(1)
    if device.type == "cpu":
        keep_freed_memory()
    unit = "ms of CPU" if device.type == "cpu" else "ms"
    lines = [f"| width | trials | gradients apart | separate, {unit} | fused, {unit} | separate over fused |"]
    lines += ["|---|---|---|---|---|---|"]
    written = []
    for width in options.widths:
        for count in options.trials:
            exact = Trials(count, width=width, batch_size=8, device=device, dtype=torch.float64)
            difference = apart(exact)
            trials = Trials(count, width=width, batch_size=options.batch_size, device=device, dtype=torch.float32)
            turns = race(trials, rounds=options.rounds)
            lines.append(row(width, count, difference, turns))
            written.append({"width": width, "trials": count, "gradients_apart": difference, "seconds": turns})
    conditions = {
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, one thread",
        "load_average": round(os.getloadavg()[0], 1),
    }
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    said = " ".join(sys.argv[1:] if arguments is None else arguments)
    text = ["# Trials fused into one model", "", f"`python benchmarks/fused.py {said}`", "", f"{told}.", ""]
    text += ["ARAT on ResNet-18, a step of PGD-10 and gradients. Medians; ratios within a round, with quartiles.", ""]
    text += lines
    print(*text, sep="\n")
    if options.output:
        options.output.write_text("\n".join(text) + "\n")
        options.output.with_suffix(".json").write_text(
            json.dumps({"conditions": conditions, "rows": written}, indent=1)
        )


if __name__ == "__main__":
    main()
