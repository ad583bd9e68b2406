"""A client of an OpenAI-compatible server (vLLM, llama.cpp, Ollama): one request, one JSON object back."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from vidal.errors import MachineError, ModelError

T = TypeVar("T")
R = TypeVar("R")

MAX_REPLY_BYTES = 1 << 20
MAX_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a server counted; none where it counts none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """The text that was asked for, and what it took."""

    text: str
    usage: Usage = NOTHING


class MalformedReply(Exception):
    """The server answered, but not with what the schema asks for; its tokens are spent all the same."""

    def __init__(self, why: str, usage: Usage = NOTHING) -> None:
        super().__init__(why)
        self.usage = usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatServer:
    """Where the server is and how patient to be; ``key_variable`` names the environment variable with its key.

    Only ``base_url`` is ever requested: pictures travel as data, and redirects are refused.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    tries: int = 5
    concurrency: int = 1
    """Requests under way at once, of one worker."""
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ModelError(f"server {self.base_url!r}: not an http(s) address such as http://localhost:8000/v1")

    def ask(self, messages: Sequence[Mapping[str, Any]], field: str, max_tokens: int) -> Reply:
        """The text of the one ``field`` of the reply; raises `MalformedReply` or `MachineError`."""
        request = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 0,
            "response_format": {"type": "json_schema", "json_schema": _schema(field)},
        }
        data = self._post("/chat/completions", request)
        usage = _usage_of(data)
        try:
            return Reply(_field_of(data, field), usage)
        except MalformedReply as error:
            raise MalformedReply(str(error), usage) from error

    def each(self, ask: Callable[[T], R], questions: Sequence[T]) -> list[R]:
        """What ``ask`` makes of each question, in their order, `concurrency` at once; the first error is raised."""
        if self.concurrency == 1 or len(questions) < 2:
            return [ask(question) for question in questions]
        with ThreadPoolExecutor(min(self.concurrency, len(questions)), "vidal-ask") as pool:
            return list(pool.map(ask, questions))

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        why, wait_s = "", 0.0
        for attempt in range(self.tries):
            if attempt:
                self.sleep(wait_s)
            wait_s = min(MAX_WAIT_S, 2.0**attempt)
            try:
                return self._send(path, body)
            except urllib.error.HTTPError as error:
                why, wait_s = f"HTTP {error.code}", max(wait_s, _asked_wait_s(error))
                if error.code not in (408, 429) and error.code < 500:
                    raise ModelError(f"server {self.base_url}, model {self.model}: {why} {_excerpt(error)}") from error
            except (OSError, HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
        raise MachineError(f"server {self.base_url}: no answer in {self.tries} tries ({why}); is it running?")

    def _send(self, path: str, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.base_url.rstrip("/") + path, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout_s) as reply:
            data: bytes = reply.read(MAX_REPLY_BYTES + 1)
        if len(data) > MAX_REPLY_BYTES:
            raise MalformedReply(f"more than {MAX_REPLY_BYTES} bytes")
        return data


def picture_part(jpeg: bytes) -> dict[str, Any]:
    """A picture as part of a message, carried in the request itself."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key and the clip's texts to an address that no recipe names."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _schema(field: str) -> dict[str, Any]:
    properties = {field: {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": [field], "additionalProperties": False}
    return {"name": "reply", "strict": True, "schema": schema}


def _field_of(data: bytes, field: str) -> str:
    # A server may not know response_format, so the schema is checked here, whatever it promised.
    try:
        reply = json.loads(json.loads(data)["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise MalformedReply(f"no JSON object: {type(error).__name__}") from error
    if not isinstance(reply, dict) or set(reply) != {field}:
        raise MalformedReply(f"not an object with {field} alone")
    value = reply[field]
    if not isinstance(value, str):
        raise MalformedReply(f"{field} is no text")
    return value


def _usage_of(data: bytes) -> Usage:
    """What the server says that the reply took; a server that says nothing, or nonsense, took nothing."""
    try:
        said = json.loads(data)["usage"]
        counts = [said["prompt_tokens"], said["completion_tokens"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return NOTHING
    return Usage(*counts) if all(type(n) is int and 0 <= n < 1 << 40 for n in counts) else NOTHING


def _asked_wait_s(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait for, bounded; its other form, a date, is taken as no wish."""
    value = error.headers.get("Retry-After", "")
    return min(MAX_WAIT_S, float(value)) if value.isdecimal() else 0.0


def _excerpt(error: urllib.error.HTTPError) -> str:
    return " ".join(error.read(300).decode("utf-8", "replace").split())
