"""Where a training step's time goes: seconds of its parts, then a trace of torch's profiler, taken while a run trains.

After WARM_UP steps, TIMED ones are timed by their parts and TRACED ones recorded operator by operator. Tracing slows a
step down, so that no share is taken from traced steps but those of the operators among themselves. Nothing here draws a
random number or touches a tensor: the run computes what it would compute without.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from arat_ray import whole_files

WARM_UP, TIMED, TRACED = 3, 10, 3
"""Steps."""
PARTS = ("data", "attack", "weight perturbation", "forward", "backward", "optimiser", "average")
"""Of a step, as the loop names them; what lies between them is `REST`."""
REST = "everything else"
SAID_FROM = 0.0005
"""Smaller shares are not named in words."""
OPERATORS = 8
"""Named in a report."""
TRACE, REPORT = "trace.json.gz", "profile.json"


@dataclass(frozen=True)
class StepTimes:
    """What was measured. `step_ms` is the median step, `parts` are mean milliseconds a step; they add up to the mean.

    `operators` are shares of the traced steps' own time, on a GPU of its kernels' time.
    """

    device: str
    torch: str
    threads: int
    steps_timed: int
    steps_traced: int
    step_ms: float
    parts: dict[str, float]
    operators: dict[str, float]
    trace: str | None

    def lines(self) -> list[str]:
        """In words, the largest share first."""
        if not self.steps_timed:
            return [f"no step was profiled: the run took no more than the {WARM_UP} steps to warm up"]
        total = sum(self.parts.values())
        shares = {name: ms / total for name, ms in self.parts.items() if ms / total >= SAID_FROM}
        said = [
            f"a step takes {self.step_ms:.3g} ms (median of {self.steps_timed} on {self.device}): {_shares(shares)}",
        ]
        if self.operators:
            said.append(f"operators, of {self.steps_traced} traced steps: {_shares(self.operators)}")
        if self.trace is None:
            said.append("no trace was taken: the run had no steps left")
        return said


class Profile:
    """Called around each part of a run, `with profile("attack"):`; `step` and `epoch` enclose the parts."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_cuda = device, device.type == "cuda"
        self.seen = 0
        """Steps begun."""
        self.steps: list[dict[str, float]] = []
        """Seconds by part of each timed step, "step" included."""
        self._marks: list[tuple[str, Any, Any]] = []
        self._profiler: profile | None = None
        self._traced = 0
        self._measured: dict[str, float] = {}
        self._trace: bytes | None = None

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        if part == "epoch":
            try:
                yield
            finally:
                self._end_trace()  # a trace holds steps alone, no measurement
            return
        if part == "step":
            self.seen += 1
            self._begin_trace()
        with self._timed(part) if self._is_timing else record_function(part):
            yield
        if part == "step":
            self._collect()
            self._end_trace(at=TRACED)

    @property
    def _is_timing(self) -> bool:
        return WARM_UP < self.seen <= WARM_UP + TIMED

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = self._now()
        yield
        self._marks.append((part, begin, self._now()))

    def _now(self) -> Any:
        """A moment: on a GPU one of its stream, which nobody waits for here."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _collect(self) -> None:
        if not self._marks:
            return
        if self.is_cuda:
            torch.cuda.synchronize(self.device)
        seconds: dict[str, float] = {}
        for part, begin, end in self._marks:
            took = begin.elapsed_time(end) / 1000 if self.is_cuda else end - begin
            seconds[part] = seconds.get(part, 0.0) + took
        self._marks.clear()
        self.steps.append(seconds)

    def _begin_trace(self) -> None:
        if self._profiler is not None:
            self._traced += 1
        elif self.seen > WARM_UP + TIMED and self._trace is None:
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else it reports a missing GPU as an error
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.is_cuda else [])]
            self._profiler = profile(activities=activities)
            self._profiler.start()
            self._traced = 1

    def _end_trace(self, at: int = 0) -> None:
        profiler = self._profiler
        if profiler is None or self._traced < at:
            return
        self._profiler = None
        if self.is_cuda:
            torch.cuda.synchronize(self.device)
        profiler.stop()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / TRACE
            profiler.export_chrome_trace(f"{file}")
            self._trace = file.read_bytes()
        own = "self_device_time_total" if self.is_cuda else "self_cpu_time_total"
        for event in profiler.key_averages():
            if event.key.startswith(("aten::", "triton", "inductor")):
                self._measured[event.key] = self._measured.get(event.key, 0.0) + getattr(event, own)

    def report(self) -> StepTimes:
        """What there is so far."""
        self._end_trace()
        whole = [each["step"] for each in self.steps]
        parts = {part: sum(each.get(part, 0.0) for each in self.steps) for part in PARTS}
        parts[REST] = sum(whole) - sum(parts.values())
        total = sum(self._measured.values())
        largest = sorted(self._measured.items(), key=lambda item: -item[1])[:OPERATORS]
        return StepTimes(
            device=torch.cuda.get_device_name(self.device) if self.is_cuda else "cpu",
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            steps_timed=len(whole),
            steps_traced=self._traced,
            step_ms=1000 * statistics.median(whole) if whole else 0.0,
            parts={part: 1000 * seconds / len(whole) for part, seconds in parts.items()} if whole else {},
            operators={name: spent / total for name, spent in largest} if total else {},
            trace=TRACE if self._trace else None,
        )

    def write(self, folder: Path) -> StepTimes:
        """The report, as `REPORT`, and the trace beside it, into `folder`; OSError where that cannot be."""
        report = self.report()
        folder.mkdir(parents=True, exist_ok=True)
        if self._trace:
            whole_files.replace(folder / TRACE, self._trace)
        whole_files.replace(folder / REPORT, json.dumps(asdict(report), indent=1).encode() + b"\n")
        return report


def _shares(shares: dict[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in ordered)
