"""What the doctor looks at on each node. Each probe is a Ray task; its first argument is the node's name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
            from arat_ray import __version__

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
    """Write `text` into `folder`, by default under the node's name. Raises OSError where that cannot be."""
    files, path = _file_system(folder)
    files.create_dir(path, recursive=True)
    with files.open_output_stream(f"{path}/{name}") as stream:
        stream.write(text.encode())


def read_file(name: str, folder: str) -> str:
    files, path = _file_system(folder)
    return str(files.open_input_stream(f"{path}/{name}").read().decode())


def files_left(node: str, folder: str) -> dict[str, str]:
    """What the nodes wrote into `folder`, as this one sees it."""
    from pyarrow.fs import FileSelector

    files, path = _file_system(folder)
    found = files.get_file_info(FileSelector(path, allow_not_found=True))
    return {info.base_name: read_file(info.base_name, folder) for info in found if info.is_file}


def remove(folder: str) -> None:
    files, path = _file_system(folder)
    files.delete_dir(path)


def _file_system(folder: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in folder:
        return LocalFileSystem(), folder
    files, path = FileSystem.from_uri(folder)
    return files, path


def data_set(node: str, train: dict[str, Any]) -> dict[str, Any]:
    """Read the training set as a trial would: how many images, in how many seconds, and their fingerprint."""
    from arat_ray.training import data

    began = time.perf_counter()
    images = data.read(Train.model_validate(train).dataset, "train")
    seconds = time.perf_counter() - began
    digest = hashlib.sha256(images.labels.numpy().tobytes())
    digest.update(images.images.numpy())  # type: ignore[arg-type]
    return {"images": len(images.labels), "seconds": seconds, "fingerprint": digest.hexdigest()[:12]}


def resolved(results: str) -> str:
    """Where `--results` is for every node: a relative path is that of this process."""
    return results if "://" in results else str(Path(results).absolute())
