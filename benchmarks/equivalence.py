"""Whether a training step computes what the authors' code computes, in float64, quantity by quantity.

    git clone https://github.com/futakw/AR-AT
    python benchmarks/equivalence.py --reference AR-AT --output benchmarks/equivalence.md

From equal weights, on equal batches and with equal noise both sides take some steps, each with its own attack, loss and
optimiser: this project's `TrainingStep` and the authors' `train_one_epoch`. `--trades`, `--mart` and `--lbgat` take
checkouts of those methods' code, whose loss functions attack, too. The largest difference of each quantity is shown;
where one is above the tolerance, or a control is not found out, the exit code is 1. A speed-up must leave it 0.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from reference import authors, baselines, checkout, ours
from reference.baselines import BASELINES
from reference.cases import CASES, CONTROLS, MEANT, NOT_COMPARED, Case
from reference.records import TOLERANCE, Batch, Finding, compare

from arat_ray.training.methods import Arat

NOISE_SEED = 3


def batches(steps: int, size: int) -> list[Batch]:
    """Smooth random images, of which a part lies at 0 and at 1 as in photographs, and random labels; float64."""
    draws = torch.Generator().manual_seed(2)
    made = list[Batch]()
    for _ in range(steps):
        coarse = torch.rand(size, 3, 8, 8, generator=draws, dtype=torch.float64)
        x = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
        x = x + 0.1 * torch.randn(x.shape, generator=draws, dtype=torch.float64)
        made.append(((1.5 * x - 0.25).clamp(0, 1), torch.randint(10, (size,), generator=draws)))
    return made


def findings(code: SimpleNamespace, case: Case, options: argparse.Namespace) -> list[Finding]:
    """Both sides of a case, compared. The authors' takes ARAT as published but for the case's own options."""
    wide = {"depth": options.wide_depth, "width": options.wide_width}
    model = {"width": options.width} if case.network == "resnet18" else wide
    preset, size = f"arat/{case.network}", options.batch_size
    spec = ours.spec(preset, batch_size=size, method=case.method, model=model)
    published = ours.spec(preset, batch_size=size, method={}, model=model)
    method = ours.built(spec, torch.float64)
    assert isinstance(method, Arat)
    data = ours.half_right(method, batches(options.steps, size))
    theirs = authors.Authors(code, published, method.state_dict(), method.layers, case.authors)
    return compare(ours.run(spec, method, data, noise_seed=NOISE_SEED), theirs.run(data, noise_seed=NOISE_SEED))


def baseline_findings(name: str, beta: float, loss: baselines.Loss, options: argparse.Namespace) -> list[Finding]:
    """A baseline's step beside its authors' loss function, on images that no start is clamped for."""
    switches = {"beta": beta} | ({"teacher": {"width": options.width}} if name == "lbgat" else {})
    model, size = {"width": options.width}, options.batch_size
    spec = ours.spec(f"{name}/resnet18", batch_size=size, method=switches, model=model)
    method = ours.built(spec, torch.float64)
    data = [(0.2 + 0.6 * x, y) for x, y in batches(options.steps, size)]
    theirs = baselines.run(loss, spec, method, data, noise_seed=NOISE_SEED)
    mine = ours.run(spec, method, data, noise_seed=NOISE_SEED)
    return compare([{quantity: record[quantity] for quantity in theirs[0]} for record in mine], theirs)


def table(found: Sequence[Finding]) -> list[str]:
    """Markdown, a quantity a line."""
    lines = ["| quantity | largest difference | tolerance | in step | part |", "|---|---|---|---|---|"]
    for each in found:
        mark = " **exceeded**" if each.exceeds else ""
        part = f"`{each.part}`" if each.part else ""
        lines.append(f"| {each.quantity} | {each.difference:.1e}{mark} | {TOLERANCE:.0e} | {each.step} | {part} |")
    return lines


def control(case: Case, found: Sequence[Finding]) -> str:
    """One line: how many quantities differ, and which the most."""
    exceeded = [each for each in found if each.exceeds]
    if not exceeded:
        return f"- {case.title}: **not found out**"
    most = max(exceeded, key=lambda each: each.difference)
    return (
        f"- {case.title}: {len(exceeded)} of {len(found)} quantities differ, {most.quantity} by {most.difference:.1e}"
    )


def conditions(options: argparse.Namespace) -> str:
    checkouts = {"futakw/AR-AT": options.reference}
    checkouts |= {baseline.repository: getattr(options, name) for name, baseline in BASELINES.items()}
    commits = ", ".join(f"{name} {checkout.commit(path)}" for name, path in checkouts.items() if path)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    networks = f"ResNet-18 of width {options.width}, WideResNet-{options.wide_depth}-{options.wide_width}"
    return (
        f"{commits}; {versions}, CPU, float64. {options.steps} steps of {options.batch_size} images, {networks}; "
        "attack, optimiser and constants of each method's preset."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of github.com/futakw/AR-AT")
    for name, baseline in BASELINES.items():
        parser.add_argument(f"--{name}", type=Path, help=f"a checkout of github.com/{baseline.repository}")
    parser.add_argument("--steps", type=int, default=5, help="training steps on each side")
    parser.add_argument("--batch-size", type=int, default=8, help="images a step; 3 or more")
    parser.add_argument("--width", type=int, default=8, help="of ResNet-18; 64 is the published one")
    parser.add_argument("--wide-depth", type=int, default=16, help="of the WideResNet; published: 34")
    parser.add_argument("--wide-width", type=int, default=1, help="of the WideResNet; published: 10")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    if options.batch_size < 3:
        parser.error(f"--batch-size {options.batch_size}: the authors' hooks misread a batch of 2; give 3 or more")
    given = {name: path for name in BASELINES if (path := getattr(options, name))}
    try:
        code = checkout.load(options.reference)
        losses = {name: BASELINES[name].load(name, path) for name, path in given.items()}
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    command = f"python benchmarks/equivalence.py {' '.join(sys.argv[1:])}"
    lines = ["# A training step beside the authors' code", "", f"`{command}`", "", conditions(options), ""]
    lines += ["Differences are over the largest entry of their tensor: the largest of all steps and parts.", ""]
    failed = False
    for case in CASES:
        found = findings(code, case, options)
        failed |= any(each.exceeds for each in found)
        lines += [f"## {case.title}", "", *table(found), ""]
    for name, loss in losses.items():
        for beta in BASELINES[name].betas:
            found = baseline_findings(name, beta, loss, options)
            failed |= any(each.exceeds for each in found)
            lines += [f"## {name.upper()}, beta {beta:g}, ResNet-18", "", *table(found), ""]
    lines += ["## Controls", "", "What computes something else, and is found out:", ""]
    for case in CONTROLS:
        found = findings(code, case, options)
        failed |= not any(each.exceeds for each in found)
        lines.append(control(case, found))
    lines += ["", "## Meant to differ", "", *(f"- {line}" for line in MEANT)]
    missing = [f"{name.upper()}: give `--{name}`, a checkout of it." for name in BASELINES if name not in given]
    lines += ["", "## Not compared", "", *(f"- {line}" for line in (*missing, *NOT_COMPARED))]
    print(*lines, sep="\n")
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
