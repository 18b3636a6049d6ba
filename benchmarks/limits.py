"""What an attack's gradient could gain on the CPU, and what stands in the way: ResNet-18, one thread.

    python benchmarks/limits.py --output benchmarks/limits.md

Forward and input gradient, as an attack takes them, of the network as it is in training, and of variants that
compute the same: the last stage in the other memory layout, frozen parameters, ReLU in place, and with `--compile`,
which needs a C++ compiler, `torch.compile`; in eval mode, which is other maths than train mode: as it is, frozen,
without copies (`lean`), and with norms folded into the convolutions (`fold`). Then each stage's convolution in both
memory layouts, beside the rate of a large product of matrices. Variants take turns, round by round, in one process;
ratios are of CPU time within a round.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from reference import ours
from torch import Tensor, fx, nn

from arat_ray.evaluation import fast
from arat_ray.evaluation.fast.fold import relu_in_place
from arat_ray.training import split_norm
from arat_ray.training.memory import keep_freed_memory

LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
Turns = Mapping[str, list[float]]


def race(work: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds by contender; each round begins with another one, and the first round is not counted."""
    turns: dict[str, list[float]] = {name: [] for name in work}
    names = [*work]
    for number in range(rounds + 1):
        for k in range(len(names)):
            name = names[(number + k) % len(names)]
            began = time.process_time()
            work[name]()
            if number:
                turns[name].append(time.process_time() - began)
    return turns


def ratio(turns: Turns, a: str, b: str) -> str:
    """`median (first quartile to third)` of a over b."""
    values = [one / other for one, other in zip(turns[a], turns[b], strict=True)]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.2f} ({first:.2f} to {third:.2f})"


class _ToNchw(torch.autograd.Function):
    """Maps as the last stage takes them; their gradient as the stages before it do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def last_stage_nchw(model: nn.Module) -> nn.Module:
    """A copy of a ResNet-18 whose fourth stage is in NCHW."""
    mixed = copy.deepcopy(model)
    stage = cast(nn.Module, mixed.layer4).to(memory_format=torch.contiguous_format)
    stage.register_forward_pre_hook(lambda _stage, inputs: (_ToNchw.apply(inputs[0]),))
    return mixed


def networks(width: int, *, compiles: bool = False) -> dict[str, nn.Module]:
    """ARAT's network with two branches as training attacks it, and variants of its deployed one."""
    model = ours.built(ours.spec("arat/resnet18", batch_size=2, method={}, model={"width": width}), torch.float32).model
    plain, some = split_norm.deployed(model), torch.rand(8, 3, 32, 32)
    frozen = copy.deepcopy(plain).train().requires_grad_(False)
    compiled = {}
    if compiles:
        compiled["train mode, frozen, compiled"] = cast(nn.Module, torch.compile(copy.deepcopy(frozen), dynamic=False))
    return {
        "train mode": model,
        "train mode, last stage NCHW": last_stage_nchw(model),
        "train mode, frozen": frozen,
        "train mode, frozen, ReLU in place": relu_in_place(fx.symbolic_trace(copy.deepcopy(frozen))),
        **compiled,
        "eval mode": copy.deepcopy(plain).eval(),
        "eval mode, frozen": copy.deepcopy(plain).eval().requires_grad_(False),
        "eval mode, lean": fast.lean(plain, some),
        "eval mode, folded": fast.fold(plain, some),
    }


def ascend(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    return gradient


def convolution(x: Tensor, weight: Tensor, seed: Tensor, stride: int) -> None:
    """Forward and input gradient."""
    out = F.conv2d(x, weight, stride=stride, padding=1)
    torch.autograd.grad(out, x, seed)


def stages(width: int, batch: int) -> dict[str, tuple[int, dict[str, Callable[[], object]]]]:
    """By stage: its FLOPs, forward and input gradient, and what runs in either layout."""
    found = {}
    shapes = [(3, width, 32, 1), (width, width, 32, 1), (width, 2 * width, 32, 2)]
    shapes += [(2**k * width, 2**k * width, 32 >> k, 1) for k in (1, 2, 3)]
    draws = torch.Generator().manual_seed(0)
    for inputs, outputs, size, stride in shapes:
        work = {}
        for name, layout in LAYOUTS.items():
            x = torch.randn(batch, inputs, size, size, generator=draws).to(memory_format=layout).requires_grad_()
            weight = torch.randn(outputs, inputs, 3, 3, generator=draws).to(memory_format=layout)
            seed = torch.randn(batch, outputs, size // stride, size // stride, generator=draws).to(memory_format=layout)
            work[name] = cast(Callable[[], object], partial(convolution, x, weight, seed, stride))
        flops = 2 * 2 * batch * inputs * outputs * 9 * (size // stride) ** 2
        found[f"{inputs} to {outputs}, {size}x{size}, stride {stride}"] = flops, work
    return found


def peak(size: int, rounds: int) -> float:
    """GFLOP/s of a float32 product, the best of all rounds."""
    a = torch.randn(size, size)
    return 2 * size**3 / min(race({"product": lambda: a @ a}, rounds=rounds)["product"]) / 1e9


def report(width: int, batch: int, rounds: int, best: float, *, compiles: bool) -> tuple[list[str], dict[str, Turns]]:
    """Markdown of one width, and all turns."""
    draws = torch.Generator().manual_seed(1)
    x = torch.rand(batch, 3, 32, 32, generator=draws).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,), generator=draws)
    contenders = networks(width, compiles=compiles)
    turns = race({name: partial(ascend, model, x, y) for name, model in contenders.items()}, rounds=rounds)
    lines = [
        f"## Width {width}, batch {batch}",
        "",
        "| network | CPU ms | CPU time of train mode over it |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {_ms(taken)} | {ratio(turns, 'train mode', name)} |" for name, taken in turns.items()]
    lines += [
        "",
        "| convolution | NHWC, GFLOP/s | over the product's | NCHW, GFLOP/s | CPU time of NCHW over NHWC |",
        "|---|---|---|---|---|",
    ]
    written: dict[str, Turns] = {"networks": turns}
    for name, (flops, work) in stages(width, batch).items():
        taken = written[name] = race(work, rounds=rounds)
        nhwc, nchw = (flops / statistics.median(taken[layout]) / 1e9 for layout in LAYOUTS)
        cells = [name, f"{nhwc:.0f}", f"{100 * nhwc / best:.0f} %", f"{nchw:.0f}", ratio(taken, "NCHW", "NHWC")]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""], written


def _ms(seconds: Iterable[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64], help="of ResNet-18")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 32], help="one for each width")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count; 2 or more")
    parser.add_argument("--product", type=int, default=1536, help="size of the product for the peak")
    parser.add_argument("--compile", action="store_true", help="torch.compile takes part; a minute a width")
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need 2 or more")
    if len(options.widths) != len(options.batch_sizes):
        parser.error("give one of --batch-sizes for each of --widths")
    torch.set_num_threads(1)
    keep_freed_memory()
    best = peak(options.product, options.rounds)
    conditions = {
        "rounds": options.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, one used",
        "load_average": round(os.getloadavg()[0], 1),
        "product": f"{best:.0f} GFLOP/s with matrices of {options.product}",
    }
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    lines = ["# What limits an attack's gradient", "", f"`python benchmarks/limits.py {' '.join(sys.argv[1:])}`", ""]
    lines += [f"{told}.", "", "Medians; of ratios with their quartiles. Forward and input gradient.", ""]
    written = {}
    for width, batch in zip(options.widths, options.batch_sizes, strict=True):
        text, written[str(width)] = report(width, batch, options.rounds, best, compiles=options.compile)
        lines += text
    print(*lines, sep="\n")
    if options.output:
        options.output.write_text("\n".join(lines))
        options.output.with_suffix(".json").write_text(json.dumps({"conditions": conditions, **written}, indent=1))


if __name__ == "__main__":
    main()
