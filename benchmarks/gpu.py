"""What one GPU makes of this project's training step, in some six minutes, with torch, numpy and pydantic alone.

    python benchmarks/gpu.py --reference AR-AT --output benchmarks/gpu.md

Measured are the card's own peak (products in bf16 and float32, copies); the step of ResNet-18 on CIFAR-10 shapes by
method, width and precision, with the memory that was forecast; whether three steps give the same bits again, with the
fastest algorithms and with deterministic ones; the authors' step, where a checkout of futakw/AR-AT is given; the
attack, launched call by call and recorded as a CUDA graph, and PGD on a network that is measured; and several trials
at once on the card, each a process. Every measurement has `--seconds`; what would begin after `--minutes`, or fails,
is told with its reason in the place of a number. FLOPs are those of convolutions and products by torch's formulas.
With `--device cpu` it does the same without graphs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from reference import authors, checkout, ours
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from arat_ray.training import split_norm
from arat_ray.training.attacks import Pgd
from arat_ray.training.context import Context
from arat_ray.training.data.batches import Batches
from arat_ray.training.data.images import ImageSet
from arat_ray.training.determinism import BUFFERS, WORKSPACE, algorithms
from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.memory_forecast import forecast
from arat_ray.training.methods import Arat, Method
from arat_ray.training.precision import Numbers, Precision, rounding
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train, Validate
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch

EPOCH = 50_000
"""Images of CIFAR-10."""
ATTACK = {"norm": "linf", "epsilon": 8 / 255, "step_size": 2 / 255}
PRECISIONS = {
    **{word: Precision.model_validate(word) for word in ("ieee", "tf32", "bf16")},
    "attack bf16, update tf32": Precision(attack="bf16", update="tf32"),
}
"""`train.precision`, by the name that it has in the table."""

NOTHING_MEASURED = Validate.model_validate({"every": 1, "images": 1, "attack": {"name": "pgd", **ATTACK, "steps": 1}})

Row = dict[str, Any]


class Card:
    """A device, how long a measurement takes on it, and when none is begun any more."""

    def __init__(self, name: str, *, seconds: float, minutes: float) -> None:
        self.device = torch.device(name)
        self.is_cuda = self.device.type == "cuda"
        self.seconds, self.until = seconds, time.monotonic() + 60 * minutes

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def time(self, work: Callable[[], object]) -> float:
        """Median seconds of a call, after two that are not counted; at least three are."""
        for _ in range(2):
            work()
        self.wait()
        taken, end = list[float](), time.perf_counter() + self.seconds
        while len(taken) < 3 or time.perf_counter() < end:
            began = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def row(self, what: str, measure: Callable[[], Row]) -> Row:
        """What a measurement gives, or why it gave nothing."""
        if time.monotonic() > self.until:
            return {"what": what, "left_out": "no time left"}
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            found = measure()
        except RuntimeError as error:  # out of memory, or an operation that this card does not have
            return {"what": what, "left_out": str(error).splitlines()[0][:200]}
        if self.is_cuda:
            found["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        row = {"what": what, **found}
        print(json.dumps(row), file=sys.stderr, flush=True)
        return row


def peak(card: Card, size: int) -> list[Row]:
    """TFLOP/s of square products, TB/s of copies."""

    def product(dtype: torch.dtype) -> Row:
        a = torch.randn(size, size, device=card.device, dtype=dtype)
        return {"tflop_s": 2 * size**3 / card.time(lambda: a @ a) / 1e12}

    def copy() -> Row:
        a = torch.empty(size * size, device=card.device)
        b = torch.empty_like(a)
        return {"tb_s": 2 * a.numel() * a.element_size() / card.time(lambda: b.copy_(a)) / 1e12}

    rows = []
    products: dict[Numbers, torch.dtype] = {"bf16": torch.bfloat16, "tf32": torch.float32, "ieee": torch.float32}
    for name, dtype in products.items():
        with rounding(name):
            rows.append(card.row(f"product, {name}", lambda dtype=dtype: product(dtype)))  # type: ignore[misc]
    return [*rows, card.row("copy", copy)]


def trained(method: str, width: int, batch_size: int, mode: str) -> Train:
    switches = {"teacher": {"width": width}} if method == "lbgat" else {}
    train = ours.spec(f"{method}/resnet18", batch_size=batch_size, method=switches, model={"width": width})
    return train.model_copy(update={"precision": PRECISIONS[mode]})


def pictures(train: Train, device: torch.device) -> Batches:
    draws = torch.Generator().manual_seed(2)
    images = torch.randint(256, (2 * train.batch_size, 3, 32, 32), generator=draws, dtype=torch.uint8)
    labelled = ImageSet(images, torch.randint(10, (len(images),), generator=draws), ())
    return Batches(labelled, train.dataset, policy=None, channels_last=train.channels_last, device=device)


def our_step(train: Train, device: torch.device, method: Method | None = None) -> Callable[[], Tensor]:
    """One step with its data, as the loop takes it, of the method of a run or of one that is there."""
    method = method or ours.built(train, torch.float32).to(device)
    method.start_epoch(train.epochs, lambda model, images, fresh: 0.5)
    optimizer = train.optimizer.build([value for value in method.parameters() if value.requires_grad])
    step = TrainingStep(train, method, optimizer, Context(Path(), lambda row, replayed: False, device))
    noise = Noise(torch.Generator(device).manual_seed(3), train.batch_size)
    data, draws, indices = pictures(train, device), torch.Generator().manual_seed(4), torch.arange(train.batch_size)

    def take() -> Tensor:
        x, y = data.batch(indices, draws)
        return step(x, y, noise, Stopwatch(device), perturbs_weights=False)

    return take


class Flops(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, which follows modules and cannot where an attack asks for a gradient."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), keywords: Any = None) -> Any:
        result = function(*args, **(keywords or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(keywords or {}), out_val=result)
        return result


@cache
def held(method: str, width: int, batch_size: int) -> int:
    """Bytes that a step is forecast to hold, in float32."""
    train = trained(method, width, batch_size, "ieee")
    return forecast(train, NOTHING_MEASURED, images=2 * batch_size).most


def rates(seconds: float, batch_size: int) -> Row:
    return {"ms": 1000 * seconds, "images_s": batch_size / seconds, "epoch_s": EPOCH / batch_size * seconds}


def steps(card: Card, options: argparse.Namespace) -> list[Row]:
    """Our steps by method, width and precision; then the authors'."""
    rows = []
    plan = [("arat", options.width, size, mode) for mode in PRECISIONS for size in options.batch_sizes]
    plan += [(method, options.width, options.batch_sizes[0], "bf16") for method in ("pgd_at", "trades")]
    plan += [("arat", options.narrow, options.batch_sizes[0], mode) for mode in ("tf32", "bf16")]
    for method, width, size, mode in plan:

        def measure(method: str = method, width: int = width, size: int = size, mode: str = mode) -> Row:
            step = our_step(trained(method, width, size, mode), card.device)
            with Flops() as counter:
                step()
            seconds = card.time(step)
            told = {"tflop_s": counter.total / seconds / 1e12, "forecast_gib": held(method, width, size) / 2**30}
            return rates(seconds, size) | told

        rows.append(card.row(f"{method}, width {width}, batch {size}, {mode}", measure))
    if options.reference:

        def theirs() -> Row:
            size = options.batch_sizes[0]
            train = trained("arat", options.width, size, "ieee")
            method = ours.built(train, torch.float32)
            assert isinstance(method, Arat)
            code = authors.Authors(checkout.load(options.reference), train, method.state_dict(), method.layers, {})
            code.to(card.device)
            code.balance = 0.5
            data, draws = pictures(train, card.device), torch.Generator().manual_seed(4)
            seconds = card.time(lambda: code.epoch([data.batch(torch.arange(size), draws)]))
            return rates(seconds, size)

        what = f"arat, the authors' code, width {options.width}, batch {options.batch_sizes[0]}, torch's default"
        rows.append(card.row(what, theirs))
    return rows


def repeated(card: Card, options: argparse.Namespace) -> list[Row]:
    """Three steps twice from the same weights: their time, and whether all that they leave is the same bits."""
    rows, size = [], options.batch_sizes[0]
    for deterministic in (False, True):

        def measure(deterministic: bool = deterministic) -> Row:
            ends, train = list[Tensor](), trained("arat", options.width, size, "tf32")
            with algorithms(card.device, deterministic=deterministic):
                for _ in range(2):
                    method = ours.built(train, torch.float32).to(card.device)
                    step = our_step(train, card.device, method)
                    for _ in range(3):
                        step()
                    ends.append(torch.cat([value.flatten().cpu() for value in method.state_dict().values()]))
                seconds = card.time(step)
            return rates(seconds, size) | {"same_bits": "yes" if torch.equal(*ends) else "no"}

        what = "deterministic algorithms" if deterministic else "the fastest algorithms"
        rows.append(card.row(f"arat, width {options.width}, batch {size}, tf32, {what}", measure))
    return rows


def attacks(card: Card, options: argparse.Namespace) -> list[Row]:
    """PGD-10 on a network in train mode, launched call by call and as a graph; PGD-20 in eval mode, as in measuring."""
    rows = []
    size = options.batch_sizes[0]
    for width in (options.width, options.narrow):
        train = trained("arat", width, size, "tf32")
        model = split_norm.deployed(ours.built(train, torch.float32).model).to(card.device).requires_grad_(False)
        x, y = pictures(train, card.device).batch(torch.arange(size), torch.Generator().manual_seed(4))
        ten, twenty = (Pgd.model_validate({**ATTACK, "steps": k}) for k in (10, 20))

        def eager(model: Any = model, x: Tensor = x, y: Tensor = y, attack: Any = ten) -> Row:
            return rates(card.time(lambda: attack(model, x, y, noise=None)), size)

        def graphed(model: Any = model, x: Tensor = x, y: Tensor = y, attack: Any = ten) -> Row:
            graph = torch.cuda.CUDAGraph()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    attack(model, x, y, noise=None)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                attack(model, x, y, noise=None)
            return rates(card.time(graph.replay), size)

        with rounding("tf32"):
            model.train()
            rows.append(card.row(f"pgd-10, train mode, width {width}, batch {size}, tf32", eager))
            if card.is_cuda:
                rows.append(card.row(f"the same as a CUDA graph, width {width}", graphed))
            model.eval()
            what = f"pgd-20, eval mode, width {width}, batch {size}, tf32"
            rows.append(card.row(what, partial(eager, attack=twenty)))
    return rows


def together(card: Card, options: argparse.Namespace) -> list[Row]:
    """Narrow trials at once, each a process; images of all of them a second."""
    rows = []
    for count in options.trials:

        def measure(count: int = count) -> Row:
            command = [sys.executable, __file__, f"--device={card.device}", f"--seconds={card.seconds}"]
            command += [f"--narrow={options.narrow}", "--batch-sizes", str(options.batch_sizes[0]), "--trial"]
            pipe = subprocess.PIPE
            processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
            try:
                for process in processes:
                    _said(process, "ready")
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write("go\n")
                    process.stdin.flush()
                each = [float(_said(process)) for process in processes]
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
            return {"images_s": sum(each), "epoch_s": EPOCH * count / sum(each)}

        rows.append(card.row(f"arat, width {options.narrow}, bf16, {count} at once", measure))
    return rows


def _said(process: subprocess.Popen[str], expected: str = "") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or (expected and line != expected):
        raise RuntimeError(f"a trial ended with exit code {process.wait()}")
    return line


def trial(card: Card, options: argparse.Namespace) -> None:
    """One of several at once: ready, then on a line of input its images a second."""
    size = options.batch_sizes[0]
    step = our_step(trained("arat", options.narrow, size, "bf16"), card.device)
    step()
    card.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    began, taken = time.perf_counter(), 0
    while taken < 3 or time.perf_counter() - began < 2 * card.seconds:
        step()
        card.wait()
        taken += 1
    print(size * taken / (time.perf_counter() - began), flush=True)


COLUMNS: Mapping[str, tuple[str, str]] = {
    "ms": ("ms", ".2f"),
    "images_s": ("images/s", ",.0f"),
    "epoch_s": ("s an epoch of 50,000", ".2f"),
    "tflop_s": ("TFLOP/s", ".2f"),
    "tb_s": ("TB/s", ".2f"),
    "share": ("% of the bf16 peak", ".1f"),
    "peak_gib": ("GiB at most", ".2f"),
    "forecast_gib": ("GiB by forecast in float32", ".2f"),
    "same_bits": ("same bits twice", "s"),
}


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown; columns that no row has are left out."""
    shown = [key for key in COLUMNS if any(key in row for row in rows)]
    heads = ["", *(COLUMNS[key][0] for key in shown)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [format(row[key], COLUMNS[key][1]) if key in row else "" for key in shown]
        what = f"{row['what']}: {row['left_out']}" if "left_out" in row else row["what"]
        lines.append(f"| {' | '.join([what, *cells])} |")
    return lines


def conditions(card: Card, options: argparse.Namespace) -> Row:
    return {
        "card": torch.cuda.get_device_name(card.device) if card.is_cuda else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if card.is_cuda else None,
        "cudnn": torch.backends.cudnn.version() if card.is_cuda else None,
        "reference": checkout.commit(options.reference) if options.reference else None,
        "seconds_a_measurement": options.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of github.com/futakw/AR-AT")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--width", type=int, default=64, help="of ResNet-18; 64 is the published one")
    parser.add_argument("--narrow", type=int, default=16, help="width of the narrow trials")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 512], help="images a step")
    parser.add_argument("--trials", type=int, nargs="*", default=[1, 2, 4], help="narrow trials at once")
    parser.add_argument("--product", type=int, default=8192, help="size of the matrices of the peak")
    parser.add_argument("--seconds", type=float, default=5.0, help="a measurement")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which none is begun")
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    card = Card(options.device, seconds=options.seconds, minutes=options.minutes)
    if card.is_cuda and not torch.cuda.is_available():
        parser.error("torch sees no GPU on this machine; --device cpu measures the CPU")
    if card.is_cuda:
        os.environ.setdefault(WORKSPACE, BUFFERS)
        torch.backends.cudnn.benchmark = True  # as `fit` does
    else:
        keep_freed_memory()
    if options.trial:
        trial(card, options)
        return
    if options.reference:
        try:
            checkout.load(options.reference)
        except ValueError as error:
            parser.error(str(error))
    measured = {
        "The card's peak": peak(card, options.product),
        "Training steps": steps(card, options),
        "The same run twice": repeated(card, options),
        "Attacks": attacks(card, options),
        "Trials at once": together(card, options),
    }
    (best, *_) = measured["The card's peak"]
    for row in measured["Training steps"]:
        if "tflop_s" in row and "tflop_s" in best:
            row["share"] = 100 * row["tflop_s"] / best["tflop_s"]
    told = conditions(card, options)
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value is not None)
    lines = ["# One card", "", f"`python benchmarks/gpu.py {' '.join(sys.argv[1:])}`", "", f"{said}.", ""]
    lines += ["Medians. A step has its data with it: crop and flip of the batch on the device.", ""]
    for title, rows in measured.items():
        lines += [f"## {title}", "", *table(rows), ""]
    print(*lines, sep="\n")
    if options.output:
        options.output.write_text("\n".join(lines))
        options.output.with_suffix(".json").write_text(json.dumps({"conditions": told, **measured}, indent=1))


if __name__ == "__main__":
    main()
