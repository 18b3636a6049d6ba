"""How large the report of a study is, and what it takes to write, where its numbers are as fine as training makes them:
losses as means of float32, times in ns, accuracies as counts by counts; with noise of 1 % on smooth curves.

python -m benchmarks.report_size TRIALS EPOCHS FOLDER
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from arat_ray.report.page import page
from arat_ray.results.parts import part_name, write_part
from arat_ray.results.schema import PART_ROWS, TABLES, Metadata, trials_schema

GOALS = ("clean_accuracy", "robust_accuracy")
LOSSES = ("loss_adversarial", "loss_clean", "loss_invariance")
IMAGES, TRAINED = 5000, 45000


def main() -> None:
    trials, epochs, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    study = folder / "large"
    metadata = Metadata(study="large", goals=GOALS, reference_point=(0.0, 0.0), revision="0.1.0").encode()
    params = {"method.invariance_weight": pa.float64(), "method.layers": pa.string(), "attack.epsilon": pa.float64()}
    rng = np.random.default_rng(0)
    schemas = {"trials": trials_schema(params), "epochs": TABLES["epochs"].schema}
    rows = {"trials": list(_trials(rng, trials, epochs)), "epochs": list(_epochs(rng, trials, epochs))}
    for name, schema in schemas.items():
        (study / name).mkdir(parents=True)
        for part, start in enumerate(range(0, len(rows[name]), PART_ROWS[name])):
            some = rows[name][start : start + PART_ROWS[name]]
            table = pa.Table.from_pylist(some, schema=schema.with_metadata(metadata))
            write_part(study / name / part_name(part), table)
    began = time.process_time()
    content = page([study])
    spent = time.process_time() - began
    (folder / "report.html").write_bytes(content)
    parts = sum(path.stat().st_size for path in study.rglob("*.parquet"))
    print(json.dumps({"report_mb": len(content) / 1e6, "parquet_mb": parts / 1e6, "cpu_s": round(spent, 1)}))


def _trials(rng: np.random.Generator, trials: int, epochs: int) -> Iterator[dict[str, Any]]:
    for number in range(trials):
        clean = rng.uniform(0.7, 0.9)
        yield {
            "trial_id": f"large-{number:05d}",
            "attempt": 1,
            "study": "large",
            "number": number,
            "status": "complete",
            "is_full_fidelity": True,
            "config": json.dumps({"epochs": epochs, "method": {"name": "arat", "invariance_weight": rng.random()}}),
            "seed": 0,
            "param_method.invariance_weight": 10 ** rng.uniform(0, 2),
            "param_method.layers": ["stage4", "stages3-4", "last-block"][number % 3],
            "param_attack.epsilon": rng.uniform(0.01, 0.04),
            "clean_accuracy": round(clean * IMAGES) / IMAGES,
            "robust_accuracy": round((1.2 - clean + rng.normal(0, 0.03)) * IMAGES) / IMAGES,
            "images": IMAGES,
            "attack": "pgd-20",
            "norm": "linf",
            "epsilon": 8 / 255,
            "split": "validation",
            "epochs_done": epochs,
            "device_s": 60.0 * epochs,
            "checkpoint": f"checkpoints/large-{number:05d}/last.pt",
            "ended_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
        }


def _epochs(rng: np.random.Generator, trials: int, epochs: int) -> Iterator[dict[str, Any]]:
    """Validated every tenth epoch, as the shipped CIFAR files do."""
    for number in range(trials):
        levels, slope = rng.uniform(0.3, 1.2, len(LOSSES)), rng.uniform(5, 30)
        seconds, best = rng.uniform(20, 60), {"clean_accuracy": rng.uniform(0.5, 0.9)}
        best["robust_accuracy"] = 0.6 * best["clean_accuracy"]
        for epoch in range(1, epochs + 1):
            left = math.exp(-epoch / slope)
            row: dict[str, Any] = {"trial_id": f"large-{number:05d}", "attempt": 1, "epoch": epoch}
            noise = 1 + 0.01 * rng.normal(size=len(LOSSES))
            row |= dict(zip(LOSSES, (np.rint((levels + 1.5 * left) * noise * 2**28) / 2**28).tolist(), strict=True))
            row |= {"balance": 0.6, "learning_rate": 0.05 * (1 + math.cos(math.pi * epoch / epochs))}
            row["epoch_s"], row["attack_s"] = (
                round(share * seconds * (1 + 0.01 * rng.normal()), 9) for share in (1.0, 0.75)
            )
            row |= {"train_images": TRAINED, "images_per_s": TRAINED / row["epoch_s"]}
            shares = {goal: value * (1 - left / 2) * (1 + 0.005 * rng.normal()) for goal, value in best.items()}
            row |= {f"train_{goal}": int(TRAINED * share) / TRAINED for goal, share in shares.items()}
            if epoch % 10 == 0:
                row |= {f"validation_{goal}": int(IMAGES * share) / IMAGES for goal, share in shares.items()}
                row["validation_images"] = IMAGES
            yield row


if __name__ == "__main__":
    main()
