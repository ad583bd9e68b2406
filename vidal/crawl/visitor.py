"""`Visitor`: sends requests to the fetching children; the governor admits each visit and each of its requests.

Failures that concern a whole host, and others that may pass, are retried later, within limits; any other failure of an
address is final.
"""

from __future__ import annotations

import dataclasses
import math
import random
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from vidal.crawl.admission import Admission, budget_name, left_text
from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.child import FetchChild
from vidal.crawl.governor import State
from vidal.crawl.reasons import HOST_WIDE, OUTAGES
from vidal.crawl.settings import WebSettings
from vidal.process import private_folder
from vidal.stage import Shared

_MAX_BACK_OFF_S = 16.0
_DOUBLINGS = 16
_MIN_PAUSE_S = 1.0
"""A clip's own pause counts as at least this much, so that none waits for ever for a host that asks for no time."""


@dataclass(frozen=True, slots=True)
class Later:
    """When an attempt is due again."""

    seconds: float
    of: str = "clip"
    """What has to wait: ``clip``, or every clip of the ``budget``, as it is used up or during a ``pause``."""


@dataclass(slots=True)
class _Paused:
    """The pauses of one budget."""

    total_s: float = 0.0
    before_answer_s: float = 0.0
    """Of them, those before its hosts last answered."""
    until: float = 0.0


class Pauses:
    """How long each budget has been paused while the clips of a batch waited; safe to use from many threads.

    Pauses between which the host answers do not add up: it is not down for all that time.
    """

    def __init__(self) -> None:
        self._of: defaultdict[str, _Paused] = defaultdict(_Paused)
        self._lock = threading.Lock()

    def total_s(self, budget: str) -> float:
        return self._of[budget].total_s

    def begin(self, budget: str, now: float, pause_s: float, patience_s: float) -> bool:
        """Count a pause; False if the budget would be paused beyond the patience, with no answer since."""
        with self._lock:
            paused = self._of[budget]
            # Of one pause every visit is told that is under way.
            more_s = max(now + pause_s - max(paused.until, now), 0.0)
            if paused.total_s + more_s - paused.before_answer_s > patience_s:
                return False
            paused.total_s += more_s
            paused.until = max(paused.until, now + pause_s)
            return True

    def end(self, budget: str, now: float) -> None:
        """The hosts of a budget answer; during a pause they may have been asked before it."""
        with self._lock:
            paused = self._of[budget]
            if now >= paused.until:
                paused.before_answer_s = paused.total_s


@dataclass(slots=True)
class Tries:
    """The failed attempts of one request, and the pauses that its own visits ended in."""

    settings: WebSettings
    clock: Callable[[], float] = time.monotonic
    pauses: Pauses = field(default_factory=Pauses)
    failures: int = 0
    first_at: float = 0.0
    paused_before_s: float = 0.0
    """How long the budget had been paused at the first failure."""
    own_pauses_s: float = 0.0
    impatient_of: tuple[str, State, float] | None = None
    """The pause that the request did not wait for, as the last of its life: budget, state and seconds."""

    def back_off_s(self, reason: str | None, answered_at: float, paused_s: float = 0.0) -> float | None:
        """Count a failed attempt; returns the seconds until the next one, or None if it was the last.

        They are random, up to twice as many each time. A host that may just be down, as it has ``answered_at`` no other
        time since the first failure, is tried for ``outage_s`` at least, apart from the ``paused_s`` of its budget.
        """
        if self.failures == 0:
            self.first_at, self.paused_before_s = self.clock(), paused_s
        self.failures += 1
        lasted_s = self.clock() - self.first_at - (paused_s - self.paused_before_s)
        may_be_down = reason in OUTAGES and answered_at <= self.first_at and lasted_s < self.settings.outage_s
        if self.failures >= self.settings.tries and not may_be_down:
            return None
        longest_s = self.settings.back_off_s * 2.0 ** min(self.failures - 1, _DOUBLINGS)
        return random.uniform(0, min(longest_s, _MAX_BACK_OFF_S))

    def waits_for(self, budget: str, state: State, pause_s: float, patience_s: float, *, is_own: bool = False) -> bool:
        """Whether a clip waits for a pause of a budget, which then counts; ``is_own``: its visit was answered with it.

        The pauses of its own count in all, as a host may refuse one address for ever that answers others.
        """
        own_s = self.own_pauses_s + pause_s if is_own else 0.0
        if own_s > patience_s or not self.pauses.begin(budget, self.clock(), pause_s, patience_s):
            self.impatient_of = budget, state, pause_s
            return False
        if is_own:
            self.own_pauses_s += max(pause_s, _MIN_PAUSE_S)
        return True


class Visitor:
    """Keeps fetching children between visits; safe to use from many threads."""

    def __init__(
        self,
        settings: WebSettings,
        governor: Shared,
        run: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``run`` is the name under which the governor counts."""
        self.settings, self.run = settings, run
        self._governor = governor
        self._clock, self._sleep = clock, sleep
        self._answered_at: dict[str, float] = {}
        """When each budget's hosts last answered a visit as a host that is up does."""
        self._up: set[str] = set()
        """Budgets whose last visit found the host up."""
        self._children: list[FetchChild] = []
        self._lock = threading.Lock()
        self._robots = private_folder("robots")

    @contextmanager
    def child(self) -> Iterator[FetchChild]:
        """Lend a child to one thread."""
        with self._lock:
            # All children of a worker share the robots.txt of hosts, so that it is requested once.
            child = self._children.pop() if self._children else FetchChild(robots_folder=self._robots)
        try:
            yield child
        finally:
            with self._lock:
                self._children.append(child)

    def is_up(self, budget: str) -> bool:
        """Whether the last visit of the budget found its host up."""
        return budget in self._up

    def close(self) -> None:
        """End all children."""
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.close()
        shutil.rmtree(self._robots, ignore_errors=True)

    def visit_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return the answers in order; `WebSettings.concurrency` visits run at once."""
        pauses = Pauses()

        def visit(ask: Ask) -> Answer:
            ask = dataclasses.replace(ask, wall_s=self.settings.wall_s, settings=self.settings)
            tries = Tries(self.settings, self._clock, pauses)
            with self.child() as child:
                while isinstance(answer := self.attempt(child, ask, tries), Later):
                    self._sleep(answer.seconds)
                return answer

        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="visit") as pool:
            return list(pool.map(visit, asks))

    def attempt(self, child: FetchChild, ask: Ask, tries: Tries) -> Answer | Later:
        """Return the answer of one visit, or when to attempt the next one.

        Raises `RecipeError` for a platform whose terms are not accepted.
        """
        host, kind = host_of(ask.url), "media" if ask.op == "media" else "page"
        self.settings.check_terms([host])
        budget, rules = budget_name(self.settings, host), self.settings.rules_of(host)
        visit, wait_s, state = self._governor.call("begin", self.run, budget, dict(rules), kind)
        if not visit:
            if state == "open":
                # Another worker's visit may have been answered.
                tries.pauses.end(budget, self._clock())
            if state in ("open", "on_trial"):
                return Later(wait_s, "budget")
            if state == "crawl_delay":
                return _left(budget, wait_s, state)
            waits = tries.waits_for(budget, state, wait_s, rules.patience_s)
            return Later(wait_s, "pause") if waits else _left(budget, wait_s, state)
        admission = Admission(self.settings, self._governor, self.run, visit, clock=self._clock, sleep=self._sleep)
        started = self._clock()
        try:
            answer = child.ask(ask, admission)
        except BaseException:
            # Or the governor would count the visit as under way until its lease runs out.
            admission.end("fetcher_died")
            raise
        took_s = self._clock() - started - admission.waited_s
        last, pause_s = admission.end(answer.reason, answer.retry_after_s, has_failed_before=tries.failures > 0)
        if answer.ok or (answer.http_status is not None and answer.reason not in HOST_WIDE):
            self._answered_at[last] = self._clock()
            if answer.reason != "rate_limited":
                tries.pauses.end(last, self._clock())
        if answer.reason in HOST_WIDE:
            self._up.discard(last)
        elif not admission.refused:
            self._up.add(last)
        if answer.ok or not answer.transient:
            return answer
        state = "rate_limited" if answer.reason == "rate_limited" else "host_unavailable"
        if admission.refused:
            last, pause_s, state = admission.refused
        if state == "crawl_delay":
            return answer
        # Another visit's probe will soon tell: nobody's patience is spent on that.
        if state == "on_trial":
            return Later(pause_s)
        if pause_s > 0:
            is_own = admission.refused is None
            return Later(pause_s) if tries.waits_for(last, state, pause_s, rules.patience_s, is_own=is_own) else answer
        if answer.reason == "timeout" and took_s >= ask.wall_s:
            # Another attempt may take as long, and the clips beside it would wait for its end.
            return answer
        back_off_s = tries.back_off_s(answer.reason, self._answered_at.get(last, -math.inf), tries.pauses.total_s(last))
        return answer if back_off_s is None else Later(back_off_s)


def _left(budget: str, wait_s: float, state: State) -> Answer:
    return Answer.failed(state, left_text(budget, wait_s, state))
