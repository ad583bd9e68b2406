"""`Governor`: one request budget per host for the whole run, however many workers there are.

A caller asks for admission and gets it, or the time to wait before asking again with its ticket. No method blocks, so
one governor serves every worker of a cluster through any transport; a caller that died is forgotten when it does not
ask again. Within a host, callers are admitted in the order of their first request.

    ticket, wait_s, state = governor.admit("youtube.com", None)    # wait_s 0: go
    governor.report(ticket, "ok")

A host that answers 429, blocks visitors or fails repeatedly is paused, twice as long each time. After a pause one
caller goes first, and the others follow when its visit succeeds; callers that ask meanwhile are told that the host is
paused and should turn to another one. A host that would be unavailable for longer than its ``patience_s`` is given up
until its pause is over.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["open", "paused", "rate_limited", "host_unavailable"]
"""The state of a host: ``paused`` for now, or given up until its pause is over: the reason of its failed clips."""

Outcome = Literal["ok", "rate_limited", "trouble"]
"""``ok``: the host answered, even with an error of one clip; ``trouble``: it is down, or blocks every visitor."""

_POLL_S = 0.25
"""How long a caller waits for another visit to end before it asks again."""

_MAX_RETRY_AFTER_S = 24 * 3600.0
"""A host's own Retry-After overrides our rules, up to a day."""

_DOUBLINGS = 32
"""More would exceed any ``max_pause_s``."""

_FORGOTTEN_AFTER_S = 60.0
"""A caller that has not asked again by this long after it was due is considered dead."""


class HostRules(BaseModel):
    """How often a host is visited, and when it is paused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    per_s: float = Field(2.0, gt=0)
    """Admissions per second."""
    jitter: float = Field(0.1, ge=0, le=5)
    """Up to this share is added to the gap between two admissions."""
    concurrent: int = Field(2, ge=1)
    """Visits under way at once."""
    failures_to_pause: int = Field(5, ge=1)
    """Consecutive troubles after which the host is paused."""
    pause_s: float = Field(30.0, gt=0)
    """The first pause; each consecutive one is twice as long."""
    max_pause_s: float = Field(3600.0, gt=0)
    """Longest pause, in seconds."""
    patience_s: float = Field(900.0, ge=0)
    """A host that is unavailable, or asks for a pause, for longer is given up until its pause is over: its clips fail
    with the transient reason ``host_unavailable`` or ``rate_limited``, and `vidal retry` retries them."""
    max_visit_s: float = Field(3600.0, gt=0)
    """A visit that has not been reported by then is considered dead."""


@dataclass(slots=True)
class _Host:
    rules: HostRules
    next_at: float = 0.0
    waiting: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Tickets in the order of asking, each with the time by which it has to ask again."""
    visits: dict[str, float] = field(default_factory=dict)
    """Admitted tickets, each with the time from which it is considered dead."""
    troubles: int = 0
    pauses: int = 0
    paused_until: float = 0.0
    down_since: float | None = None
    """The first trouble since the last success."""
    is_rate_limited: bool = False
    admitted: int = 0

    @property
    def on_trial(self) -> bool:
        """Whether the next visit decides if a paused host has recovered."""
        return self.pauses > 0


class Governor:
    """Admits visits to hosts; all arguments and results are plain values, as callers may be in other processes."""

    def __init__(
        self,
        rules: dict[str, HostRules],
        *,
        default: HostRules | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._default = default or HostRules()
        self._random = random.Random(seed)
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._host_of: dict[str, str] = {}
        self._numbers = itertools.count()

    def admit(self, host: str, ticket: str | None) -> tuple[str, float, State]:
        """The ticket, the seconds to wait before asking again with it (0: admitted), and the state of the host."""
        now, state = self._clock(), self._state(host)
        self._forget_the_dead(state, now)
        if ticket is None or ticket not in state.waiting:
            ticket = ticket or f"{next(self._numbers)}"
            state.waiting[ticket] = now + _FORGOTTEN_AFTER_S
            self._host_of[ticket] = host
        wait_s, how = self._wait_s(state, ticket, now), self._how(state, now)
        if wait_s > 0 and how != "open":
            # The caller turns to another host and must not keep its place.
            del state.waiting[ticket], self._host_of[ticket]
            return ticket, wait_s, how
        if wait_s > 0:
            state.waiting[ticket] = now + wait_s + _FORGOTTEN_AFTER_S
            return ticket, wait_s, how
        del state.waiting[ticket]
        gap_s = (1 + state.rules.jitter * self._random.random()) / state.rules.per_s
        # A caller that comes a little late must not slow down the rest; one that comes much later earns no burst.
        is_on_time = now - state.next_at <= gap_s / 2
        state.next_at = (state.next_at if is_on_time else now) + gap_s
        state.visits[ticket] = now + state.rules.max_visit_s
        state.admitted += 1
        return ticket, 0.0, "open"

    def report(self, ticket: str, outcome: Outcome, retry_after_s: float | None = None, requests: int = 1) -> bool:
        """Report the end of a visit; returns whether the host is paused now.

        ``retry_after_s`` is the host's Retry-After. ``requests`` are all of the visit, with robots.txt and redirects.
        """
        host = self._host_of.pop(ticket, None)
        if host is None:
            return False
        now, state = self._clock(), self._hosts[host]
        state.visits.pop(ticket, None)
        state.waiting.pop(ticket, None)
        if requests > 1:
            state.next_at = max(state.next_at, now) + (requests - 1) / state.rules.per_s
        if outcome == "ok":
            state.troubles, state.pauses, state.down_since = 0, 0, None
            return False
        state.down_since = now if state.down_since is None else state.down_since
        state.is_rate_limited = outcome == "rate_limited"
        state.troubles += 1
        if outcome == "rate_limited" or state.on_trial or state.troubles >= state.rules.failures_to_pause:
            rules, share = state.rules, self._random.random()
            pause_s = min(rules.pause_s * 2 ** min(state.pauses, _DOUBLINGS), rules.max_pause_s)
            if retry_after_s is not None:
                pause_s = min(max(retry_after_s, 0.0), _MAX_RETRY_AFTER_S)
            state.paused_until = max(state.paused_until, now + pause_s * (1 + rules.jitter * share))
            state.pauses += 1
            state.troubles = 0
        return now < state.paused_until

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Per host: admissions so far, callers waiting, visits under way, remaining seconds of the pause."""
        now = self._clock()
        return {
            host: {
                "admitted": state.admitted,
                "waiting": len(state.waiting),
                "under_way": len(state.visits),
                "paused_s": max(0.0, state.paused_until - now),
            }
            for host, state in self._hosts.items()
        }

    def _state(self, host: str) -> _Host:
        """The state of a host, with its rules or its domain's: ``www.youtube.com`` has those of ``youtube.com``."""
        if host not in self._hosts:
            parts = host.split(".")
            names = (".".join(parts[i:]) for i in range(len(parts)))
            rules = next((self._rules[name] for name in names if name in self._rules), self._default)
            self._hosts[host] = _Host(rules)
        return self._hosts[host]

    def _wait_s(self, state: _Host, ticket: str, now: float) -> float:
        gap_s = 1 / state.rules.per_s
        if now < state.paused_until:
            return state.paused_until - now
        room = (1 if state.on_trial else state.rules.concurrent) - len(state.visits)
        if room <= 0:
            return min(max(gap_s / 4, 0.01), _POLL_S)
        # Earlier tickets go first, each after a gap of its own.
        place = list(state.waiting).index(ticket)
        return max(state.next_at - now, 0.0) + place * gap_s

    @staticmethod
    def _how(state: _Host, now: float) -> State:
        if now < state.paused_until:
            is_given_up = state.paused_until - (state.down_since or 0.0) > state.rules.patience_s
            return "paused" if not is_given_up else "rate_limited" if state.is_rate_limited else "host_unavailable"
        return "paused" if state.on_trial and state.visits else "open"

    def _forget_the_dead(self, state: _Host, now: float) -> None:
        for table in (state.waiting, state.visits):
            for ticket in [t for t, until in table.items() if until < now]:
                del table[ticket]
                self._host_of.pop(ticket, None)
