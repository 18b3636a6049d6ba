"""The tools that a study can be brought to, and what they need. (Loads none of them: `--help` knows the names.)"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from arat_ray.text import command


class Tool(NamedTuple):
    """Where a study can be brought."""

    module: str
    """That writes it."""
    needs: tuple[str, ...]
    """Packages, of which the extra of the tool's name has those that do not come with this one."""
    extra: str
    look: str
    """How it is looked at, with the place in braces."""


TOOLS = {
    "tensorboard": Tool("tensorboard", ("tensorboard",), "tensorboard", "tensorboard --logdir {}"),
    "mlflow": Tool(
        "mlflow_runs", ("mlflow", "sqlalchemy", "alembic"), "mlflow", "mlflow ui --backend-store-uri sqlite:///{}"
    ),
    "wandb-offline": Tool("wandb_runs", ("wandb",), "wandb", "wandb sync {}/offline-run-*"),
    "csv": Tool("spreadsheets", (), "", "ls {}"),
}
"""By the word for `--to`."""
DEFAULT = "exports"
"""Below the current folder."""


def check(to: str) -> None:
    """ValueError that says how it is installed where what writes there is not."""
    tool = TOOLS[to]
    missing = [package for package in tool.needs if importlib.util.find_spec(package) is None]
    if missing:
        fix = f"pip install 'arat-ray[{tool.extra}]'"
        raise ValueError(f"--to {to} needs {', '.join(missing)}, not installed here: {fix}")


def look(to: str, written: Path) -> str:
    """The command that looks at what was written."""
    return " ".join(word.replace("{}", command(written)) for word in TOOLS[to].look.split())
