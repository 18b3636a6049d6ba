"""A clean branch for a network that has none: copies of its norm layers, trained on clean images; all else is frozen.

The adversarial branch stays the deployed network, bit for bit, and what is between the two is a dial like that of ARAT.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from arat_ray.digests import sha256_of
from arat_ray.results.schema import FITTED
from arat_ray.training import checkpoint, trained_on
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data.batches import Batches
from arat_ray.training.randomness import generator
from arat_ray.training.split_norm import SplitNorm, branch, convert, has_norm


def fitted(
    source: Path,
    *,
    epochs: int,
    averaged: bool = True,
    device: torch.device,
    say: Callable[[str], None],
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """The checkpoint beside `source` that has a clean branch after so many epochs; trained now, unless it is there.

    Images, order, augmentation, batch size and optimizer are those of the run, with its seed; its learning rate goes
    down to 0 in a straight line. `say` gets what it cost. ValueError for a network that has a clean branch or no norm
    layers, and where the data is not that of the run.
    """
    state, digest = checkpoint.load(source, device=device), sha256_of(source)
    path = source.with_name(f"{FITTED}{(averaged and state.weights) or source.stem}.pt")
    if checkpoint.dial_range(state, averaged=averaged) is not None:
        raise ValueError(f"--fit: {source} has a clean branch; leave --fit out")
    method = checkpoint.method(state, averaged=averaged)
    if not has_norm(method.model):
        raise ValueError(f"--fit: the network of {source} has no norm layers, and a dial turns nothing else")
    asked = {"epochs": epochs, "of": digest}
    if path.is_file():
        there = checkpoint.load(path, mmap=True).fitted
        if there is not None and {name: there[name] for name in asked} == asked:
            return path
    began = time.monotonic()
    model = convert(method.model).to(device)
    _train(model, trained_on.images(state, device=device), state, epochs, device=device, progress=progress)
    seconds = time.monotonic() - began
    result = replace(
        state, method=method.state_dict(), average=None, optimizer={}, features={}, partway=None, fitted=asked
    )
    checkpoint.save(result, path)
    spent = sum(row.get("epoch_s") or 0.0 for row in state.history)
    share = f", {100 * seconds / spent:.2g} % of the {spent:.3g} s that its epochs took" if spent else ""
    say(f"{path}: a clean branch, {epochs} epochs of clean images in {seconds:.3g} s{share}")
    return path


def _train(
    model: torch.nn.Module,
    images: Batches,
    state: Checkpoint,
    epochs: int,
    *,
    device: torch.device,
    progress: Callable[[str], None],
) -> None:
    train = state.train_spec
    model.eval().requires_grad_(False)
    clean = torch.nn.ModuleList(each.clean for each in model.modules() if isinstance(each, SplitNorm))
    clean.train().requires_grad_(True)
    optimizer = train.optimizer.build(list(clean.parameters()))
    size = min(train.batch_size, len(images))
    steps = len(images) // size
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator("cpu", train.seed, "fit-order", epoch))
        draws = generator("cpu", train.seed, "fit-augment", epoch)
        for step, indices in enumerate(order[: steps * size].view(steps, size)):
            for group in optimizer.param_groups:
                group["lr"] = train.optimizer.learning_rate * (1 - (epoch + step / steps) / epochs)
            x, y = images.batch(indices, draws)
            with branch(model, "clean"):
                loss = F.cross_entropy(model(x), y, label_smoothing=train.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        progress(f"clean branch: epoch {epoch + 1}/{epochs}, loss {loss.item():.3f}")
    clean.eval()
