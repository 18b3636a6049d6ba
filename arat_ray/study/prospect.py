"""What further trials of a search with curves would add to its front, as far as the model knows: whether another one is
worth its time, and a line for people."""

from __future__ import annotations

from arat_ray.study.budget import Watch
from arat_ray.study.curve_record import start_of
from arat_ray.study.trials import StudyTrials
from arat_ray.units import duration

AHEAD = 10
"""Trials of which it is said what they would add."""


def promise(study_trials: StudyTrials) -> float | None:
    """The hypervolume that the best new trial is expected to add, were the running ones to end as expected.

    None before the sampler's model begins.
    """
    curves, experiment = study_trials.curves, study_trials.experiment
    if curves is None or not experiment.proposes_by_gain:
        return None
    if len(curves.samples) < start_of(experiment) or len(curves) == 0:
        return None
    return curves.propose().gain


def wants(study_trials: StudyTrials, watch: Watch) -> bool:
    """Whether another trial is to begin, by `budget.gain`; one that is there already (interrupted, or given) is."""
    curves = study_trials.curves
    if watch.budget.gain is None or study_trials.has_more or curves is None:
        return True
    return watch.wants(promise(study_trials), running=study_trials.running, spanned=curves.spanned)


def line(study_trials: StudyTrials, watch: Watch) -> str | None:
    """What the next trial and AHEAD of them are expected to add, and would cost by what trials have cost on average;
    None where nobody knows."""
    volume = study_trials.record.state.front.hypervolume
    ended = len(study_trials.ended())
    first = promise(study_trials)
    if study_trials.curves is None or first is None or not volume or not ended:
        return None
    gains = study_trials.curves.promises(AHEAD)
    cost = duration(watch.device_s / ended * AHEAD) + " of a device"
    cost += f" and {watch.usd / ended * AHEAD:.2f} usd" if watch.price else ""
    return (
        f"expected: another trial adds {_share(first, volume)} to the front's hypervolume of {volume:.4f}; "
        f"{AHEAD} more, about {cost}, add {_share(sum(gains), volume)}"
    )


def _share(gain: float, volume: float) -> str:
    return f"{100 * gain / volume:.2g} %"
