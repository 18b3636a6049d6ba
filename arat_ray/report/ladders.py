"""The same networks under several attacks, from the weakest to the strongest: what stronger ones take away."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from arat_ray.frontier.dominance import wilson
from arat_ray.frontier.evaluations import Evaluation, exact_first
from arat_ray.pixels import format_pixels

DIGITS = 5


def of(rows: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One for each norm, radius, split and set of images under which a network was measured by two attacks or more.

    Its attacks stand in the order of the accuracy that they leave above or below the mean of a network's attacks, on
    average over the networks, which not all have been measured by all. Each network has by attack [accuracy, low,
    high], with a 95 % Wilson interval, and null where it was not measured.
    """
    groups: dict[tuple[Any, ...], dict[tuple[str, str, str], dict[str, list[Evaluation]]]] = {}
    for row in rows:
        alike = row.norm, row.epsilon, row.split, row.images, row.indices_sha256
        network = row.trial_id, row.checkpoint, row.checkpoint_sha256
        groups.setdefault(alike, {}).setdefault(network, {}).setdefault(row.attack, []).append(row)
    found = []
    for (norm, epsilon, split, images, _), all_networks in groups.items():
        networks = {
            network: {attack: exact_first(each)[-1] for attack, each in attacks.items()}
            for network, attacks in all_networks.items()
            if len(attacks) > 1
        }
        if not networks:
            continue
        left: dict[str, list[float]] = {}
        for measured in networks.values():
            middle = fmean(row.correct for row in measured.values())
            for attack, row in measured.items():
                left.setdefault(attack, []).append(row.correct - middle)
        attacks = sorted(left, key=lambda attack: (-fmean(left[attack]), attack))
        radius = None if epsilon is None else format_pixels(epsilon)
        members = [
            {"trial": trial, "weights": weights, "values": [_share(measured.get(attack)) for attack in attacks]}
            for (trial, weights, _), measured in networks.items()
        ]
        how = f"{' '.join(filter(None, (norm, radius)))}, {split} split, {images:,} images"
        found.append({"how": how, "attacks": attacks, "members": members})
    return found


def _share(row: Evaluation | None) -> list[float] | None:
    if row is None:
        return None
    low, high = wilson(row.correct, row.images)
    return [float(f"{value:.{DIGITS}g}") for value in (row.correct / row.images, float(low), float(high))]
