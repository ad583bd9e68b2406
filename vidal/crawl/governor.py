"""`Governor`: one request budget per platform or host for every run of a machine or cluster.

Each request is admitted before it is sent. Budgets are in one SQLite file of the user's cache, so that runs share them
and a killed run leaves them as they are. No method waits: the answer is to go, or how long to wait before asking again.

    visit, wait_s, state = governor.begin("run", "youtube", rules)      # a visit may start
    wait_s, state = governor.admit("run", visit, "youtube", rules)      # 0: send one request now
    governor.end(visit, {"youtube": "ok"}, rules)

A Crawl-delay that a host's robots.txt states (`delay`) is kept beside its budget, and makes its requests rarer, for
every run and after restarts. To a run whose patience is shorter the state is ``crawl_delay`` after each request.
A budget is paused when the host asks for it or after consecutive troubles, each pause twice as long as the last. After
a pause one request goes first, the probe, and the others follow once it is answered. A probe that meets trouble proves
a host that was paused for trouble still down; after a pause that the host asked for it says no more than any request.
Rules (`HostRules`, as plain values) travel with each call: runs with different ones share the same state.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from vidal.errors import StorageError

State = Literal["open", "on_trial", "rate_limited", "host_unavailable", "crawl_delay"]
"""The state of a budget; ``on_trial``: its probe is under way; a later one is the reason of clips that do not wait."""

Outcome = Literal["ok", "rate_limited", "trouble", "trouble_again"]
"""``ok``: the host answered, even with an error of one clip; ``trouble``: it is down, or blocks every visitor;
``trouble_again``: so it seems by an address that failed before, which may be the address's own trouble."""

_SLACK = 1.05
"""Requests are so much rarer than allowed: their way to the server takes longer at one time than at another."""
_LEAD_S = 0.25
"""A visit may start this long before its first request is due."""
_INSTANT_S = 1e-5
"""Shorter waits are none: times have rounding errors."""
_LEASE_S = 15.0
"""A caller that has not asked or renewed for so long is considered dead."""
_TURN_LEASE_S = 8.0
"""One that waits asks every 5 s, and loses its turn to those behind it if it has not for so long."""
_PROBE_POLL_S = 1.0
"""How long to wait before asking again while a probe is under way."""
_MAX_ASKED_S = 24 * 3600.0
"""A host's own Retry-After and Crawl-delay override our rules, up to a day."""
_DOUBLINGS = 32
"""More would exceed any ``max_pause_s``."""
_KEPT_S = 30 * 24 * 3600.0
"""Budgets and counts that nobody has used for so long are dropped."""
_BUSY_S = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS budgets (
    name TEXT PRIMARY KEY, used_at REAL NOT NULL, troubles INTEGER NOT NULL DEFAULT 0,
    pauses INTEGER NOT NULL DEFAULT 0, paused_at REAL NOT NULL DEFAULT 0, pause_s REAL NOT NULL DEFAULT 0,
    is_rate_limited INTEGER NOT NULL DEFAULT 0, probe TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lanes (name TEXT PRIMARY KEY, last_at REAL NOT NULL, gap_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delays (
    budget TEXT, origin TEXT, delay_s REAL NOT NULL, used_at REAL NOT NULL, PRIMARY KEY (budget, origin)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS visits (visit TEXT PRIMARY KEY, budget TEXT NOT NULL, seen_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS visits_of ON visits (budget);
CREATE TABLE IF NOT EXISTS waiting (place INTEGER PRIMARY KEY, visit TEXT UNIQUE, lane TEXT, seen_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS waiting_for ON waiting (lane);
CREATE TABLE IF NOT EXISTS usage (
    run TEXT, lane TEXT, first_at REAL NOT NULL, used_at REAL NOT NULL, requests INTEGER NOT NULL,
    visits INTEGER NOT NULL, waited_s REAL NOT NULL, per_s REAL NOT NULL, PRIMARY KEY (run, lane)
) WITHOUT ROWID;
"""


class Governor:
    """Admits visits and their requests; all arguments and results are plain values, as callers may be elsewhere."""

    cluster_name = "vidal-governor-1"
    """Runs on one Ray cluster share one, under this name; the number is that of the tables."""

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """``folder`` holds the file; by default ``crawl`` in ``VIDAL_CACHE``, itself ``~/.cache/vidal``."""
        cache = os.environ.get("VIDAL_CACHE") or Path.home() / ".cache" / "vidal"
        self._path = (folder or Path(cache) / "crawl") / "budgets-1.sqlite"
        self._clock = clock
        self._database: sqlite3.Connection | None = None

    # A connection cannot be pickled; each copy opens its own.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_database": None}

    def begin(self, run: str, budget: str, rules: Mapping[str, Any], kind: str = "page") -> tuple[str, float, State]:
        """Start a visit of a budget: its name, the seconds to wait before asking again (0: started), and the state."""
        with self._transaction() as (database, now):
            pause_s, state, is_on_trial = self._pause(database, budget, now)
            if pause_s > 0:
                return "", pause_s, state
            # In absolute value: a time that lies ahead is from before the clock was turned back.
            database.execute("DELETE FROM visits WHERE budget = ? AND abs(? - seen_at) > ?", (budget, now, _LEASE_S))
            (under_way,) = database.execute("SELECT count(*) FROM visits WHERE budget = ?", (budget,)).fetchone()
            # Visits from before the pause, such as long downloads, are no probes and delay none.
            if is_on_trial and self._probe(database, budget, now) is not None:
                return "", _PROBE_POLL_S, "on_trial"
            lane, per_s, delay_s = self._lane(database, budget, rules, kind)
            if under_way >= rules["concurrent"]:
                return "", min(max(1 / per_s, 0.05), _PROBE_POLL_S), "open"
            wait_s = self._due(database, lane, delay_s, now) - _LEAD_S - now
            if wait_s > _INSTANT_S:
                return "", wait_s, _state_of(delay_s, rules)
            visit = secrets.token_hex(8)
            database.execute("INSERT INTO visits VALUES (?, ?, ?)", (visit, budget, now))
            if is_on_trial:
                database.execute("UPDATE budgets SET probe = ? WHERE name = ?", (visit, budget))
            self._count(database, run, lane, now, per_s=per_s, visits=1)
            return visit, 0.0, "open"

    def admit(
        self, run: str, visit: str, budget: str, rules: Mapping[str, Any], kind: str = "page", waited_s: float = 0.0,
        is_again: bool = False,
    ) -> tuple[float, State]:  # fmt: skip
        """The seconds to wait before asking again (0: send one request), and the state.

        Callers go in the order of their first request, and have to ask every few seconds. ``waited_s`` is what this one
        has waited so far; ``is_again``: its request was admitted before, and could not be sent in time.
        """
        with self._transaction() as (database, now):
            database.execute("UPDATE visits SET seen_at = ? WHERE visit = ?", (now, visit))
            pause_s, state, is_on_trial = self._pause(database, budget, now)
            if pause_s <= 0 and is_on_trial and self._probe(database, budget, now) not in (None, visit):
                pause_s, state = _PROBE_POLL_S, "on_trial"
            if pause_s > 0:
                database.execute("DELETE FROM waiting WHERE visit = ?", (visit,))
                return pause_s, state
            lane, per_s, delay_s = self._lane(database, budget, rules, kind)
            database.execute(
                "INSERT INTO waiting (visit, lane, seen_at) VALUES (?, ?, ?) "
                "ON CONFLICT (visit) DO UPDATE SET seen_at = excluded.seen_at",
                (visit, lane, now),
            )
            ahead = database.execute(
                "SELECT count(*) FROM waiting WHERE lane = ? AND abs(? - seen_at) <= ? "
                "AND place < (SELECT place FROM waiting WHERE visit = ?)",
                (lane, now, _TURN_LEASE_S, visit),
            ).fetchone()[0]
            # Each one ahead has a gap of its own.
            wait_s = max(self._due(database, lane, delay_s, now) - now, 0.0) + ahead * _SLACK / per_s
            if wait_s > _INSTANT_S:
                return wait_s, _state_of(delay_s, rules)
            database.execute("DELETE FROM waiting WHERE visit = ? OR abs(? - seen_at) > ?", (visit, now, _LEASE_S))
            gap_s = (_SLACK + rules["jitter"] * random.random()) / per_s
            database.execute("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?)", (lane, now, gap_s))
            if is_on_trial:
                database.execute("UPDATE budgets SET probe = ? WHERE name = ?", (visit, budget))
            self._count(database, run, lane, now, per_s=per_s, requests=0 if is_again else 1, waited_s=waited_s)
            return 0.0, state

    def delay(self, budget: str, origin: str, delay_s: float) -> None:
        """Keep the Crawl-delay that an origin's robots.txt states now, 0 for none; of a budget the longest counts."""
        with self._transaction() as (database, now):
            if delay_s > 0:
                row = (budget, origin, min(delay_s, _MAX_ASKED_S), now)
                database.execute("INSERT OR REPLACE INTO delays VALUES (?, ?, ?, ?)", row)
            else:
                database.execute("DELETE FROM delays WHERE budget = ? AND origin = ?", (budget, origin))

    def renew(self, visit: str) -> None:
        """Tell that a visit is still under way: without a word for 15 s it is considered dead."""
        with self._transaction() as (database, now):
            database.execute("UPDATE visits SET seen_at = ? WHERE visit = ?", (now, visit))

    def answered(self, budget: str) -> None:
        """Tell that the host has answered, so that the others need not wait for the end of the probe's visit."""
        with self._transaction() as (database, now):
            self._settle(database, budget, now, "", "ok", {}, None)

    def end(
        self, visit: str, outcomes: Mapping[str, Outcome], rules: Mapping[str, Any],
        retry_after_s: float | None = None,
    ) -> float:  # fmt: skip
        """Report the end of a visit with the outcome of each budget that it used, in order, all that are known.

        ``rules`` and ``retry_after_s``, the host's Retry-After, are of the last. Returns the seconds for which that one
        is paused now.
        """
        with self._transaction() as (database, now):
            database.execute("DELETE FROM visits WHERE visit = ?", (visit,))
            database.execute("DELETE FROM waiting WHERE visit = ?", (visit,))
            pause_s = 0.0
            for budget, outcome in outcomes.items():
                pause_s = self._settle(database, budget, now, visit, outcome, rules, retry_after_s)
            database.execute("UPDATE budgets SET probe = NULL WHERE probe = ?", (visit,))
            return pause_s

    def counts(self, run: str) -> dict[str, dict[str, float]]:
        """The run's visits and requests so far, the seconds waited for them, from when to when, and the allowed rate.

        Per budget; media with a rate of its own count apart, as ``youtube media``.
        """
        with self._transaction() as (database, _):
            columns = ("visits", "requests", "waited_s", "first_at", "used_at", "per_s")
            rows = database.execute(f"SELECT lane, {', '.join(columns)} FROM usage WHERE run = ?", (run,))
            return {lane: dict(zip(columns, values, strict=True)) for lane, *values in rows}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        try:
            if self._database is None:
                self._database = self._open()
            with self._database:
                # With the lock for writing from the start: SQLite fails a transaction that has read and would write, if
                # another has written meanwhile.
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database, self._clock()
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path}: the budgets of hosts cannot be kept ({error}); free some space, set VIDAL_CACHE to a "
                "folder of this machine that can be written, or delete the file if it is damaged"
            ) from error

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        # Callers are served one at a time, by whichever thread.
        database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        # A power cut may lose the file, which then is made anew; the end of a process loses nothing.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        with database:
            database.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                database.execute(statement)
            now = self._clock()
            for table in ("budgets", "usage", "delays"):
                database.execute(f"DELETE FROM {table} WHERE used_at < ?", (now - _KEPT_S,))
            database.execute("DELETE FROM lanes WHERE last_at < ?", (now - _KEPT_S,))
            database.execute("DELETE FROM visits WHERE abs(? - seen_at) > ?", (now, _LEASE_S))
        return database

    @staticmethod
    def _lane(
        database: sqlite3.Connection, budget: str, rules: Mapping[str, Any], kind: str
    ) -> tuple[str, float, float]:
        """The queue of a request within its budget, its rate, and the Crawl-delay in seconds, 0 for none."""
        (stated_s,) = database.execute("SELECT max(delay_s) FROM delays WHERE budget = ?", (budget,)).fetchone()
        has_own_rate = kind == "media" and rules["media_per_s"] is not None
        per_s = float(rules["media_per_s"] if has_own_rate else rules["per_s"])
        if stated_s:
            # Between any two requests, of whatever kind.
            return budget, min(per_s, 1 / stated_s), float(stated_s)
        return f"{budget} media" if has_own_rate else budget, per_s, 0.0

    @staticmethod
    def _due(database: sqlite3.Connection, lane: str, delay_s: float, now: float) -> float:
        """When the next request may be sent; a Crawl-delay counts from the one before it was known, too."""
        row = database.execute("SELECT last_at, gap_s FROM lanes WHERE name = ?", (lane,)).fetchone()
        if row is None:
            return 0.0
        if row[0] > now:
            # The clock was turned back.
            database.execute("UPDATE lanes SET last_at = ? WHERE name = ?", (now, lane))
        return float(min(row[0], now) + max(row[1], delay_s * _SLACK))

    @staticmethod
    def _pause(database: sqlite3.Connection, budget: str, now: float) -> tuple[float, State, bool]:
        """The rest of a budget's pause, its reason, and whether the next request is a probe."""
        row = database.execute(
            "SELECT paused_at, pause_s, is_rate_limited, pauses FROM budgets WHERE name = ?", (budget,)
        ).fetchone()
        if row is None or row[3] == 0:
            return 0.0, "open", False
        paused_at, pause_s, is_rate_limited, _ = row
        if paused_at > now:
            database.execute("UPDATE budgets SET paused_at = ? WHERE name = ?", (now, budget))
        left_s = min(paused_at, now) + pause_s - now
        return left_s if left_s > _INSTANT_S else 0.0, "rate_limited" if is_rate_limited else "host_unavailable", True

    @staticmethod
    def _probe(database: sqlite3.Connection, budget: str, now: float) -> str | None:
        """The visit that is probing a budget, unless it died."""
        row = database.execute(
            "SELECT visit FROM budgets JOIN visits ON visit = probe WHERE name = ? AND abs(? - seen_at) <= ?",
            (budget, now, _LEASE_S),
        ).fetchone()
        return None if row is None else str(row[0])

    def _settle(
        self, database: sqlite3.Connection, budget: str, now: float, visit: str, outcome: Outcome,
        rules: Mapping[str, Any], retry_after_s: float | None,
    ) -> float:  # fmt: skip
        """Record what a host answered; returns the rest of its pause."""
        if outcome == "ok":
            database.execute(
                "UPDATE budgets SET troubles = 0, pauses = 0, pause_s = 0, probe = NULL "
                "WHERE name = ? AND paused_at + pause_s <= ?",
                (budget, now + _INSTANT_S),
            )
            return self._pause(database, budget, now)[0]
        database.execute("INSERT OR IGNORE INTO budgets (name, used_at) VALUES (?, ?)", (budget, now))
        left_s, state, is_on_trial = self._pause(database, budget, now)
        troubles, pauses, probe = database.execute(
            "SELECT troubles, pauses, probe FROM budgets WHERE name = ?", (budget,)
        ).fetchone()
        troubles += outcome == "trouble"
        asked_s = None if retry_after_s is None else min(max(retry_after_s, 0.0), _MAX_ASKED_S)
        if left_s > 0:
            # A request from before the pause: only the host's own wish makes it longer.
            pause_s = max(left_s, asked_s or 0.0)
        elif (
            outcome == "rate_limited"
            or troubles >= rules["failures_to_pause"]
            # A host that asked for its pause answered before it: the trouble may be the address's own.
            or (is_on_trial and probe == visit and state == "host_unavailable")
        ):
            pause_s = min(rules["pause_s"] * 2**pauses, rules["max_pause_s"])
            pause_s = (pause_s if asked_s is None else asked_s) * (1 + rules["jitter"] * random.random())
            troubles, pauses = 0, min(pauses + 1, _DOUBLINGS)
        else:
            database.execute("UPDATE budgets SET used_at = ?, troubles = ? WHERE name = ?", (now, troubles, budget))
            return 0.0
        database.execute(
            "UPDATE budgets SET used_at = ?1, troubles = ?2, pauses = ?3, paused_at = ?1, pause_s = ?4, "
            "is_rate_limited = ?5 WHERE name = ?6",
            (now, troubles, pauses, pause_s, outcome == "rate_limited", budget),
        )
        return pause_s

    @staticmethod
    def _count(
        database: sqlite3.Connection, run: str, lane: str, now: float, *, per_s: float,
        requests: int = 0, visits: int = 0, waited_s: float = 0.0,
    ) -> None:  # fmt: skip
        database.execute(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, lane) DO UPDATE SET "
            "used_at = excluded.used_at, requests = requests + excluded.requests, visits = visits + excluded.visits, "
            "waited_s = waited_s + excluded.waited_s, per_s = excluded.per_s",
            (run, lane, now, now, requests, visits, waited_s, per_s),
        )


def _state_of(delay_s: float, rules: Mapping[str, Any]) -> State:
    """The state of a budget that waits for its next request."""
    return "crawl_delay" if delay_s > rules["patience_s"] else "open"
