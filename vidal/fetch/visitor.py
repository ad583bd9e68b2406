"""`Visitor`: asks the fetching children, each visit admitted by the run's governor.

What a host does to every guest (429, refusals, outage) is answered by waiting and going again; what it does to one
address is the answer.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidal.errors import MachineError, RecipeError
from vidal.fetch.ask import Answer, Ask, host_of
from vidal.fetch.child import FetchChild
from vidal.fetch.governor import Outcome
from vidal.fetch.settings import WebSettings

_ASK_AGAIN_AT_LEAST_EVERY_S = 5.0
"""A waiting caller is not to be taken for dead."""

_HOST_WIDE = frozenset({"blocked", "network", "server_error", "timeout"})
"""What a host in trouble answers to everybody."""


class Visitor:
    """Keeps children between visits; may be used from many threads."""

    def __init__(self, settings: WebSettings, governor: Any) -> None:
        self.settings = settings
        self._governor = governor
        self._children: list[FetchChild] = []
        self._lock = threading.Lock()
        self._robots = tempfile.TemporaryDirectory(prefix="vidal-robots-")

    @contextmanager
    def child(self) -> Iterator[FetchChild]:
        """A child for one thread, given back afterwards."""
        with self._lock:
            child = self._children.pop() if self._children else self._new_child()
        try:
            yield child
        finally:
            with self._lock:
                self._children.append(child)

    def _new_child(self) -> FetchChild:
        """All of a worker share what hosts say in robots.txt, so that it is asked for once."""
        return FetchChild(robots_folder=Path(self._robots.name))

    def close(self) -> None:
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.close()
        self._robots.cleanup()

    def visit_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers in order, as many at once as the settings say."""
        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="visit") as pool:
            return list(pool.map(self._visit_one, asks))

    def _visit_one(self, ask: Ask) -> Answer:
        told = dataclasses.replace(
            self.settings.for_child(), entries=ask.settings.entries, headers=ask.settings.headers
        )
        ask = dataclasses.replace(ask, wall_s=self.settings.wall_s, settings=told)
        with self.child() as child:
            return self.visit(child, host_of(ask.url), ask)

    def visit(self, child: FetchChild, host: str, ask: Ask) -> Answer:
        """One governed visit, again as long as it is the host's trouble; a failure is an answer."""
        self._check_terms(host)
        own_tries = outage_tries = 0
        while True:
            ticket = self._admitted(host)
            answer = child.ask(ask)
            is_paused = self._report(ticket, answer, answer.requests)
            own_tries += not is_paused
            outage_tries += is_paused
            is_last = own_tries >= self.settings.tries or outage_tries >= self.settings.outage_tries
            if answer.ok or not answer.transient or is_last:
                return answer

    def _check_terms(self, host: str) -> None:
        if platform := self.settings.needs_acceptance(host):
            raise RecipeError(
                f"{host}: {platform}'s terms restrict automated access; read them, and name the platform in "
                f"fetch.accept_terms if you answer for it (--set fetch.accept_terms=[{platform}])"
            )

    def _admitted(self, host: str) -> str:
        guest = f"{host}#{self.settings.session}" if self.settings.session else host
        ticket: str | None = None
        started = time.monotonic()
        while True:
            ticket, wait_s = self._governor.call("admit", guest, ticket)
            if wait_s <= 0:
                return str(ticket)
            if time.monotonic() - started > self.settings.give_up_after_s:
                raise MachineError(
                    f"{host} has let nobody in for {self.settings.give_up_after_s / 3600:.1f} h; "
                    "what is committed stays and no clip was failed: run the same command again later"
                )
            time.sleep(min(wait_s, _ASK_AGAIN_AT_LEAST_EVERY_S))

    def _report(self, ticket: str, answer: Answer, requests: int) -> bool:
        outcome: Outcome = "trouble" if answer.reason in _HOST_WIDE else "ok"
        if answer.reason == "rate_limited":
            outcome = "rate_limited"
        return bool(self._governor.call("report", ticket, outcome, answer.retry_after_s, requests))
