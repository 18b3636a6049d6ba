"""Curves of dials over seeds as text, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from arat_ray.frontier.confirmed_dials import Mean, MeanCurve


def print_curves(curves: Sequence[MeanCurve], console: Console) -> None:
    """Mean and 95 % interval over the seeds at each setting, in percent, and what each curve dominates."""
    from arat_ray.terminal import Table, say

    table = Table(title="dials over the seeds, mean [95 %]")
    for heading in ("trial", "dial", "clean accuracy", "robust accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        for setting in curve.settings:
            numbers = (_shown(100 * each.value, each, 100, ".1f") for each in (setting.clean, setting.robust))
            table.add_row(str(curve.number), f"{setting.dial:g}", *numbers)
    console.print(table)
    for curve in curves:
        area = _shown(curve.hypervolume.value, curve.hypervolume, 1, ".4f")
        words = f"trial {curve.number}: hypervolume {area} above (0, 0), over {len(curve.seeds)} seed(s)"
        if curve.gain:
            words += f"; {_shown(curve.gain.value, curve.gain, 1, '.4f')} more than what is deployed"
        say(console, words)


def _shown(value: float, mean: Mean, scale: float, form: str) -> str:
    if mean.low is None or mean.high is None:
        return format(value, form)
    return f"{value:{form}} [{scale * mean.low:{form}}, {scale * mean.high:{form}}]"
