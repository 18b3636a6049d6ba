"""The sets that torchvision finds in a folder or downloads into it: CIFAR-10, CIFAR-100, SVHN, Fashion-MNIST."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from arat_ray import locks
from arat_ray.storage import finding
from arat_ray.training.data.images import Images, ImageSet, Shape, Split
from arat_ray.training.data.locations import DataPath

_MAY_DOWNLOAD = ContextVar("may_download", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Within the block, a set that is not under its `root` is refused with ValueError and not downloaded."""
    token = _MAY_DOWNLOAD.set(False)
    try:
        yield
    finally:
        _MAY_DOWNLOAD.reset(token)


class Downloaded(Images):
    """What all of them may say: the folder to look in, by default $ARAT_DATA or ~/.cache/arat-ray."""

    root: DataPath | None = None
    """Folder with torchvision's files; by default $ARAT_DATA or ~/.cache/arat-ray."""
    places: ClassVar[tuple[str, ...]] = ("root",)

    def located(self) -> Self:
        found = finding.roots(self.root)
        return self.model_copy(update={"root": found[0]}) if found else self


class Cifar10(Downloaded):
    """60,000 photographs, RGB 32x32.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    name: Literal["cifar10"] = "cifar10"
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    train_images: ClassVar[int] = 50_000
    test_images: ClassVar[int] = 10_000
    files: ClassVar[str] = (
        "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) from https://www.cs.toronto.edu/~kriz/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "CIFAR10", {"train": split == "train"})
        return self._chosen(
            f"dataset {self.name}: {self.root}", split, found.data.transpose(0, 3, 1, 2), found.targets, found.classes
        )


class Cifar100(Downloaded):
    """As CIFAR-10, with 100 finer classes."""

    name: Literal["cifar100"] = "cifar100"
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 100
    train_images: ClassVar[int] = 50_000
    test_images: ClassVar[int] = 10_000
    files: ClassVar[str] = (
        "cifar-100-python.tar.gz (MD5 eb9058c3a382ffc7106e4002c42a8d85) from https://www.cs.toronto.edu/~kriz/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "CIFAR100", {"train": split == "train"})
        return self._chosen(
            f"dataset {self.name}: {self.root}", split, found.data.transpose(0, 3, 1, 2), found.targets, found.classes
        )


class Svhn(Downloaded):
    """99,289 digits of house numbers, RGB 32x32; not flipped, because a mirrored digit is none.

    Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
    """

    name: Literal["svhn"] = "svhn"
    flip: bool = False
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    train_images: ClassVar[int] = 73_257
    test_images: ClassVar[int] = 26_032
    files: ClassVar[str] = (
        "train_32x32.mat (MD5 e26dedcc434d2e4c54c9b2d4a06d8373) and test_32x32.mat "
        "(MD5 eb5a983be6a315427106f1b164d9cef3) from http://ufldl.stanford.edu/housenumbers/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "SVHN", {"split": split})
        return self._chosen(f"dataset {self.name}: {self.root}", split, found.data, found.labels, map(str, range(10)))


class FashionMnist(Downloaded):
    """70,000 pieces of clothing, grey 28x28. H. Xiao et al., https://arxiv.org/abs/1708.07747."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    shape: ClassVar[Shape] = (1, 28, 28)
    num_classes: ClassVar[int] = 10
    train_images: ClassVar[int] = 60_000
    test_images: ClassVar[int] = 10_000
    files: ClassVar[str] = (
        "FashionMNIST/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte (gunzipped) from https://github.com/zalandoresearch/fashion-mnist "
        "or Debian's package dataset-fashion-mnist"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "FashionMNIST", {"train": split == "train"})
        return self._chosen(
            f"dataset {self.name}: {self.root}", split, found.data[:, None], found.targets, found.classes
        )


def _can_hold(folder: Path) -> bool:
    """Whether something can be written there; a folder that a checkpoint of another machine names may be none here."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def _torchvision(dataset: Cifar10 | Cifar100 | Svhn | FashionMnist, kind: str, which: dict[str, Any]) -> Any:
    """The torchvision data set where it is found; else downloaded, quietly, by one process while others wait."""
    import torchvision.datasets

    make, roots = getattr(torchvision.datasets, kind), finding.roots(dataset.root)
    if not roots:
        raise ValueError(f"dataset {dataset.name}: there is no home folder to look in; give --data, or set ARAT_DATA")
    for each in roots:
        with suppress(RuntimeError):  # not there, or damaged
            return make(each, **which)
    root = next((each for each in roots if _can_hold(each)), roots[0])
    looked = " or ".join(map(str, roots))
    if not _MAY_DOWNLOAD.get():
        raise ValueError(f"dataset {dataset.name}: no intact copy in {looked}, and nothing is to be downloaded here")
    timeout, silence = socket.getdefaulttimeout(), io.StringIO()
    socket.setdefaulttimeout(15)  # seconds; a firewall that drops packets would hang the trial
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locks.held(root / ".lock", wait=True), redirect_stdout(silence), redirect_stderr(silence):
            return make(root, download=True, **which)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"dataset {dataset.name}: no intact copy in {looked} and no download "
            f"({' '.join(str(error).split())}); put {dataset.files} there, "
            "or name a folder that has them: --data, dataset.root or ARAT_DATA"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
