"""The front, and a comparison, as text: a table for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arat_ray.frontier.evaluations import CONDITIONS, Conditions, with_autoattack
from arat_ray.frontier.evaluations import command as measuring
from arat_ray.frontier.pareto import Front, at_setting
from arat_ray.report import confirmed_dials
from arat_ray.report.labels import attack_label
from arat_ray.results.schema import goal_text, short_param
from arat_ray.text import command, line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite
    from rich.console import Console

    from arat_ray.frontier.compare import PairedTest
    from arat_ray.frontier.confirm import Confirmation, Member
    from arat_ray.frontier.pick import Choice


def as_json(front: Front) -> dict[str, Any]:
    """Everything the front holds but the points of dominated trials."""
    conditions = (
        "goals",
        "reference_point",
        "hypervolume",
        "attack",
        "norm",
        "epsilon",
        "split",
        "images",
        "counts",
        "infeasible",
        "settings",
    )
    coverage = front.coverage._asdict() if front.coverage else None
    return {name: getattr(front, name) for name in conditions} | {"coverage": coverage, "trials": front.trials}


def write_csv(front: Front, file: SupportsWrite[str]) -> None:
    """One line a trial of the front, all its numbers in full."""
    params = list(dict.fromkeys(name for trial in front.trials for name in trial["params"]))
    suffixes = ("", "_sd") if front.over_seeds else ("", "_low", "_high")
    goals = [f"{goal}{suffix}" for goal in front.goals for suffix in suffixes]
    fixed = [
        "study",
        "trial_id",
        "number",
        *(["dial"] if any("dial" in trial for trial in front.trials) else []),
        *goals,
        "images",
        "attack",
        "norm",
        "epsilon",
        "split",
        "epochs_done",
    ]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*fixed, "checkpoint", *(f"param_{name}" for name in params)])
    for trial in front.trials:
        values = [trial[name] for name in fixed]
        writer.writerow([*values, trial["checkpoint"], *(trial["params"].get(name) for name in params)])


def print_table(front: Front, console: Console) -> None:
    """The front for people: goals in percent with their intervals."""
    from arat_ray.terminal import Table, say

    of = f"{sum(front.counts.values())} trials" + (f" and {front.settings} settings of dials" if front.settings else "")
    title = f"front: {len(front.trials)} of {of}, hypervolume {front.hypervolume:.4f}"
    if front.infeasible:
        title += f", {front.infeasible} infeasible (--infeasible shows them)"
    table = Table(title=title)
    table.add_column("trial")
    for goal in front.goals:
        how = "mean +- sd" if front.over_seeds else "95 %"
        table.add_column(f"{goal.replace('_', ' ')} ({how})", justify="right", no_wrap=True)
    if front.over_seeds:
        table.add_column("seeds", justify="right")
    before = _robust_in_search(front)
    if before:
        table.add_column("in the search", justify="right", no_wrap=True)
    params = list(dict.fromkeys(name for trial in front.trials for name in trial["params"]))
    for name in params:
        table.add_column(short_param(name), justify="right", overflow="fold")
    for row, trial in enumerate(front.trials):
        values = [trial["params"].get(name) for name in params]
        table.add_row(
            f"{trial['trial_id']}{at_setting(trial)}",
            *(_interval(trial, goal) for goal in front.goals),
            *([str(len(trial["seeds"]))] if front.over_seeds else []),
            *([f"{100 * before[row]:.1f}"] if before else []),
            *("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values),
        )
    console.print(table)
    say(console, _measured(front))
    if before and front.searched:
        how = f"{attack_label(front.searched)}; {front.searched.split} split, {front.searched.images} images"
        say(console, f"in the search: robust accuracy under {how}")
    if front.ahead:
        trials = f"{front.ahead} trial{'s' * (front.ahead > 1)} before the last epoch would be on the front"
        say(console, f"{trials}: `arat-ray pareto --partial` lets them compete")
    for trial in front.trials:
        if trial.get("warnings"):
            say(console, f"warning: {trial['trial_id']}{at_setting(trial)}: {trial['warnings']}", style="yellow")


def _robust_in_search(front: Front) -> list[float]:
    """Of each trial on a front of evaluations, the robust accuracy that the search measured; empty elsewhere."""
    if front.searched is None or "robust_accuracy" not in front.goals:
        return []
    column: list[float] = front.searched.points[:, front.goals.index("robust_accuracy")].tolist()
    return column


def next_steps(front: Front, study: Path) -> Iterator[str]:
    """What to do with the front of a search: what its robust accuracy is an upper bound of, and two commands."""
    if "robust_accuracy" in front.goals and front.epsilon is not None and front.split:
        measure = with_autoattack(study, norm=front.norm, epsilon=front.epsilon, split=front.split)
        see = command("arat-ray", "pareto", study, "--attack", "autoattack", "--split", front.split)
        yield f"robust accuracy is an upper bound: stronger attacks than {attack_label(front)} break more images"
        yield f"measure the front with AutoAttack: {measure}"
        yield f"see its front then: {see}"
    yield f"train it again with new seeds: {command('arat-ray', 'confirm', study, '--seeds', 3)}"


def choice_lines(choice: Choice, front: Front) -> list[str]:
    """A member of the front with its values, intervals and parameters, and why it was chosen."""
    trial = choice.trial
    values = (f"{goal.replace('_', ' ')} {_interval(trial, goal)}" for goal in front.goals)
    lines = [f"{trial['trial_id']}{at_setting(trial)} of {trial['study']}: {', '.join(values)} (%, 95 %)"]
    lines += [f"  {line(name)}: {line(value)}" for name, value in trial["params"].items()]
    lines += [f"{_measured(front)}; on its front: {choice.reason}"]
    lines += [f"warning: {trial['warnings']}"] if trial.get("warnings") else []
    lines += _of_dials(choice, front)
    return list(map(line, lines))


def _of_dials(choice: Choice, front: Front) -> Iterator[str]:
    """How a setting is written as a network, and how one that may be better is measured."""
    trial, better = choice.trial, choice.better
    if trial.get("dial") is not None:
        checkpoint = Path(trial["study"]) / trial["checkpoint"]
        words = command("arat-ray", "export", checkpoint, "--dial", f"{trial['dial']:g}", "-o", "FILE")
        yield f"this network, without training: {words}"
    if better:
        study = Path(better.trial["study"])
        how = {name: getattr(front, name) for name in CONDITIONS}
        asked = Conditions(**how, mode="fast" if better.trial["mode"] == "fast" else None)
        words = measuring(study / better.trial["checkpoint"], study, asked, "--at", f"{better.dial:g}", verb="dial")
        yield (
            f"between t = {better.between[0]:g} and {better.between[1]:g} of trial {better.trial['number']}, "
            f"t = {better.dial:g} may have {better.goal.replace('_', ' ')} {goal_text(better.goal, better.expected)}; "
            f"measure it, then pick again: {words}"
        )


def _measured(front: Front) -> str:
    where = f"robust accuracy: {attack_label(front)}; {front.split} split, {front.images} images"
    settings = f", with {front.settings} settings of their dials" if front.settings else ""
    return f"{where}; {front.coverage}{settings}" if front.coverage else where


def _interval(trial: Mapping[str, Any], goal: str) -> str:
    low, high = trial[f"{goal}_low"], trial[f"{goal}_high"]
    value = goal_text(goal, trial[goal], unit="")
    if (sd := trial.get(f"{goal}_sd")) is not None:
        return f"{value} +- {goal_text(goal, sd, unit='')}"
    return f"{value} [{100 * low:.1f}, {100 * high:.1f}]" if low is not None else value


def print_confirmation(confirmation: Confirmation, console: Console) -> None:
    """What is left of each member of a front over new seeds, in percent and points."""
    from arat_ray.terminal import Table, say

    seeds, goals, members = len(confirmation.seeds), confirmation.goals, confirmation.members
    table = Table(title=f"the front of {confirmation.study} with {seeds} new seed{'s' * (seeds > 1)}")
    table.add_column("trial")
    for goal in goals:
        name = goal.replace("_", " ")
        table.add_column(f"{name}, selected", justify="right")
        table.add_column("mean +- std over seeds", justify="right", no_wrap=True)
    for heading in ("on the front", "confirmed", "mean on the front"):
        table.add_column(heading, justify="right")
    for member in members:
        cells = []
        for goal in goals:
            cells += [f"{100 * member.selected[goal]:.1f}", _mean(member, goal)]
        failed = seeds - len(member.runs)
        share = f"{round(member.share * seeds)} of {seeds}" + (f", {failed} failed" if failed else "")
        marks = ("yes" if is_so else "no" for is_so in (member.is_confirmed, member.mean_is_on_front))
        table.add_row(member.trial_id, *cells, share, *marks)
    console.print(table)
    for conclusion in _conclusions(confirmation):
        say(console, conclusion)
    if confirmation.dials:
        confirmed_dials.print_curves(confirmation.dials, console)


def _mean(member: Member, goal: str) -> str:
    if member.mean is None:
        return "none"
    return f"{100 * member.mean[goal]:.1f}" + (f" +- {100 * member.std[goal]:.1f}" if member.std else "")


def _conclusions(confirmation: Confirmation) -> Iterator[str]:
    """In words: who is confirmed, by what rule, and how much the selected values promised too much."""
    where = f"robust accuracy: {attack_label(confirmation)}; {confirmation.split} split, {confirmation.images} images"
    yield f"{where}, as in the search; {confirmation.epochs} epochs"
    numbers = ", ".join(str(member.number) for member in confirmation.confirmed) or "none"
    yield (
        f"confirmed: {numbers} ({len(confirmation.confirmed)} of {len(confirmation.members)}), on the front that the "
        "members have with the same seed, in at least half of the seeds"
    )
    if confirmation.optimism:
        points = " and ".join(
            f"{100 * by:+.1f} ({goal.replace('_', ' ')})" for goal, by in confirmation.optimism.items()
        )
        yield (
            f"optimism: what was selected lies {points} points above the mean over seeds, on average over the members; "
            "the selected runs are in no mean, because they were selected"
        )
    if confirmation.is_shorter:
        epochs = ", ".join(sorted({str(member.epochs) for member in confirmation.members}))
        yield f"the selected runs had {epochs} epochs and these {confirmation.epochs}: part of the difference is theirs"
    if len(confirmation.seeds) == 1:
        yield "one seed has no standard deviation; more with --seeds"
    if confirmation.unfinished:
        yield f"{confirmation.unfinished} more seed(s) are left out, with which not every member has ended yet"


def print_comparison(comparison: PairedTest, console: Console) -> None:
    """Both accuracies of A and B in percent, their difference in points, and in words what it means."""
    from arat_ray.terminal import Table, say

    rows = (comparison.a, comparison.b)
    for name, study, row in zip("AB", comparison.studies, rows, strict=True):
        say(console, f"{name}: {study} {row.trial_id} {row.checkpoint}, {row}")
    is_part = {row.images for row in rows} != {comparison.images}
    beside = f", of {comparison.a.images} of A and {comparison.b.images} of B" if is_part else ""
    title = f"{comparison.images} {comparison.a.split} images that both measured{beside}"
    table = Table(title=title, padding=(0, 1, 0, 0))
    table.add_column("%")
    for name, row in zip("AB", rows, strict=True):
        table.add_column(f"{name}: {attack_label(row)}", justify="right", overflow="fold")
    table.add_column("A - B, points [95 %]", justify="right", no_wrap=True)
    for heading in ("only A", "only B", "p"):
        table.add_column(heading, justify="right")
    pairs = {"clean": comparison.clean, "robust": comparison.robust}
    for name, pair in pairs.items():
        low, high = (100 * bound for bound in pair.interval)
        points = f"{100 * pair.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        accuracies = (f"{100 * pair.a:.2f}", f"{100 * pair.b:.2f}")
        table.add_row(name, *accuracies, points, str(pair.only_a), str(pair.only_b), f"{pair.p:.2g}")
    console.print(table)
    for name, pair in pairs.items():
        say(console, f"{name} accuracy: {pair.in_words()}")
