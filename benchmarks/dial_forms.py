"""Which way from the adversarial to the clean norm branch: four forms of the dial, at the same settings.

    python benchmarks/dial_forms.py results/seed*/checkpoints/*/last.pt

Of each checkpoint of ARAT with batch norm: clean accuracy and accuracy under PGD-20 in the Linf norm at 0.2 on the test
images, then, over all checkpoints, what each form has more than the package's. Prints Markdown. See dial.md.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arat_ray.training import checkpoint
from arat_ray.training.attacks import Pgd
from arat_ray.training.randomness import Noise, generator
from arat_ray.training.split_norm import SplitNorm, folded

SETTINGS = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)
PGD_20 = Pgd(norm="linf", epsilon=0.2, step_size=0.05, steps=20)


def raw(split: SplitNorm, t: float) -> Any:
    """Each of the four numbers of a channel, as `arat-ray dial` has it."""
    norm, clean = copy.deepcopy(split.adversarial), split.clean.state_dict()
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_((1 - t) * value.double() + t * clean[name].double())
    return norm


def log_variance(split: SplitNorm, t: float) -> Any:
    """The same, but of the variance its logarithm: no setting makes it negative."""
    norm, (adversarial, clean) = raw(split, t), _variances(split)
    norm.running_var.copy_(torch.exp((1 - t) * adversarial.log() + t * clean.log()))
    return norm


def deviation(split: SplitNorm, t: float) -> Any:
    """The same, but of the variance its root."""
    norm, (adversarial, clean) = raw(split, t), _variances(split)
    norm.running_var.copy_(((1 - t) * adversarial.sqrt() + t * clean.sqrt()).square())
    return norm


def scale_and_shift(split: SplitNorm, t: float) -> Any:
    """The two numbers that each branch multiplies and adds in eval mode."""
    norm = raw(split, t)
    (scale, shift), (clean_scale, clean_shift) = map(_folded, (split.adversarial, split.clean))
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_((1 - t) * scale + t * clean_scale)
    norm.bias.copy_((1 - t) * shift + t * clean_shift)
    return norm


FORMS: dict[str, Callable[[SplitNorm, float], Any]] = {
    "raw": raw,
    "log-variance": log_variance,
    "deviation": deviation,
    "scale and shift": scale_and_shift,
}


def _variances(split: SplitNorm) -> tuple[Tensor, Tensor]:
    adversarial, clean = (side.get_buffer("running_var").double() for side in (split.adversarial, split.clean))
    return adversarial, clean


def _folded(norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def measure(path: Path) -> np.ndarray[Any, Any]:
    """Percent [F, T, 2]: clean and robust accuracy of each form at each setting.

    ValueError where the variances of one fall below zero.
    """
    state = checkpoint.load(path)
    method = state.train_spec.build(state.shape, state.num_classes)
    method.load_state_dict(state.method)
    images, y, _ = state.train_spec.dataset.read("test")
    x, found = images.float() / 255, np.empty((len(FORMS), len(SETTINGS), 2))
    for row, form in enumerate(FORMS.values()):
        for column, t in enumerate(SETTINGS):
            with torch.no_grad():
                network = folded(method.model, lambda split, form=form, t=t: form(split, t))  # type: ignore[misc]
            network.eval().requires_grad_(False)
            if any(bool((value < 0).any()) for name, value in network.named_buffers() if name.endswith("running_var")):
                raise ValueError(f"{path}: a variance below zero at {t:g}; take it out of SETTINGS")
            x_adv = PGD_20(network, x, y, noise=Noise(generator("cpu", 0, "dial"), len(x)))
            with torch.no_grad():
                right = network(x).argmax(1) == y
                robust = right & (network(x_adv).argmax(1) == y)
            found[row, column] = [100 * each.float().mean().item() for each in (right, robust)]
    return found


def main() -> None:
    found = np.stack([measure(Path(path)) for path in sys.argv[1:]])  # [N, F, T, 2]
    for goal, what in enumerate(("clean", "robust")):
        print(f"| {what}, {len(found)} seeds | {' | '.join(f'{t:g}' for t in SETTINGS)} |")
        print(f"|{'---|' * (len(SETTINGS) + 1)}")
        for row, name in enumerate(FORMS):
            values = found[:, row, :, goal] - (found[:, 0, :, goal] if row else 0)
            cells = (_cell(column, signed=row > 0) for column in values.T)
            print(f"| {name}{', more than raw' if row else ''} | {' | '.join(cells)} |")
        print()


def _cell(values: np.ndarray[Any, Any], *, signed: bool) -> str:
    """Mean and standard error over the seeds."""
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():{'+' if signed else ''}.1f} +- {error:.1f}"


if __name__ == "__main__":
    main()
