"""StudySearcher: the ledger as a Ray Tune Searcher. It proposes; what came of a trial the recorder tells the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from arat_ray.cluster.launch import TrialConfig
from arat_ray.study.ledger import Asked, Ledger


class StudySearcher(Searcher):
    """Proposes trials until `limit` numbers have been given out (None: for ever)."""

    def __init__(self, ledger: Ledger, configure: Callable[[Asked], TrialConfig], *, limit: int | None) -> None:
        super().__init__()
        self.ledger, self.configure, self.limit = ledger, configure, limit

    def suggest(self, trial_id: str) -> TrialConfig | str:
        del trial_id
        if self.limit is not None:
            if self.limit == 0:
                return str(Searcher.FINISHED)
            self.limit -= 1
        return self.configure(self.ledger.ask())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: Tune calls this before the trial's rows are on disk."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is on disk already. Tune calls this at intervals."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study is resumed from its ledger."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher along; there is nothing in it to keep
