"""A client of an OpenAI-compatible server (vLLM, llama.cpp, Ollama): one request, one JSON object back."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from vidal.errors import ClipError, MachineError, ModelError

T = TypeVar("T")
R = TypeVar("R")

MAX_REPLY_BYTES = 1 << 20
MAX_WAIT_S = 60.0

_NOT_FOR_US = (401, 403, 404)
"""Answers that no other request would change: a wrong key, address or model name."""
_NOT_NOW = (408, 425, 429, 502, 503, 504)
_FENCED = re.compile(r"```\w*\s*(\{.*\})\s*```", re.DOTALL)
_RETRY_TEMPERATURE = 0.7


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


class MalformedReplyError(ClipError):
    """The server answered, but not with what the schema asks for; its tokens are spent all the same."""

    def __init__(self, why: str, usage: Usage = NOTHING) -> None:
        super().__init__("malformed_reply", why)
        self.usage = usage


@dataclass(slots=True)
class _Health:
    """What became of all requests to a server: tells one that is down from one that cannot do a single request."""

    answers: int = 0
    refused_since: int = 0
    """Requests given up since the last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatServer:
    """Where the server is and how patient to be; ``key_variable`` names the environment variable with its key.

    Only ``base_url`` is ever requested: pictures travel as data, and redirects are refused. A server that is busy is
    asked again for as long as it answers anybody; a request that it alone cannot do is its clip's failure, and a
    server that answers nobody is the run's.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    tries: int = 5
    """Times that a request is sent without any answer in between, to it or to another."""
    most_tries: int = 20
    """Times that a request is sent at all."""
    reply_tries: int = 3
    """Replies that are asked for until one has the form that was asked for."""
    most_refused: int = 5
    """Requests in a row that may come to nothing."""
    concurrency: int = 1
    """Requests under way at once, of one worker."""
    sleep: Callable[[float], None] = time.sleep
    _health: _Health = field(default_factory=_Health, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ModelError(f"server {self.base_url!r}: not an http(s) address such as http://localhost:8000/v1")

    def ask(self, messages: Sequence[Mapping[str, Any]], name: str, max_tokens: int) -> Reply:
        """The text of the one field ``name`` of the reply.

        Raises `MalformedReplyError`, another `ClipError` or `MachineError`.
        """
        request = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "response_format": {"type": "json_schema", "json_schema": _schema(name)},
        }
        usage, why = NOTHING, ""
        for attempt in range(self.reply_tries):
            # The same request would be answered with the same words.
            draw = {"temperature": _RETRY_TEMPERATURE if attempt else 0, "seed": attempt}
            try:
                data = self._post("/chat/completions", {**request, **draw})
                usage += _usage_of(data)
                return Reply(_field_of(data, name), usage)
            except MalformedReplyError as error:
                why = error.detail
        raise MalformedReplyError(f"{why}, {self.reply_tries} times", usage)

    def each(self, ask: Callable[[T], R], questions: Sequence[T]) -> list[R]:
        """What ``ask`` makes of each question, in their order, `concurrency` at once; the first error is raised."""
        if self.concurrency == 1 or len(questions) < 2:
            return [ask(question) for question in questions]
        with ThreadPoolExecutor(min(self.concurrency, len(questions)), "vidal-ask") as pool:
            return list(pool.map(ask, questions))

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        seen, unanswered = self._health.answers, 0
        for attempt in itertools.count(1):
            asked_s = 0.0
            try:
                data = self._send(path, body)
            except urllib.error.HTTPError as error:
                why, asked_s = f"HTTP {error.code}", _asked_wait_s(error)
                if error.code < 500 and error.code not in _NOT_NOW:
                    raise self._refused(f"{why} {_excerpt(error)}", for_good=error.code in _NOT_FOR_US) from error
                if error.code not in _NOT_NOW and attempt == self.tries and self._health.answers:
                    raise self._refused(f"{why} in {attempt} tries", for_good=False) from error
            except (OSError, HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                self._health.answers, self._health.refused_since = self._health.answers + 1, 0
                return data
            unanswered = unanswered + 1 if seen == self._health.answers else 1
            seen = self._health.answers
            if unanswered >= self.tries:
                break
            if attempt >= self.most_tries:
                raise self._refused(f"{why} in {attempt} tries", for_good=False)
            self.sleep(max(asked_s, min(MAX_WAIT_S, 2.0 ** (unanswered - 1))))
        raise MachineError(f"server {self.base_url}: no answer in {unanswered} tries ({why}); is it running?")

    def _refused(self, why: str, *, for_good: bool) -> ModelError | ClipError:
        """The error of a request that came to nothing: the clip's while others are answered, else the run's."""
        self._health.refused_since += 1
        if for_good or not self._health.answers or self._health.refused_since > self.most_refused:
            return ModelError(f"server {self.base_url}, model {self.model}: {why}")
        return ClipError("server_refused", why, transient=True)

    def _send(self, path: str, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.base_url.rstrip("/") + path, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout_s) as reply:
            data: bytes = reply.read(MAX_REPLY_BYTES + 1)
        if len(data) > MAX_REPLY_BYTES:
            raise MalformedReplyError(f"more than {MAX_REPLY_BYTES} bytes")
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


def _schema(name: str) -> dict[str, Any]:
    properties = {name: {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": [name], "additionalProperties": False}
    return {"name": "reply", "strict": True, "schema": schema}


def _field_of(data: bytes, name: str) -> str:
    # A server may not know response_format, so the schema is checked here, whatever it promised.
    try:
        reply = json.loads(_bare(json.loads(data)["choices"][0]["message"]["content"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedReplyError(f"no JSON object: {type(error).__name__}") from error
    if not isinstance(reply, dict) or set(reply) != {name}:
        raise MalformedReplyError(f"not an object with {name} alone")
    value = reply[name]
    if not isinstance(value, str):
        raise MalformedReplyError(f"{name} is no text")
    return value


def _bare(content: str) -> str:
    """The object without what models put around one: thoughts before it, a code fence about it."""
    text = content.strip()
    if not text.startswith("{"):
        # Some servers cut off the opening tag.
        before, is_thought, after = text.partition("</think>")
        text = after if is_thought else before
        fenced = _FENCED.search(text)
        text = fenced[1] if fenced else text
    return text


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
