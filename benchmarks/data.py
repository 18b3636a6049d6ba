"""Augmented training images a CPU second: whole batches as the loop takes them, beside image by image through PIL.

    python benchmarks/data.py --output benchmarks/data.md

Random images of CIFAR-10's shape, padding 4, flips, one thread. `batches` is what a run gets: crop, flip, float32 in
[0, 1]. `pil` is torchvision's RandomCrop, RandomHorizontalFlip and ToTensor on PIL images, one after the other, and
their stack, as most published code has it, without a loader's processes. The policies come on top of crop and flip.
All take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from arat_ray.training.data.batches import Batches
from arat_ray.training.data.images import ImageSet
from arat_ray.training.data.policies import POLICIES, Policy
from arat_ray.training.data.splits import DATASETS
from arat_ray.training.memory import keep_freed_memory

PADDING = 4
Serve = Callable[[Tensor], Tensor]
"""Indices [B] of a batch -> its images, float32 [B, 3, 32, 32] in [0, 1]."""


def pictures(images: int) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(256, (images, 3, 32, 32), generator=draws, dtype=torch.uint8)


def batches(images: Tensor, policy: Policy | None, *, channels_last: bool) -> Serve:
    """As a run on CIFAR-10 has them."""
    spec = DATASETS["cifar10"].model_validate({"name": "cifar10", "crop_padding": PADDING, "flip": True})
    labelled = ImageSet(images, torch.zeros(len(images), dtype=torch.long), ())
    data = Batches(labelled, spec, policy=policy, channels_last=channels_last, device=torch.device("cpu"))
    draws = torch.Generator().manual_seed(1)
    return lambda indices: data.batch(indices, draws)[0]


def pil(images: Tensor) -> Serve:
    from torchvision import transforms  # here, since it takes seconds
    from torchvision.transforms.functional import to_pil_image

    pictures = [to_pil_image(image) for image in images]
    steps = [transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose(steps)
    return lambda indices: torch.stack([transform(pictures[i]) for i in indices.tolist()])


def race(contenders: Mapping[str, Serve], *, images: int, batch: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a batch by contender; the first round is not counted."""
    turns: dict[str, list[float]] = {name: [] for name in contenders}
    draws = torch.Generator().manual_seed(2)
    for number in range(rounds + 1):
        indices = torch.randint(images, (batch,), generator=draws)
        for name, serve in contenders.items():
            began = time.process_time()
            serve(indices)
            if number:
                turns[name].append(time.process_time() - began)
    return turns


def table(turns: Mapping[str, Sequence[float]], batch: int) -> list[str]:
    """Markdown, with the CPU time of `pil` over each, within a round."""
    lines = ["| | images a CPU second | CPU time of pil over it |", "|---|---|---|"]
    for name, seconds in turns.items():
        ratios = [theirs / ours for theirs, ours in zip(turns["pil"], seconds, strict=True)]
        first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
        rate = batch / statistics.median(seconds)
        lines.append(f"| {name} | {rate:,.0f} | {median:.3g} ({first:.3g} to {third:.3g}) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="of the set")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40, help="rounds that count; 2 or more")
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need 2 or more")
    torch.set_num_threads(1)
    keep_freed_memory()
    images = pictures(options.images)
    contenders: dict[str, Serve] = {"pil": pil(images)}
    contenders["batches"] = batches(images, None, channels_last=False)
    contenders["batches, channels last"] = batches(images, None, channels_last=True)
    contenders |= {f"batches, {policy}": batches(images, policy, channels_last=True) for policy in POLICIES}
    turns = race(contenders, images=options.images, batch=options.batch_size, rounds=options.rounds)
    conditions = {
        "images": options.images,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "load_average": round(os.getloadavg()[0], 1),
    }
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    lines = ["# Augmented images", "", f"`python benchmarks/data.py {' '.join(sys.argv[1:])}`", "", f"{told}.", ""]
    lines += ["Medians; of ratios with their quartiles.", "", *table(turns, options.batch_size)]
    print(*lines, sep="\n")
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
        options.output.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "cpu_s": turns}, indent=1))


if __name__ == "__main__":
    main()
