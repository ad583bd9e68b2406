"""`Admission`: asks the governor before each request of one visit, and waits until it may be sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vidal.crawl.ask import host_of
from vidal.crawl.governor import Outcome, State
from vidal.crawl.platforms import budget_of
from vidal.crawl.reasons import HOST_WIDE, from_status
from vidal.crawl.settings import WebSettings
from vidal.stage import Shared

_ASK_AGAIN_S = 5.0
"""A caller asks at least this often, as the governor forgets silent ones."""
_MAX_PAUSE_S = 10.0
"""A visit waits for no longer pauses, and is started again after them."""
_MIN_LATE_S = 0.05
"""A request may be sent half a gap of its rate after it was asked for, or this long. A later one, of a process that
waited for a core, would meet those that were admitted after it at the host."""
_UNKNOWN = frozenset({"fetcher_died", "extractor_failed", "ssrf", "storage", "terms_not_accepted"})
"""Reasons that say nothing about the last host."""


class Admission:
    """The requests of one visit, in the thread that waits for its fetching child."""

    def __init__(
        self,
        settings: WebSettings,
        governor: Shared,
        run: str,
        visit: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings, self._governor, self._run, self._visit = settings, governor, run, visit
        self._clock, self._sleep = clock, sleep
        self._called_at = clock()
        self._hosts: dict[str, str] = {}
        """The budgets that were used, in the order of their last request, each with the host."""
        self._is_probe = False
        self.waited_s = 0.0
        """For the admission of requests, in all."""
        self.refused: tuple[str, float, State] | None = None
        """Budget, seconds and state of the pause for which a request was not admitted."""

    def admit(self, host: str, kind: str, *, is_again: bool = False) -> dict[str, Any]:
        """Wait until a request to the host may be sent; returns ``waited_s``, and ``reason`` if it may not.

        It has to be sent before ``send_by`` (`time.monotonic`), or be admitted again; with ``is_probe`` its status is
        to be told to `answered`.
        """
        if platform := self._settings.needs_acceptance(host):
            detail = f"{host} belongs to {platform}, which fetch.accept_terms lacks"
            return {"waited_s": 0.0, "reason": "terms_not_accepted", "detail": detail}
        budget, given = budget_name(self._settings, host), self._settings.rules_of(host)
        late_s = max(0.5 / ((given.media_per_s if kind == "media" else None) or given.per_s), _MIN_LATE_S)
        rules = dict(given)
        waited_s = paused_s = 0.0
        while True:
            # Of the machine, also where a test has a clock of its own: the process that sends reads it, too.
            asked_at = time.monotonic()
            wait_s, state = self._governor.call(
                "admit", self._run, self._visit, budget, rules, kind, waited_s, is_again
            )
            self._called_at = self._clock()
            if wait_s <= 0:
                self._is_probe = state != "open"
                # Moved to the end: what becomes of the visit is put down to the host that was asked last.
                self._hosts.pop(budget, None)
                self._hosts[budget] = host
                return {"waited_s": waited_s, "send_by": asked_at + late_s, "is_probe": self._is_probe}
            paused_s += wait_s if state != "open" else 0.0
            if paused_s > _MAX_PAUSE_S:
                self.refused = budget, wait_s, state
                # That another visit is probing the host is a state of its budget, and no reason that a row may have.
                reason = "host_unavailable" if state == "on_trial" else state
                return {"waited_s": waited_s, "reason": reason, "detail": left_text(host, wait_s, state)}
            wait_s = min(wait_s, _ASK_AGAIN_S)
            self._sleep(wait_s)
            waited_s += wait_s
            self.waited_s += wait_s

    def answered(self, status: int) -> None:
        """Record that the last request was answered: the host of a probe is well again before its file has come."""
        if self._is_probe and (status < 400 or from_status(status) not in (*HOST_WIDE, "rate_limited")):
            self._governor.call("answered", next(reversed(self._hosts)))
            self._is_probe = False

    def delay(self, origin: str, delay_s: float) -> None:
        """Record the Crawl-delay of an origin's robots.txt, before the next request to it is admitted."""
        self._governor.call("delay", budget_name(self._settings, host_of(origin)), origin, delay_s)

    def renew(self) -> None:
        """Tell the governor now and then that the visit is still under way."""
        if self._clock() - self._called_at > _ASK_AGAIN_S:
            self._governor.call("renew", self._visit)
            self._called_at = self._clock()

    def end(
        self, reason: str | None, retry_after_s: float | None = None, *, has_failed_before: bool = False
    ) -> tuple[str, float]:
        """Report the end of the visit; returns the budget of the last request, and the seconds of its pause."""
        if not self._hosts:
            self._governor.call("end", self._visit, {}, {})
            return "", 0.0
        *earlier, last = self._hosts
        # Whoever redirected, or gave the page of the media, has answered.
        outcomes: dict[str, Outcome] = dict.fromkeys(earlier, "ok")
        if not self.refused and reason not in _UNKNOWN:
            trouble: Outcome = "trouble_again" if has_failed_before else "trouble"
            outcomes[last] = trouble if reason in HOST_WIDE else "rate_limited" if reason == "rate_limited" else "ok"
        rules = dict(self._settings.rules_of(self._hosts[last]))
        return last, float(self._governor.call("end", self._visit, outcomes, rules, retry_after_s))


def budget_name(settings: WebSettings, host: str) -> str:
    """The name of a host's budget; several guests have one each."""
    return f"{budget_of(host)}#{settings.session}" if settings.session else budget_of(host)


def left_text(name: str, wait_s: float, state: State) -> str:
    """The detail of a clip that does not wait for a host or budget."""
    if state == "crawl_delay":
        return f"the Crawl-delay of {name} is longer than patience_s; its next request is due in {wait_s:.0f} s"
    return f"{name} is left alone for another {wait_s:.0f} s"
