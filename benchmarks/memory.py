"""What a run is forecast to hold, beside what its process takes.

    python benchmarks/memory.py --output benchmarks/memory.md

Each run is a process of its own on the CPU, two steps and a measurement of 128 images, on random images of CIFAR-10's
shape. `tensors` are those that are alive at once, with values; `process` is by how much its resident memory grew at
most, after a tiny run: tensors, what the allocator cannot use, and what the convolutions of oneDNN take beside.
bfloat16 is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.context import Context
from arat_ray.training.data import splits
from arat_ray.training.data.images import ImageSet
from arat_ray.training.memory_forecast import Alive, forecast
from arat_ray.training.randomness import Noise, generator
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import Stopwatch
from arat_ray.training.trainer import Trainer

MIB = 2**20
IMAGES, HELD_OUT = 2000, 128
PGD = {"name": "pgd", "norm": "linf", "epsilon": "8/255", "step_size": "2/255", "steps": 2}
ARAT = {"name": "arat", "invariance_weight": 30, "layers": ["avgpool"]}
RESNET, WIDE = {"name": "resnet18", "width": 16}, {"name": "wide_resnet", "depth": 16, "width": 2}
VIT = {"name": "vit", "patch": 4, "width": 192, "depth": 6, "heads": 3}
RUNS: Mapping[str, dict[str, Any]] = {
    "ARAT, ResNet-18 of width 16": {"model": RESNET, "method": ARAT},
    "the same, NCHW": {"model": RESNET, "method": ARAT, "channels_last": False},
    "the same, batches of 64": {"model": RESNET, "method": ARAT, "batch_size": 64},
    "the same, EMA": {"model": RESNET, "method": ARAT, "averaging": {"name": "ema"}},
    "TRADES, ResNet-18 of width 16": {"model": RESNET, "method": {"name": "trades"}},
    "PGD-AT, ResNet-18 of width 64, batches of 64": {
        "model": {"name": "resnet18"},
        "method": {"name": "pgd_at"},
        "batch_size": 64,
    },
    "ARAT, WRN-16-2": {"model": WIDE, "method": ARAT},
    "ARAT, ViT": {"model": VIT, "method": {**ARAT, "layers": ["norm"]}},
}


def specs(name: str) -> tuple[Train, Validate]:
    fields = {"dataset": {"name": "cifar10"}, "attack": PGD, "epochs": 1, "batch_size": 128, "seed": 0, **RUNS[name]}
    return Train.model_validate(fields), Validate.model_validate({"every": 1, "images": HELD_OUT, "attack": PGD})


def random_images() -> ImageSet:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES + HELD_OUT, 3, 32, 32), generator=draws, dtype=torch.uint8)
    return ImageSet(images, torch.arange(len(images)) % 10, tuple("abcdefghij"))


def resident(*, now: bool) -> int:
    """Bytes that this process has in memory, `now` or at the most so far."""
    if now:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def act(trainer: Trainer) -> None:
    """Two steps and a batch of the measurement."""
    trainer.method.train()
    trainer.method.start_epoch(1, lambda model, count, fresh: 0.5)
    for epoch in (1, 2):
        x, y = trainer.images.batch(torch.arange(trainer.train.batch_size), generator("cpu", epoch))
        noise = trainer.noise("attack", epoch)
        trainer.step(x, y, noise, Stopwatch(torch.device("cpu")), perturbs_weights=False)
        del x, y
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.method.eval()
    images, labels = trainer.validation.images, trainer.validation.labels
    x = to_unit(images, channels_last=trainer.train.channels_last)
    trainer.validate.attack(trainer.method.model, x, labels, noise=Noise(generator("cpu", 1), len(labels)))


def measured(name: str, *, counted: bool) -> int:
    """Bytes of a run in this process: of its tensors, `counted` as they come and go, or by which the process grew."""
    train, validate = specs(name)
    data = random_images()
    splits.read = lambda dataset, split: data
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), lambda row, replayed: False)
        if counted:
            with Alive() as alive:
                act(Trainer(train, validate, context))
            return int(alive.most)
        little = train.model_copy(update={"batch_size": 4})
        act(Trainer(little, validate.model_copy(update={"images": 4}), context))  # libraries come with their first use
        before = resident(now=True)
        act(Trainer(train, validate, context))
        return resident(now=False) - before


def apart(name: str, how: str) -> int:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--how", how]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--one", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measured(options.one, counted=options.how == "tensors"))
        return
    rows = []
    for name in options.runs:
        train, validate = specs(name)
        told = forecast(train, validate, images=IMAGES).most
        rows.append({"run": name, "forecast": told, **{how: apart(name, how) for how in ("tensors", "process")}})
    lines = [
        "# Memory of a run",
        "",
        f"`python benchmarks/memory.py {' '.join(sys.argv[1:])}`; see there. Python {platform.python_version()}, torch "
        f"{torch.__version__}, {platform.machine()}, one thread. Batches of 128, but where another size is given.",
        "",
        "| | forecast, MiB | tensors, MiB | of the forecast | process, MiB | of the forecast |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['forecast'] / MIB:.0f}"]
        for how in ("tensors", "process"):
            cells += [f"{row[how] / MIB:.0f}", f"{row[how] / row['forecast']:.2f}"]
        lines.append(f"| {row['run']} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
        options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
