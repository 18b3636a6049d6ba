"""The doctor: whether a cluster can run an experiment, found out in minutes, before money is spent on hours.

Every check has a time limit and says what was seen and what to do; none raises for what is wrong with the cluster.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from arat_ray.cluster.doctor import on_all_nodes, probes, rehearsing
from arat_ray.cluster.doctor.on_all_nodes import Trouble, troubles
from arat_ray.cluster.nodes import PlacementError, check_placeable, slots, wake
from arat_ray.experiment.plan import estimate
from arat_ray.experiment.spec import Experiment
from arat_ray.training.rehearsal import ROUNDING


class Check(NamedTuple):
    """One thing looked at: how it stands, what was seen, and what to do about it."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    seen: str
    todo: str = ""


def examine(
    experiment: Experiment | None, *, results: str, limit_s: float, log: Callable[[str], None]
) -> Iterator[Check]:
    """The checks of the cluster that this process has joined, one after another; `log` is told which is next."""

    def ask(what: str, probe: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        log(f"{what} (at most {limit_s:g} s) ...")
        return on_all_nodes.run(probe, *arguments, limit_s=limit_s)

    room: int | PlacementError = 0
    if experiment is not None:
        room = _room(experiment)
        log(f"nodes for one trial (at most {limit_s:g} s) ...")
        if not isinstance(room, PlacementError) and not wake(experiment.resources, limit_s=limit_s):
            late = f"no nodes for a trial came within {limit_s:g} s, though the autoscaler may add some"
            yield Check("nodes", "failed", late, "see `ray status` on the head; raise --timeout if machines are slow")
    yield check_versions(ask("versions", probes.versions_probe()))
    announced = {name: int(node["Resources"].get("GPU", 0)) for name, node in on_all_nodes.nodes().items()}
    yield check_gpus(ask("GPUs", probes.gpus), announced)
    folder, text = f"{probes.resolved(results)}/.doctor-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    written = ask("storage", probes.leave_a_file, folder, text)
    seen = ask("storage, read back", probes.files_left, folder) if not troubles(written) else {}
    storage = check_storage(results, written, seen, text)
    yield storage
    try:
        yield from _experiment_checks(experiment, room, folder, ask, storage.status == "ok", limit_s, log)
    finally:
        if any(not isinstance(each, Trouble) for each in written.values()):
            on_all_nodes.run(_removed, folder, limit_s=limit_s)


def _room(experiment: Experiment) -> int | PlacementError:
    try:
        return check_placeable(experiment.resources)
    except PlacementError as error:
        return error


def _removed(node: str, folder: str) -> None:
    try:
        probes.remove(folder)
    except OSError:
        return  # another node was first


def _experiment_checks(
    experiment: Experiment | None,
    room: int | PlacementError,
    folder: str,
    ask: Callable[..., dict[str, Any]],
    storage_is_shared: bool,
    limit_s: float,
    log: Callable[[str], None],
) -> Iterator[Check]:
    names = ("data", "placement", "collective", "gradients", "step", "forecast")
    if experiment is None:
        yield from (Check(name, "skipped", "no experiment file was given") for name in names)
        return
    data = check_data(ask("data set", probes.data_set, experiment.base.located().model_dump(mode="json")))
    yield data
    if isinstance(room, PlacementError):
        yield Check("placement", "failed", str(room))
        yield from (Check(name, "skipped", "no trial can be placed") for name in names[2:])
        return
    resources, batch = experiment.resources, experiment.base.batch_size
    free = sum(slots(resources, node["Resources"]) for node in on_all_nodes.nodes().values())
    workers = next((count for count in resources.counts(batch) if count <= free), resources.workers)
    fewer = f", with {workers} of its {resources.workers} workers" if workers < resources.workers else ""
    yield Check("placement", "ok", f"{room} trial(s) at once{fewer}")
    missing = "a data set on every node" if data.status == "failed" else None
    if workers > 1 and not storage_is_shared:
        missing = "storage that the workers share"
    if missing:
        yield from (Check(name, "skipped", f"needs {missing}") for name in names[2:])
        return
    log(f"rehearsal of a trial (at most {limit_s:g} s) ...")
    measured = rehearsing.run(experiment, workers=workers, storage=folder, limit_s=limit_s)
    if isinstance(measured, Trouble):
        advice = "raise --timeout if a step takes long; otherwise it is the network between the nodes, or their GPUs"
        yield Check("rehearsal", "failed", measured.why, advice)
        yield from (Check(name, "skipped", "the rehearsal failed") for name in names[2:])
        return
    yield check_collective(measured)
    yield check_gradients(measured, synchronized=experiment.base.sync_batch_norm)
    yield Check(
        "step",
        "ok",
        f"{1000 * measured['step_s']:.4g} ms a training step of {batch} images on {measured['device']}, "
        f"{batch / measured['step_s']:.4g} images/s a trial (mean of {measured['steps']} steps)",
    )
    at_once = min(experiment.resources.concurrent_trials or room, room, experiment.trials or room)
    lines = estimate(experiment, image_s=measured["step_s"] / batch, at_once=at_once)
    yield Check("forecast", "ok", "; ".join(line.strip() for line in lines))


def check_versions(answers: Mapping[str, Any]) -> Check:
    """The same software everywhere; CUDA's driver only where there is one."""
    if wrong := troubles(dict(answers)):
        return Check(
            "versions", "failed", "; ".join(wrong), "install arat-ray on every node and look at the node's log"
        )
    differing = []
    for what in next(iter(answers.values())):
        found = defaultdict(list)
        for node, versions in answers.items():
            if versions[what] is not None or what == "CUDA of torch":
                found[versions[what] or "none"].append(node)
        if len(found) > 1 or "missing" in found:
            differing.append(f"{what}: " + ", ".join(f"{each} on {' '.join(on)}" for each, on in found.items()))
    if differing:
        return Check("versions", "failed", "; ".join(differing), "install the same versions on every node")
    one = next(iter(answers.values()))
    same = ", ".join(f"{what} {version}" for what, version in one.items() if version is not None)
    return Check("versions", "ok", f"{len(answers)} node(s): {same}")


def check_gpus(answers: Mapping[str, Any], announced: Mapping[str, int]) -> Check:
    """torch sees the GPUs that Ray gives out."""
    if wrong := troubles(dict(answers)):
        return Check("gpus", "failed", "; ".join(wrong))
    missing = [
        f"{node}: Ray gives out {announced[node]} GPU(s), torch sees {len(names)}"
        for node, names in answers.items()
        if len(names) < announced[node]
    ]
    if missing:
        return Check("gpus", "failed", "; ".join(missing), "see nvidia-smi there; torch must be a CUDA build")
    return Check("gpus", "ok", "; ".join(f"{node}: {_counted(names)}" for node, names in answers.items()))


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "none"


def check_storage(results: str, written: Mapping[str, Any], seen: Mapping[str, Any], text: str) -> Check:
    """Every node writes where results go, and sees what the others wrote."""
    todo = "give --results a folder that all nodes share and may write to (NFS), or s3://BUCKET/PREFIX"
    if wrong := troubles(dict(written)) or troubles(dict(seen)):
        return Check("storage", "failed", f"{results}: {'; '.join(wrong)}", todo)
    blind = [
        f"{node} does not see what {other} wrote"
        for node, files in seen.items()
        for other in written
        if files.get(other) != text
    ]
    if blind:
        return Check("storage", "failed", f"{results}: {'; '.join(blind)}", todo)
    return Check("storage", "ok", f"{results}: every node writes there and sees what the others wrote")


def check_data(answers: Mapping[str, Any]) -> Check:
    """Every node reads the same training set."""
    if wrong := troubles(dict(answers)):
        return Check("data", "failed", "; ".join(wrong), "put the data set on every node, under the same path")
    if len({each["fingerprint"] for each in answers.values()}) > 1:
        found = ", ".join(f"{node}: {each['images']} images {each['fingerprint']}" for node, each in answers.items())
        return Check("data", "failed", f"the nodes hold different data: {found}", "copy one of them to all")
    images = next(iter(answers.values()))["images"]
    seconds = ", ".join(f"{each['seconds']:.1f} s on {node}" for node, each in answers.items())
    return Check("data", "ok", f"{images} training images, the same on every node, read in {seconds}")


def check_collective(measured: Mapping[str, Any]) -> Check:
    """The workers of a trial can add up."""
    if "backend" not in measured:
        return Check("collective", "skipped", "a trial has one worker")
    took = f"16 MiB in {1000 * measured['all_reduce_s']:.3g} ms"
    seen = f"{measured['backend']} over {len(measured['hosts'])} host(s), {took}"
    if not measured["sum_right"]:
        return Check("collective", "failed", f"{seen}: the sum is wrong", "check the network between the nodes")
    return Check("collective", "ok", seen)


def check_gradients(measured: Mapping[str, Any], *, synchronized: bool) -> Check:
    """The workers' gradient on one batch is that of one worker, where it is meant to be."""
    whole, shares = measured["from_whole"], measured["from_shares"]
    if whole is None:
        return Check("gradients", "skipped", "a trial has one worker")
    apart = measured["batch_norm"] and not synchronized
    difference = shares if apart else whole
    if not difference <= ROUNDING:
        seen = f"the workers' gradient is off by {difference:.1e} of what one worker computes"
        return Check("gradients", "failed", seen, "do not trust training over several workers on this cluster")
    if apart:
        return Check(
            "gradients",
            "ok",
            f"equal to the mean over the workers' shares ({difference:.1e}), and off by {whole:.1e} from one worker's, "
            "by design: plain batch norm normalises each share by itself",
            "set train.sync_batch_norm: true if results shall not depend on the number of workers",
        )
    return Check("gradients", "ok", f"equal to one worker's, up to rounding ({difference:.1e})")
