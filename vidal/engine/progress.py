"""Live progress of a build: one live line on a terminal, a line every 10 s elsewhere, none with ``--json``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vidal.engine.job import ShardReport

_PLAIN_EVERY_S = 10.0
_NO_REPORT = ShardReport(shard=-1)


class LiveProgress:
    """Shows clips done, kept, rejected and failed, time elapsed and left, the stage under way and the slowest one."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._stages: Sequence[Sequence[str]] = ()
        self._phase = 0
        self._total = self._already = 0
        self._reports: dict[int, ShardReport] = {}
        self._latest = _NO_REPORT
        self._done: set[int] = set()
        self._finished: Counter[str] = Counter()
        self._gone_through: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        """Worker seconds by stage, summed over the finished shards of all phases."""
        self._clips: Counter[str] = Counter()
        """Clips that each stage has processed in these shards."""
        self._started = time.monotonic()
        self._printed_at = self._started
        self._work_started: float | None = None

    def __enter__(self) -> LiveProgress:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self.tick()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin_run(self, phases: Sequence[Sequence[str]]) -> None:
        self._stages = phases
        self.tick()

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        self._phase = number
        self._total, self._already = candidates, already
        self._reports, self._done, self._finished = {}, set(), Counter()
        self._gone_through = Counter()
        self._latest = _NO_REPORT
        self.tick()

    def note(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, report: ShardReport) -> None:
        # Counts are sent apart from the shards and may arrive after them.
        if report.shard not in self._done:
            self._note_work(report)
            self._reports[report.shard] = self._latest = report
        self.tick()

    def done(self, report: ShardReport) -> None:
        self._note_work(report)
        self._done.add(report.shard)
        self._reports.pop(report.shard, None)
        self._finished.update(report.outcomes)
        self._gone_through.update(report.clips)
        self.seconds.update(report.seconds)
        self._clips.update(report.clips)
        self.tick()

    def tick(self) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(Text(self.line()))
        elif time.monotonic() - self._printed_at > _PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state of the run in one line."""
        elapsed = f"{_duration(time.monotonic() - self._started)} elapsed"
        if not self._phase:
            return f"planning · {elapsed}"
        # Another thread may add reports meanwhile.
        reports = list(self._reports.values())
        counts = {n: self._finished[n] + sum(r.outcomes[n] for r in reports) for n in ("kept", "rejected", "failed")}
        done = sum(counts.values())
        has_phases = len(self._stages) > 1
        where = f"phase {self._phase}/{len(self._stages)}" if has_phases else "building"
        parts = [f"{where}: {self._already + done}/{self._total} clips"]
        parts += [*(f"{count} {name}" for name, count in counts.items()), elapsed]
        if not self._latest.stage and not done:
            return " · ".join([*parts, "loading models"])
        seconds, processed = self.seconds.copy(), self._clips.copy()
        for report in reports:
            seconds.update(report.seconds)
            processed.update(report.clips)
        if self._work_started is not None:
            left_s = seconds_left(
                seconds, processed,
                stages=self._stages[self._phase - 1 :],
                clips=self._total - self._already,
                reach=self._gone_through + sum((Counter(r.clips) for r in reports), Counter[str]()),
                wall_s=time.monotonic() - self._work_started,
            )  # fmt: skip
            if left_s is not None:
                parts.append(f"about {_duration(left_s)} left" + (" in all phases" if has_phases else ""))
        if self._latest.stage:
            parts.append(f"now: {self._latest.stage}")
        if seconds:
            stage, spent_s = seconds.most_common(1)[0]
            parts.append(f"slowest: {stage} ({spent_s / max(sum(seconds.values()), 1e-9):.0%})")
        return " · ".join(parts)

    def _note_work(self, report: ShardReport) -> None:
        # The time that workers take to start and to load models does not count. The first report may come only when
        # its shard is done.
        if self._work_started is None:
            self._work_started = time.monotonic() - sum(report.seconds.values())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def seconds_left(
    spent_s: Mapping[str, float], processed: Mapping[str, int], *,
    stages: Sequence[Sequence[str]], clips: int, reach: Mapping[str, int], wall_s: float,
) -> float | None:  # fmt: skip
    """The seconds until the last of ``stages`` has processed the last clip; None before any stage has run.

    The costs of stages differ by a factor of a thousand, and the expensive ones often come last, so clips per second
    predict little. The estimate adds up work, stage by stage, over this phase and all that follow.

    ``spent_s`` holds the worker seconds that each stage has taken so far, and ``processed`` the number of clips that it
    has processed. ``stages`` holds the stages of the phase under way and of each later phase. ``clips`` is the number
    of clips that were not committed when the phase began, ``reach`` how many of them each stage has processed,
    ``wall_s`` the time since then. A stage that has not run yet is assumed to cost the average of those that have, and
    to get as many clips as the stage before it.
    """
    costs = {name: spent_s[name] / count for name, count in processed.items() if count}
    if not costs or wall_s <= 0:
        return None
    unseen_s = sum(costs.values()) / len(costs)
    work_s, share = 0.0, 1.0
    # All clips reach the first stage, so that every other one's share is measured against it.
    first = max((reach.get(name, 0) for name in stages[0]), default=0)
    for index, phase in enumerate(stages):
        for name in phase:
            reached = reach.get(name, 0) if index == 0 else 0
            if reached:
                share = reached / first
            work_s += costs.get(name, unseen_s) * max(0.0, clips * share - reached)
    # Measured, not configured: workers wait for each other, for GPUs and for the network.
    workers_busy = max(sum(spent_s.values()) / wall_s, 1e-9)
    return work_s / workers_busy
