"""Sets that torchvision finds or downloads: what is read, and what is said when nothing can be."""

from __future__ import annotations

import gzip
import hashlib
import io
import multiprocessing
import pickle
import socket
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from arat_ray.storage import finding
from arat_ray.training.data.torchvision_sets import Cifar10, Cifar100, FashionMnist, Svhn, without_downloads

if TYPE_CHECKING:
    import torchvision.datasets

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True, scope="module")
def _torchvision() -> None:
    """Imported here: to collect this file, every process that runs tests would spend seconds on it."""
    global torchvision
    import torchvision.datasets


def refusal(dataset: Any, split: Any = "train") -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        dataset.read(split)
    return str(caught.value)


def test_the_folder_of_downloads_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAT_DATA", "~/sets")
    assert Cifar10().located().root == Path.home() / "sets"
    monkeypatch.delenv("ARAT_DATA")
    assert Cifar10().located().root == Path.home() / ".cache/arat-ray"


@pytest.mark.parametrize("kind", [Cifar10, Cifar100, Svhn, FashionMnist])
def test_without_internet_the_message_says_which_file_to_put_where(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    message = refusal(kind(root=tmp_path / "new"))
    assert message.startswith(f"dataset {kind.model_fields['name'].default}: no intact copy in {tmp_path / 'new'}")
    assert "Name or service not known" in message
    assert kind.files in message
    assert "ARAT_DATA" in message
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_the_archives_named_are_those_that_torchvision_accepts() -> None:
    for kind, theirs in ((Cifar10, torchvision.datasets.CIFAR10), (Cifar100, torchvision.datasets.CIFAR100)):
        assert f"{theirs.filename} (MD5 {theirs.tgz_md5})" in kind.files
        assert theirs.url.startswith(kind.files.split()[-1])
    for split in ("train", "test"):
        url, file, md5 = torchvision.datasets.SVHN.split_list[split]
        assert f"{file} (MD5 {md5})" in Svhn.files
        assert url.startswith(Svhn.files.split()[-1])
    for file, _ in torchvision.datasets.FashionMNIST.resources:
        assert file.removesuffix(".gz") in FashionMnist.files


@pytest.mark.parametrize(("kind", "theirs"), [(Cifar10, "CIFAR10"), (Cifar100, "CIFAR100")])
def test_cifar_is_read_from_its_pickled_batches(
    kind: Any, theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = getattr(torchvision.datasets, theirs)
    folder = tmp_path / layout.base_folder
    folder.mkdir()
    rows = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    key = "labels" if kind is Cifar10 else "fine_labels"
    for part in ("train_list", "test_list"):
        files = [name for name, _ in getattr(layout, part)]
        for i, name in enumerate(files):
            (folder / name).write_bytes(pickle.dumps({"data": rows + i, key: [i, 9]}))
        monkeypatch.setattr(layout, part, [[name, None] for name in files])  # any checksum
    names = [f"class {i}" for i in range(kind.num_classes)]
    (folder / layout.meta["filename"]).write_bytes(pickle.dumps({layout.meta["key"]: names}))
    monkeypatch.setitem(layout.meta, "md5", None)

    test = kind(root=tmp_path).read("test")
    assert torch.equal(test.images, torch.from_numpy(rows).reshape(2, *kind.shape))
    assert test.images.is_contiguous()
    assert test.labels.tolist() == [0, 9]
    assert test.classes == tuple(names)
    if kind is Cifar10:
        train = kind(root=tmp_path, images=4, subset="first").read("train")
        assert train.labels.tolist() == [0, 9, 1, 9]


def test_svhn_is_read_from_its_matlab_file_with_digit_ten_as_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    scipy_io.savemat(tmp_path / "train_32x32.mat", {"X": images, "y": np.array([[10], [1], [2], [9], [10]])})
    monkeypatch.setitem(torchvision.datasets.SVHN.split_list, "train", ["", "train_32x32.mat", None])
    train = Svhn(root=tmp_path, images=4, subset="first").read("train")
    assert torch.equal(train.images, torch.from_numpy(images).permute(3, 2, 0, 1)[:4])
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [0, 1, 2, 9]
    assert train.classes == tuple("0123456789")


def idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_fashion_mnist_is_read_from_raw_idx_files_and_a_truncated_one_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    for part in ("train", "t10k"):
        idx(raw / f"{part}-images-idx3-ubyte", images)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(6))
    train = FashionMnist(root=tmp_path).read("train")
    assert torch.equal(train.images, torch.from_numpy(images.astype(np.uint8))[:, None])
    assert train.labels.tolist() == list(range(6))
    assert train.classes[5] == "Sandal"

    whole = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    assert f"no intact copy in {tmp_path}" in refusal(FashionMnist(root=tmp_path))


def test_a_set_that_is_not_in_the_folder_named_is_looked_for_where_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    dataset = FashionMnist(root=tmp_path / "gone")
    with without_downloads():
        assert "no intact copy in" in refusal(dataset)
        for part in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
            values = np.zeros((6, 28, 28)) if "images" in part else np.arange(6)
            idx(tmp_path / f"own/FashionMNIST/raw/{part}-idx{values.ndim}-ubyte", values)
        monkeypatch.setenv("ARAT_DATA", str(tmp_path / "own"))
        assert len(dataset.read("train").labels) == 6
        with finding.without_names():
            assert len(dataset.read("test").labels) == 6
        monkeypatch.delenv("ARAT_DATA")
        with finding.given(tmp_path / "own"):
            assert len(dataset.read("train").labels) == 6
        (tmp_path / "home/.cache").mkdir(parents=True)
        (tmp_path / "own").rename(tmp_path / "home/.cache/arat-ray")
        assert len(FashionMnist().read("train").labels) == 6


class _Planted:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("planted"),)


@pytest.mark.parametrize("kind", [Cifar10, Cifar100])
def test_a_batch_that_somebody_planted_is_not_unpickled(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = torchvision.datasets.CIFAR10 if kind is Cifar10 else torchvision.datasets.CIFAR100
    (tmp_path / theirs.base_folder).mkdir()
    for name in [*(name for name, _ in theirs.train_list + theirs.test_list), theirs.meta["filename"]]:
        (tmp_path / theirs.base_folder / name).write_bytes(pickle.dumps(_Planted()))
    with without_downloads():
        assert "no intact copy" in refusal(kind(root=tmp_path))
    assert not (tmp_path / "planted").exists()


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Debian's dataset-fashion-mnist is not in {FASHION}")
def test_the_real_fashion_mnist_of_debian_is_read(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for archive in FASHION.glob("*.gz"):
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    train, test = (FashionMnist(root=tmp_path).read(split) for split in ("train", "test"))
    assert train.images.shape == (60_000, *FashionMnist.shape)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert abs(train.images.float().mean().item() / 255 - 0.2860) < 1e-4  # the mean that everybody quotes


def cifar10_archive() -> bytes:
    """A CIFAR-10 of one image a file, as the authors pack it."""
    theirs, stream = torchvision.datasets.CIFAR10, io.BytesIO()
    batches = [pickle.dumps({"data": np.full((1, 3072), 7, np.uint8), "labels": [label]}) for label in range(6)]
    members = dict(zip((name for name, _ in theirs.train_list + theirs.test_list), batches, strict=True))
    members[theirs.meta["filename"]] = pickle.dumps({theirs.meta["key"]: [*"abcdefghij"]})
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"{theirs.base_folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def read_labels(root: Path, answer: Connection) -> None:
    torch.set_num_threads(1)
    answer.send("ready")
    answer.recv()
    answer.send(Cifar10(root=root).read("train").labels.tolist())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_of_two_processes_one_downloads_while_the_other_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, downloads = cifar10_archive(), []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Method"] != "HEAD":  # how torchvision asks for redirections
                downloads.append(self.path)
            time.sleep(0.5)  # long enough for the other process to come along
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, *_: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "url", f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
    monkeypatch.setattr(theirs, "tgz_md5", hashlib.md5(archive).hexdigest())
    monkeypatch.setattr(theirs, "train_list", [[name, None] for name, _ in theirs.train_list])
    monkeypatch.setattr(theirs, "test_list", [])
    monkeypatch.setitem(theirs.meta, "md5", None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fork = multiprocessing.get_context("fork")  # shares what is set above, and has torchvision imported
    pipes = [fork.Pipe() for _ in range(2)]
    readers = [fork.Process(target=read_labels, args=(tmp_path, theirs), daemon=True) for _, theirs in pipes]
    try:
        for reader in readers:
            reader.start()
        assert [ours.recv() for ours, _ in pipes if ours.poll(30)] == ["ready"] * 2
        for ours, _ in pipes:
            ours.send("go")
        assert [ours.recv() for ours, _ in pipes if ours.poll(30)] == [[0, 1, 2, 3, 4]] * 2
    finally:
        for reader in readers:
            reader.kill()
        server.shutdown()
        server.server_close()
    assert downloads == ["/cifar-10-python.tar.gz"]
