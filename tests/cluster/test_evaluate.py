"""Jobs of an evaluation on Ray actors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
import torch

from arat_ray.cluster.evaluate import spread
from arat_ray.evaluation import autoattack
from tests.evaluation.nets import digits, nearest_mean, plan
from tests.evaluation.test_autoattack import assert_same, attacker

pytestmark = pytest.mark.ray
CPU = torch.device("cpu")


@pytest.fixture
def _cluster() -> Iterator[None]:
    ray.init(num_cpus=3, address="local", include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_cluster")
def test_one_two_and_three_workers_find_the_same_bits_as_none() -> None:
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
    alone = autoattack.run(who, batch_size=4)
    for workers in (1, 2, 3):
        assert_same(autoattack.run(who, batch_size=4, runner=spread(workers, device=CPU)), alone)
    with pytest.raises(ValueError, match="--workers 4: this cluster has 3 CPU; lower it"):
        spread(4, device=CPU)
