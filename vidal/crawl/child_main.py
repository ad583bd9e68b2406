"""The fetching child: asks come as JSON lines on stdin, one answer goes out for each, and nothing else does.

It is started by `vidal.crawl.child`, in an environment without the user's; it dies with its parent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO
from urllib.parse import quote

from vidal.crawl import guard
from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.http import Client, cookie_values, reason_of
from vidal.crawl.reasons import DISK, FetchError
from vidal.process import die_with

_SECRET_CHARACTERS = 4


def main() -> None:
    """``child_main PARENT_PID HOME ROBOTS``; the parent has set the limits."""
    parent_pid, home, robots_folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    die_with(parent_pid)
    sys.dont_write_bytecode = True
    asks, answers = _take_channels()
    guard.install()
    client = Client(robots_folder=Path(robots_folder) if robots_folder else None)
    folders = tuple(folder for folder in (home, robots_folder) if folder)
    answers.write(b"{}\n")
    while (line := asks.get()) is not None:
        client.requests.clear()
        answer = _answer(line, client, folders)
        answers.write(replace(answer, requests=client.requests[host_of(Ask.from_line(line).url)]).to_line())


def _take_channels() -> tuple[SimpleQueue[bytes | None], IO[bytes]]:
    """Keep stdin and stdout for ourselves, so that no library's print gets among the answers.

    A thread waits for the end of stdin, which is the parent's: also in the middle of a download.
    """
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    asks: SimpleQueue[bytes | None] = SimpleQueue()

    def read() -> None:
        for line in reader:
            asks.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return asks, writer


def _answer(line: bytes, client: Client, folders: tuple[str, ...]) -> Answer:
    """One answer for each ask, whatever happens; what was refused on the way is the cause of the failure."""
    ask = Ask.from_line(line)
    try:
        guard.set_rules(ask.settings.rules(), (*folders, *([ask.folder] if ask.folder else [])))
        return _do(ask, client)
    except BaseException as error:
        client_error = reason_of(error)
        if isinstance(error, guard.RefusedError):
            client_error = FetchError("ssrf", next(iter(guard.refusals()), error.detail))
        elif guard.refusals() and client_error.reason != DISK:
            client_error = FetchError("ssrf", guard.refusals()[0])
        return Answer.failed(
            client_error.reason, _without_secrets(client_error.detail, ask), status=client_error.status,
            retry_after_s=client_error.retry_after_s,
        )  # fmt: skip


def _do(ask: Ask, client: Client) -> Answer:
    if ask.op == "direct":
        return client.direct(ask)
    if ask.op == "get_json":
        return client.get_json(ask)
    if ask.op == "robots":
        return client.ask_robots(ask)
    # yt-dlp takes half a second to import, which a crawl of files need not pay.
    from vidal.crawl import platform

    return platform.which(ask) if ask.op == "which" else platform.Platform(ask, client).answer()


def _without_secrets(text: str, ask: Ask) -> str:
    secrets = list(ask.secrets())
    with contextlib.suppress(Exception):
        secrets += cookie_values(ask.settings.cookies)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_CHARACTERS:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return text
