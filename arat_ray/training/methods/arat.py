"""ARAT: asymmetric representation-regularised adversarial training, https://arxiv.org/abs/2402.14648, section 4.

    L = a CE(f_adv(x'), y) + (1 - a) CE(f_clean(x), y)
        + gamma / |S| * sum over l in S of [1 - mean_i cos(h_l(phi_l^adv(x'_i)), stopgrad(phi_l^clean(x_i)))]

f_adv and f_clean share all weights but those of the norm layers (`branches`); phi_l is the pooled feature of layer l
(`layers`); h_l is a predictor. By default a is the clean branch's accuracy on training images before the epoch.

Each mechanism has a switch: `stop_gradient`, `split_norm`, `predictor`; and the distance D(p, z), 1 - cos(p, z) above,
may be another. Which side of D is held constant:

    clean        D(h(z'), sg z)                                 the paper's: x' follows x
    none         D(h(z'), z)                                    both move
    adversarial  D(h(z), sg z')                                 reversed: x follows x'
    both         [D(h(z'), sg z) + D(h(z), sg z')] / 2          each follows the other, one h for both, as in SimSiam
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from arat_ray.spec import Spec, merge
from arat_ray.training import layers
from arat_ray.training import split_norm as branches
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method, SampleAccuracy, Task
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import AttackNorm, Branch

Distance = Callable[[Tensor, Tensor], Tensor]
"""D(p, z): how far predictions p [N, d] are from features z [N, d], a mean over the images."""


def cosine(p: Tensor, z: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(p, z).mean()


def mse(p: Tensor, z: Tensor) -> Tensor:
    """Squared difference, a mean over features as well."""
    return F.mse_loss(p, z)


def kl(p: Tensor, z: Tensor) -> Tensor:
    """KL(softmax(z) || softmax(p)) over the d features, temperature 1."""
    return F.kl_div(p.log_softmax(1), z.log_softmax(1), reduction="batchmean", log_target=True)


DISTANCES: dict[str, Distance] = {"cosine": cosine, "mse": mse, "kl": kl}

Invariance = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""One layer's term: predictor h, z' and z [N, d] -> its distance."""


def _clean_held(distance: Distance, h: nn.Module, z_adv: Tensor, z: Tensor) -> Tensor:
    return distance(h(z_adv).to(z), z.detach())


def _none_held(distance: Distance, h: nn.Module, z_adv: Tensor, z: Tensor) -> Tensor:
    return distance(h(z_adv).to(z), z)


def _adversarial_held(distance: Distance, h: nn.Module, z_adv: Tensor, z: Tensor) -> Tensor:
    return distance(h(z).to(z), z_adv.detach())


def _each_held(distance: Distance, h: nn.Module, z_adv: Tensor, z: Tensor) -> Tensor:
    return (_clean_held(distance, h, z_adv, z) + _adversarial_held(distance, h, z_adv, z)) / 2


HELD = {"clean": _clean_held, "none": _none_held, "adversarial": _adversarial_held, "both": _each_held}


class PredictorSpec(Spec):
    """h_l: `depth` linear layers with a norm and an activation between them; hidden width = ratio x feature width.

    The defaults are the paper's, which are SimSiam's: Linear(d, d/4, no bias), norm, ReLU, Linear(d/4, d).
    """

    ratio: float = Field(0.25, gt=0, le=64)
    """Hidden width over feature width."""
    depth: int = Field(2, ge=1, le=16)
    """Linear layers."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Between the layers."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Between the layers."""

    def build(self, width: int) -> nn.Module:
        hidden = max(1, round(self.ratio * width))
        modules: list[nn.Module] = []
        inputs = width
        for _ in range(self.depth - 1):
            modules.append(nn.Linear(inputs, hidden, bias=self.norm == "none"))
            modules += NORMS[self.norm](hidden)
            modules.append(ACTIVATIONS[self.activation]())
            inputs = hidden
        return nn.Sequential(*modules, nn.Linear(inputs, width))


NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda width: [nn.BatchNorm1d(width)],
    "layer": lambda width: [nn.LayerNorm(width)],
    "none": lambda width: [],
}
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class AutoBalance(Spec):
    """a^p and (1 - a)^p, with a the clean branch's accuracy on augmented training images before each epoch.

    `sample: fixed` measures on the same images each epoch, `fresh` on new ones, as the authors' code does.
    """

    name: Literal["auto"] = "auto"
    exponent: float = Field(1.0, ge=0)
    """p; 1 in the paper."""
    images: int = Field(1024, ge=1)
    """Training images that the accuracy is measured on."""
    sample: Literal["fixed", "fresh"] = "fixed"
    """The same images each epoch, or new ones as the authors' code takes."""

    def weights(self, model: nn.Module, sample_accuracy: SampleAccuracy) -> tuple[float, float]:
        with branches.branch(model, "clean"):
            accuracy = sample_accuracy(model, self.images, self.sample == "fresh")
        return accuracy**self.exponent, (1 - accuracy) ** self.exponent


class FixedBalance(Spec):
    """Constant weights of the two cross-entropies; `clean` is 1 - adversarial where it is not given."""

    name: Literal["fixed"] = "fixed"
    adversarial: float = Field(ge=0)
    """Weight of the adversarial cross-entropy."""
    clean: float | None = Field(None, ge=0)
    """Weight of the clean one; by default 1 - adversarial."""

    @model_validator(mode="after")
    def _clean_is_not_negative(self) -> FixedBalance:
        if self.clean is None and self.adversarial > 1:
            raise ValueError(f"with adversarial = {self.adversarial} above 1, say what `clean` is")
        return self

    def weights(self, model: nn.Module, sample_accuracy: SampleAccuracy) -> tuple[float, float]:
        return self.adversarial, 1 - self.adversarial if self.clean is None else self.clean


Balance = Annotated[AutoBalance | FixedBalance, Field(discriminator="name")]

OFFICIAL: dict[str, Any] = {
    "noisy_center": True,
    "attack_norm": "train",
    "balance": {"name": "auto", "sample": "fresh"},
}
"""How the authors' code, https://github.com/futakw/AR-AT, differs from what the paper says, as far as training goes."""
OFFICIAL_L2 = OFFICIAL | {"noisy_center": False, "attack_norm": "eval"}
"""The same in l2: its attack is torchattacks' there, which leaves its input alone and runs the network in eval mode."""


def fill_in_preset(given: Mapping[str, Any], *, norm: object = "linf") -> Mapping[str, Any]:
    """What `given` says under `method:`, completed by its preset, where it names one, for attacks of a norm."""
    if given.get("preset") != "official":
        return given
    return merge(OFFICIAL_L2 if norm == "l2" else OFFICIAL, given)


class AratSpec(Spec):
    """ARAT's knobs. `invariance_weight` is the paper's gamma, shared out evenly over the layers.

    The paper's choices: ResNet-18 takes 30 and `layer4.*.bn?`; WRN-34-10 takes 100 and `block3.layer.*.relu?` with
    `avgpool`.
    """

    name: Literal["arat"] = "arat"
    passes: ClassVar[int] = 2
    preset: Literal["official"] | None = None
    """official: what the authors' code does where it differs from the paper; keys beside it go before it."""
    invariance_weight: float = Field(ge=0)
    """Weight of the invariance loss (the paper's gamma), shared out evenly over the layers."""
    layers: tuple[str, ...] = Field(min_length=1)
    """Patterns of module names whose outputs are regularised; `*` and `?` stay inside one dotted part."""
    predictor: PredictorSpec | None = PredictorSpec()
    """The head on the adversarial feature; null: none."""
    balance: Balance = AutoBalance()
    """Weights of the two cross-entropies."""
    distance: Literal["cosine", "mse", "kl"] = "cosine"
    """Of the two representations."""
    stop_gradient: Literal["clean", "none", "adversarial", "both"] = "clean"
    """The side of the invariance loss that is held constant."""
    split_norm: bool = True
    """A norm branch each for clean and adversarial inputs."""
    attack_norm: AttackNorm = "train"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""
    noisy_center: bool = False
    """Train on x + U(-epsilon, epsilon) as the clean input and around it (linf). The authors' code does, so all
    published numbers include it; the paper's equations do not, and attacks then reach up to 2 epsilon from x."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        return fill_in_preset(data) if isinstance(data, Mapping) else data

    def build(self, model: nn.Module, task: Task) -> Method:
        """ARAT around a plain network.

        Raises ValueError for a layer pattern that matches nothing, a layer without a feature, and a network without
        norm layers to split.
        """
        names = layers.select(model, self.layers)
        widths = layers.widths(model, names, task.shape)
        predictors = [self.predictor.build(width) if self.predictor else nn.Identity() for width in widths]
        if self.split_norm and not branches.has_norm(model):
            raise ValueError("method.split_norm: this network has no norm layer to split; set split_norm: false")
        return Arat(branches.convert(model) if self.split_norm else model, names, predictors, self)


class Arat(Method):
    """The loss of ARAT. Ablations are settled here, so that `forward` reads as the equation."""

    def __init__(self, model: nn.Module, names: Sequence[str], predictors: Sequence[nn.Module], spec: AratSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.layers = tuple(names)
        self.predictors = nn.ModuleList(predictors)
        self.invariance_weight = spec.invariance_weight
        self.invariance: Invariance = partial(HELD[spec.stop_gradient], DISTANCES[spec.distance])
        self.noisy_center = spec.noisy_center
        self.balance_rule = spec.balance
        self.weight_adversarial = self.weight_clean = math.nan

    def start_epoch(self, epoch: int, sample_accuracy: SampleAccuracy) -> None:
        """Balance the two cross-entropies for the epoch to come."""
        self.weight_adversarial, self.weight_clean = self.balance_rule.weights(self.model, sample_accuracy)
        self.balance = self.weight_adversarial

    def epoch_state(self) -> dict[str, Any]:
        weights = {"weight_adversarial": self.weight_adversarial, "weight_clean": self.weight_clean}
        return super().epoch_state() | weights

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
            self.invariance(h, features_adv[layer], features_clean[layer])
            for layer, h in zip(self.layers, self.predictors, strict=True)
        ]
        return Losses(
            adversarial=self.weight_adversarial * self.cross_entropy(logits_adv, y),
            clean=self.weight_clean * self.cross_entropy(logits_clean, y),
            invariance=self.invariance_weight * torch.stack(distances).mean(),
            logits_adv=logits_adv,
            logits_clean=logits_clean,
        )

    def _through(self, name: Branch, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [N, K] and pooled features {layer: [N, d]} of one norm branch."""
        with branches.branch(self.model, name), layers.capture(self.model, self.layers) as features:
            return self.model(x), features
