"""Study: the folder of a search or of a single run, as a handle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arat_ray.api import fronts
from arat_ray.api.inputs import AnyPath, as_path, in_python

if TYPE_CHECKING:
    import pyarrow as pa

    from arat_ray.api.evaluating import AnyAttack
    from arat_ray.evaluation.accuracy import Report, SplitName
    from arat_ray.frontier.pareto import Front


class Ended(NamedTuple):
    """How a study ended: what stopped it before its last trial (None: nothing did), and how many trials failed."""

    stopped: str | None
    failed: int


class Study:
    """The results of a search or of a single run: a folder, or its address in a bucket.

    `train` and `tune` return one; `Study("results/quickstart")` opens an earlier one.

    Example:
        >>> study = arat_ray.Study("results/quickstart")
        >>> study.front().hypervolume
        0.68
        >>> study.read("trials", ["number", "status"]).num_rows
        12
    """

    def __init__(self, path: AnyPath, *, ended: Ended | None = None) -> None:
        self.path: Path = as_path(path)
        self.ended = ended
        """None where this process did not run it."""

    def __repr__(self) -> str:
        how = "" if self.ended is None else f", {self.ended}"
        return f"Study({f'{self.path}'!r}{how})"

    def read(self, table: str = "trials", columns: Sequence[str] | None = None) -> pa.Table:
        """A table as Arrow; see `arat_ray.read`."""
        return fronts.read(self.path, table, columns)

    def front(self, **conditions: Any) -> Front:
        """The front of its trials; `conditions` as of `arat_ray.load_front`."""
        return fronts.load_front(self.path, **conditions)

    @in_python()
    def checkpoints(self, *, front: bool = False) -> list[Path]:
        """The checkpoints of its complete trials in their order, or of those on its front.

        Raises ValueError where no trial is complete.
        """
        from arat_ray.api.showing import tell
        from arat_ray.evaluation.request import checkpoints_of
        from arat_ray.storage import session

        def fetch(chosen: Sequence[Path]) -> None:
            session.pull(self.path, [str(path.relative_to(self.path)) for path in chosen], log=tell)

        self._pull()
        return checkpoints_of(self.path, front=front, fetch=fetch)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of its only complete trial, as after `train`; ValueError where there are several."""
        first, *others = self.checkpoints()
        if others:
            raise ValueError(f"{self.path} has {1 + len(others)} complete trials; choose one of `checkpoints()`")
        return first

    def evaluate(
        self,
        *,
        attack: AnyAttack,
        split: SplitName,
        epsilon: float | str | None = None,
        front: bool = False,
        **more: Any,
    ) -> list[Report]:
        """Attack all its complete trials, or those on its front; the reports are added to its tables.

        The other arguments are those of `arat_ray.evaluate` for a checkpoint.
        """
        from arat_ray.api.evaluating import evaluate_study

        self._pull()
        return evaluate_study(self.path, attack=attack, split=split, epsilon=epsilon, front=front, **more)

    def _pull(self) -> None:
        """Have the tables here. ValueError where it is no study."""
        from arat_ray.api.showing import tell
        from arat_ray.results import reader
        from arat_ray.storage import mirror, session

        session.pull(self.path, mirror.TABLES, log=tell)
        reader.metadata(self.path)
