"""`Visitor`: sends requests to the fetching children; the run's governor admits each visit.

Failures that affect a whole host (429, refusals, outages) are retried later, up to a limit; a failure of one address is
final. A host name that does not resolve is a failure of the address.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.child import FetchChild
from vidal.crawl.governor import Outcome
from vidal.crawl.settings import WebSettings
from vidal.errors import RecipeError
from vidal.process import private_folder
from vidal.stage import Shared

_MAX_WAIT_S = 5.0
"""A caller that waits for admission asks at least this often: the governor drops silent ones."""

_HOST_WIDE = frozenset({"blocked", "network", "server_error", "timeout"})
"""Reasons that indicate trouble of the whole host."""


@dataclass(slots=True)
class Tries:
    """The failed attempts of one request."""

    settings: WebSettings
    own: int = 0
    in_outages: int = 0

    def count(self, *, is_paused: bool) -> float | None:
        """Count a failed attempt; returns the seconds until the next one, or None if there are none left.

        While the host is paused, the governor determines the wait.
        """
        if is_paused:
            self.in_outages += 1
            return 0.0 if self.in_outages < self.settings.outage_tries else None
        self.own += 1
        return self.settings.back_off_s * 2.0 ** (self.own - 1) if self.own < self.settings.tries else None


class Visitor:
    """Keeps fetching children between visits; safe to use from many threads."""

    def __init__(self, settings: WebSettings, governor: Shared) -> None:
        self.settings = settings
        self._governor = governor
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

    def close(self) -> None:
        """End all children."""
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.close()
        shutil.rmtree(self._robots, ignore_errors=True)

    def visit_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return the answers in order; `WebSettings.concurrency` visits run at once."""

        def visit(ask: Ask) -> Answer:
            ask = dataclasses.replace(ask, wall_s=self.settings.wall_s, settings=self.settings)
            with self.child() as child:
                return self.visit(child, host_of(ask.url), ask)

        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="visit") as pool:
            return list(pool.map(visit, asks))

    def visit(self, child: FetchChild, host: str, ask: Ask) -> Answer:
        """Visit a host, with retries after transient failures; a final failure is returned as an answer."""
        tries = Tries(self.settings)
        while True:
            answer = self.attempt(child, host, ask, tries)
            if isinstance(answer, Answer):
                return answer
            time.sleep(answer)

    def attempt(self, child: FetchChild, host: str, ask: Ask, tries: Tries) -> Answer | float:
        """Return the answer of one visit, or the seconds after which the next attempt is due.

        Raises `RecipeError` for a platform whose terms are not accepted.
        """
        if platform := self.settings.needs_acceptance(host):
            raise RecipeError(
                f"{host}: the terms of {platform} restrict automated access; read them, and add the platform to "
                f"fetch.accept_terms if you take responsibility (--set fetch.accept_terms=[{platform}])"
            )
        admission = self._admitted(host)
        if not isinstance(admission, str):
            return admission
        answer = child.ask(ask)
        outcome: Outcome = "trouble" if answer.reason in _HOST_WIDE else "ok"
        if answer.reason == "rate_limited":
            outcome = "rate_limited"
        is_paused = bool(self._governor.call("report", admission, outcome, answer.retry_after_s, answer.requests))
        if answer.ok or not answer.transient:
            return answer
        wait_s = tries.count(is_paused=is_paused)
        return answer if wait_s is None else wait_s

    def _admitted(self, host: str) -> str | Answer | float:
        """Wait for a ticket; returns the seconds of a pause of the host, or a failure if it is too long."""
        guest = f"{host}#{self.settings.session}" if self.settings.session else host
        ticket: str | None = None
        while True:
            ticket, wait_s, state = self._governor.call("admit", guest, ticket)
            if wait_s <= 0:
                return str(ticket)
            if state == "paused":
                return float(wait_s)
            if state != "open":
                return Answer.failed(state, f"{host} is left alone for another {wait_s:.0f} s")
            time.sleep(min(wait_s, _MAX_WAIT_S))
