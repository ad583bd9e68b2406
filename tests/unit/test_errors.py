"""One exception tree: all of it derives from `VidalError`, and the text of `vidal.errors` shows all of it."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import vidal
from vidal import errors
from vidal.crawl.guard import RefusedError
from vidal.crawl.reasons import FetchError
from vidal.errors import ClipError
from vidal.models.openai_server import MalformedReplyError
from vidal.reader.ranges import BrokenSampleError

PACKAGE = Path(vidal.__file__).parent
SHOWN = re.compile(r"^[│ ]*[├└]── (\w+)|^(Vidal\w+)", re.MULTILINE)
IS_EXCEPTION = re.compile(r"(Error|Exception|Warning|Interrupt|Exit)$")


def parents() -> dict[str, list[str]]:
    """The names of the bases of every class of vidal, by its name; nothing is imported, as that takes a minute."""
    nodes = (node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    return {
        node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }


def ancestors(name: str, bases: Mapping[str, list[str]]) -> set[str]:
    return {name}.union(*(ancestors(base, bases) for base in bases.get(name, []) if base != name))


def test_every_exception_of_vidal_is_in_the_tree_that_the_module_shows() -> None:
    bases = parents()
    lines = {name: ancestors(name, bases) for name in bases}
    kinds = {name for name, line in lines.items() if any(IS_EXCEPTION.search(one) for one in line)}
    assert {name for name in kinds if not lines[name] & {"VidalError", "VidalWarning"}} == set()
    assert {name for name in kinds if not name.endswith(("Error", "Warning"))} == set()
    shown = [match[1] or match[2] for match in SHOWN.finditer(errors.__doc__ or "")]
    assert sorted(shown) == sorted(kinds)


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
