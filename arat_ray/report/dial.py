"""The curve of a dial as text, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arat_ray.report.labels import attack_label

if TYPE_CHECKING:
    from rich.console import Console

    from arat_ray.frontier.dial import Curve, Share


def print_curve(curve: Curve, console: Console) -> None:
    """Both accuracies at each setting, in percent, which settings another one beats, and signs of masked gradients."""
    from arat_ray.terminal import Table, say

    table = Table(title=curve.name)
    table.add_column("dial", justify="right")
    for goal in curve.goals:
        table.add_column(f"{goal.replace('_', ' ')} (95 %)", justify="right", no_wrap=True)
    table.add_column("")
    for setting, is_kept in zip(curve.settings, curve.on_front, strict=True):
        words = [end for t, end in enumerate(curve.ends) if setting.dial == t] + ["beaten"] * (not is_kept)
        table.add_row(f"{setting.dial:g}", _percent(setting.clean), _percent(setting.robust), ", ".join(words))
    console.print(table)
    kept = f"{curve.on_front.sum()} of {len(curve.settings)} settings"
    say(console, f"{kept} are beaten by no other; hypervolume {curve.hypervolume:.4f} above (0, 0)")
    for setting in curve.settings:
        if setting.warnings:
            say(console, f"warning: dial {setting.dial:g}: {setting.warnings}", style="yellow")
    say(console, f"robust accuracy: {attack_label(curve)}; {curve.split} split, {curve.images} images")


def _percent(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
