"""The folder that goes along with a job: an experiment file and what lies beside it, without what never should."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

LEFT_OUT = (
    ".*",  # .git, .venv and caches, and also .ssh, .aws and tokens
    "__pycache__",
    "*.egg-info",
    "venv",
    "node_modules",
    *("*.pt", "*.pth", "*.ckpt", "*.pt2", "*.safetensors", "*.onnx", "*.parquet", "*.npz", "*.npy", "*.zip", "*.tar*"),
)
"""Names that stay behind wherever they stand, of files and of folders."""
LEFT_OUT_AT_THE_TOP = ("results", "runs", "data", "datasets", "checkpoints", "wandb")
"""Names that stay behind in the folder itself; deeper down they may be those of Python packages."""
LIMIT_MIB = 50
FILES_AT_MOST = 10_000


def pack(folder: Path, into: Path, *, needed: Path, exclude: Sequence[str] = ()) -> int:
    """Copy what goes along from `folder`, and the file `needed` in any case; how many files that is.

    Raises ValueError for too much, naming what is largest.
    """
    chosen = {needed}
    sizes: Counter[str] = Counter()
    for file in _files(folder, (*LEFT_OUT, *exclude)):
        chosen.add(file)
        sizes[file.relative_to(folder).parts[0]] += file.stat().st_size
        if len(chosen) > FILES_AT_MOST:
            raise ValueError(_too_much(folder, f"more than {FILES_AT_MOST} files", sizes))
    if sizes.total() > LIMIT_MIB << 20:
        raise ValueError(_too_much(folder, f"{_mib(sizes.total())}, more than {LIMIT_MIB} MiB", sizes))
    for file in chosen:
        copy = into / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return len(chosen)


def _files(folder: Path, left_out: Sequence[str]) -> Iterator[Path]:
    """Regular files below a folder, but for what stays behind."""
    for where, folders, files in os.walk(folder):
        patterns = (*left_out, *LEFT_OUT_AT_THE_TOP) if Path(where) == folder else left_out
        going = {name for name in folders + files if not any(fnmatch(name, pattern) for pattern in patterns)}
        folders[:] = [name for name in folders if name in going]
        for name in sorted(files):
            path = Path(where) / name
            if name in going and path.is_file() and os.access(path, os.R_OK):
                yield path


def _too_much(folder: Path, much: str, sizes: Counter[str]) -> str:
    largest = ", ".join(f"{name} ({_mib(size)})" for name, size in sizes.most_common(3))
    return (
        f"{folder} would go to the cluster and holds {much}; largest: {largest}; leave them out with --exclude NAME, "
        "or move the experiment file to a folder of its own"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
