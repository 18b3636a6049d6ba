"""AutoAttack as jobs that can run anywhere, in any order, and be repeated: the reference's numbers, bit for bit.

The reference code seeds its generators anew for every attack on every batch, and forms batches from the images that the
earlier attacks left unbroken, in the order of the data set. So one attack on one batch is a job of its own. Each attack
here gathers those images, cuts them by the batch size, runs the jobs, merges, and only then the next attack begins.
Batch size and seed belong to the result: with other ones an image near the boundary may get another verdict, also in
the reference. The number of workers and the order of the jobs do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from arat_ray.evaluation import fast
from arat_ray.evaluation.attack_classes import Step
from arat_ray.evaluation.ensembles import AttackPlan
from arat_ray.evaluation.records import Records, images_sha256, network_sha256
from arat_ray.evaluation.reliability import Signs, probe
from arat_ray.training.accuracy_counts import margins, to_unit
from arat_ray.training.attacks import Attack, Pgd
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.randomness import Noise, generator

CLEAN = "clean"
COMPARED = 8
"""Images on which copies of a network are compared with it."""


class Job(NamedTuple):
    """One attack on one batch; without a step, the batch as it is."""

    step: Step | Attack | None
    number: int
    indices: Tensor  # int64 [n], ascending positions in the data

    @property
    def attack(self) -> str:
        return self.step.label if self.step else CLEAN


class Verdicts(NamedTuple):
    """What a job found: which images are wrong after it, and how far from the boundary, the lower the further."""

    broken: Tensor  # bool [n]
    margins: Tensor  # float32 [n]: true logit less the highest other, at the image that the attack returned
    images: Tensor  # float32 [b, C, H, W]: the adversarial images of the b broken, in their order; or [0]
    signs: Tensor  # bool [4, n]: `reliability.Signs`, seen by the job without a step; or [0]
    wall_s: float


class Attacker:
    """Runs jobs against one network. What it does depends on the job alone, so any number may share a plan's jobs.

    The data's images are uint8, or float32 in [0, 1]. Raises ValueError where they are not.
    """

    def __init__(
        self, model: nn.Module, data: ImageSet, plan: AttackPlan, *, seed: int, keep_images: bool = False
    ) -> None:
        if data.images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"images are {data.images.dtype}; give them as uint8, 0 to 255, or as float32 in [0, 1]")
        if data.images.dtype == torch.float32 and not bool(((data.images >= 0) & (data.images <= 1)).all()):
            raise ValueError(
                "images leave [0, 1]: give them in pixel units, not normalised; the network's first layer may normalise"
            )
        self.model, self.data, self.plan, self.seed, self.keep_images = model, data, plan, seed, keep_images
        self._copies: tuple[nn.Module, nn.Module] | None = None

    def identity(self, batch_size: int, hardware: str) -> dict[str, Any]:
        """All that the verdicts depend on, as JSON; `hardware` says what runs the jobs."""
        return {
            "network_sha256": network_sha256(self.model),
            "images_sha256": images_sha256(self.data),
            "records": 3,
            "plan": self.plan.model_dump(),
            "version": self.plan.version,
            "seed": self.seed,
            "batch_size": batch_size,
            "keep_images": self.keep_images,
            "torch": torch.__version__,
            "hardware": hardware,
        }

    def __call__(self, job: Job) -> Verdicts:
        began = time.perf_counter()
        device = next(chain(self.model.parameters(), self.model.buffers()), torch.empty(0)).device
        x, y = to_unit(self.data.images[job.indices].to(device)), self.data.labels[job.indices].to(device)
        network, search = self._networks(device)
        x_adv, signs = x, torch.empty(0, dtype=torch.bool)
        if job.step is None:
            draw = generator(device, self.seed, "probe", job.number)
            signs = torch.stack(probe(search, x, y, pgd=(self._pgd(), draw) if self.plan.is_ensemble else None))
        else:
            noise = Noise(generator(device, self.seed, "attack", job.number), len(x))
            x_adv = self.plan.bound(job.step, seed=self.seed, search=search)(network, x, y, noise=noise)
        with torch.no_grad():
            logits = network(x_adv)
        broken = logits.max(1).indices != y  # of equal logits, the reference's choice
        kept = x_adv[broken] if self.keep_images and job.step else x_adv.new_empty(0)
        wall_s = time.perf_counter() - began
        return Verdicts(broken.cpu(), margins(logits, y).cpu(), kept.cpu(), signs.cpu(), wall_s)

    def _pgd(self) -> Pgd:
        """PGD-20, with which the ensembles are compared."""
        epsilon = self.plan.epsilon
        return Pgd(norm=self.plan.norm, epsilon=epsilon, step_size=epsilon / 4, steps=20)

    def _networks(self, device: torch.device) -> tuple[nn.Module, nn.Module]:
        """Copies, frozen because attacks need gradients of the input only: one for verdicts, one to search on; compared
        with the network on the first images, whichever job comes first here."""
        if self._copies is None:
            x = to_unit(self.data.images[:COMPARED].to(device))
            same = fast.lean(self.model, x)
            self._copies = same, same if self.plan.mode == "exact" else fast.fold(self.model, x)
        return self._copies

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_copies": None}  # made again where it lands


Runner = Callable[[Attacker, Sequence[Job]], Iterable[tuple[Job, Verdicts]]]
"""Runs all jobs and gives each with its verdicts as soon as it is done, in any order."""


def hardware(device: torch.device) -> str:
    """What runs the jobs of this process: the last bits of a sum depend on it, on a CPU also on the threads it has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return on_cpu(torch.get_num_threads())


def on_cpu(threads: int) -> str:
    return f"cpu, {threads} thread{'s' * (threads > 1)}"


def one_after_another(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
    """The runner of this process."""
    for job in jobs:
        yield job, attacker(job)


class AttackProgress(NamedTuple):
    """How far an evaluation is: jobs of the current attack, and images that nothing has broken yet, of all."""

    attack: str
    done: int
    jobs: int
    unbroken: int
    images: int
    left_s: float | None
    """Until the end, if no more images fell; None before the first batch under attack."""


@dataclass(frozen=True)
class AttackResult:
    """The verdict on each of N images. `attacks` names them in their order, `clean` first."""

    attacks: tuple[str, ...]
    broken_by: Tensor
    """int64 [N]: which of `attacks` was the first to break an image; 0 for wrong without one, -1 for robust."""
    margins: Tensor
    """float32 [N]: true logit less the highest other, at the adversarial image where there is one, else at x."""
    images: Tensor | None
    """float32 [N, C, H, W]: the adversarial images, x where there is none; None unless they were to be kept."""
    signs: Signs
    """What was seen of each image that makes its verdict doubtful."""
    wall_s: float
    """Of all jobs, added up."""

    @property
    def clean_correct(self) -> Tensor:
        """bool [N]."""
        return self.broken_by != 0

    @property
    def robust(self) -> Tensor:
        """bool [N]: right without an attack, and under every one."""
        return self.broken_by == -1


def run(
    attacker: Attacker,
    *,
    batch_size: int,
    records: Records | None = None,
    runner: Runner = one_after_another,
    progress: Callable[[AttackProgress], None] = lambda progress: None,
) -> AttackResult:
    """All jobs of the plan, merged. What `records` has is not computed again, and what is computed goes there."""
    steps = (None, *attacker.plan.steps)
    n = len(attacker.data.labels)
    broken_by, margin = torch.full((n,), -1), torch.zeros(n)
    signs = torch.zeros(len(Signs._fields), n, dtype=torch.bool)
    images = to_unit(attacker.data.images).cpu().clone() if attacker.keep_images else None
    wall_s, clock = 0.0, _Clock(attacker.plan.steps)
    for position, step in enumerate(steps):
        left = (broken_by == -1).nonzero().squeeze(1)
        jobs = [Job(step, number, rows) for number, rows in enumerate(left.split(batch_size)) if len(rows)]
        waiting = len(left)
        for done, (job, found, is_new) in enumerate(_results(attacker, jobs, records, runner), start=1):
            broken = job.indices[found.broken]
            broken_by[broken] = position
            margin[job.indices] = found.margins
            if step is None:
                signs[:, job.indices] = found.signs
            elif images is not None:
                images[broken] = found.images
            wall_s += found.wall_s
            waiting -= len(job.indices)
            standing = int((broken_by == -1).sum())
            left_s = clock.tick(position, len(job.indices) if is_new else 0, waiting, standing)
            progress(AttackProgress(job.attack, done, len(jobs), standing, n, left_s))
    names = tuple(step.label if step else CLEAN for step in steps)
    return AttackResult(names, broken_by, margin, images, Signs(*signs), wall_s)


class _Clock:
    """How long it will take, from the passes that are done and those that would be left if no more images fell."""

    def __init__(self, steps: Sequence[Step | Attack]) -> None:
        self.passes = [0, *(step.passes for step in steps)]
        self.began, self.done = time.perf_counter(), 0

    def tick(self, position: int, images: int, waiting: int, standing: int) -> float | None:
        """After a job of so many new images under attack `position`, for which others wait."""
        if not self.done and not images:
            self.began = time.perf_counter()  # records come at once
        self.done += images * self.passes[position]
        left = waiting * self.passes[position] + standing * sum(self.passes[position + 1 :])
        return (time.perf_counter() - self.began) / self.done * left if self.done else None


def _results(
    attacker: Attacker, jobs: Sequence[Job], records: Records | None, runner: Runner
) -> Iterator[tuple[Job, Verdicts, bool]]:
    """All jobs with their verdicts, and whether these are new: the recorded first, then the others as they come."""
    missing = []
    for job in jobs:
        fields = records.load(job.attack, job.number, job.indices) if records else None
        if fields is None:
            missing.append(job)
        else:
            yield job, Verdicts(**fields), False
    if missing:
        for job, found in runner(attacker, missing):
            if records:
                records.save(job.attack, job.number, job.indices, found._asdict())
            yield job, found, True
