"""The authors' code of ARAT, https://github.com/futakw/AR-AT, imported from a checkout as it is.

What it imports for logs, data and evaluation alone is stood in for meanwhile, so that it need not be installed.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

NO_PART_IN_A_STEP = (
    *("pandas", "tqdm", "torch.utils.tensorboard", "torchattacks", "PIL"),
    *("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.utils"),
)
MODULES = {
    "train": "train_ARAT",
    "attacks": "attacks",
    "loss": "loss",
    "features": "models.feature_extractor",
    "resnet": "models.cifar_resnet_split_bn",
    "wrn": "models.wrn_split_bn",
}


def load(checkout: Path) -> SimpleNamespace:
    """Their modules by the keys of MODULES. ValueError where `checkout` is not of their repository."""
    if not (checkout / "train_ARAT.py").is_file():
        raise ValueError(
            f"--reference {checkout}: no train_ARAT.py there; give a checkout: git clone https://github.com/futakw/AR-AT"
        )
    with ExitStack() as during:
        during.enter_context(_stood_in_for(NO_PART_IN_A_STEP))
        during.enter_context(patch.object(sys, "path", [str(checkout), *sys.path]))
        during.enter_context(warnings.catch_warnings(action="ignore"))
        return SimpleNamespace(**{name: importlib.import_module(module) for name, module in MODULES.items()})


@contextmanager
def _stood_in_for(names: Iterable[str]) -> Iterator[None]:
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: MagicMock() for name in before})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def commit(checkout: Path) -> str:
    """Which state of their repository it is."""
    asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown, not a clone"
