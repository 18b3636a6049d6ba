"""One quick-start trial on one core: arat-ray's loop beside a plain PyTorch script of the same training.

    python benchmarks/digits_trial.py --repeats 5 --output benchmarks/digits_trial.md

Both train ARAT on digits for 10 epochs of PGD-10 with the same network, batch size and data, and measure PGD-20 at the
end. The plain script is what one writes first: a data loader, loss.backward() in the attack, hooks left on. Runs
alternate in one process on one thread; what is compared is the median of the wall times.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from arat_ray.training.context import Context
from arat_ray.training.data import splits as data
from arat_ray.training.loop import fit
from arat_ray.training.models import Tiny
from arat_ray.training.run import Train, Validate

EPSILON, STEP, WEIGHT, SHARE = 0.2, 0.05, 0.5, 0.6


Row = Mapping[str, Any]


def ours(batch_size: int) -> Row:
    attack = {"name": "pgd", "norm": "linf", "epsilon": EPSILON, "step_size": STEP, "steps": 10}
    method = {
        "name": "arat",
        "invariance_weight": WEIGHT,
        "layers": ["bn3"],
        "balance": {"name": "fixed", "adversarial": SHARE},
    }
    train = Train.model_validate(
        {
            "dataset": {"name": "digits"},
            "model": {"name": "tiny", "width": 16},
            "method": method,
            "attack": attack,
            "epochs": 10,
            "batch_size": batch_size,
            "seed": 0,
        }
    )
    validate = Validate.model_validate(
        {"every": 10, "images": 400, "attack": attack | {"steps": 20, "step_size": EPSILON / 8}}
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:

        def report(row: Row, replayed: bool) -> bool:
            rows.append(row)
            return False

        fit(train, validate, Context(Path(folder), report))
    return rows[-1]


class TwoNorms(nn.Module):
    adversarial = True

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.a, self.b = norm, copy.deepcopy(norm)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(x) if TwoNorms.adversarial else self.b(x)
        return out


def plain_attack(model: nn.Module, x: Tensor, y: Tensor, steps: int, step: float) -> Tensor:
    x_adv = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        F.cross_entropy(model(x_adv), y).backward()
        assert x_adv.grad is not None
        x_adv = x_adv + step * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPSILON), x + EPSILON).clamp(0, 1)
    return x_adv.detach()


def plain(batch_size: int) -> Row:
    torch.manual_seed(0)
    splits = data.load(data.Digits(), validate_on="validation", images=400, seed=0)
    model = Tiny(width=16).build((1, 8, 8), 10)
    for name in ("bn1", "bn2", "bn3"):
        setattr(model, name, TwoNorms(getattr(model, name)))
    predictor = nn.Sequential(nn.Linear(64, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 64))
    seen: dict[str, Tensor] = {}
    model.get_submodule("bn3").register_forward_hook(lambda m, i, o: seen.__setitem__("z", F.relu(o).mean((2, 3))))
    optimizer = torch.optim.SGD([*model.parameters(), *predictor.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        TensorDataset(splits.train.images.float() / 255, splits.train.labels), batch_size, shuffle=True, drop_last=True
    )
    for epoch in range(10):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 if epoch == 0 else 0.1 if epoch < 7.6 else 0.01 if epoch < 9.1 else 0.001
        for x, y in loader:
            x_adv = plain_attack(model, x, y, 10, STEP)
            TwoNorms.adversarial = False
            clean, z_clean = model(x), seen["z"]
            TwoNorms.adversarial = True
            adversarial, z_adv = model(x_adv), seen["z"]
            loss = SHARE * F.cross_entropy(adversarial, y) + (1 - SHARE) * F.cross_entropy(clean, y)
            loss = loss + WEIGHT * (1 - F.cosine_similarity(predictor(z_adv), z_clean.detach()).mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    x, y = splits.validation.images.float() / 255, splits.validation.labels
    right = model(x).argmax(1) == y
    robust = model(plain_attack(model, x, y, 20, EPSILON / 8)).argmax(1) == y
    return {
        "validation_clean_accuracy": right.float().mean().item(),
        "validation_robust_accuracy": (right & robust).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# One quick-start trial: 10 epochs of ARAT with PGD-10 on digits, one core",
        "",
        f"torch {torch.__version__}, one thread, {platform.processor() or platform.machine()}; median of "
        f"{options.repeats} runs (lowest to highest), the two alternating in one process after a warm-up run of each. "
        "`python benchmarks/digits_trial.py`",
        "",
        "| batch size | arat-ray, s | plain script, s | ratio | clean / PGD-20 accuracy, arat-ray | plain script |",
        "|---|---|---|---|---|---|",
    ]
    for batch_size in (32, 64):
        seconds: dict[Any, list[float]] = {ours: [], plain: []}
        last: dict[Any, Row] = {}
        for repeat in range(options.repeats + 1):
            for run in (ours, plain):
                began = time.perf_counter()
                last[run] = run(batch_size)
                if repeat:
                    seconds[run].append(time.perf_counter() - began)
        medians = {run: statistics.median(times) for run, times in seconds.items()}
        shown = [f"{medians[run]:.1f} ({min(seconds[run]):.1f} to {max(seconds[run]):.1f})" for run in (ours, plain)]
        scores = [
            " / ".join(f"{100 * last[run][f'validation_{name}_accuracy']:.1f} %" for name in ("clean", "robust"))
            for run in (ours, plain)
        ]
        ratio = medians[ours] / medians[plain]
        lines.append(f"| {batch_size} | {shown[0]} | {shown[1]} | {ratio:.2f} | {scores[0]} | {scores[1]} |")
        print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
