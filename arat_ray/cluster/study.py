"""The study: starting, resuming and extending one are the same code path, which asks its trials for what is missing."""

from __future__ import annotations

import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from rich.console import Console

from arat_ray.cluster import nodes, secrecy
from arat_ray.cluster.callback import StudyCallback
from arat_ray.cluster.ray_internals import controlled_by
from arat_ray.cluster.searcher import StudySearcher
from arat_ray.cluster.stopping import Stop, ending_with_ray, interruptible
from arat_ray.cluster.trials import early_stopping, launch
from arat_ray.cluster.trials.actors import KeepingController
from arat_ray.cluster.trials.checkpoints import are_left, push_left
from arat_ray.cluster.trials.config import TrialConfig
from arat_ray.cluster.trials.watchdog import Watchdog
from arat_ray.experiment.spec import Experiment
from arat_ray.storage.address import uri_of
from arat_ray.study import description, prospect, warm_start
from arat_ray.study import folder as study_folder
from arat_ray.study.budget import Over
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.recorder import Recorder
from arat_ray.study.state import trial_id
from arat_ray.study.trials import Asked, StudyTrials
from arat_ray.terminal import report

CONCURRENT_AT_MOST = 1000


class Outcome(NamedTuple):
    """How a study ended: what stopped it before its last trial, if anything; which budget, if it was one; how many
    trials failed; whether all rows are on disk; whether the Ray that it had started has ended under it."""

    stopped: str | None
    failed: int
    saved: bool
    over: Over | None = None
    ray_is_gone: bool = False


def run(
    experiment: Experiment,
    source: Path,
    folder: Path,
    *,
    resume: bool,
    address: str | None,
    verbose: bool,
    console: Console,
    kind: description.Kind = "tune",
    earlier: Sequence[Path] = (),
) -> Outcome:
    """Run a study until it has all its trials, its time is over, or it is interrupted.

    Its sampler learns from the `earlier` studies. Raises ValueError for a folder, data, an earlier study or a cluster
    that cannot serve it, before anything is computed.
    """
    folder = folder.absolute()
    for study in earlier:
        if os.path.realpath(study) == os.path.realpath(folder):
            raise ValueError(f"--from {study}: this is the study itself, which goes on with --resume")
    found = [warm_start.read(study, experiment) for study in earlier]
    validation = experiment.validation

    def warn(text: str) -> None:
        report(console, text, style="bold red")

    content = validation.splits(experiment.base.dataset).content
    for note in experiment.base.dataset.notes():
        report(console, f"data: {note}")
    with study_folder.claim(folder, experiment, source, kind=kind, resume=resume, content=content, warn=warn) as record:
        study_trials = StudyTrials(experiment, record)
        _learn(record, study_trials, found, console)
        ended = len(study_trials.ended())
        total = experiment.trials
        if total is not None and ended >= total:
            if are_left(folder):
                with nodes.cluster(address, verbose=verbose):
                    push_left(folder, console)
            report(console, f"all {total} trials of {folder} have ended already; more with --trials")
            return Outcome(None, 0, saved=record.pending == 0)
        progress = Progress(console, goals=experiment.maximize, total=total, ended=ended, epochs=experiment.base.epochs)
        recorder = Recorder(experiment, record, study_trials, progress, study_trials.curves)
        prospect.wants(study_trials, recorder.watch)
        stop = Stop(recorder.watch, record.disk)
        if stop.reason:
            return Outcome(stop.reason, 0, saved=record.pending == 0, over=stop.over)
        limit = None if total is None else total - ended
        save = recorder.close
        try:
            with (
                ending_with_ray(stop, save, warn),
                nodes.cluster(address, verbose=verbose, several_workers=experiment.resources.workers > 1),
                interruptible(stop, save, console),
                progress,
            ):
                room = nodes.check_placeable(experiment.resources)
                _tune(
                    experiment,
                    folder,
                    recorder,
                    study_trials,
                    stop,
                    warn=warn,
                    limit=limit,
                    room=room,
                    log=console.print,
                )
                if not stop.gone:
                    push_left(folder, console)
                progress.is_kept = stop.interrupted
        except KeyboardInterrupt:  # while Ray started, or asked for a second time
            stop.interrupted = True
        ended = len(study_trials.ended())
        has_all = total is not None and ended >= total and not stop.interrupted
        reason = None if has_all else stop.reason
        saved = save("interrupted" if stop.gone else reason or "interrupted")
        if not (stop.interrupted or stop.gone) and (expected := prospect.line(study_trials, recorder.watch)):
            report(console, expected)
        return Outcome(
            reason, recorder.failed, saved, stop.over if reason else None, ray_is_gone=bool(stop.gone) and not has_all
        )


def _learn(
    record: StudyRecord, study_trials: StudyTrials, found: Sequence[warm_start.EarlierTrials], console: Console
) -> None:
    """Tell the sampler what earlier studies found out, and put down that it was told."""
    for each in found:
        new = study_trials.learn(each.known, source=each.as_json())
        lines = each.lines()
        again = "" if new == len(each.known) else f", {len(each.known) - new} of which it knows already"
        report(console, "\n".join([lines[0] + again, *lines[1:]]))
    if found:
        with study_folder.writable(record.study):
            record.segments.flush()
            description.write(record.study, record.state, record.segments.record)


def _tune(
    experiment: Experiment,
    folder: Path,
    recorder: Recorder,
    study_trials: StudyTrials,
    stop: Stop,
    *,
    warn: Callable[[str], None],
    limit: int | None,
    room: int,
    log: Callable[[str], None],
) -> None:
    study = f"{experiment.name}-{uuid.uuid4().hex}"
    configure = functools.partial(_configure, experiment, study, folder)
    concurrent = min(experiment.resources.concurrent_trials or room, CONCURRENT_AT_MOST, limit or CONCURRENT_AT_MOST)
    if experiment.resources.workers > 1:
        concurrent = min(concurrent, room)  # a driver of workers holds no CPU, so nothing else keeps it back
    log(f"starting {concurrent * experiment.resources.workers} worker(s)")
    scheduler: Any = None
    if experiment.early_stopping:
        board = early_stopping.open_board() if experiment.resources.workers > 1 else None
        scheduler = early_stopping.StoppingScheduler(recorder, board)
    secrecy.keep_from_actors()
    watchdog = Watchdog(study, experiment.resources, log=warn)
    callback = StudyCallback(recorder, watchdog, room=min(concurrent, room))
    searcher = StudySearcher(
        study_trials,
        configure,
        limit=limit,
        log=warn,
        wait=callback.tick,
        over=lambda: stop.reason is not None,
        wants=lambda: prospect.wants(study_trials, recorder.watch),
    )
    # Ray's own record of the study, from which nothing is ever read, goes where a full results disk does not matter
    with tempfile.TemporaryDirectory(prefix="arat-ray-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            launch.trainable(experiment.resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1 if limit is None else limit,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=scratch,
                stop=stop,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=launch.FAILURES),
                verbose=0,
            ),
        )
        with controlled_by(KeepingController):
            tuner.fit()


def _configure(experiment: Experiment, study: str, folder: Path, asked: Asked) -> TrialConfig:
    train, stopping = experiment.resolve(asked.sampled).located(), experiment.early_stopping
    checkpoints = folder / "checkpoints" / trial_id(experiment.name, asked.number)
    return TrialConfig(
        study=study,
        number=asked.number,
        sampled=asked.sampled,
        train=train.model_dump(mode="json"),
        validate=experiment.validation.model_dump(mode="json"),
        resources=experiment.resources.model_dump(mode="json"),
        folder=str(checkpoints),
        address=uri_of(checkpoints),
        rungs=stopping.rungs(train.epochs) if stopping else [],
    )


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:05d}"
