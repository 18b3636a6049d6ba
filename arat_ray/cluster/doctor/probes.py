"""What the doctor looks at on each node. Each probe is a Ray task; its first argument is the node's name."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arat_ray.storage import objects
from arat_ray.storage.address import is_uri, parse
from arat_ray.storage.names import below
from arat_ray.training.run import Train


def versions_probe() -> Callable[[str], dict[str, str | None]]:
    """A function that tells what is installed; it travels by value, so that it runs where arat-ray is not."""

    def versions(node: str) -> dict[str, str | None]:
        import platform
        import shutil
        import subprocess
        from importlib.metadata import PackageNotFoundError, version

        found: dict[str, str | None] = {"python": platform.python_version()}
        for package in ("arat-ray", "torch", "torchvision", "ray", "optuna", "numpy", "pyarrow"):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "missing"
        try:
            from arat_ray.version import __version__

            found["arat-ray"] = __version__  # of a checkout, too
        except ImportError:
            found["arat-ray"] = "missing"
        found["CUDA of torch"] = found["driver"] = None
        if found["torch"] != "missing":
            import torch

            found["CUDA of torch"] = torch.version.cuda
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
            found["driver"] = " ".join(sorted(set(done.stdout.split()))) if done.returncode == 0 else "does not answer"
        return found

    return versions


def gpus(node: str) -> list[str]:
    """The GPUs that torch sees."""
    import torch

    return [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]


def leave_a_file(name: str, folder: str, text: str) -> None:
    """Write `text` into a folder, or below the address of a bucket, by default under the node's name; or OSError."""
    if is_uri(folder):
        objects.put(parse(folder), name, io.BytesIO(text.encode()))
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    below(Path(folder), name).write_text(text)


def read_file(name: str, folder: str) -> str:
    if is_uri(folder):
        return (objects.read(parse(folder), name) or b"").decode()
    return below(Path(folder), name).read_text()


def files_left(node: str, folder: str) -> dict[str, str]:
    """What the nodes wrote into `folder`, as this one sees it."""
    if is_uri(folder):
        names = list(objects.stats(parse(folder), ""))
    else:
        names = [path.name for path in Path(folder).glob("*") if path.is_file()]
    return {name: read_file(name, folder) for name in names}


def remove(folder: str) -> None:
    if is_uri(folder):
        for name in objects.stats(parse(folder), ""):
            objects.delete(parse(folder), name)
    else:
        shutil.rmtree(folder)


def data_set(node: str, train: dict[str, Any]) -> dict[str, Any]:
    """Read the training set as a trial would: how many images, in how many seconds, and their fingerprint."""
    from arat_ray.training.data import splits

    began = time.perf_counter()
    images = splits.read(Train.model_validate(train).dataset, "train")
    seconds = time.perf_counter() - began
    digest = hashlib.sha256(images.labels.numpy().tobytes())
    digest.update(images.images.numpy())  # type: ignore[arg-type]
    return {"images": len(images.labels), "seconds": seconds, "fingerprint": digest.hexdigest()[:12]}


def resolved(results: str) -> str:
    """Where `--results` is for every node: a relative path is that of this process."""
    return results.rstrip("/") if is_uri(results) else str(Path(results).absolute())
