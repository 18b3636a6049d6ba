"""arat-ray: search the trade-off between clean and robust accuracy of adversarially trained networks.

The same as the command line does, from Python; `docs/python.md` has it as one program.

    import arat_ray

    study = arat_ray.tune("search_spaces/quickstart.yaml")      # or train(...): one run, without Ray
    front = study.front()                                       # or load_front("results/quickstart", ...)
    arat_ray.plot_front(front, "front.png")
    trials = study.read("trials")                               # an Arrow table; or read("results/quickstart")
    report = arat_ray.evaluate(model, data=(x, y), attack="autoattack", epsilon="8/255")  # any network

A path is a `str` or a `Path`; a study may be the address of a bucket, s3://BUCKET/PREFIX/STUDY. What cannot be is a
ValueError that says what to do. A run is an `Experiment`: from a YAML file, or of the specs here, whose fields are the
keys of the file. Importing this loads nothing heavy: torch, pyarrow and Ray come with the first use of what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from arat_ray.version import __version__ as __version__

if TYPE_CHECKING:
    from arat_ray.api.evaluating import evaluate
    from arat_ray.api.files import load_experiment
    from arat_ray.api.fronts import load_front, plot_front, read
    from arat_ray.api.running import train, tune
    from arat_ray.api.studies import Ended, Study
    from arat_ray.evaluation.accuracy import Report
    from arat_ray.evaluation.ensembles import Ensemble
    from arat_ray.experiment.early_stopping import ExpectedGain, ParetoAsha
    from arat_ray.experiment.spec import Budget, Experiment, Price, Resources, Sampler
    from arat_ray.frontier.pareto import Front
    from arat_ray.study.curve_sampler import CurveSampler
    from arat_ray.study.single import NotSavedError
    from arat_ray.training.attacks import Pgd
    from arat_ray.training.averaging import Ema, Swa
    from arat_ray.training.data.digits import Digits
    from arat_ray.training.data.image_files import ImageFolder, ParquetImages
    from arat_ray.training.data.images import ImageSet
    from arat_ray.training.data.torchvision_sets import Cifar10, Cifar100, FashionMnist, Svhn
    from arat_ray.training.diagnostics import Diagnostics
    from arat_ray.training.methods import AratSpec, ArrestSpec, LbgatSpec, MartSpec, PgdAtSpec, StandardSpec, TradesSpec
    from arat_ray.training.methods.arat import AutoBalance, FixedBalance, PredictorSpec
    from arat_ray.training.models import PreactResnet18, Resnet18, Tiny, Vit, WideResnet
    from arat_ray.training.optimizers import AdamW, Sgd
    from arat_ray.training.run import Train, Validate
    from arat_ray.training.schedules import Cosine, OneCycle, Piecewise
    from arat_ray.training.weight_perturbation import WeightPerturbation

_HOMES = {
    "api.files": ("load_experiment",),
    "api.running": (
        "train",
        "tune",
    ),
    "api.studies": (
        "Ended",
        "Study",
    ),
    "api.evaluating": ("evaluate",),
    "api.fronts": (
        "load_front",
        "plot_front",
        "read",
    ),
    "evaluation.accuracy": ("Report",),
    "frontier.pareto": ("Front",),
    "study.curve_sampler": ("CurveSampler",),
    "study.single": ("NotSavedError",),
    "experiment.spec": (
        "Budget",
        "Experiment",
        "Price",
        "Resources",
        "Sampler",
    ),
    "experiment.early_stopping": (
        "ExpectedGain",
        "ParetoAsha",
    ),
    "training.run": (
        "Train",
        "Validate",
    ),
    "training.methods": (
        "AratSpec",
        "ArrestSpec",
        "LbgatSpec",
        "MartSpec",
        "PgdAtSpec",
        "StandardSpec",
        "TradesSpec",
    ),
    "training.methods.arat": (
        "AutoBalance",
        "FixedBalance",
        "PredictorSpec",
    ),
    "training.attacks": ("Pgd",),
    "evaluation.ensembles": ("Ensemble",),
    "training.models": (
        "PreactResnet18",
        "Resnet18",
        "Tiny",
        "Vit",
        "WideResnet",
    ),
    "training.data.digits": ("Digits",),
    "training.data.torchvision_sets": (
        "Cifar10",
        "Cifar100",
        "FashionMnist",
        "Svhn",
    ),
    "training.data.image_files": (
        "ImageFolder",
        "ParquetImages",
    ),
    "training.data.images": ("ImageSet",),
    "training.optimizers": (
        "AdamW",
        "Sgd",
    ),
    "training.schedules": (
        "Cosine",
        "OneCycle",
        "Piecewise",
    ),
    "training.averaging": (
        "Ema",
        "Swa",
    ),
    "training.weight_perturbation": ("WeightPerturbation",),
    "training.diagnostics": ("Diagnostics",),
}
"""The module of each name, which is imported when the name is first used (PEP 562)."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdamW",
    "AratSpec",
    "ArrestSpec",
    "AutoBalance",
    "Budget",
    "Cifar10",
    "Cifar100",
    "Cosine",
    "CurveSampler",
    "Diagnostics",
    "Digits",
    "Ema",
    "Ended",
    "Ensemble",
    "ExpectedGain",
    "Experiment",
    "FashionMnist",
    "FixedBalance",
    "Front",
    "ImageFolder",
    "ImageSet",
    "LbgatSpec",
    "MartSpec",
    "NotSavedError",
    "OneCycle",
    "ParetoAsha",
    "ParquetImages",
    "Pgd",
    "PgdAtSpec",
    "Piecewise",
    "PreactResnet18",
    "PredictorSpec",
    "Price",
    "Report",
    "Resnet18",
    "Resources",
    "Sampler",
    "Sgd",
    "StandardSpec",
    "Study",
    "Svhn",
    "Swa",
    "Tiny",
    "TradesSpec",
    "Train",
    "Validate",
    "Vit",
    "WeightPerturbation",
    "WideResnet",
    "evaluate",
    "load_experiment",
    "load_front",
    "plot_front",
    "read",
    "train",
    "tune",
]

if not TYPE_CHECKING:  # so that a name that does not exist is an error of types as well

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            from arat_ray.text import did_you_mean

            raise AttributeError(f"module 'arat_ray' has no attribute {name!r}{did_you_mean(name, _HOME_OF)}")
        globals()[name] = found = getattr(import_module(f"arat_ray.{_HOME_OF[name]}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted([*globals(), *_HOME_OF])
