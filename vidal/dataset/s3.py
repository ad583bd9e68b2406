"""How S3 is read through s3fs: a first retry at once, and a range that goes on where its connection broke."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any

import fsspec
import fsspec.config

_TRIES = 5
"""Of a range whose connection breaks and breaks again without a further byte."""
_CONNECTIONS = 32
"""As many requests at once as a process has; botocore's default of 10 would let others wait."""
_PIECE_BYTES = 1 << 20
_SOON_S = 0.05
_PASSING = (429, 500, 502, 503, 504)


def is_address(address: str) -> bool:
    """Return whether an address is one of S3."""
    return address.startswith(("s3://", "s3a://"))


def options() -> dict[str, Any]:
    """Return what s3fs is opened with, beside the user's configuration of fsspec; raises `ImportError` without it."""
    # The error of a plain install is then of s3fs, not of what it brings.
    fsspec.get_filesystem_class("s3")
    configured = {**fsspec.config.conf.get("s3", {}), **fsspec.config.conf.get("s3a", {})}
    return {} if "session" in configured else {"session": _session(os.getpid(), configured.get("profile"))}


@functools.cache
def _session(pid: int, profile: str | None) -> Any:
    """The session of a process: s3fs knows file systems with the same one as the same."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    session = AioSession(profile=profile)
    session.set_default_client_config(AioConfig(max_pool_connections=_CONNECTIONS))
    session.register("needs-retry.s3", _soon)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@functools.cache
def _loader(data_path: str | None) -> Any:
    """The descriptions of services, which take two thirds of a client's time to start; forks have those that are read.

    What else a session holds, such as credentials with locks of an event loop, a fork must not share.
    """
    from botocore.loaders import create_loader

    return create_loader(data_path)


def _soon(attempts: int, response: Any, caught_exception: BaseException | None, **_: object) -> float | None:
    """Return the seconds to wait before the first retry; botocore would wait up to 1, and decides on all others."""
    from botocore.exceptions import HTTPClientError

    if attempts > 1:
        return None
    status = response[0].status_code if response else 0
    return _SOON_S if status in _PASSING or isinstance(caught_exception, HTTPClientError) else None


async def read_range(fs: Any, path: str, start: int, stop: int) -> bytes:
    """Return bytes of an object; each try after the first asks for what is still to come."""
    from s3fs.core import S3_RETRYABLE_ERRORS

    bucket, key, _ = fs.split_path(path)
    # Joined once at the end: a buffer that grows costs forty times the time.
    pieces: list[bytes] = []
    had, token, broken = 0, None, 0
    while True:
        asked = f"bytes={start + had}-{stop - 1}"
        # It tries again itself until there is an answer.
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=asked, **fs.req_kw)
        if token not in (None, answer["ETag"]):
            # Another object by now, whose bytes do not continue those of the earlier one.
            answer["Body"].close()
            pieces, had, token = [], 0, None
            continue
        token = answer["ETag"]
        before = had
        try:
            async with answer["Body"] as body:
                while piece := await body.read(_PIECE_BYTES):
                    pieces.append(piece)
                    had += len(piece)
            return b"".join(pieces)
        except S3_RETRYABLE_ERRORS:
            broken = 1 if had > before else broken + 1
            if broken == _TRIES:
                raise
            await asyncio.sleep(_SOON_S * 2**broken)
