"""TensorBoard: a folder of event files, with its HParams plugin.

What a run has measured only grows, so its one event file is the beginning of what it is to be: the rest is added, also
where a kill cut a record short. A file that begins otherwise is replaced.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    STATUS_UNKNOWN,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from arat_ray import whole_files
from arat_ray.storage.names import below
from arat_ray.tracking.runs import Export, Run, Value

FILE = "events.out.tfevents.{time:010d}.arat-ray"
STATUSES = {"complete": STATUS_SUCCESS, "failed": STATUS_FAILURE}
"""Others are unknown to the plugin; the text `status` says them."""
TYPES = {bool: DATA_TYPE_BOOL, float: DATA_TYPE_FLOAT64, str: DATA_TYPE_STRING}


def write(export: Export, output: Path) -> Path:
    """The event files of the runs, below `output`/<study>/; the folder of the study. OSError where that fails."""
    folder = output / export.study
    if export.runs:
        first = min(run.started for run in export.runs)
        _bring(folder, first, [_experiment(export, first)], grows=False)
    for run in export.runs:
        _bring(below(folder, run.name), run.started, _events(run), grows=True)
    return folder


def _bring(folder: Path, started: float, events: Iterable[Event], *, grows: bool) -> None:
    """Have the event file of a folder hold these; one that is there stays where it says the same."""
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in [Event(wall_time=started, file_version="brain.Event:2"), *events]:
        writer.write(event.SerializeToString(deterministic=True))
    wanted = content.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.glob(FILE.replace("{time:010d}", "*")))
    path = there[0] if there else folder / FILE.format(time=int(started))
    old = path.read_bytes() if there else b""
    if there and not grows:
        return
    if there and wanted.startswith(old):
        with path.open("ab") as file:
            file.write(wanted[len(old) :])
    else:
        whole_files.replace(path, wanted)


def _events(run: Run) -> Iterator[Event]:
    yield Event(wall_time=run.started, summary=Summary(value=[_start(run)]))
    yield Event(wall_time=run.started, summary=Summary(value=[_text("config", _code(run.config))]))
    highest = 0
    for point in run.points:
        if point.step < highest:  # measured again, after a worker was lost: what it had measured from here on is void
            yield Event(wall_time=point.time, step=point.step, session_log=SessionLog(status=SessionLog.START))
        highest = point.step
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in point.values.items()]
        yield Event(wall_time=point.time, step=point.step, summary=Summary(value=values))
        if point is run.result:
            yield _end(run, point.step)
    if run.status == "failed":
        yield _end(run, highest)


def _end(run: Run, step: int) -> Event:
    """How it ended, for the plugin and in words."""
    info = SessionEndInfo(status=STATUSES.get(run.status, STATUS_UNKNOWN), end_time_secs=run.ended or run.started)
    told = "\n".join(f"- {name}: `{text}`" for name, text in run.facts.items())
    values = [
        _hparams(hparams_metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info)),
        _text("status", told),
    ]
    return Event(wall_time=run.ended or run.started, step=step, summary=Summary(value=values))


def _start(run: Run) -> Summary.Value:
    info = SessionStartInfo(group_name=run.name, start_time_secs=run.started)
    for name, value in run.knobs.items():
        _put(info.hparams[name], value)
    return _hparams(hparams_metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _experiment(export: Export, started: float) -> Event:
    """What the table of the plugin shows: the knobs and the goals."""
    experiment = Experiment(time_created_secs=started)
    for name, kind in export.knobs.items():
        experiment.hparam_infos.append(HParamInfo(name=name, type=TYPES[kind]))
    for goal in export.goals:
        name = MetricName(group="", tag=f"goals/{goal}")
        experiment.metric_infos.append(MetricInfo(name=name, display_name=goal))
    value = _hparams(hparams_metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))
    return Event(wall_time=started, summary=Summary(value=[value]))


def _hparams(tag: str, data: HParamsPluginData) -> Summary.Value:
    """As the plugin's own `create_summary_metadata` makes it, but for the order of a map, which that leaves open."""
    data.version = hparams_metadata.PLUGIN_DATA_VERSION
    content = data.SerializeToString(deterministic=True)
    plugin = SummaryMetadata.PluginData(plugin_name=hparams_metadata.PLUGIN_NAME, content=content)
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=hparams_metadata.NULL_TENSOR)


def _text(tag: str, text: str) -> Summary.Value:
    metadata = text_metadata.create_summary_metadata(display_name=tag, description="")
    return Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor_util.make_tensor_proto([text]))


def _code(config: Mapping[str, Any]) -> str:
    """Markdown that shows a run as it stands."""
    return "\n".join(f"    {line}" for line in json.dumps(config, indent=2).splitlines())


def _put(field: Any, value: Value) -> None:
    """A value into a protobuf of any type."""
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, str):
        field.string_value = value
    else:
        field.number_value = value
