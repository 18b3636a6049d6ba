"""The plan of an experiment in words, and what it would cost."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from functools import lru_cache

import torch

from arat_ray.experiment import at_hand
from arat_ray.experiment.early_stopping import EarlyStopping
from arat_ray.experiment.paths import MEMBER
from arat_ray.experiment.spec import GRID_AT_MOST, Experiment, Resources
from arat_ray.text import plain
from arat_ray.training import layers
from arat_ray.training.data.splits import Dataset
from arat_ray.training.memory_forecast import forecast
from arat_ray.training.methods import AratSpec, StandardSpec
from arat_ray.training.models import Model
from arat_ray.training.outlines import outlined
from arat_ray.training.precision import Precision
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train, Validate
from arat_ray.units import DAY_S, duration, flop, number

BACKWARD = 2
"""FLOPs of a backward pass over those of a forward pass, to weights and inputs."""
COUNTED_AT_MOST = 1000
"""Trials of a grid whose FLOPs are counted one by one; of a larger one, so many that are spread over it."""
FEW = 3
"""Combinations a trial, below which a sampler that models has nothing to learn."""
UNTOLD = 12
"""Trials at least that are expected of a search whose budget does not say."""
TIMED_AT_MOST = 256
"""Images of the batch that is timed."""


def describe(experiment: Experiment) -> Iterator[str]:
    """What would be trained, and what varies."""
    train = experiment.base
    yield (
        f"{experiment.name}: {train.method.name} on {train.dataset.name}, {train.model.name}, {train.epochs} epochs, "
        f"batch size {train.batch_size}"
    )
    found = train.dataset.located()
    for place in train.dataset.places:
        named, here = getattr(train.dataset, place), getattr(found, place)
        if here is not None and here != named:
            yield f"  data: {place} in {here}" + (f", not in {named}" if named is not None else "")
    if train.attack:
        yield f"  attack in training: {train.attack}"
    varies = any(
        path.split(".")[0] in ("optimizer", "schedule", "epochs", "preset", MEMBER) for path in experiment.search
    )
    spelled = train.schedule.spelled(train.optimizer.learning_rate, train.epochs)
    yield f"  learning rate{' where nothing varies it' if varies else ''}: {spelled}"
    validation = experiment.validation
    images = "held-out" if validation.held_out else "test"
    for note in train.dataset.notes():
        yield f"  data: {plain(note)}"
    first = "the first " if validation.subset == "first" else ""
    on = f"{first}{validation.images} {images} images"
    yield f"  measured every {validation.every} epochs on {on}: {validation.attack}"
    if validation.dials:
        settings = ", ".join(f"{t:g}" for t in validation.dials)
        yield f"  and likewise at the settings {settings} of the dial, for dial_hypervolume above (0, 0)"
    options = {
        "averaging": train.averaging and train.averaging.name,
        "weight perturbation": train.weight_perturbation and f"gamma {train.weight_perturbation.gamma:g}",
        "augmentation": train.augmentation,
        "precision": train.precision if train.precision != Precision() else None,
        "algorithms that are": "deterministic" if train.deterministic else None,
        "diagnostics": train.diagnostics and f"every {train.diagnostics.every} epochs",
    }
    if chosen := [f"{name} {value}" for name, value in options.items() if value]:
        yield f"  with {', '.join(chosen)}"
    if isinstance(train.method, AratSpec):
        with outlined():
            model = train.model.build(train.dataset.shape, train.dataset.num_classes)
        yield f"  regularised layers: {', '.join(layers.select(model, train.method.layers))}"
    for path, domain in experiment.search.items():
        yield f"  varies: {path}, {domain}"
    if experiment.search:
        budget = experiment.budget
        end = [
            f"{experiment.trials} trials" if experiment.trials else "",
            f"{budget.hours} hours" if budget.hours else "",
            f"{budget.device_hours:g} device-hours" if budget.device_hours else "",
            f"{budget.usd:g} usd" if budget.usd else "",
            f"a trial that promises under {100 * budget.gain:g} % of the hypervolume" if budget.gain else "",
            f"{budget.stall} trials without a larger hypervolume" if budget.stall else "",
        ]
        sampler = experiment.sampler.name if experiment.sampler else "none"
        yield f"  search: {sampler}, {' or '.join(filter(None, end))}, maximising {' and '.join(experiment.maximize)}"
    if experiment.constraints:
        bounds = ", ".join(f"{column} {bound}" for column, bound in experiment.constraints.items())
        yield f"  constraints: {bounds}"
    if experiment.sampler and experiment.sampler.name == "gp" and any(each.when for each in experiment.search.values()):
        yield "    note: gp draws at random what has a `when`, and models what all trials have; curves models both"
    if experiment.sampler and experiment.sampler.name == "curves" and (few := _few_combinations(experiment)):
        grid = f"grid with `budget: {{trials: {few}}}`" if (experiment.trials or few) < few else "grid"
        yield f"    note: {few} combinations of choices in all; a model learns little of so few, {grid} tries them all"
    if stopping := experiment.early_stopping:
        rungs = ", ".join(map(str, stopping.rungs(train.epochs)))
        rule = stopping.rule(" and ".join(experiment.maximize))
        yield f"  early stopping: {stopping.name}, at the epochs {rungs} {rule}"
        if experiment.constraints and stopping.name == "pareto_asha":
            yield f"    note: {stopping.name} ranks by the goals alone, constraints do not spare a trial"
        if experiment.sampler and experiment.sampler.name == "nsga2":
            yield "    note: nsga2 breeds from complete trials only, of which few are left; curves learns from all"
        if experiment.sampler and experiment.sampler.name == "gp":
            yield "    note: gp models complete trials only, and waits for ten; curves learns from all"
    resources = experiment.resources
    yield (
        f"  each trial: {resources.workers} worker(s) with {resources.cpus_per_worker:g} CPU and "
        f"{resources.gpus_per_worker:g} GPU"
    )


def _few_combinations(experiment: Experiment) -> int:
    """How many combinations there are to search, where these are hardly more than the trials; else 0."""
    if not all(domain.labels for domain in experiment.search.values()):
        return 0
    most = FEW * (experiment.trials or UNTOLD)
    if math.prod(len(domain.probes) for domain in experiment.search.values()) > GRID_AT_MOST:
        return 0
    combinations = sum(1 for _ in itertools.islice(experiment.grid(), most + 1))
    return combinations if combinations <= most else 0


def estimate(experiment: Experiment, *, image_s: float | None = None, at_once: int | None = None) -> Iterator[str]:
    """FLOPs of the whole search, counted on the network, and hours on this machine where it can run a trial.

    Where `image_s`, the seconds of a training step over its images, was measured on a cluster that runs `at_once`
    trials, the hours are those on the cluster.

    A grid's trials are counted one by one; of other searches all are taken to cost what `train:` costs. What early
    stopping saves is an expectation: of how many go on at each rung.
    """
    train, validation = experiment.base, experiment.validation
    training_images = at_hand.training_images(train, validation)
    flops = trial_flops(train, validation, training_images)
    trials = experiment.trials
    yield f"  a trial: {training_images} training images, {flop(flops)}"
    total = flops * (trials or 1)
    expected = " expected" if experiment.early_stopping else ""
    if experiment.sampler is not None and experiment.sampler.name == "grid":
        thinned = itertools.islice(experiment.grid(), 0, trials, -(-(trials or 1) // COUNTED_AT_MOST))
        each = [trial_flops(run, validation, training_images) for run in map(experiment.resolve, thinned)]
        total = sum(each) / len(each) * (trials or 1)
        if max(each) > min(each):
            yield f"  from {flop(min(each))} to {flop(max(each))}, as a trial's method and size demand"
    if stopping := experiment.early_stopping:
        most, share = total, expected_flops(train, validation, training_images, stopping) / flops
        total *= share
        epochs = sum(epoch * part for epoch, part in stopping.survival(train.epochs))
        yield (
            f"  early stopping: {epochs:.3g} of {train.epochs} epochs a trial expected, if {stopping.share} at each "
            "rung; the first trials there go on more often"
        )
        if trials:
            yield (f"  the search: {trials} trials, {flop(total)} expected, {flop(most)} if none were stopped")
    elif trials:
        yield f"  the search: {trials} trials, {flop(total)}"
    if experiment.resources.gpus_per_worker:
        yield _memory(train, validation, training_images, experiment.resources)
    where = "on this machine" if image_s is None else "on this cluster"
    if image_s is None and experiment.resources.gpus_per_worker and not torch.cuda.is_available():
        yield (
            "  hours: unknown here, a trial takes a GPU; a GPU at an effective 20 TFLOP/s would need "
            f"{_hours(total / 20e12)}{expected}, {_spent(total / 20e12, experiment.resources)}"
        )
        yield from _enough(experiment, total / 20e12 / (trials or 1))
        return
    step_s = seconds_per_image(train) if image_s is None else image_s
    trial_s = flops / (forward_flops(train.model, train.dataset) * passes(train)) * step_s
    if at_once is None:
        at_once, short = _at_once_here(experiment.resources)
    else:
        short = ""
    each_s = trial_s * total / flops / (trials or 1)
    device_s = each_s * experiment.resources.devices
    yield f"  {where}: {_hours(trial_s)} a trial ({1000 * step_s:.2f} ms an image and epoch)"
    if not at_once:
        yield f"  the search: 0 trials at once {where}: {short}"
    elif trials:
        rounds = -(-trials // at_once)
        spent = _spent(device_s * trials, experiment.resources)
        yield f"  the search: {_hours(each_s * rounds)}{expected}, {at_once} trial(s) at once, {spent}"
    else:
        yield f"  a trial: {_spent(device_s, experiment.resources)}{expected}"
    yield from _enough(experiment, device_s)


def _memory(train: Train, validation: Validate, training_images: int, resources: Resources) -> str:
    """What a worker takes of a GPU, and how large one must be that is shared."""
    needed = forecast(train, validation, images=training_images, workers=resources.workers).on_a_gpu / 2**30
    share = resources.gpus_per_worker
    enough = f", so at gpus_per_worker: {share:g} of one of {number(needed / share)} GiB or more" if share < 1 else ""
    return f"  memory: about {number(needed)} GiB of a GPU a worker by forecast{enough}"


def _at_once_here(resources: Resources) -> tuple[int, str]:
    """How many trials this machine holds at once, and for none, why and what to lower."""
    holds = [resources.concurrent_trials] if resources.concurrent_trials else []
    there = {"CPUs": (os.cpu_count() or 1, resources.cpus_per_worker, "cpus_per_worker")}
    if resources.gpus_per_worker:
        there["GPUs"] = torch.cuda.device_count(), resources.gpus_per_worker, "gpus_per_worker"
    for kind, (count, each, key) in there.items():
        taken = resources.workers * each
        if taken > count:
            lower = f"resources.{key} ({each:g})" + (
                f" or resources.workers ({resources.workers})" if resources.workers > 1 else ""
            )
            return 0, f"a trial takes {taken:g} {kind}, and there are {count}; lower {lower}, or join a larger cluster"
        holds.append(int(count / taken))
    return min(holds), ""


def _spent(device_s: float, resources: Resources) -> str:
    """Device time, and its cost where a price is given."""
    device = "a GPU" if resources.gpus_per_worker else "a CPU worker"
    usd = f", {device_s / 3600 * resources.price.usd_per_device_hour:.2f} usd" if resources.price else ""
    return f"{number(device_s / 3600)} device-hours{usd} (a device is {device})"


def _enough(experiment: Experiment, device_s: float) -> Iterator[str]:
    """For how many trials of so many device-seconds the budgets are enough, where that is not for all."""
    budget, price = experiment.budget, experiment.resources.price
    limits = {"device_hours": (budget.device_hours, device_s / 3600)}
    if price:
        limits["usd"] = (budget.usd, device_s / 3600 * price.usd_per_device_hour)
    for name, (limit, each) in limits.items():
        if limit is not None and each > 0 and limit / each < (experiment.trials or math.inf):
            yield f"  budget.{name}: {limit:g} is enough for about {number(limit / each)} trials"


def trial_flops(train: Train, validation: Validate, training_images: int, *, until: int | None = None) -> float:
    """FLOPs of one run, or of its first `until` epochs: its training steps and its measurements."""
    epochs = train.epochs if until is None else until
    measured = epochs // validation.every + (epochs == train.epochs and epochs % validation.every > 0)
    return forward_flops(train.model, train.dataset) * (
        epochs * training_images * passes(train)
        + measured * validation.images * (1 + validation.attack.passes) * (1 + len(validation.dials))
    )


def expected_flops(train: Train, validation: Validate, training_images: int, stopping: EarlyStopping) -> float:
    """FLOPs of one run that is stopped at the rungs as often as others."""
    return sum(
        part * trial_flops(train, validation, training_images, until=epoch)
        for epoch, part in stopping.survival(train.epochs)
    )


def passes(train: Train) -> int:
    """A training step's FLOPs per image, over those of one forward pass."""
    attacking = 0 if train.attack is None or isinstance(train.method, StandardSpec) else train.attack.passes
    losses = 2 if train.weight_perturbation else 1
    return attacking + losses * train.method.passes * (1 + BACKWARD)


@lru_cache(maxsize=64)
def forward_flops(spec: Model, dataset: Dataset) -> float:
    """FLOPs of one image's forward pass (a multiply-add counts as two), on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with outlined(), FlopCounterMode(display=False) as counter:
        model = spec.build(dataset.shape, dataset.num_classes)
        model(torch.empty(1, *dataset.shape))
    return float(counter.get_total_flops())


def seconds_per_image(train: Train, *, images: int = 8, at_least_s: float = 1.0) -> float:
    """Wall time of a training step per image, on random images, one thread, after a warm-up step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    method = train.build().to(device)
    method.train()
    method.start_epoch(train.epochs, lambda model, count, fresh: 0.5)
    generator = torch.Generator(device).manual_seed(0)
    images = min(images if train.dataset.shape[1] > 16 else TIMED_AT_MOST, train.batch_size)
    x = torch.rand(images, *train.dataset.shape, device=device, generator=generator)
    y = torch.arange(images, device=device) % train.dataset.num_classes
    began, steps = 0.0, 0
    for step in itertools.count():
        if step == 1:
            began = time.perf_counter()
        clean, x_adv = (x, x) if train.attack is None else method.perturb(x, y, train.attack, Noise(generator, images))
        method(clean, x_adv, y).total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step >= 1 and time.perf_counter() - began >= at_least_s:
            steps = step
            break
    torch.set_num_threads(threads)
    return (time.perf_counter() - began) / (steps * images)


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * DAY_S else duration(seconds)
