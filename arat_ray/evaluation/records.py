"""Records of finished jobs: an evaluation that was killed goes on from them.

One small safetensors file a job, put in place whole, in a folder that only evaluations of the same network on the same
images under the same attacks share. What is missing, half written or of other images is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from arat_ray import whole_files
from arat_ray.training.data.splits import ImageSet, indices_sha256


class Records:
    """The records of one evaluation, in `<parent>/<name>-<digest>`, where the digest is that of its identity.

    `identity` is everything that the verdicts depend on, as JSON; the folder says it in `identity.json`. `say` is told
    of records that cannot be read. Raises ValueError where the folder cannot be written to.
    """

    def __init__(
        self,
        parent: Path,
        name: str,
        identity: Mapping[str, Any],
        *,
        say: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._say = say
        text = _as_text(identity)
        self.digest = digest_of(identity)
        self.folder = parent / f"{name}-{self.digest}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("identity.json", text.encode())
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot be written to ({error.strerror}); choose another --records"
            ) from error

    def save(self, attack: str, number: int, indices: Tensor, found: Mapping[str, Any]) -> None:
        """Record the tensors and plain values that the job of these images found."""
        tensors = {key: value.contiguous() for key, value in found.items() if isinstance(value, Tensor)}
        plain = {key: value for key, value in found.items() if key not in tensors}
        header = {"indices_sha256": indices_sha256(indices), "plain": json.dumps(plain)}
        self._write(_name(attack, number), safetensors.torch.save(tensors, metadata=header))

    def load(self, attack: str, number: int, indices: Tensor) -> dict[str, Any] | None:
        """What was recorded of this job, or None."""
        path = self.folder / _name(attack, number)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("indices_sha256") != indices_sha256(indices):
                    return None
                found: dict[str, Any] = dict(json.loads(header["plain"]))
                return found | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            self._say(f"{path} cannot be read ({' '.join(str(error).split())}); its batch is computed again")
            return None

    def _write(self, name: str, content: bytes) -> None:
        whole_files.replace(self.folder / name, content, suffix=os.getpid())


def digest_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits of all that an evaluation's verdicts depend on."""
    return hashlib.sha256(_as_text(identity).encode()).hexdigest()[:16]


def _as_text(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True, indent=2)


def _name(attack: str, number: int) -> str:
    return f"{attack}-{number:05d}.safetensors"


def network_sha256(model: nn.Module) -> str:
    """Hex digest of what a network computes: its architecture as it prints, and its weights."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def images_sha256(data: ImageSet) -> str:
    """Hex digest of images and labels."""
    digest = hashlib.sha256(f"{tuple(data.images.shape)}".encode())
    digest.update(data.images.cpu().contiguous().numpy().tobytes())
    digest.update(data.labels.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()
