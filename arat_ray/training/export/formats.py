"""The files that a network can leave as, by suffix: how each is made, and how a stranger reads it.

Only `.safetensors` needs the architecture's code to read; `.pt2` needs torch alone, `.onnx` any ONNX runtime. The
programs take x [N, C, H, W] for any N of at least 1, and compute what the network does in eval mode.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from arat_ray.training.checkpoint import Checkpoint

Logits = Callable[[Tensor], Tensor]
"""x [N, C, H, W] -> logits [N, K]."""


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    tolerance: float
    """Largest difference of a logit, as a share of the largest logit: none where weights are kept as they are, float32
    rounding where a program may order its sums otherwise."""
    encode: Callable[[nn.Module, Checkpoint], bytes]
    load: Callable[[Path, Checkpoint], Logits]
    needs: tuple[str, ...] = ()
    """Packages that are not installed with this one."""


def of(path: Path) -> Format:
    """The format that a file's suffix names; ValueError for another suffix and for packages that are not installed."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: end it in one of {', '.join(FORMATS)}")
    form = FORMATS[path.suffix]
    missing = [package for package in form.needs if importlib.util.find_spec(package) is None]
    if missing:
        command = f"pip install {' '.join(form.needs)}"
        raise ValueError(f"{path}: {path.suffix} needs {', '.join(missing)}, not installed here: {command}")
    return form


def _weights(network: nn.Module, checkpoint: Checkpoint) -> bytes:
    """The state under the plain architecture's names, with what is needed to rebuild it in the header."""
    header = {
        "model": json.dumps(checkpoint.train["model"]),
        "dataset": checkpoint.train["dataset"]["name"],
        "epoch": str(checkpoint.epoch),
    }
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors, metadata=header)


def _load_weights(path: Path, checkpoint: Checkpoint) -> Logits:
    train = checkpoint.train_spec
    fresh = train.model.build(checkpoint.shape, checkpoint.num_classes)
    fresh.load_state_dict(safetensors.torch.load_file(path))
    return fresh.eval()


def _trace(network: nn.Module, checkpoint: Checkpoint) -> ExportedProgram:
    """The network as a graph of torch's operators, differentiable, without the paths of this machine."""
    x = torch.zeros(2, *checkpoint.shape)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _program(network: nn.Module, checkpoint: Checkpoint) -> bytes:
    content = io.BytesIO()
    torch.export.save(_trace(network, checkpoint), content)
    return content.getvalue()


def _load_program(path: Path, checkpoint: Checkpoint) -> Logits:
    del checkpoint
    return torch.export.load(path).module()


def _onnx(network: nn.Module, checkpoint: Checkpoint) -> bytes:
    import torch.onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within the exporter
        exported = torch.onnx.export(
            _trace(network, checkpoint),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
        )
    assert exported is not None
    content: bytes = exported.model_proto.SerializeToString()
    return content


def _load_onnx(path: Path, checkpoint: Checkpoint) -> Logits:
    import onnxruntime

    del checkpoint
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])


FORMATS: dict[str, Format] = {
    ".safetensors": Format(0.0, _weights, _load_weights),
    ".pt2": Format(1e-5, _program, _load_program),
    ".onnx": Format(1e-4, _onnx, _load_onnx, needs=("onnx", "onnxscript", "onnxruntime")),
}
