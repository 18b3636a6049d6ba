"""What the method tests share: small inputs, small networks, and the terms of the losses by their definitions."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from arat_ray.training.methods import Method, MethodSpec, Task
from arat_ray.training.models import Tiny
from arat_ray.training.randomness import Noise, generator

SHAPE = (1, 8, 8)
CLASSES = 4
TASK = Task(Tiny(width=3), SHAPE, CLASSES)
NEEDED: dict[str, dict[str, Any]] = {
    "arat": {"invariance_weight": 5, "layers": ["avgpool"]},
    "arrest": {"standard_epochs": 1},
}


def build(name: str, model: nn.Module, task: Task = TASK, **fields: Any) -> Method:
    spec: Any = TypeAdapter(MethodSpec).validate_python({"name": name, **NEEDED.get(name, {}), **fields})
    built: Method = spec.build(model, task)
    return built


def tiny() -> nn.Module:
    """A small network with batch norm in float64, always the same."""
    torch.manual_seed(0)
    return Tiny(width=3).build(SHAPE, CLASSES).double().train()


class Given(nn.Module):
    """A network of which the logits are the parameters: one set for black images, one for white ones."""

    def __init__(self, images: int, seed: int = 0) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.clean = nn.Parameter(2 * torch.randn(images, CLASSES, dtype=torch.float64, generator=draws))
        self.adversarial = nn.Parameter(2 * torch.randn(images, CLASSES, dtype=torch.float64, generator=draws))

    def forward(self, x: Tensor) -> Tensor:
        return self.adversarial if x.mean() > 0.5 else self.clean


def black_and_white(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, x_adv and y for `Given`."""
    x = torch.zeros(images, *SHAPE, dtype=torch.float64)
    return x, x + 1, (3 * torch.arange(images)) % CLASSES


def batch(images: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(images, *SHAPE, dtype=dtype)
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1), torch.arange(images) % CLASSES


def noise(images: int) -> Noise:
    return Noise(generator("cpu", 0), images)


def log_softmax(logits: Tensor) -> Tensor:
    shifted = logits - logits.max(1, keepdim=True).values
    return shifted - shifted.exp().sum(1, keepdim=True).log()


def softmax(logits: Tensor) -> Tensor:
    return log_softmax(logits).exp()


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """-1/N sum_i sum_k q_ik log p_ik; q gives y 1 - s, and each class s / K on top."""
    wanted = torch.full_like(logits, smoothing / logits.shape[1])
    wanted[torch.arange(len(y)), y] += 1 - smoothing
    return -(wanted * log_softmax(logits)).sum() / len(y)


def kl(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(p(x_i) || p(x'_i)) of each image [N], from logits."""
    return (softmax(clean) * (log_softmax(clean) - log_softmax(adversarial))).sum(1)


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    """Of a loss to each parameter, zero where there is none."""
    parameters = list(module.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_same_gradients(mine: Tensor, wanted: Tensor, module: nn.Module, twin: nn.Module | None = None) -> None:
    """Of both losses, to the parameters of `module`; of `wanted` to those of its twin, where it has one."""
    torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients(mine, module), gradients(wanted, twin or module), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def assert_same_state(module: nn.Module, twin: nn.Module) -> None:
    for (name, a), b in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=f"{name}: {a} is not {b}")
