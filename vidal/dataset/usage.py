"""What the runs of a dataset have used, such as requests to each host: a small JSON file a run, of ``usage/``.

    usage/20261126T120824Z-1f2e3d4c-fetch.json     {"youtube": {"requests": 412, "first_at": …, "per_s": 0.17, …}}

It says what happened, not what the dataset is: no byte of the tars, the plan or the manifests depends on it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeAlias

from vidal.dataset import revisions
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import SourceError, VidalError

FOLDER = "usage"
_WITHIN = ("", f"/{revisions.GROWN}")
"""Folders of a revision's runs: `vidal add` writes the revision itself, `vidal grow` a dataset within."""
_WRITE_EVERY_S = 10.0

Counts: TypeAlias = dict[str, dict[str, float]]
"""Numbers by name, of each thing that is used."""


def as_json(counts: Counts) -> bytes:
    """Return the content of the file of a run."""
    return json.dumps(counts, ensure_ascii=False, sort_keys=True).encode() + b"\n"


@contextlib.contextmanager
def recorded(storage: Storage, what: str, counts: Callable[[], Counts]) -> Iterator[None]:
    """Write the counts every 10 s and at the end; ``what`` ends the file's name. Nothing is written while empty.

    A run that is killed leaves what was written last. Raises `VidalError` if the last counts cannot be written.
    """
    name = f"{FOLDER}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}-{what}.json"
    written: Counts = {}
    stop = threading.Event()

    def write() -> None:
        nonlocal written
        if (now := counts()) != written:
            storage.write(name, as_json(now))
            written = now

    def keep_writing() -> None:
        while not stop.wait(_WRITE_EVERY_S):
            # What lasts ends the run by itself, or fails at the last write.
            with contextlib.suppress(VidalError):
                write()

    thread = threading.Thread(target=keep_writing, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        thread.join()
        # The error that ends the run is the one to show; whoever counts may have died of it, too.
        with contextlib.suppress(Exception):
            write()
        raise
    stop.set()
    # Before the last write, as two at once might leave the older counts.
    thread.join()
    write()


def storages_of_runs(dataset: Dataset) -> list[Storage]:
    """Return the folders that the runs which led to the revision were given to write."""
    folders = [revisions.folder_of(n) for n in revisions.numbers(dataset.storage) if n <= dataset.number]
    return [dataset.storage, *(dataset.storage.child(f"{f}{within}") for f in folders for within in _WITHIN)]


def read(dataset: Dataset) -> Iterator[Counts]:
    """Yield the counts of the runs that led to the revision, those of a folder in order; raises `SourceError`."""
    for storage in storages_of_runs(dataset):
        for name in storage.names(FOLDER):
            try:
                yield json.loads(storage.read(f"{FOLDER}/{name}"))
            except ValueError:
                raise SourceError(
                    f"{storage.address}/{FOLDER}/{name}: not JSON; delete it, it is a record only"
                ) from None
