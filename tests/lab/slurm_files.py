"""What the user of the lab's Slurm has in the home folder: clusters/slurm.sh filled in, and two small studies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.lab.hosts import CHECKOUT

SCRIPT, STUDY, LATER = "clusters/slurm.sh", "search_spaces/lab.yaml", "search_spaces/later.yaml"
TRIALS, EPOCHS = 4, {STUDY: 6, LATER: 10}
FILLED_IN = {"<your-partition>": "batch", "<your-account>": "lab"}
OVERLAY = (
    ("#SBATCH --gpus-per-node=1\n", "", "there is no GPU"),
    ("--nodes=4", "--nodes=3", "few cores carry all nodes"),
    ("--cpus-per-task=8", "--cpus-per-task=1", "the same"),
    ("--time=24:00:00", "--time=00:30:00", "nobody waits a day"),
    ("$HOME/venv/bin", f"{sys.prefix}/bin", "there is no internet, and the nodes share the Python of this machine"),
    ("--num-cpus", "--object-store-memory=100000000 --num-cpus", "the nodes share the memory of this machine"),
)
"""What the lab forces on the file, each change with its reason; all else stays as shipped."""


def put(home: Path, uid: int) -> None:
    """Write the files as the user's own: the script filled in, and studies that are the quick start made small."""
    script = (CHECKOUT / SCRIPT).read_text()
    for placeholder, value in FILLED_IN.items():
        script = script.replace(placeholder, value)
    studies = {name: _small(name, epochs) for name, epochs in EPOCHS.items()}
    for name, text in {SCRIPT: script, **studies}.items():
        file = home / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        for path in (file.parent, file):
            os.chown(path, uid, uid)


def fit_to_lab(home: Path) -> None:
    """Make the changes that the lab forces. Raises AssertionError for one that changes nothing."""
    script = home / SCRIPT
    comments, separator, body = script.read_text().partition("\n#SBATCH")
    for old, new, reason in OVERLAY:
        assert old in body, f"{SCRIPT} has no {old!r} any more: {reason}"
        body = body.replace(old, new)
    script.write_text(comments + separator + body)


def _small(name: str, epochs: int) -> str:
    experiment: dict[str, Any] = yaml.safe_load((CHECKOUT / "search_spaces" / "quickstart.yaml").read_text())
    experiment["name"], experiment["budget"] = Path(name).stem, {"trials": TRIALS}
    experiment["train"]["epochs"], experiment["validate"]["every"] = epochs, 2
    return yaml.safe_dump(experiment)
