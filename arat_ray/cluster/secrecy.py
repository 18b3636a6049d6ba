"""What must not leave this machine, nor stand in a log: keys, tokens, passwords, and addresses that hold a login."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

SETTINGS = ("RAY_", "TUNE_", "TRAIN_", "NCCL_", "TORCHFT_")
"""What the names of Ray's own settings begin with."""
_WORDS = {"credential", "credentials", "key", "pass", "passphrase", "passwd", "password", "pat", "pwd"} | {
    *("secret", "secrets", "token", "tokens", "apikey", "signature", "bearer", "cookie", "sas")
}
_PLACES = ("/", "~", "$", "./")


def keep_from_actors() -> None:
    """Have Ray Tune give its actors no credentials.

    It copies `AWS_ACCESS_KEY_ID` and others into their runtime environment (`ray.tune.execution.class_cache`), which
    Ray writes into the logs of every node. On this machine workers inherit the environment; nodes have their own.
    """
    from ray.tune.execution import class_cache

    copied = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in copied if name.startswith(SETTINGS)}


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like a secret: by its name, or for a login in the address that it holds.

    The path of a file is none, and neither are true, false and numbers.
    """
    if without_login(value) != value:
        return True
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()))
    plain = value.startswith(_PLACES) or re.fullmatch(r"|true|false|yes|no|on|off|\d{1,4}", value.lower())
    return bool(words & _WORDS or any(name.lower().endswith(word) for word in ("apikey", "password"))) and not plain


def without_login(address: str) -> str:
    """An address without `user:password@`."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address at all
        return address
    if not parts.scheme or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
