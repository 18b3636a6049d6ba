"""`dial` with --fit, --soup and --mix on checkpoints in a bucket, on a machine that has nothing yet."""

from __future__ import annotations

from pathlib import Path

import yaml

from arat_ray.results import reader
from arat_ray.storage.address import mirror_of, parse
from tests.cluster.studies import EXPERIMENT
from tests.storage.conftest import there
from tests.storage.test_commands import arat_ray

HOW = ("--attack", "pgd", "--epsilon", "0.2", "--steps", "1", "--split", "test", "--images", "20", "--at", "0,1")
FITTED = "checkpoints/small-00000/fitted-last.pt"


def test_branches_soups_and_mixtures_of_checkpoints_in_a_bucket(address: str, tmp_path: Path) -> None:
    results = address.removesuffix("/small")
    run = {name: EXPERIMENT[name] for name in ("validate", "resources")}
    for name, width in (("small", 2), ("like", 2), ("wider", 3)):
        model = {"name": "tiny", "width": width}
        train = EXPERIMENT["train"] | {"epochs": 1, "method": {"name": "pgd_at"}, "model": model}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(run | {"name": name, "train": train}))
        arat_ray("train", str(path), "--results", results)
    a, like, wider = (f"{results}/{name}/checkpoints/{name}-00000/last.pt" for name in ("small", "like", "wider"))

    assert "a clean branch, 1 epochs" in arat_ray("dial", a, "--fit", "1", *HOW).output
    assert FITTED in there(mirror_of(parse(address)))
    assert "a clean branch, 1 epochs" not in arat_ray("dial", a, "--fit", "1", *HOW).output, "it is fetched"
    arat_ray("export", f"{address}/{FITTED}", "--dial", "0.5", "-o", str(tmp_path / "model.pt2"))
    for way in ("--soup", "--mix"):
        done = arat_ray("dial", a, way, like, *HOW)
        assert f"t = 0 is {a} and t = 1 {like}" in done.output
        assert f"added to {address}/evaluations" in done.output
    arat_ray("pareto", address, "--attack", "pgd-1", "--split", "test", "--dial")
    rows = reader.read(mirror_of(parse(address)), "evaluations", ["checkpoint", "dial"]).to_pylist()
    assert {row["checkpoint"] for row in rows} == {"fitted-last", "soup-like-00000-last", "mix-like-00000-last"}

    assert "are of two architectures" in arat_ray("dial", a, "--soup", wider, *HOW, code=2).output
    missing = f"{results}/nowhere/checkpoints/nowhere-00000/last.pt"
    assert f"{missing}: there is no" in arat_ray("dial", a, "--mix", missing, *HOW, code=2).output
    folder = arat_ray("dial", address, "--mix", like, *HOW, code=2)
    assert f"--mix goes from one checkpoint to another, and {address} is a folder" in folder.output
