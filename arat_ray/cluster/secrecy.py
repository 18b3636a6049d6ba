"""What must not reach other nodes, nor a log: credentials, and logins in addresses."""

from __future__ import annotations

import os

from arat_ray.cluster import ray_internals
from arat_ray.storage.address import without_login

NOT_SECRET = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
SETTINGS = ("RAY_", "TUNE_", "TRAIN_", "NCCL_", "TORCHFT_")
"""What the names of Ray's own settings begin with."""


def keep_from_actors() -> None:
    """Have Ray Tune give its actors no credentials.

    It copies `AWS_ACCESS_KEY_ID` and others into their runtime environment (`ray.tune.execution.class_cache`), which
    Ray writes into the logs of every node. On this machine workers inherit the environment; nodes have their own.
    """
    ray_internals.propagate_only(SETTINGS)


def server() -> dict[str, str]:
    """What all nodes need to find the same server; keys they have of their own."""
    return {name: without_login(os.environ[name]) for name in NOT_SECRET if name in os.environ}
