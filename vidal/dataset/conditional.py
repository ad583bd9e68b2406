"""Conditional puts and deletes of S3, below s3fs: it knows ``If-None-Match``, but not ``If-Match``.

A token is the object's ETag. The server compares and swaps; a request that meets another one under way (409) is sent
again, and one whose condition fails (404, 412) has lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")
_CONFLICT, _LOST = 409, (404, 412)
_MOST_TRIES = 5


def is_s3(fs: Any) -> bool:
    """Return whether a file system of fsspec is s3fs, which speaks to any server with S3's interface."""
    return "s3" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def token(fs: Any, path: str) -> str:
    """Return the token of an object; raises `FileNotFoundError`."""
    return str(fs.call_s3("head_object", **_place(fs, path))["ETag"])


def put(fs: Any, path: str, data: bytes, expected: str | None) -> str | None:
    """Put an object if its token is the ``expected`` one, or if there is none; return its new token.

    Returns None if the condition does not hold.
    """
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
    answer = _conditional(lambda: fs.call_s3("put_object", **_place(fs, path), Body=data, **condition))
    fs.invalidate_cache(path)
    if answer is not None:
        return str(answer["ETag"])
    try:
        # A put whose answer was lost on the way is sent again by the client, and refused because it had succeeded.
        return token(fs, path) if fs.cat_file(path) == data else None
    except FileNotFoundError:
        return None


def put_file(fs: Any, local: Path, path: str) -> bool:
    """Upload a file of any size if there is no such object; return whether it was uploaded."""

    def upload() -> bool:
        try:
            fs.put_file(str(local), path, mode="create")
        except FileExistsError:
            return False
        return True

    return bool(_conditional(upload))


def delete(fs: Any, path: str, expected: str) -> bool:
    """Delete an object if its token is the ``expected`` one; return whether it was deleted."""
    answer = _conditional(lambda: fs.call_s3("delete_object", **_place(fs, path), IfMatch=expected))
    fs.invalidate_cache(path)
    return answer is not None


def _place(fs: Any, path: str) -> dict[str, str]:
    bucket, key, _ = fs.split_path(path)
    return {"Bucket": bucket, "Key": key}


def _conditional(request: Callable[[], _Answer]) -> _Answer | None:
    """Return the answer to a request; None if its condition failed."""
    for last in (number == _MOST_TRIES for number in range(1, _MOST_TRIES + 1)):
        try:
            return request()
        except OSError as error:
            response = getattr(error.__cause__, "response", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            is_there = response.get("Error", {}).get("Code") != "NoSuchBucket"
            if status in _LOST and is_there:
                return None
            if status != _CONFLICT or last:
                raise
    raise AssertionError("unreachable")
