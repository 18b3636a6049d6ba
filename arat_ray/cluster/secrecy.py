"""What must not reach other nodes, nor a log: credentials, and logins in addresses."""

from __future__ import annotations

import os

from ray.tune.execution import class_cache

from arat_ray.storage.place import without_login

NOT_SECRET = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
SETTINGS = ("RAY_", "TUNE_", "TRAIN_", "NCCL_", "TORCHFT_")
"""What the names of Ray's own settings begin with."""


def keep_from_actors() -> None:
    """Have Ray Tune give its actors no credentials.

    It copies `AWS_ACCESS_KEY_ID` and others into their runtime environment (`ray.tune.execution.class_cache`), which
    Ray writes into the logs of every node. On this machine workers inherit the environment; nodes have their own.
    """
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in copied if name.startswith(SETTINGS)}


def server() -> dict[str, str]:
    """What all nodes need to find the same server; keys they have of their own."""
    return {name: without_login(os.environ[name]) for name in NOT_SECRET if name in os.environ}
