"""One trial on the cluster: the loop directly in the Tune actor (one worker), or on the actor's worker group (more).

Tune's actors are used again for the next trial, and so are the workers of a group.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from ray import train as ray_train
from ray import tune

from arat_ray.cluster.trials import checkpoints, early_stopping, elastic, gpu_share, heartbeat
from arat_ray.cluster.trials.config import TrialConfig
from arat_ray.cluster.trials.preemption import listen
from arat_ray.cluster.trials.trial_queue import Message
from arat_ray.cluster.trials.worker_group import Agree, WorkerGroup
from arat_ray.experiment.spec import Resources
from arat_ray.results.rows import EpochRow
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import LAST, SET_ASIDE, NotACheckpointError, NotNowError
from arat_ray.training.checkpoint_writer import NeverSavedError
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.memory import is_out_of_memory
from arat_ray.training.mid_epoch import PreemptedError
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import describe

FAILURES = 3
"""How often in a row lost workers are replaced, with no new checkpoint in between, before a trial counts as failed."""


_groups: list[WorkerGroup] = []
"""The group of this process, a Tune actor that is used again for the next trial."""


class AloneError(Exception):
    """What would happen again to one worker among several, of which the others know nothing: no memory, no disk."""


def trainable(resources: Resources) -> Any:
    """The Tune trainable for trials that take `resources`."""
    if resources.workers == 1:
        bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
        return tune.with_resources(run_here, {kind: amount for kind, amount in bundle.items() if amount})
    # The function that drives the workers computes nothing. Were it to hold a CPU, as many drivers as CPUs would wait
    # for workers for ever; Tune wants some resource, and every node has memory.
    return tune.with_resources(run_on_workers, {"CPU": 0, "memory": 1 << 20})


def run_here(config: TrialConfig) -> None:
    """The loop in this process."""
    resources = Resources.model_validate(config["resources"])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
    _fit(config, tune.report, device, rank=0, world_size=1, agree=bool)


def run_on_workers(config: TrialConfig) -> None:
    """The loop on several workers, each with its share of every batch."""
    resources, batch_size = Resources.model_validate(config["resources"]), config["train"]["batch_size"]
    if _groups and _groups[0].is_there:
        fits = _groups[0].workers in resources.counts(batch_size)
        if not fits or elastic.could_grow(resources, batch_size, workers=_groups[0].workers):
            _groups.pop().shut_down()
    if not _groups or not _groups[0].is_there:
        _groups[:] = [WorkerGroup(resources, workers=elastic.settle(resources, batch_size), work=_work)]
    for message in _groups[0].train(config):
        if "leaves" in message:
            raise PreemptedError(message["leaves"])
        tune.report(message)


def _work(
    config: TrialConfig, send: Callable[[Message], None], give_up: Callable[[Message], None], agree: Agree
) -> None:
    resources = Resources.model_validate(config["resources"])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    world = ray_train.get_context()
    device = ray_train.torch.get_device() if resources.gpus_per_worker else torch.device("cpu")
    try:
        _fit(config, send, device, rank=world.get_world_rank(), world_size=world.get_world_size(), agree=agree)
    except PreemptedError as error:
        send({"leaves": str(error)})
        raise  # the workers' run ends, and another one begins elsewhere
    except AloneError as error:
        give_up({"failed": str(error)})
        raise  # the other workers wait for this one: only ending them all gets them out


def _fit(config: TrialConfig, send: Any, device: torch.device, *, rank: int, world_size: int, agree: Agree) -> None:
    """Run the loop, sending each row; what would happen again is sent as a failure instead of raised.

    Where Tune stops a trial, `send` does not come back from a rung. Several workers ask at each rung whether to stop,
    as one: were Tune to stop them, their resources would never come free.
    """

    def report(row: EpochRow, replayed: bool) -> bool:
        if row["epoch"] in config["rungs"]:
            kept.flush()  # from here the trial may not come back
        send({"row": row, "replayed": replayed, "workers": world_size, **describe(device)})
        if world_size == 1 or row["epoch"] not in config["rungs"]:
            return False
        stops = rank == 0 and early_stopping.ask(config["number"], row["epoch"])
        answer = torch.tensor([float(stops)], device=device)
        dist.all_reduce(answer)
        return bool(answer.item())

    train, validate = Train.model_validate(config["train"]), Validate.model_validate(config["validate"])
    resources = Resources.model_validate(config["resources"])
    limit = resources.timeout_minutes
    every_s = min(heartbeat.EVERY_S, heartbeat.EVERY_S if limit is None else 60 * limit / 4)
    alive = heartbeat.Heart(config["study"], config["number"], rank, every_s=every_s)
    preemption = listen()
    try:
        with checkpoints.kept(config, device, rank=rank, world_size=world_size) as kept:
            context = Context(
                kept.folder,
                report,
                device,
                rank,
                world_size,
                alive,
                leaves=lambda: agree(preemption.notice is not None),
            )
            try:
                gpu_share.keep_to(resources.gpus_per_worker, device, train, validate)
                fit(train, validate, context)
            except PreemptedError as error:
                kept.flush()
                given = preemption.notice or "the machine of one of its workers is taken away"
                raise PreemptedError(f"{given}; {error}") from error
            except NotACheckpointError as error:
                if error.path != kept.folder / LAST:  # a network that the method starts from
                    raise
                if rank == 0:
                    checkpoint.set_aside(error.path)
                raise NotNowError(f"{error}, {SET_ASIDE}") from error
        return
    except (PreemptedError, NotNowError):  # another attempt will not end alike
        raise
    except (ValueError, RuntimeError, MemoryError) as error:
        memory = is_out_of_memory(error)
        if not memory and not isinstance(error, ValueError):
            raise
        alone = memory or isinstance(error, NeverSavedError)
        text = str(error).splitlines()[0] if str(error) else "no memory left"
        failed = f"{type(error).__name__}: {text} (batch_size {train.batch_size})"
    # only now the frames that held the tensors are gone
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if alone and world_size > 1:
        raise AloneError(failed)
    send({"failed": failed})
