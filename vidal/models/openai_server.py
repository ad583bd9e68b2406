"""A client for OpenAI-compatible servers (vLLM, llama.cpp, Ollama) that asks for one JSON object per request."""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
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

from vidal.errors import ClipError, MachineError, ModelError, RecipeError

T = TypeVar("T")
R = TypeVar("R")

# A server is not trusted with the memory of the worker.
MAX_REPLY_BYTES = 1 << 20
MAX_WAIT_S = 60.0
_IS_UP_TIMEOUT_S = 5.0

_PERMANENT = (401, 403, 404)
"""Statuses that every request would get: a wrong key, address or model name."""
# What a server, or the gateway before it, says while it is overloaded or starting.
_BUSY = (408, 425, 429, 502, 503, 504)
_FENCED = re.compile(r"```\w*\s*(\{.*\})\s*```", re.DOTALL)
_LAST_OBJECT = re.compile(r"\{[^{}]*\}\s*$")
_RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server reports them; 0 where it reports none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """The requested text, and the tokens spent on it."""

    text: str
    usage: Usage = NOTHING


class MalformedReplyError(ClipError):
    """The server's reply does not conform to the schema; ``usage`` holds the tokens spent all the same."""

    def __init__(self, why: str, usage: Usage = NOTHING) -> None:
        super().__init__("malformed_reply", why)
        self.usage = usage


@dataclass(slots=True)
class _Health:
    """Outcomes of all requests to a server; they tell a server that is down from one that fails a single request."""

    answers: int = 0
    refused_since: int = 0
    """Requests given up since the last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatServer:
    """A server, its model and the retry policy; ``key_variable`` names the environment variable with the API key.

    Only ``base_url`` is ever requested: images are sent inline, and redirects are refused. A request to a busy server
    is retried for as long as the server answers any request. A request that only itself fails is that clip's failure;
    a server that answers nothing stops the run.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    tries: int = 5
    """Attempts of a request before the server counts as wrongly addressed or broken."""
    busy_tries: int = 10
    """Attempts, some four minutes, before one that has answered or says that it is busy counts as down."""
    most_tries: int = 20
    """Attempts of a request in all."""
    reply_tries: int = 3
    """Replies requested until one conforms to the schema."""
    most_refused: int = 5
    """Requests in a row that may be given up before the run stops."""
    concurrency: int = 1
    """Concurrent requests of one worker."""
    sleep: Callable[[float], None] = time.sleep
    _health: _Health = field(default_factory=_Health, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_address(self.base_url, "server")

    def ask(self, messages: Sequence[Mapping[str, Any]], name: str, max_tokens: int) -> Reply:
        """Request a JSON object whose only field is ``name`` and return that field's text.

        Raises `MalformedReplyError`, a transient `ClipError` where only this request fails, or `MachineError`.
        """
        schema = {
            "type": "object",
            "properties": {name: {"type": "string"}},
            "required": [name],
            "additionalProperties": False,
        }
        json_schema = {"name": "reply", "strict": True, "schema": schema}
        request = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "response_format": {"type": "json_schema", "json_schema": json_schema},
        }
        usage, why = NOTHING, ""
        for attempt in range(self.reply_tries):
            # At the same temperature and seed the reply would be the same.
            sampling = {"temperature": _RETRY_TEMPERATURE if attempt else 0, "seed": attempt}
            try:
                data = self._post("/chat/completions", {**request, **sampling})
                usage += _usage_of(data)
                return Reply(_field_of(data, name), usage)
            except MalformedReplyError as error:
                why = error.detail
        raise MalformedReplyError(f"{why}, {self.reply_tries} times", usage)

    def each(self, ask: Callable[[T], R], questions: Sequence[T]) -> list[R]:
        """Map ``ask`` over the questions, `concurrency` at a time, in their order; raises the first error."""
        if self.concurrency == 1 or len(questions) < 2:
            return [ask(question) for question in questions]
        with ThreadPoolExecutor(min(self.concurrency, len(questions)), "vidal-ask") as pool:
            return list(pool.map(ask, questions))

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        seen, unanswered = self._health.answers, 0
        for attempt in itertools.count(1):
            retry_after_s, is_busy = 0.0, False
            try:
                data = self._send(path, body)
            except urllib.error.HTTPError as error:
                why, retry_after = f"HTTP {error.code}", error.headers.get("Retry-After", "")
                # Its other form, a date, is ignored.
                retry_after_s = min(MAX_WAIT_S, float(retry_after)) if retry_after.isdecimal() else 0.0
                if error.code < 500 and error.code not in _BUSY:
                    excerpt = " ".join(error.read(300).decode("utf-8", "replace").split())
                    raise self._refused(f"{why} {excerpt}", for_good=error.code in _PERMANENT) from error
                is_busy = error.code in _BUSY
                # An error that repeats while other requests are answered is this request's own.
                if not is_busy and attempt == self.tries and self._health.answers:
                    raise self._refused(f"{why} in {attempt} tries", for_good=False) from error
            # HTTPException is no OSError: a reply that breaks off, or that is no HTTP.
            except (OSError, HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                self._health.answers, self._health.refused_since = self._health.answers + 1, 0
                return data
            # Tries since the server last answered anyone: so many in all would stop the run at one that is only busy.
            unanswered = unanswered + 1 if seen == self._health.answers else 1
            seen = self._health.answers
            # A server may load a model or be started anew for minutes; an address that never answered is a wrong one.
            if unanswered >= (self.busy_tries if is_busy or self._health.answers else self.tries):
                break
            if attempt >= self.most_tries:
                raise self._refused(f"{why} in {attempt} tries", for_good=False)
            backoff_s = min(MAX_WAIT_S, 2.0 ** (unanswered - 1))
            # Jitter, so that requests that were turned away together do not come back together.
            self.sleep(max(retry_after_s, backoff_s) + random.uniform(0, backoff_s / 2))
        raise MachineError(f"server {self.base_url}: no answer in {unanswered} tries ({why}); is it running?")

    def _refused(self, why: str, *, for_good: bool) -> ModelError | ClipError:
        """Return the error of a request that is given up: the clip's while others are answered, else the run's."""
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


def check_address(base_url: str, place: str) -> None:
    """Raise `RecipeError`, which names the ``place`` of the setting, unless it is an address of HTTP."""
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise RecipeError(f"{place}: {base_url!r} is no address such as http://localhost:8000/v1")


def check_is_up(base_url: str) -> None:
    """Raise `ModelError` unless a server answers within seconds; any answer is one, such as that a key is missing."""
    try:
        urllib.request.build_opener(_NoRedirect).open(
            base_url.rstrip("/") + "/models", timeout=_IS_UP_TIMEOUT_S
        ).close()
    except urllib.error.HTTPError:
        return
    except (OSError, HTTPException, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError(f"server {base_url}: no answer in {_IS_UP_TIMEOUT_S:g} s ({why}); is it running?") from error


def image_part(jpeg: bytes) -> dict[str, Any]:
    """Return the part of a chat message that carries a JPEG inline, as a data URI."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would send the key and the clip's texts to an address that no recipe names."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _field_of(data: bytes, name: str) -> str:
    """Return the one field of the reply's JSON object; servers that ignore response_format make the check needed."""
    cut_off = ""
    try:
        choice = json.loads(data)["choices"][0]
        cut_off = " (cut off by max_new_tokens)" if choice.get("finish_reason") == "length" else ""
        text = choice["message"]["content"].strip()
        if not text.startswith("{"):
            # Reasoning models think aloud before the object, and some servers cut off the opening <think> tag.
            before, is_thought, after = text.partition("</think>")
            text = after if is_thought else before
            if fenced := _FENCED.search(text):
                text = fenced[1]
            # A thought that is never closed, or a sentence, before the object that ends the reply.
            elif last := _LAST_OBJECT.search(text):
                text = last[0]
        reply = json.loads(text)
    # RecursionError: a reply of brackets nested a thousand deep.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedReplyError(f"no JSON object: {type(error).__name__}{cut_off}") from error
    if not isinstance(reply, dict) or set(reply) != {name}:
        raise MalformedReplyError(f"not an object with the single field {name}")
    value = reply[name]
    if not isinstance(value, str):
        raise MalformedReplyError(f"{name} is not text")
    return value


def _usage_of(data: bytes) -> Usage:
    """Return the reply's token counts, `NOTHING` where they are missing or implausible."""
    try:
        usage = json.loads(data)["usage"]
        counts = [usage["prompt_tokens"], usage["completion_tokens"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return NOTHING
    # Not isinstance, to which true and false are integers.
    return Usage(*counts) if all(type(n) is int and 0 <= n < 1 << 40 for n in counts) else NOTHING
