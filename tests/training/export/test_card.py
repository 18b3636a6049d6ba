"""The model card of an exported network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.digests import sha256_of
from tests.frontier.tables import evaluated
from tests.report.reports import write
from tests.training.export.exports import untrained

TRIAL = "small-00000"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    study = write(tmp_path, {"status": "complete", "is_full_fidelity": True})
    path = study / "checkpoints" / TRIAL / "last.pt"
    untrained(path)
    return path


def carded(checkpoint: Path, *more: str) -> tuple[dict[str, Any], str]:
    """Metadata and text."""
    output = checkpoint.parents[3] / "hub" / "net.safetensors"
    done = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(output), "--card", *more])
    assert done.exit_code == 0, done.output
    text = output.with_name("README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_a_card_has_what_was_measured_of_just_these_weights(checkpoint: Path) -> None:
    study, digest = checkpoint.parents[2], sha256_of(checkpoint)
    evaluated(study, TRIAL, clean=900, robust=450, checkpoint_sha256=digest)
    evaluated(study, TRIAL, clean=1, robust=1, checkpoint_sha256="of another network")
    metadata, body = carded(checkpoint, "--license", "mit")
    (index,) = metadata["model-index"]
    found = {each["metrics"][0]["name"]: each["metrics"][0]["value"] for each in index["results"]}
    assert found == {"clean accuracy": 0.9, "robust accuracy, autoattack, linf 8/255": 0.45}
    assert {each["dataset"]["split"] for each in index["results"]} == {"test"}
    assert (metadata["license"], metadata["datasets"], index["name"]) == ("mit", ["digits"], "net")
    assert "| 450 of 1,000 | 45.00 [41.94, 48.10] |" in body
    assert "pyautoattack 0.2.0, exact" in body
    assert "not measured under AutoAttack" not in body
    assert "Measured on 1,000 images" in body


def test_hugging_face_reads_what_was_measured(checkpoint: Path) -> None:
    hub = pytest.importorskip("huggingface_hub.repocard", reason="huggingface_hub is not installed")
    evaluated(checkpoint.parents[2], TRIAL, clean=900, robust=450, checkpoint_sha256=sha256_of(checkpoint))
    carded(checkpoint)
    clean, robust = hub.ModelCard.load(checkpoint.parents[3] / "hub" / "README.md").data.eval_results
    assert (clean.metric_value, robust.metric_value, robust.dataset_split) == (0.9, 0.45, "test")


def test_a_card_without_an_evaluation_says_so_and_names_the_command(checkpoint: Path) -> None:
    metadata, body = carded(checkpoint)
    assert "license" not in metadata
    assert "model-index" not in metadata
    assert "No evaluation of this network was found" in body
    assert f"arat-ray evaluate {checkpoint} --attack autoattack" in body
    assert "upper bound" in body


def test_a_card_warns_of_pgd_alone_and_of_images_that_chose_the_network(checkpoint: Path) -> None:
    changes: dict[str, Any] = {"attack": "pgd-20", "split": "validation", "warnings": "masked gradients?\x1b[2J"}
    evaluated(checkpoint.parents[2], TRIAL, clean=9, robust=4, checkpoint_sha256=sha256_of(checkpoint), **changes)
    _, body = carded(checkpoint)
    for words in (
        "under PGD or another single attack is an upper bound",
        "also chose among trials",
        "masked gradients?",
    ):
        assert words in body
    assert "\x1b" not in body


def test_a_card_that_is_there_stays_unless_it_is_to_be_replaced(checkpoint: Path) -> None:
    carded(checkpoint)
    words = ["export", str(checkpoint), "-o", str(checkpoint.parents[3] / "hub" / "other.safetensors"), "--card"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "README.md exists" in done.output
    assert not Path(words[3]).exists()
    assert CliRunner().invoke(main, [*words[:-1], "--license", "mit"]).exit_code == 2
    carded(checkpoint, "--force")
