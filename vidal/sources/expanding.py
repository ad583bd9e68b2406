"""Sources whose candidates have to be asked for: searches, channels, playlists, sound libraries.

A source is a list of questions. Each answer is kept under ``discovered/`` of the data set as soon as it is there, a
slice of questions a file, so that a killed run asks no question of a finished slice again; when all are answered the
plan is made of them, each clip once, under the first question that found it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.fetch.ask import Answer, Ask
from vidal.fetch.visitor import Visitor
from vidal.sources.source import Source, normalise

FOLDER = "discovered"
_SLICE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to ask a platform for; ``term`` is what its answers' ``search_term`` says."""

    term: str
    ask: Ask


class ExpandingSource(Source):
    """A source that goes out for its candidates when the plan is made."""

    def questions(self) -> Iterator[Question]:
        raise NotImplementedError

    def rows(self, question: Question, answer: Answer) -> Iterable[dict[str, Any]]:
        """The candidates of an answer, best first, each with ``url``."""
        raise NotImplementedError

    def expand(self, storage: Storage, visitor: Visitor) -> pa.Table:
        """Ask what has not been asked yet, and give the candidates. Raises `SourceError` where there is none."""
        found: dict[str, dict[str, Any]] = {}
        failed: list[str] = []
        for number, questions in enumerate(_sliced(self.questions())):
            for row in self._slice(storage, visitor, f"{FOLDER}/{number:06d}.jsonl", questions):
                if "failed" in row:
                    failed.append(f"{row['term']}: {row['failed']}")
                else:
                    found.setdefault(_identity(row), row)
        if not found:
            said = f"; the first of {len(failed)} failures: {failed[0]}" if failed else ""
            raise SourceError(f"{self.kind()}: no question found anything{said}")
        return normalise(pa.Table.from_pylist(list(found.values())), self.kind())

    @classmethod
    def kind(cls) -> str:
        return cls.__name__.removesuffix("Source").lower()

    def _slice(self, storage: Storage, visitor: Visitor, name: str, questions: list[Question]) -> list[dict[str, Any]]:
        if storage.exists(name):
            return [json.loads(line) for line in storage.read(name).splitlines()]
        rows: list[dict[str, Any]] = []
        for question, answer in zip(questions, visitor.visit_all([q.ask for q in questions]), strict=True):
            if not answer.ok:
                rows.append({"term": question.term, "failed": f"{answer.reason} ({answer.detail})"})
                continue
            rows += [{"search_term": question.term, **row} for row in self.rows(question, answer)]
        storage.write(name, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        return rows


def _identity(row: dict[str, Any]) -> str:
    platform_id = row.get("platform_id")
    return f"{row.get('platform')} {platform_id}" if platform_id else str(row["url"])


def _sliced(questions: Iterator[Question]) -> Iterator[list[Question]]:
    part: list[Question] = []
    for question in questions:
        part.append(question)
        if len(part) == _SLICE:
            yield part
            part = []
    if part:
        yield part
