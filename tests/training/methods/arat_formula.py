"""ARAT's objective computed from its equation, with all its switches, by plain hooks and definitions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.methods import Arat, Task
from arat_ray.training.models import MODELS
from tests.training.methods.formulas import CLASSES, SHAPE, build, cross_entropy, log_softmax, softmax

SMALL: dict[str, dict[str, Any]] = {
    "tiny": {"width": 3},
    "resnet18": {"width": 2},
    "preact_resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "vit": {"patch": 2, "width": 8, "depth": 2, "heads": 2},
}
LAYERS = {
    "tiny": ("bn2", "bn3"),
    "resnet18": ("layer4.*.bn?",),
    "preact_resnet18": ("layer4.*.bn?", "relu"),
    "wide_resnet": ("block3.layer.*.relu?", "avgpool"),
    "vit": ("blocks.*.norm?", "norm"),
}


def make(model: str = "tiny", **fields: Any) -> Arat:
    """A small ARAT in float64 train mode, its two norm branches made different, its balance 0.3 to 0.7."""
    torch.manual_seed(0)
    spec = MODELS[model](**SMALL[model])
    defaults = {
        "invariance_weight": 7.0,
        "layers": LAYERS[model],
        "balance": {"name": "fixed", "adversarial": 0.3},
    }
    method = build("arat", spec.build(SHAPE, CLASSES), Task(spec, SHAPE, CLASSES), **defaults | fields).double()
    assert isinstance(method, Arat)
    with torch.no_grad():
        for name, value in method.named_parameters():
            if ".clean." in name or ".adversarial." in name:
                value.add_(0.3 * torch.rand_like(value))
    method.start_epoch(1, lambda model, images, fresh: math.nan)
    return method.train()


def features_of(method: Arat, branch: split_norm.Branch, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and pooled features by plain hooks, without the code under test but for the choice of branch."""
    found: dict[str, Tensor] = {}
    modules = dict(method.model.named_modules())

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, out: Tensor) -> None:
            found[name] = out.transpose(1, 2) if out.dim() == 3 else out  # tokens [N, T, C] as [N, C, T]

        return modules[name].register_forward_hook(hook)

    handles = [keep(name) for name in method.layers]
    for module in method.model.modules():
        if isinstance(module, split_norm.SplitNorm):
            module.active = branch
    logits = method.model(x)
    for handle in handles:
        handle.remove()
    return logits, [found[name].clamp(min=0).flatten(2).sum(2) / found[name][0, 0].numel() for name in method.layers]


def cosine(p: Tensor, z: Tensor) -> Tensor:
    return 1 - ((p * z).sum(1) / (p.square().sum(1).sqrt() * z.square().sum(1).sqrt())).sum() / len(p)


def mse(p: Tensor, z: Tensor) -> Tensor:
    return (p - z).square().sum() / p.numel()


def kl(p: Tensor, z: Tensor) -> Tensor:
    return (softmax(z) * (log_softmax(z) - log_softmax(p))).sum() / len(p)


DISTANCES = {"cosine": cosine, "mse": mse, "kl": kl}


def published(
    method: Arat, x: Tensor, x_adv: Tensor, y: Tensor, *, distance: str = "cosine", held: str = "clean"
) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms of the objective, with distance D and one side of it held constant, from the formula."""
    logits_clean, clean = features_of(method, "clean", x)
    logits_adv, adversarial = features_of(method, "adversarial", x_adv)
    d = DISTANCES[distance]
    terms = []
    for h, z_adv, z in zip(method.predictors, adversarial, clean, strict=True):
        towards_clean, towards_adversarial = d(h(z_adv), z.detach()), d(h(z), z_adv.detach())
        by_side = {
            "clean": towards_clean,
            "none": d(h(z_adv), z),
            "adversarial": towards_adversarial,
            "both": (towards_clean + towards_adversarial) / 2,
        }
        terms.append(by_side[held])
    return (
        0.3 * cross_entropy(logits_adv, y),
        0.7 * cross_entropy(logits_clean, y),
        7.0 / len(terms) * sum(terms, start=torch.zeros((), dtype=torch.float64)),
    )
