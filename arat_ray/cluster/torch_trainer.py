"""TorchTrainer: a Ray Train run of several workers that add up their gradients, placed as a trial's workers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from arat_ray.cluster.nodes import per_worker
from arat_ray.experiment.spec import Resources


def torch_trainer(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    resources: Resources,
    *,
    workers: int,
    name: str,
    storage: str,
    failures: FailureConfig,
) -> TorchTrainer:
    """A run of `function(config)` in so many workers; what Ray keeps of it goes to the folder `storage`."""
    return TorchTrainer(
        function,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=per_worker(resources),
        ),
        run_config=RunConfig(name=name, storage_path=storage, failure_config=failures),
    )
