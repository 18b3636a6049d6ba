"""A network that leaves the project: the same logits in code that knows nothing of it, or no file at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

import arat_ray
from arat_ray.digests import sha256_of
from arat_ray.results.rows import EpochRow
from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.export import formats
from arat_ray.training.export import network as export
from arat_ray.training.export.formats import FORMATS
from arat_ray.training.export.robustbench import counterpart
from arat_ray.training.loop import fit
from arat_ray.training.models import MODELS
from tests.training.export.exports import ARAT, PlainResNet18, split_logits, untrained
from tests.training.runs import few_digits, last, make, run, validate

ROOT = Path(__file__).parents[3]
NARROW: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 4},
    "preact_resnet18": {"width": 4},
    "wide_resnet": {"depth": 10, "width": 1},
    "vit": {"patch": 2, "width": 12, "depth": 2},
    "tiny": {"width": 4},
}
DIGITS = {"name": "digits"}
NETWORKS = [
    {"name": name, **settings, "norm": norm}
    for name, settings in NARROW.items()
    for norm in (("layer",) if name == "vit" else ("batch", "group"))
]


def read(path: Path, model: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """A file of a network for digits, as a user of torch or ONNX Runtime reads it."""
    if path.suffix == ".pt2":
        program: Callable[[Tensor], Tensor] = torch.export.load(path).module()
        return program
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda x: torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])
    network = MODELS[model["name"]].model_validate(model).build((1, 8, 8), 10).eval()
    network.load_state_dict(safetensors.torch.load_file(path))
    return network


def described(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.with_name(f"{path.name}.json").read_text())
    return facts


def test_the_menu_of_networks_is_complete() -> None:
    assert NARROW.keys() == MODELS.keys()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: f"{model['name']}-{model['norm']}")
def test_every_network_leaves_in_every_format_with_the_adversarial_branchs_logits(
    model: dict[str, Any], suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    state = untrained(tmp_path / "last.pt", model=model)
    path = tmp_path / f"model{suffix}"
    with caplog.at_level(logging.WARNING):
        written = export.export(tmp_path / "last.pt", path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert written.comparison.source == "training images of digits"
    network = read(path, model)
    for n in (1, 3, 16):
        x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
        expected = split_logits(state, x)
        tolerance = FORMATS[suffix].tolerance * expected.abs().max().item()
        with torch.no_grad():
            torch.testing.assert_close(network(x), expected, rtol=0, atol=tolerance)
    assert str(ROOT).encode() not in path.read_bytes(), "no paths of the machine that wrote it"
    assert sys.prefix.encode() not in path.read_bytes()


STRANGER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "arat_ray":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
from pyautoattack import AutoAttack
network = torch.export.load("model.pt2").module()
x, y, logits, gradient = torch.load("expected.pt")
leaf = x.clone().requires_grad_()
torch.testing.assert_close(network(x), logits, rtol=1e-5, atol=1e-5)
torch.testing.assert_close(torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)[0], gradient)
attack = AutoAttack(network, norm="Linf", eps=0.2, version="custom", attacks=["apgd-ce"], device="cpu", seed=0)
x_adv, *_ = attack.run_standard_evaluation(x, y, batch_size=6)
assert (x_adv - x).abs().max() <= 0.2 + 1e-6
print(int((network(x).argmax(1) == y).sum()), int((network(x_adv).argmax(1) == y).sum()))
network.to("meta")(x.to("meta"))  # another device
assert not any(name.split(".")[0] == "arat_ray" for name in sys.modules)
"""
RUNTIME = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
x, logits = numpy.load("x.npy"), numpy.load("logits.npy")
for n in (1, 5, 12):
    numpy.testing.assert_allclose(session.run(["logits"], {"x": x[:n]})[0], logits[:n], rtol=1e-4, atol=1e-4)
assert not {"torch", "arat_ray"} & sys.modules.keys()
"""


@pytest.fixture(scope="module")
def on_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ARAT run of a narrow ResNet-18 on some digits."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        few_digits(patch, 400)
        model = {"name": "resnet18", "width": 4}
        train = make(dataset=DIGITS, model=model, method=ARAT, epochs=6, optimizer={"learning_rate": 0.05})
        run(train, validate(100), folder)
    return folder


def python(program: str, folder: Path) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_autoattack_runs_on_a_pt2_where_this_package_cannot_be_imported(on_digits: Path, tmp_path: Path) -> None:
    export.export(on_digits / "last.pt", tmp_path / "model.pt2")
    network = checkpoint.network(last(on_digits))
    images = make().dataset.read("test")
    x, y = images.images[:8].float() / 255, images.labels[:8]
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
    torch.save((x, y, logits.detach(), gradient), tmp_path / "expected.pt")
    clean, robust = map(int, python(STRANGER, tmp_path).split())
    assert clean == (logits.argmax(1) == y).sum() > robust, "the attack has a gradient to follow"


def test_onnx_runtime_alone_gives_the_same_logits(on_digits: Path, tmp_path: Path) -> None:
    export.export(on_digits / "last.pt", tmp_path / "model.onnx")
    x = make().dataset.read("test").images[:12].float() / 255
    with torch.no_grad():
        np.save(tmp_path / "logits.npy", checkpoint.network(last(on_digits))(x).numpy())
    np.save(tmp_path / "x.npy", x.numpy())
    python(RUNTIME, tmp_path)


@pytest.fixture(scope="module")
def on_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ARAT run of a narrow ResNet-18 on RGB images of 32x32, and of the images."""
    folder = tmp_path_factory.mktemp("photographs")
    draws = np.random.default_rng(0)
    for name, brightness in (("dark", 0), ("light", 100)):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draws.integers(brightness, brightness + 156, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    train = make(
        dataset={"name": "image_folder", "train": str(folder / "images"), "size": 32},
        model={"name": "resnet18", "width": 4},
        method=ARAT,
        batch_size=10,
    )
    fit(train, validate(4), Context(folder, lambda row, replayed: False))
    return folder


def test_the_widespread_resnet18_loads_the_weights_under_their_own_names(on_photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    export.export(on_photographs / "last.pt", path)
    facts = described(path)
    assert facts["classes"] == ["dark", "light"]
    plain = PlainResNet18(4, 2).eval()
    plain.load_state_dict(safetensors.torch.load_file(path), strict=True)
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(facts["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = split_logits(last(on_photographs), x)
        torch.testing.assert_close(plain((x - mean) / std), expected, rtol=1e-5, atol=1e-6)


def test_the_examples_of_the_export_page_run(
    on_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for RobustBench, whose ResNet has the same code and another width."""
    for suffix in FORMATS:
        export.export(on_photographs / "last.pt", tmp_path / f"model{suffix}")
    resnet: Any = types.ModuleType("robustbench.model_zoo.architectures.resnet")
    resnet.BasicBlock, resnet.ResNet = None, lambda block, counts, num_classes: PlainResNet18(4, 2)
    for name in ("robustbench", "robustbench.model_zoo", "robustbench.model_zoo.architectures"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, resnet.__name__, resnet)
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs/export.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(examples) == 3
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = split_logits(last(on_photographs), images)
    for example in examples:
        names: dict[str, Any] = {"images": images}
        exec(example, names)
        logits = names["logits"] if "logits" in names else names["network"](images)
        torch.testing.assert_close(torch.as_tensor(logits), expected, rtol=1e-4, atol=1e-5)


def test_the_json_says_what_the_network_is(on_digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    written = export.export(on_digits / "last.pt", path)
    assert written.description == tmp_path / "model.safetensors.json"
    facts, row = described(path), last(on_digits).history[-1]
    digits = [str(digit) for digit in range(10)]
    attack = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1, "start": "uniform"}
    assert facts == {
        "format": 1,
        "file": "model.safetensors",
        "sha256": sha256_of(path),
        "architecture": {"name": "resnet18", "width": 4, "norm": "batch", "strides": [1, 2, 2, 2]},
        "dataset": "digits",
        "num_classes": 10,
        "classes": digits,
        "input": {"name": "x", "shape": [1, 8, 8], "range": [0, 1], "mean": [0.0], "std": [1.0]},
        "output": "logits",
        "weights": "last",
        "dial": None,
        "fitted": None,
        "epoch": 6,
        "method": "arat",
        "attack": attack,
        "validation": {
            "clean_accuracy": row["validation_clean_accuracy"],
            "robust_accuracy": row["validation_robust_accuracy"],
            "images": 100,
            "split": "validation",
            "attack": {"label": "pgd-1", **attack},
        },
        "robustbench": None,
        "torch": torch.__version__,
        "arat_ray": arat_ray.__version__,
        "checkpoint_sha256": sha256_of(on_digits / "last.pt"),
        "verified": written.comparison._asdict(),
    }
    assert written.comparison.largest_difference == 0
    assert facts["verified"]["images"] == 32


def test_the_average_is_exported_unless_the_weights_trained_last_are_asked_for(tmp_path: Path) -> None:
    averaging = {"name": "ema", "decay": 0.5}
    row: EpochRow = {
        "epoch": 1,
        "validation_clean_accuracy": 0.5,
        "validation_robust_accuracy": 0.25,
        "validation_images": 100,
    }
    state = dataclasses.replace(untrained(tmp_path / "last.pt", averaging=averaging), history=[row])
    checkpoint.save(state, tmp_path / "last.pt")
    model = {"name": "tiny", "width": 2}
    x = torch.rand(3, 1, 8, 8)
    average, raw = tmp_path / "average.safetensors", tmp_path / "raw.safetensors"
    export.export(tmp_path / "last.pt", average)
    export.export(tmp_path / "last.pt", raw, averaged=False)
    assert torch.equal(read(average, model)(x), split_logits(state, x))
    assert torch.equal(read(raw, model)(x), split_logits(dataclasses.replace(state, average=None), x))
    assert [described(path)["weights"] for path in (average, raw)] == ["ema", "last"]
    assert described(average)["validation"]["robust_accuracy"] == 0.25
    assert described(raw)["validation"] is None, "what was measured is the average"


def test_without_the_data_random_images_are_compared_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        pytest.fail("downloads")

    monkeypatch.setattr("urllib.request.urlopen", download)
    missing = tmp_path / "nowhere"
    untrained(tmp_path / "last.pt", dataset={"name": "cifar10", "root": str(missing)}, model={"name": "tiny"})
    written = export.export(tmp_path / "last.pt", tmp_path / "model.safetensors")
    assert (written.comparison.images, written.comparison.source) == (32, "random images in [0, 1]")
    facts = described(written.path)
    assert (facts["dataset"], facts["num_classes"], facts["classes"]) == ("cifar10", 10, None)
    assert facts["input"]["shape"] == [3, 32, 32]
    assert not missing.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_computes_something_else_is_refused_and_leaves_nothing_behind(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained(tmp_path / "last.pt")
    encode = FORMATS[suffix].encode

    def tampered(network: nn.Module, state: checkpoint.Checkpoint) -> bytes:
        with torch.no_grad():
            next(network.parameters())[0, 0, 0, 0] += 0.01
        return encode(network, state)

    monkeypatch.setitem(FORMATS, suffix, dataclasses.replace(FORMATS[suffix], encode=tampered))
    path = tmp_path / "new" / f"model{suffix}"
    with pytest.raises(ValueError, match=rf"model\{suffix}: not written, .* differ by at most [\d.]+(e-\d+)? where"):
        export.export(tmp_path / "last.pt", path)
    assert list(path.parent.iterdir()) == []

    path.write_text("old")
    with pytest.raises(ValueError, match="not written"):
        export.export(tmp_path / "last.pt", path, overwrite=True)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_read_back_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained(tmp_path / "last.pt")
    broken = dataclasses.replace(FORMATS[".safetensors"], encode=lambda network, state: b"half")
    monkeypatch.setitem(FORMATS, ".safetensors", broken)
    with pytest.raises(safetensors.SafetensorError):
        export.export(tmp_path / "last.pt", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


def test_a_network_that_diverged_is_refused(tmp_path: Path) -> None:
    state = untrained(tmp_path / "last.pt")
    state.method["model.linear.bias"].fill_(float("nan"))
    checkpoint.save(state, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: its network's logits are not finite on training images of digits"):
        export.export(tmp_path / "last.pt", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


def test_onnx_without_its_packages_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = "needs onnxscript, not installed here: pip install onnx onnxscript onnxruntime"
    with pytest.raises(ValueError, match=message):
        formats.of(tmp_path / "model.onnx")


def test_the_checkpoint_itself_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "last.pt2"
    untrained(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"last\.pt2 is the checkpoint itself"):
        export.export(path, path, overwrite=True)
    assert path.read_bytes() == before


def test_robustbench_has_the_standard_networks_only() -> None:
    shape = (3, 32, 32)
    standard = counterpart(MODELS["resnet18"](), shape, 100)
    assert standard == {
        "module": "robustbench.model_zoo.architectures.resnet",
        "make": "ResNet(BasicBlock, [2, 2, 2, 2], num_classes=100)",
        "rename": {},
    }
    wide = counterpart(MODELS["wide_resnet"](), shape, 10)
    assert wide is not None
    assert wide["make"] == "WideResNet(depth=34, widen_factor=10, num_classes=10)"
    renamed = {
        re.sub(r"\.shortcut\.", wide["rename"][".shortcut."], name)
        for name in MODELS["wide_resnet"].model_validate({"depth": 10, "width": 2}).build(shape, 10).state_dict()
    }
    assert {"block2.layer.0.convShortcut.weight", "block1.layer.0.bn1.running_var", "fc.bias"} <= renamed
    others: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
        ({"name": "resnet18", "width": 16}, shape),
        ({"name": "resnet18", "norm": "group"}, shape),
        ({"name": "resnet18", "strides": (1, 1, 2, 2)}, shape),
        ({"name": "resnet18"}, (1, 32, 32)),
        ({"name": "preact_resnet18"}, (3, 64, 64)),
        ({"name": "vit"}, shape),
        ({"name": "tiny"}, shape),
    ]
    for model, images in others:
        assert counterpart(MODELS[model["name"]].model_validate(model), images, 10) is None
