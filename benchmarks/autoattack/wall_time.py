"""AutoAttack's time: pyautoattack beside exact mode, fast mode and several workers.

    ARAT_CIFAR10=<folder of train.parquet and test.parquet> python benchmarks/autoattack/wall_time.py \
        --results results --output benchmarks/autoattack.md

Trains the network of network.yaml where it is missing. pyautoattack, exact and fast mode are processes of one thread
each that run in turn, a second at a time, so that whatever else the machine does slows all of them alike; what is
compared is the processor time of the evaluation, which is its wall time on an idle machine. pyautoattack gets the
network with its parameters unfrozen, which is how one would call it. For the scaling, exact mode runs over one and over
two Ray workers; that is wall time, and their start counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from arat_ray.evaluation import autoattack, fast
from arat_ray.evaluation.attack_classes import Step, perturb
from arat_ray.evaluation.autoattack import Attacker, Job, Verdicts, one_after_another
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.data.splits import read
from arat_ray.training.memory import keep_freed_memory

HERE = Path(__file__).parent
VARIANTS = ("pyautoattack", "exact", "fast")
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
SEED = 0


def attacker(options: argparse.Namespace, mode: str) -> Attacker:
    state = checkpoint.load(options.checkpoint)
    data = read(state.train_spec.dataset, "test")
    data = data._replace(images=data.images[: options.images], labels=data.labels[: options.images])
    ensemble = Ensemble.model_validate(
        {"name": "autoattack", "norm": options.norm, "epsilon": options.epsilon / 255, "mode": mode}
    )
    return Attacker(checkpoint.network(state), data, ensemble.plan(10), seed=SEED, keep_images=True)


def reference(options: argparse.Namespace) -> dict[str, Any]:
    """pyautoattack's own evaluation, and the seconds of each attack from its log."""
    from pyautoattack import AutoAttack

    totals: list[float] = []

    def emit(record: logging.LogRecord) -> None:
        if record.getMessage().startswith("robust accuracy after"):
            totals.append(time.process_time() - began)

    handler = logging.Handler(logging.DEBUG)
    handler.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("auto-attack")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    who = attacker(options, "exact")
    norm = {"linf": "Linf", "l2": "L2"}[options.norm]
    attack = AutoAttack(who.model, norm=norm, eps=options.epsilon / 255, seed=SEED, version="standard")
    began = time.process_time()
    x_adv = attack.run_standard_evaluation(to_unit(who.data.images), who.data.labels, batch_size=options.batch_size)[0]
    seconds = time.process_time() - began
    attacks = [after - before for before, after in zip([0.0, *totals], totals, strict=False)]
    with torch.no_grad():
        robust = who.model(x_adv).argmax(1) == who.data.labels
    return {"seconds": seconds, "attacks": dict(zip(ATTACKS, attacks, strict=True)), **kept(options, robust, x_adv)}


def ours(options: argparse.Namespace, mode: str) -> dict[str, Any]:
    who, attacks = attacker(options, mode), dict.fromkeys(ATTACKS, 0.0)

    def runner(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        before = time.process_time()
        for job, found in one_after_another(attacker, jobs):
            if job.step:
                attacks[job.attack] += time.process_time() - before
            yield job, found
            before = time.process_time()

    began = time.process_time()
    keep_freed_memory()
    found = autoattack.run(who, batch_size=options.batch_size, runner=runner)
    seconds = time.process_time() - began
    assert found.images is not None
    return {"seconds": seconds, "attacks": attacks, **kept(options, found.robust, found.images)}


SHORT = (
    Step(name="apgd-ce", steps=20),
    Step(name="apgd-t", steps=10, targets=2),
    Step(name="fab-t", steps=10, targets=1),
    Step(name="square", steps=60),
)
"""A piece of each attack, for batches too large to be attacked to the end."""


def pieces(options: argparse.Namespace, variant: str) -> dict[str, Any]:
    """Seconds of a piece of each attack on one full batch of images that the network knows."""
    who = attacker(options, "exact" if variant == "pyautoattack" else variant)
    x, y = to_unit(who.data.images), who.data.labels
    with torch.no_grad():
        right = who.model(x).argmax(1) == y
    x, y = x[right][: options.batch_size], y[right][: options.batch_size]
    ball: dict[str, Any] = {"norm": options.norm, "epsilon": options.epsilon / 255, "seed": SEED}
    attacks = {}
    if variant != "pyautoattack":
        keep_freed_memory()
    copies = fast.lean(who.model, x[:8]), fast.fold(who.model, x[:8])
    for step in SHORT:
        began = time.process_time()
        if variant == "fast":
            fast.perturb(step, copies[1], copies[0], x, y, **ball)
        else:
            perturb(step, who.model if variant == "pyautoattack" else copies[0], x, y, **ball)
        attacks[step.name] = time.process_time() - began
    torch.save({}, options.verdicts)
    return {"seconds": sum(attacks.values()), "attacks": attacks, "images": len(y)}


def over_workers(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    from arat_ray.cluster import nodes
    from arat_ray.cluster.evaluate import spread

    who = attacker(options, "exact")
    with nodes.cluster("local", verbose=False):
        began = time.perf_counter()
        found = autoattack.run(who, batch_size=options.batch_size, runner=spread(workers, device=torch.device("cpu")))
        wall_s = time.perf_counter() - began
    assert found.images is not None
    return {"seconds": wall_s, **kept(options, found.robust, found.images)}


def kept(options: argparse.Namespace, robust: torch.Tensor, images: torch.Tensor) -> dict[str, Any]:
    torch.save({"robust": robust, "images": images}, options.verdicts)
    return {"robust": int(robust.sum())}


class Measurement:
    """An evaluation in a process of its own."""

    def __init__(self, options: argparse.Namespace, variant: str, images: int, batch_size: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.verdicts = Path(self.folder.name) / "verdicts.pt"
        command = [sys.executable, __file__, "--variant", variant, "--checkpoint", str(options.checkpoint)]
        command += ["--images", str(images), "--batch-size", str(batch_size), "--verdicts", str(self.verdicts)]
        command += ["--norm", options.norm, "--epsilon", str(options.epsilon)]
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)

    def result(self) -> tuple[dict[str, Any], Any]:
        """What it printed, and its verdicts and images."""
        printed = self.process.communicate()[0]
        assert self.process.returncode == 0
        return json.loads(printed.splitlines()[-1]), torch.load(self.verdicts)

    def run_for(self, seconds: float) -> bool:
        """Let it run for a while, stop it again; whether there is more to do."""
        self.process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return False
        self.process.send_signal(signal.SIGSTOP)
        return True


def in_turn(options: argparse.Namespace, prefix: str, images: int, batch_size: int) -> dict[str, tuple[Any, Any]]:
    """The results of all variants, which run a second at a time."""
    running = {variant: Measurement(options, prefix + variant, images, batch_size) for variant in VARIANTS}
    for each in running.values():
        each.process.send_signal(signal.SIGSTOP)
    left = dict(running)
    while left:
        left = {variant: each for variant, each in left.items() if each.run_for(1)}
    return {variant: each.result() for variant, each in running.items()}


def full(options: argparse.Namespace) -> Iterator[str]:
    found = in_turn(options, "pieces-", options.full_images, options.full_batch_size)
    base = found["pyautoattack"][0]
    what = ", ".join(f"{step.steps} steps of {step.name}" for step in SHORT)
    yield f"## Full batches: {base['images']} images, {what}"
    yield ""
    yield "| of pyautoattack's | " + " | ".join(ATTACKS) + " |"
    yield "|---|" + "---|" * len(ATTACKS)
    for variant, (now, _) in found.items():
        yield (
            f"| {variant} | "
            + " | ".join(f"{now['attacks'][name] / base['attacks'][name]:.2f}" for name in ATTACKS)
            + " |"
        )


def compare(options: argparse.Namespace) -> Iterator[str]:
    found = in_turn(options, "", options.images, options.batch_size)
    results = {variant: result for variant, (result, _) in found.items()}
    verdicts = {variant: images for variant, (_, images) in found.items()}
    theirs, exact, fast = (verdicts[variant] for variant in VARIANTS)
    same = torch.equal(theirs["robust"], exact["robust"]) and torch.equal(theirs["images"], exact["images"])
    differing = int((theirs["robust"] != fast["robust"]).sum())
    norm = {"linf": "Linf", "l2": "L2"}[options.norm]
    radius = f"{norm} {options.epsilon:g}/255"
    yield f"## One worker: {radius}, {options.images} test images, batches of {options.batch_size}"
    yield ""
    yield "| | s | of pyautoattack's | " + " | ".join(ATTACKS) + " | robust images | verdicts that differ |"
    yield "|---|---|---|" + "---|" * len(ATTACKS) + "---|---|"
    base = results["pyautoattack"]
    for variant, now in results.items():
        each_attack = " | ".join(f"{now['attacks'][name] / base['attacks'][name]:.2f}" for name in ATTACKS)
        different = {"pyautoattack": "", "exact": "none; images equal" if same else "SOME", "fast": str(differing)}[
            variant
        ]
        yield (
            f"| {variant} | {now['seconds']:.1f} | **{now['seconds'] / base['seconds']:.2f}** | {each_attack} | "
            f"{now['robust']} | {different} |"
        )
    shares = ", ".join(f"{name} {100 * base['attacks'][name] / base['seconds']:.0f} %" for name in ATTACKS)
    yield ""
    yield f"Of pyautoattack's time: {shares}."


def scale(options: argparse.Namespace) -> Iterator[str]:
    times: dict[int, float] = {}
    found: dict[int, Any] = {}
    for workers in (1, 2):
        variant = f"workers-{workers}"
        one = Measurement(options, variant, options.scaling_images, options.scaling_batch_size)
        result, found[workers] = one.result()
        times[workers] = result["seconds"]
    same = all(torch.equal(found[1][name], found[2][name]) for name in ("robust", "images"))
    yield f"## Two workers: exact mode, {options.scaling_images} test images, batches of {options.scaling_batch_size}"
    yield ""
    yield (
        f"{times[1]:.1f} s with one worker, {times[2]:.1f} s with two: **{times[1] / times[2]:.2f} times as fast**, "
        f"{'the same verdicts and images bit for bit' if same else 'DIFFERENT verdicts'}."
    )


SECTIONS = {"compare": compare, "full": full, "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--checkpoint", type=Path, help="in the place of the trained network")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--full-images", type=int, default=1000)
    parser.add_argument("--full-batch-size", type=int, default=256)
    parser.add_argument("--scaling-images", type=int, default=100)
    parser.add_argument("--scaling-batch-size", type=int, default=2, help="small, so that there are batches to spread")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--epsilon", type=float, default=4, help="in 255ths")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.variant:
        match options.variant.split("-"):
            case ["pyautoattack"]:
                result = reference(options)
            case ["pieces", variant]:
                result = pieces(options, variant)
            case ["workers", number]:
                result = over_workers(options, int(number))
            case _:
                result = ours(options, options.variant)
        print(json.dumps(result))
        return
    if not options.checkpoint:
        command = [sys.executable, "-c", "from arat_ray.cli import main; main()", "train", str(HERE / "network.yaml")]
        subprocess.run([*command, "--results", str(options.results), "--resume"], check=True)
        options.checkpoint = next((options.results / "autoattack-network").glob("checkpoints/*/last.pt"))
    lines = [
        "# AutoAttack's time",
        "",
        f"ResNet-18 of width 8 after a short PGD-AT, the first real CIFAR-10 photographs, one thread a process, torch "
        f"{torch.__version__}, {platform.machine()}. `python benchmarks/autoattack/wall_time.py`",
    ]
    for name in options.sections:
        lines += ["", *SECTIONS[name](options)]
        print("\n".join(lines), flush=True)
        if options.output:
            options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
