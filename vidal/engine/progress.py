"""Live progress of a build: one line on a terminal, a line now and then elsewhere, nothing with ``--json``."""

from __future__ import annotations

import sys
import time
from collections import Counter

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vidal.engine.job import ShardReport

_PLAIN_EVERY_S = 10.0


class LiveProgress:
    """Done, kept, rejected, failed; clips per second; time left; the slowest stage."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._phase = ""
        self._total = 0
        self._already = 0
        self._reports: dict[int, ShardReport] = {}
        self._done: set[int] = set()
        self._finished: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._started = self._told = time.monotonic()

    def __enter__(self) -> LiveProgress:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        self._phase = f"phase {number}/{phases}" if phases > 1 else "building"
        self._total, self._already = candidates, already
        self._reports, self._done, self._finished = {}, set(), Counter()
        self._seconds = Counter()
        self._started = time.monotonic()
        self.tick()

    def note(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, report: ShardReport) -> None:
        # Counts travel beside the shards themselves, and may come in after them.
        if report.shard not in self._done:
            self._reports[report.shard] = report
        self.tick()

    def done(self, report: ShardReport) -> None:
        self._done.add(report.shard)
        self._reports.pop(report.shard, None)
        self._finished.update(kept=report.kept, rejected=report.rejected, failed=report.failed)
        self._seconds.update(report.seconds)
        self.tick()

    def tick(self) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(Text(self.line()))
        elif time.monotonic() - self._told > _PLAIN_EVERY_S:
            self._told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state of the phase in one line."""
        reports = list(self._reports.values())
        counts = {n: self._finished[n] + sum(getattr(r, n) for r in reports) for n in ("kept", "rejected", "failed")}
        done = sum(counts.values())
        elapsed = max(time.monotonic() - self._started, 1e-6)
        rate = done / elapsed
        left = self._total - self._already - done
        parts = [
            f"{self._phase}: {self._already + done}/{self._total} done",
            *(f"{count} {name}" for name, count in counts.items()),
            f"{rate:.2f} clips/s",
            f"{_duration(left / rate)} left" if rate > 0 else "starting",
        ]
        seconds = self._seconds + sum((Counter(r.seconds) for r in reports), Counter[str]())
        if seconds:
            stage, spent = seconds.most_common(1)[0]
            parts.append(f"slowest: {stage} ({spent / max(sum(seconds.values()), 1e-9):.0%})")
        return " · ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
