"""The fetching child: reads asks as JSON lines from stdin and writes one answer for each, and nothing else, to stdout.

It is started by `vidal.crawl.child`, with none of the user's environment, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import IO
from urllib.parse import quote

from vidal.crawl import guard
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.cookies import cookie_values
from vidal.crawl.http import Client
from vidal.crawl.reasons import DISK, FetchError
from vidal.crawl.response import reason_of
from vidal.process import die_with

_SECRET_CHARACTERS = 4
_ADMISSIONS = 4
"""Of a request whose admissions come too late, the last one counts, as on a machine that is always late none would."""


def main() -> None:
    """Serve asks until stdin ends; the arguments are the parent's pid, the home and robots folders."""
    parent_pid, home, robots_folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    die_with(parent_pid)
    # A .pyc file lies outside the clip's folder: the guard would refuse it, and the clip would fail for that.
    sys.dont_write_bytecode = True
    asks, answers = _take_channels()
    guard.install()

    is_probe = False

    def admit(host: str, kind: str) -> float:
        nonlocal is_probe
        waited_s = 0.0
        for attempt in range(_ADMISSIONS):
            answers.write(json.dumps({"admit": host, "kind": kind, "is_again": attempt > 0}).encode() + b"\n")
            go = json.loads(asks.readline())
            if "reason" in go:
                raise FetchError(go["reason"], go["detail"])
            waited_s += float(go["waited_s"])
            is_probe = bool(go["is_probe"])
            if time.monotonic() < go["send_by"]:
                break
        return waited_s

    def answered(status: int) -> None:
        if is_probe:
            answers.write(json.dumps({"answered": status}).encode() + b"\n")

    def delay(origin: str, delay_s: float) -> None:
        answers.write(json.dumps({"origin": origin, "delay_s": delay_s}).encode() + b"\n")

    client = Client(
        robots_folder=Path(robots_folder) if robots_folder else None, admit=admit, answered=answered, delay=delay
    )
    folders = tuple(folder for folder in (home, robots_folder) if folder)
    answers.write(b"{}\n")
    for line in iter(asks.readline, b""):
        answers.write(_answer(line, client, folders).to_line())


def _take_channels() -> tuple[IO[bytes], IO[bytes]]:
    """Move stdin and stdout to private descriptors, so that no library's print ends up among the answers."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return reader, writer


def _answer(line: bytes, client: Client, folders: tuple[str, ...]) -> Answer:
    """The answer to one ask, whatever happens; where the guard refused something, that is the reason of the failure."""
    ask = Ask.from_line(line)
    try:
        guard.set_rules(ask.settings.rules(), (*folders, *([ask.folder] if ask.folder else [])))
        return _run(ask, client)
    except BaseException as error:
        failure = reason_of(error)
        if isinstance(error, guard.RefusedError):
            failure = FetchError("ssrf", next(iter(guard.refusals()), error.detail))
        # Libraries catch a refusal, or wrap it: whatever they made of it, it is why the clip fails.
        elif guard.refusals() and failure.reason != DISK:
            failure = FetchError("ssrf", guard.refusals()[0])
        return Answer.failed(
            failure.reason, _without_secrets(failure.detail, ask), status=failure.status,
            retry_after_s=failure.retry_after_s,
        )  # fmt: skip


def _run(ask: Ask, client: Client) -> Answer:
    if ask.op == "direct":
        return client.direct(ask)
    if ask.op == "get_json":
        return client.get_json(ask)
    if ask.op == "robots":
        return client.ask_robots(ask)
    # Importing yt-dlp takes half a second, which a crawl of files can spare.
    from vidal.crawl import platform

    return platform.which(ask) if ask.op == "which" else platform.Platform(ask, client).answer()


def _without_secrets(text: str, ask: Ask) -> str:
    secrets = list(ask.secrets())
    with contextlib.suppress(Exception):
        secrets += cookie_values(ask.settings.cookies)
    # The longest first: of a secret with another one in it, the rest would stay.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_CHARACTERS:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return text
