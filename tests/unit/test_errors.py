"""One exception tree: all of it derives from `VidalError`, and the text of `vidal.errors` shows all of it."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import vidal
from vidal import errors
from vidal.crawl.guard import RefusedError
from vidal.crawl.reasons import FetchError
from vidal.errors import ClipError, VidalError, VidalWarning
from vidal.models.openai_server import MalformedReplyError
from vidal.reader.ranges import BrokenSampleError

IS_RUN_ALONE = ("vidal.__main__",)
SHOWN = re.compile(r"^[│ ]*[├└]── (\w+)|^(Vidal\w+)", re.MULTILINE)


def exceptions() -> Iterator[type[BaseException]]:
    """Every exception class that a module of vidal defines, nested classes included."""
    for module in pkgutil.walk_packages(vidal.__path__, "vidal."):
        if module.name not in IS_RUN_ALONE:
            rest = list(vars(importlib.import_module(module.name)).values())
            while rest:
                one = rest.pop()
                if inspect.isclass(one) and one.__module__ == module.name:
                    rest += [value for name, value in vars(one).items() if not name.startswith("__")]
                    if issubclass(one, BaseException):
                        yield one


FOUND = sorted(set(exceptions()), key=lambda kind: (kind.__module__, kind.__name__))


@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__qualname__)
def test_every_exception_of_vidal_is_in_the_tree(kind: type[BaseException]) -> None:
    assert issubclass(kind, VidalError | VidalWarning)
    assert kind.__name__.endswith(("Error", "Warning"))


def test_the_text_of_the_module_shows_every_exception() -> None:
    shown = [match[1] or match[2] for match in SHOWN.finditer(errors.__doc__ or "")]
    assert sorted(shown) == sorted(kind.__name__ for kind in FOUND)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ClipError("timeout", "no end", transient=True), "timeout: no end"),
        (FetchError("timeout", "no end", status=504), "timeout: no end"),
        (RefusedError("10.0.0.1 is not a public address"), "ssrf: 10.0.0.1 is not a public address"),
        (MalformedReplyError("no JSON object"), "malformed_reply: no JSON object"),
        (BrokenSampleError("ab", "depth", "gone"), "broken_sample: ab: depth: gone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_clips_error_crosses_processes_as_the_row_that_it_becomes(error: ClipError, text: str) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, ClipError)
    assert (arrived.reason, arrived.detail, arrived.transient) == (error.reason, error.detail, error.transient)
    assert str(arrived) == str(error) == text
