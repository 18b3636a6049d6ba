"""ARAT: asymmetric representation-regularised adversarial training, https://arxiv.org/abs/2402.14648, section 4.

    L = a CE(f_adv(x'), y) + (1 - a) CE(f_clean(x), y)
        + gamma / |S| * sum over l in S of [1 - mean_i cos(h_l(phi_l^adv(x'_i)), stopgrad(phi_l^clean(x_i)))]

f_adv and f_clean share all weights but those of the norm layers (`branches`); phi_l is the pooled feature of layer l
(`layers`); h_l is a predictor. By default a is the clean branch's accuracy on training images before the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training import branches, layers
from arat_ray.training.attacks import Attack
from arat_ray.training.branches import AttackNorm, Branch
from arat_ray.training.methods.base import Losses, Method, SampleAccuracy
from arat_ray.training.randomness import Noise


class PredictorSpec(Spec):
    """h_l: `depth` linear layers with batch norm and ReLU between them; hidden width = ratio x feature width.

    The defaults are the paper's, which are SimSiam's: Linear(d, d/4, no bias), norm, ReLU, Linear(d/4, d).
    """

    ratio: float = Field(0.25, gt=0, le=64)
    depth: int = Field(2, ge=1, le=16)
    norm: Literal["batch", "none"] = "batch"

    def build(self, width: int) -> nn.Module:
        hidden = max(1, round(self.ratio * width))
        modules: list[nn.Module] = []
        inputs = width
        for _ in range(self.depth - 1):
            modules.append(nn.Linear(inputs, hidden, bias=self.norm == "none"))
            if self.norm == "batch":
                modules.append(nn.BatchNorm1d(hidden))
            modules.append(nn.ReLU())
            inputs = hidden
        return nn.Sequential(*modules, nn.Linear(inputs, width))


class AutoBalance(Spec):
    """a^p and (1 - a)^p, with a the clean branch's accuracy on augmented training images before each epoch.

    `sample: fixed` measures on the same images each epoch, `fresh` on new ones, as the authors' code does.
    """

    name: Literal["auto"] = "auto"
    exponent: float = Field(1.0, ge=0)
    images: int = Field(1024, ge=1)
    sample: Literal["fixed", "fresh"] = "fixed"

    def weights(self, model: nn.Module, sample_accuracy: SampleAccuracy) -> tuple[float, float]:
        with branches.branch(model, "clean"):
            accuracy = sample_accuracy(model, self.images, self.sample == "fresh")
        return accuracy**self.exponent, (1 - accuracy) ** self.exponent


class FixedBalance(Spec):
    """Constant weights of the two cross-entropies; `clean` is 1 - adversarial where it is not given."""

    name: Literal["fixed"] = "fixed"
    adversarial: float = Field(ge=0)
    clean: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _clean_is_not_negative(self) -> FixedBalance:
        if self.clean is None and self.adversarial > 1:
            raise ValueError(f"with adversarial = {self.adversarial} above 1, say what `clean` is")
        return self

    def weights(self, model: nn.Module, sample_accuracy: SampleAccuracy) -> tuple[float, float]:
        return self.adversarial, 1 - self.adversarial if self.clean is None else self.clean


Balance = Annotated[AutoBalance | FixedBalance, Field(discriminator="name")]

OFFICIAL: Mapping[str, Any] = {
    "noisy_center": True,
    "attack_norm": "train",
    "balance": {"name": "auto", "sample": "fresh"},
}
"""How the authors' code, https://github.com/futakw/AR-AT, differs from what the paper says, as far as training goes."""


class AratSpec(Spec):
    """ARAT's knobs. `invariance_weight` is the paper's gamma, shared out evenly over the layers.

    The paper's choices: ResNet-18 takes 30 and `layer4.*.bn?`; WRN-34-10 takes 100 and `block3.layer.*.relu?` with
    `avgpool`.
    """

    name: Literal["arat"] = "arat"
    preset: Literal["official"] | None = None
    invariance_weight: float = Field(ge=0)
    layers: tuple[str, ...] = Field(min_length=1)
    predictor: PredictorSpec | None = PredictorSpec()
    balance: Balance = AutoBalance()
    stop_gradient: bool = True
    split_norm: bool = True
    attack_norm: AttackNorm = "train"
    noisy_center: bool = False
    """Train on x + U(-epsilon, epsilon) as the clean input and around it (linf). The authors' code does, so all
    published numbers include it; the paper's equations do not, and attacks then reach up to 2 epsilon from x."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") == "official":
            return {**OFFICIAL, **data}
        return data

    def build(self, model: nn.Module, shape: tuple[int, int, int]) -> Method:
        """ARAT around a plain network for images of `shape` [C, H, W].

        Raises ValueError for a layer pattern that matches nothing.
        """
        names = layers.select(model, self.layers)
        widths = feature_widths(model, names, shape)
        predictors = [self.predictor.build(width) if self.predictor else nn.Identity() for width in widths]
        return Arat(branches.convert(model) if self.split_norm else model, names, predictors, self)


def feature_widths(model: nn.Module, names: Sequence[str], shape: tuple[int, int, int]) -> list[int]:
    """d_l of each layer, by one forward of a zero image on the network's own device."""
    device = next(model.parameters()).device
    training = model.training
    with torch.no_grad(), layers.capture(model.eval(), names) as features:
        model(torch.zeros(1, *shape, device=device))
    model.train(training)
    return [features[name].shape[1] for name in names]


class Arat(Method):
    """The loss of ARAT. Ablations are settled here, so that `forward` reads as the equation."""

    def __init__(self, model: nn.Module, names: Sequence[str], predictors: Sequence[nn.Module], spec: AratSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.layers = tuple(names)
        self.predictors = nn.ModuleList(predictors)
        self.invariance_weight = spec.invariance_weight
        self.stop_gradient = _detach if spec.stop_gradient else _identity
        self.noisy_center = spec.noisy_center
        self.balance_rule = spec.balance
        self.weight_adversarial = self.weight_clean = math.nan

    def start_epoch(self, sample_accuracy: SampleAccuracy) -> None:
        """Balance the two cross-entropies for the epoch to come."""
        self.weight_adversarial, self.weight_clean = self.balance_rule.weights(self.model, sample_accuracy)
        self.balance = self.weight_adversarial

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        if not self.noisy_center:
            return super().perturb(x, y, attack, noise)
        center = x + noise.uniform(x, -attack.epsilon, attack.epsilon)
        with branches.attack_norm(self.model, self.attack_norm):
            return center, attack(self.model, center, y, noise=None)

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits_clean, features_clean = self._through("clean", x)
        logits_adv, features_adv = self._through("adversarial", x_adv)
        distances = [
            1 - F.cosine_similarity(h(features_adv[layer]), self.stop_gradient(features_clean[layer])).mean()
            for layer, h in zip(self.layers, self.predictors, strict=True)
        ]
        return Losses(
            adversarial=self.weight_adversarial * F.cross_entropy(logits_adv, y),
            clean=self.weight_clean * F.cross_entropy(logits_clean, y),
            invariance=self.invariance_weight * torch.stack(distances).mean(),
            logits_adv=logits_adv,
            logits_clean=logits_clean,
        )

    def _through(self, name: Branch, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [N, K] and pooled features {layer: [N, d]} of one norm branch."""
        with branches.branch(self.model, name), layers.capture(self.model, self.layers) as features:
            return self.model(x), features


def _detach(features: Tensor) -> Tensor:
    return features.detach()


def _identity(features: Tensor) -> Tensor:
    return features
