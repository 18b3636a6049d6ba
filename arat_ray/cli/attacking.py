"""What the verbs share that attack trained networks: how to measure, and what ends a measurement in the middle."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from arat_ray import disk
from arat_ray.attack_names import attack_words
from arat_ray.cli.common import FOLDER, NotSaved, Word, echo, rewrite, shown, tell
from arat_ray.cli.data import DATA, ask
from arat_ray.cluster import fork_server
from arat_ray.exit_codes import INTERRUPTED, RAY_GONE

if TYPE_CHECKING:
    from arat_ray.api.measuring import Measured
    from arat_ray.evaluation.accuracy import Report

OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOENT)
_OPTIONS = (
    click.option(
        "--attack",
        "attack_name",
        metavar="NAME",
        required=True,
        help=f"{', '.join(attack_words()[:-1])} or {attack_words()[-1]}.",
    ),
    click.option("--epsilon", help="Radius in pixel units, such as 8/255; needed."),
    click.option("--split", type=Word(["train", "validation", "test"]), required=True, help="Which images."),
    DATA,
    click.option("--front", is_flag=True, help="Of a study, only the trials on its front."),
    click.option("--norm", type=Word(["linf", "l2"]), default="linf", show_default=True, help="Of the radius."),
    click.option("--steps", type=click.IntRange(min=1), help="Iterations of pgd and pgd-any.  [default: 20]"),
    click.option("--step-size", help="Of pgd and pgd-any, in pixel units.  [default: epsilon / 4]"),
    click.option("--images", type=click.IntRange(min=1), help="Only so many.  [default: all]"),
    click.option(
        "--subset",
        type=click.Choice(["stratified", "first"]),
        help="Which --images: of each class by its share, always the same; or the first.  [default: stratified]",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random starts."),
    click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Images at once."),
    click.option(
        "--mode",
        type=Word(["exact", "fast"]),
        default="exact",
        show_default=True,
        help="Of autoattack and its parts: the reference's verdicts bit for bit, or up to rounding in less time.",
    ),
    click.option("--raw", is_flag=True, help="Measure the weights trained last, not their average (swa, ema)."),
    click.option("--device", type=Word(["cpu", "cuda"]), help="Where.  [default: cuda where there is one]"),
    click.option("--workers", type=click.IntRange(min=1), help="Spread the batches over so many on Ray."),
    click.option(
        "--address", help="Ray cluster to join with --workers (default: RAY_ADDRESS, else one on this machine)."
    ),
    click.option(
        "--records", type=FOLDER, help="Where finished batches are kept.  [default: attacks/ by the checkpoint]"
    ),
)


def how_to_measure(verb: Callable[..., None]) -> Callable[..., None]:
    """The options of `measured`, but for the target."""
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


def measured(
    target: Path,
    *,
    quiet: bool,
    dials: Sequence[float] | None = None,
    fit: int | None = None,
    other: tuple[Literal["soup", "mix"], Path] | None = None,
    attack_name: str,
    epsilon: str | None,
    norm: str,
    steps: int | None,
    step_size: str | None,
    mode: str,
    batch_size: int,
    raw: bool,
    **how: Any,
) -> Iterator[Measured]:
    """What `api.measuring.reports` gives for the options as they were written; `quiet` keeps standard output free."""
    with ExitStack() as stack:
        if how["workers"]:
            stack.enter_context(fork_server.started(how["address"]))
        from arat_ray.api import measuring
        from arat_ray.evaluation.accuracy import Other
        from arat_ray.evaluation.request import attack_from

        yield from measuring.reports(
            target,
            attack=attack_from(attack_name, norm=norm, epsilon=epsilon, steps=steps, step_size=step_size, mode=mode),
            dials=dials,
            fit=fit,
            other=Other(*other) if other else None,
            batch_size=batch_size,
            averaged=not raw,
            **as_shown(quiet=quiet, batch_size=batch_size),
            **how,
        )


def as_shown(*, quiet: bool, batch_size: int) -> dict[str, Any]:
    """How `api.measuring.reports` shows a measurement on a terminal, asks there, and leaves what was finished."""

    def begin(number: int, of: int, checkpoint: Path) -> None:
        if of > 1:
            echo(f"{number}/{of} {shown(checkpoint)}", err=quiet)

    return {
        "tell": tell,
        "note": lambda text: echo(text, err=True),
        "progress": _Line(),
        "begin": begin,
        "ask": ask,
        "around": lambda: _going_on(batch_size),
        "ray_ended": _end_with_ray,
    }


def rows_of(report: Report) -> list[dict[str, Any]]:
    """The rows of a report as `--json` prints them."""
    return [row | {"subset": report.subset} for row in report.rows()]


def _end_with_ray(how: str, over: threading.Event) -> None:
    """In a thread: the main one waits for an answer of Ray that cannot come."""
    from arat_ray.storage import pushing

    tell(f"{how}; the same command goes on from the finished batches")
    pushing.close_all()
    os._exit(RAY_GONE)


@contextmanager
def _going_on(batch_size: int) -> Iterator[None]:
    """What ends an evaluation in the middle leaves what was finished."""
    import torch

    try:
        yield
    except KeyboardInterrupt:
        echo("interrupted; the same command goes on from the finished batches", err=True)
        sys.exit(INTERRUPTED)
    except torch.OutOfMemoryError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--batch-size {batch_size}: {reason}; lower it, and name it beside the result") from error
    except OSError as error:
        if error.errno not in OF_A_DISK and disk.is_lasting(error) and error.filename:
            raise ValueError(disk.reason(error)) from error
        if error.errno not in OF_A_DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        kept = "when that is mended the same command goes on from the finished batches"
        raise NotSaved(f"{where}{error.strerror}; {kept}") from error


class _Line:
    """One line of a terminal, rewritten; elsewhere, as in the log of a job, a line a minute."""

    def __init__(self) -> None:
        self.next = time.monotonic() + 60

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            rewrite(line)
        elif time.monotonic() >= self.next:
            self.next = time.monotonic() + 60
            echo(line, err=True)


def clear_line() -> None:
    """Take the line of progress away."""
    if sys.stderr.isatty():
        rewrite("")
