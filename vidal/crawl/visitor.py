"""`Visitor`: asks the fetching children, each visit admitted by the run's governor.

What a host does to every guest (429, refusals, outage) is answered by going again later, up to a bound; what it does to
one address is the answer. A dead name is the address's own trouble.
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

_ASK_AGAIN_AT_LEAST_EVERY_S = 5.0
"""A waiting caller is not to be taken for dead."""

_HOST_WIDE = frozenset({"blocked", "network", "server_error", "timeout"})
"""What a host in trouble answers to everybody."""


@dataclass(slots=True)
class Tries:
    """The visits that one clip or question has had in vain."""

    settings: WebSettings
    own: int = 0
    in_outages: int = 0

    def count(self, *, is_paused: bool) -> float | None:
        """One more; gives the seconds until the next, or None where there is none. A pause says itself how long."""
        if is_paused:
            self.in_outages += 1
            return 0.0 if self.in_outages < self.settings.outage_tries else None
        self.own += 1
        return self.settings.back_off_s * 2.0 ** (self.own - 1) if self.own < self.settings.tries else None


class Visitor:
    """Keeps children between visits; may be used from many threads."""

    def __init__(self, settings: WebSettings, governor: Shared) -> None:
        self.settings = settings
        self._governor = governor
        self._children: list[FetchChild] = []
        self._lock = threading.Lock()
        self._robots = private_folder("robots")

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
        return FetchChild(robots_folder=self._robots)

    def close(self) -> None:
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.close()
        shutil.rmtree(self._robots, ignore_errors=True)

    def visit_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers in order, as many at once as the settings say."""
        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="visit") as pool:
            return list(pool.map(self._visit_one, asks))

    def _visit_one(self, ask: Ask) -> Answer:
        ask = dataclasses.replace(ask, wall_s=self.settings.wall_s, settings=self.settings)
        with self.child() as child:
            return self.visit(child, host_of(ask.url), ask)

    def visit(self, child: FetchChild, host: str, ask: Ask) -> Answer:
        """One governed visit, again as long as another may do better; a failure is an answer."""
        tries = Tries(self.settings)
        while True:
            answer = self.attempt(child, host, ask, tries)
            if isinstance(answer, Answer):
                return answer
            time.sleep(answer)

    def attempt(self, child: FetchChild, host: str, ask: Ask, tries: Tries) -> Answer | float:
        """The answer of a governed visit, or the seconds after which another attempt is due."""
        self._check_terms(host)
        admission = self._admitted(host)
        if not isinstance(admission, str):
            return admission
        answer = child.ask(ask)
        is_paused = self._report(admission, answer, answer.requests)
        if answer.ok or not answer.transient:
            return answer
        wait_s = tries.count(is_paused=is_paused)
        return answer if wait_s is None else wait_s

    def _check_terms(self, host: str) -> None:
        if platform := self.settings.needs_acceptance(host):
            raise RecipeError(
                f"{host}: {platform}'s terms restrict automated access; read them, and name the platform in "
                f"fetch.accept_terms if you answer for it (--set fetch.accept_terms=[{platform}])"
            )

    def _admitted(self, host: str) -> str | Answer | float:
        """A ticket, which may take its turn; where the host is paused, for how long, or the answer if for too long."""
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
            time.sleep(min(wait_s, _ASK_AGAIN_AT_LEAST_EVERY_S))

    def _report(self, ticket: str, answer: Answer, requests: int) -> bool:
        outcome: Outcome = "trouble" if answer.reason in _HOST_WIDE else "ok"
        if answer.reason == "rate_limited":
            outcome = "rate_limited"
        return bool(self._governor.call("report", ticket, outcome, answer.retry_after_s, requests))
