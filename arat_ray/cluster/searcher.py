"""StudySearcher: the trials of a study as a Ray Tune Searcher. It proposes; the recorder sends what came of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from arat_ray.cluster.trials.config import TrialConfig
from arat_ray.study.trials import Asked, StudyTrials


class StudySearcher(Searcher):
    """Proposes trials until `limit` numbers have been given out (None: for ever), or until `over`.

    None starts before the record has it on disk: a study that is resumed would give its number to another one.
    `log` is told when it has to wait for this, and `wait` is called each time, because Tune may do nothing else then.
    None is asked for that is not wanted (`wants`), as long as others run.
    """

    def __init__(
        self,
        study_trials: StudyTrials,
        configure: Callable[[Asked], TrialConfig],
        *,
        limit: int | None,
        log: Callable[[str], None],
        wait: Callable[[], None],
        over: Callable[[], bool],
        wants: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.study_trials, self.configure, self.limit = study_trials, configure, limit
        self.log, self.wait, self.over, self.wants = log, wait, over, wants
        self.next: Asked | None = None
        self.waits = False

    def suggest(self, trial_id: str) -> TrialConfig | str | None:
        del trial_id
        if self.limit == 0:
            return str(Searcher.FINISHED)
        if self.next is None and not self.wants():
            return str(Searcher.FINISHED) if self.over() else None
        if self.next is None and self.study_trials.record.save():
            self.next = self.study_trials.ask()
        if self.next is None or not self.study_trials.record.save():
            if not self.waits:
                self.log("no trial starts before the results can be written again")
            self.waits = True
            self.wait()
            return str(Searcher.FINISHED) if self.over() else None
        asked, self.next, self.waits = self.next, None, False
        if self.limit is not None:
            self.limit -= 1
        return self.configure(asked)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: Tune calls this before the trial's rows are on disk."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials are on disk already. Tune calls this at intervals."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study is resumed from its trials."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher along; there is nothing in it to keep
