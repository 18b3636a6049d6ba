"""Train: the spec of one complete training run, and Validate: how it is measured on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from arat_ray.spec import Spec
from arat_ray.training import presets
from arat_ray.training.attacks import AttackSpec
from arat_ray.training.averaging import Averaging
from arat_ray.training.data.images import Shape
from arat_ray.training.data.policies import Policy
from arat_ray.training.data.splits import Dataset, Splits, load
from arat_ray.training.data.subset import Subset
from arat_ray.training.diagnostics import Diagnostics
from arat_ray.training.methods import (
    AratSpec,
    ArrestSpec,
    LbgatSpec,
    Method,
    MethodSpec,
    StandardSpec,
    Task,
    TradesSpec,
    arat,
)
from arat_ray.training.models import Model
from arat_ray.training.optimizers import Optimizer, Sgd
from arat_ray.training.outlines import outlined
from arat_ray.training.precision import Precision
from arat_ray.training.randomness import derive_seed
from arat_ray.training.schedules import Piecewise, Schedule
from arat_ray.training.weight_perturbation import WeightPerturbation


class Train(Spec):
    """One training run: what YAML says under `train:`, concrete and complete."""

    preset: str | None = None
    """A published run by name (`arat-ray presets`), which completes what is not given."""
    dataset: Dataset
    """What is trained on, validated on and tested on."""
    model: Model
    """The network."""
    method: MethodSpec
    """The defence."""
    attack: AttackSpec | None = None
    """The inner maximisation; only standard training does without."""
    epochs: int = Field(ge=1)
    """Passes over the training images."""
    batch_size: int = Field(ge=2)
    """Global: shared out over the workers."""
    optimizer: Optimizer = Sgd()
    """How weights follow gradients."""
    schedule: Schedule = Piecewise()
    """The learning rate over the run, as a factor."""
    seed: int = Field(ge=0)
    """Of initialisation, order, augmentation and attacks."""
    sync_batch_norm: bool = False
    """Norm layers take their statistics over all workers' images, so that the number of workers does not matter."""
    channels_last: bool = True
    """Memory layout of the convolutions: the same maths, faster on most machines."""
    precision: Precision = Precision()
    """In which numbers attack and update compute: `fp32`, `ieee`, `tf32` or `bf16`, or one for each."""
    deterministic: bool = False
    """On a GPU, take algorithms that give the same bits each time, though they are slower. A CPU always does."""
    augmentation: Policy | None = None
    """Colour and shape operations after the data set's crop and flip."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Acts on the method's cross-entropies; attacks see hard labels."""
    gradient_clipping: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient."""
    weight_perturbation: WeightPerturbation | None = None
    """Adversarial weight perturbation (AWP), https://arxiv.org/abs/2004.05884."""
    averaging: Averaging | None = None
    """The network deployed and measured is an average over training, as soon as there is one."""
    diagnostics: Diagnostics | None = None
    """Measurements of ARAT's mechanisms while training."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_presets(cls, data: Any) -> Any:
        """The run's own preset, then its method's, which depends on the attack."""
        if not isinstance(data, Mapping):
            return data
        filled = presets.apply(data)
        method, attack = filled.get("method"), filled.get("attack")
        if isinstance(method, Mapping):
            norm = attack.get("norm") if isinstance(attack, Mapping) else getattr(attack, "norm", None)
            filled["method"] = arat.fill_in_preset(method, norm=norm)
        return filled

    @field_validator("optimizer", mode="before")
    @classmethod
    def _is_sgd_unless_named(cls, given: Any) -> Any:
        return {"name": "sgd", **given} if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.attack is None and not isinstance(self.method, StandardSpec):
            raise PydanticCustomError(
                "no_attack",
                "method {name} needs `attack:` (name, norm, epsilon, step_size, steps)",
                {"name": repr(self.method.name)},
            )
        if self.attack is not None and self.attack.measures_only:
            raise ValueError(
                f"attack.name {self.attack.name!r} is for `validate:` and `arat-ray evaluate`; train with pgd"
            )
        noisy = isinstance(self.method, AratSpec) and self.method.noisy_center
        if noisy and self.attack is not None and self.attack.norm != "linf":
            raise ValueError("method.noisy_center is defined for attack.norm linf only; set noisy_center: false")
        climbs_kl = isinstance(self.method, TradesSpec | LbgatSpec)
        if climbs_kl and self.attack is not None and self.attack.starts_at_x:
            raise ValueError(
                f"attack.start: center with method {self.method.name!r} is no attack: KL(p(x) || p(x')) has no "
                "gradient at x' = x; use normal or uniform"
            )
        if isinstance(self.method, ArrestSpec) and self.method.standard_epochs >= self.epochs:
            raise ValueError(
                f"method.standard_epochs {self.method.standard_epochs} leaves none of {self.epochs} epochs to finetune"
            )
        awp = self.weight_perturbation
        if awp is not None and awp.warmup_epochs >= self.epochs:
            raise ValueError(
                f"weight_perturbation.warmup_epochs {awp.warmup_epochs} leaves none of {self.epochs} epochs"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What says nothing is not written out, so that runs from before there was such a key stay the same."""
        written: dict[str, Any] = write(self)
        if not self.deterministic:
            written.pop("deterministic", None)
        return written

    @property
    def lacks_branches(self) -> str | None:
        """Why the run trains no second norm branch, so that its network has no dial; None where it does."""
        if not isinstance(self.method, AratSpec):
            return f"method {self.method.name} trains no clean branch; use method arat, or leave it out"
        return None if self.method.split_norm else "method.split_norm is false, so there is one branch; set it to true"

    def located(self) -> Self:
        """The same run, with its data where it is found on this machine."""
        return self.model_copy(update={"dataset": self.dataset.located()})

    def build(self, shape: Shape | None = None, num_classes: int | None = None) -> Method:
        """The method around a freshly initialised network, on torch's default device; seeded by `seed` alone.

        Shape and classes are those of the data set, which is opened for them where they are not given. Raises
        ValueError for a layer pattern that the network does not know.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "init"))
            task = Task(self.model, shape or self.dataset.shape, num_classes or self.dataset.num_classes)
            method = self.method.build(task.network(), task)
        method.label_smoothing = self.label_smoothing
        if self.diagnostics is not None:
            self.diagnostics.watched(method, self.model.representation)
        return method

    def check(self) -> None:
        """Build the method without memory (meta device): ValueError for what only network and data set can tell.

        Of data in files its shape and classes are read; validating a spec alone opens nothing.
        """
        if self.augmentation is not None and self.dataset.shape[0] not in (1, 3):
            raise ValueError(f"augmentation {self.augmentation!r} needs images of 1 or 3 channels; leave it out")
        with outlined():
            self.build()


class Validate(Spec):
    """Measurements every so many epochs and after the last one, on images held out of the training set.

    `split: test` holds none out and measures on `images` test images: for the last look, not for choosing.
    """

    every: int = Field(ge=1)
    """Epochs between two measurements; the last epoch is always measured."""
    images: int = Field(ge=1)
    """Images to measure on."""
    split: Literal["validation", "test"] = "validation"
    """validation: images held out of the training set; test: for a last look."""
    subset: Subset = "stratified"
    """Which test images, where there are more: of each class by its share, drawn with `seed`; or the first."""
    choose: Literal["last", "best"] = "last"
    """Whose accuracies count as the run's: those of the last measurement, or of the one most robust so far. Both
    checkpoints are kept either way, last.pt and best.pt."""
    seed: int = Field(0, ge=0)
    """Chooses the images held out; apart from `train.seed`, so that all trials and seeds share one split."""
    attack: AttackSpec
    """The attack of the robust accuracy."""
    dials: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    """Settings between the norm branches of ARAT that are measured as well, such as [-0.5, -0.25, 0.5], for the goal
    `dial_hypervolume`; the deployed network is setting 0. Each costs as much as measuring the deployed one."""
    batch_size: int = Field(256, ge=1)
    """Images at a time; no part of the result."""

    @model_validator(mode="after")
    def _test_images_do_not_choose(self) -> Self:
        if self.split == "test" and self.choose == "best":
            raise ValueError("split: test with choose: best would choose on the test images; use choose: last")
        if self.split == "validation" and self.subset != "stratified":
            raise ValueError("subset: first is for split: test; held-out images are drawn by class")
        return self

    @field_validator("dials")
    @classmethod
    def _dials_differ(cls, dials: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in dials or len(set(dials)) < len(dials):
            raise ValueError("name each setting once, and not 0, which is the deployed network and measured anyway")
        return dials

    @model_serializer(mode="wrap")
    def _without_later_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What says nothing is not written out, so that runs from before there was such a key stay the same."""
        written: dict[str, Any] = write(self)
        if self.split == "validation":
            written.pop("subset", None)
        if not self.dials:
            written.pop("dials", None)
        return written

    @property
    def held_out(self) -> int:
        """Training images that are not trained on."""
        return self.images if self.split == "validation" else 0

    def splits(self, dataset: Dataset) -> Splits:
        """What a run on this data trains on and is measured on. ValueError where there is none, or too little."""
        return load(dataset, validate_on=self.split, images=self.images, seed=self.seed, subset=self.subset)

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether epoch `epoch` (from 1) of `epochs` ends with a measurement."""
        return epoch % self.every == 0 or epoch == epochs
