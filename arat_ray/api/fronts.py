"""The front of studies, its picture, and their tables. Loads neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from arat_ray.api.inputs import AnyPath, as_path, in_python
from arat_ray.api.showing import tell
from arat_ray.frontier import pareto
from arat_ray.frontier.evaluations import Conditions
from arat_ray.frontier.pareto import Front
from arat_ray.pixels import radius
from arat_ray.results import reader
from arat_ray.storage import mirror, session

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


@in_python()
def load_front(
    *studies: AnyPath,
    attack: str | None = None,
    split: str | None = None,
    norm: str | None = None,
    epsilon: float | str | None = None,
    images: int | None = None,
    mode: str | None = None,
    partial: bool = False,
    dials: bool = False,
    seeds: bool = False,
) -> Front:
    """The trials of studies that no other trial beats in every goal, with 95 % intervals and the hypervolume.

    Several studies make one front where they were measured alike. The accuracies, fractions in [0, 1], are those of the
    trials' validation; with `attack` and `split` those that `evaluate` measured, chosen among by `norm`, `epsilon` (in
    pixel units, such as "8/255"), `images` and `mode`. `partial` lets trials compete that have not reached their last
    epoch, and `dials`, with `attack` and `split`, each setting between the norm branches that `arat-ray dial` measured:
    then each trial says its `dial`, None as deployed. With `seeds` trials that differ only in the seed are one, with
    the means of their goals and `<goal>_sd`, their standard deviations. Raises ValueError where nothing competes and
    where studies were measured differently.

    Example:
        >>> front = arat_ray.load_front("results/quickstart")
        >>> [(trial["clean_accuracy"], trial["robust_accuracy"]) for trial in front.trials]
        [(0.9825, 0.045), (0.9725, 0.5675), (0.9575, 0.695)]
    """
    paths = [as_path(study) for study in studies]
    for path in paths:
        session.pull(path, mirror.TABLES, log=tell)
    radius_ = None if epsilon is None else radius(str(epsilon))
    asked = Conditions(attack=attack, split=split, norm=norm, epsilon=radius_, images=images, mode=mode)
    return pareto.load_front(paths, include_partial=partial, asked=asked, dials=dials, over_seeds=seeds)


@in_python()
def plot_front(
    front: Front,
    path: AnyPath | None = None,
    *,
    title: str | None = None,
    size: str | None = None,
    labels: Sequence[str] = (),
    color_by: str | None = None,
    reference: AnyPath | None = None,
) -> Figure:
    """Draw a front of two goals: all trials, the front as a staircase, 95 % intervals; as a matplotlib figure.

    With `path`, also into that file (.png, .pdf or .svg). `size` is in inches, such as "3.5x2.6", and `labels` name the
    studies in the order in which they were loaded. Trials are coloured by their study, where there are several, or by
    `color_by`: "study", "method", "layers" or a column of `trials`. `reference` draws published points that were
    measured like the front: "published" for those that ship, or a CSV with the same columns. Raises ValueError for
    other suffixes and numbers of goals, and where no such point was measured alike.

    Example:
        >>> arat_ray.plot_front(arat_ray.load_front("results/quickstart"), "front.png")
    """
    from arat_ray.report import figure, looks

    studies = [as_path(study) for study in front.studies]
    points = [] if reference is None else looks.references_for(str(reference), front, studies)[0]
    if len(studies) > 1 or labels or color_by:
        look = looks.look(studies, title=title, labels=labels, size=size, by=color_by, references=points)
    else:
        look = looks.look([], title=title, size=size, references=points)
    return figure.plot_front(front, None if path is None else as_path(path), look)


@in_python()
def read(study: AnyPath, table: str = "trials", columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a study as Arrow: `trials`, `epochs`, `evaluations`, `examples`, or `decisions` where it stops early.

    Rows are as they were written: a trial that was interrupted or failed has a row for each `attempt`. Raises
    ValueError where there is no such table, or no such column in it.

    Example:
        >>> arat_ray.read("results/quickstart", "epochs", ["trial_id", "epoch", "loss_adversarial"]).to_pandas()
    """
    path = as_path(study)
    session.pull(path, mirror.TABLES, log=tell)
    return reader.read(path, table, columns)
