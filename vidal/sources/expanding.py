"""Sources that query a platform for their candidates: searches, channels, playlists, sound libraries.

A source is a list of queries (questions). Answers are stored under ``discovered/`` of the dataset, a file per slice of
questions: a resumed run repeats only unanswered ones and transient failures. Once all are answered, the plan is made of
them, with each clip once, under the first question that found it.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from vidal.addresses import WEB_SCHEMES
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.settings import WebSettings
from vidal.crawl.visitor import Visitor
from vidal.dataset import usage
from vidal.dataset.plan import DISCOVERED, as_answers, id_of
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.errors import ClipError, MachineError, RecipeError, SourceError
from vidal.listing import listing_of
from vidal.rows import TableLike
from vidal.sources.normalise import normalise
from vidal.sources.source import Source
from vidal.stage import Direct, Stage

_SLICE = 50

Record = dict[str, Any]
"""The outcome of one question: ``asked``, ``term``, and ``rows``, or ``failed`` and ``is_transient``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query to a platform; ``term`` becomes the ``search_term`` of its results."""

    term: str
    ask: Ask


class ExpandingSource(Source):
    """A source that queries a platform when the plan is made."""

    asks: ClassVar[bool] = True

    def questions(self) -> Iterator[Question]:
        """Yield the questions to the platform; raises `SourceError` where they cannot be asked, as without a key."""
        raise NotImplementedError

    def rows(self, question: Question, answer: Answer) -> Iterable[dict[str, Any]]:
        """Return the candidates of an answer, best first, each with ``url``; raises `ClipError` for one without any."""
        raise NotImplementedError

    skip_failed: bool = False
    """Make the plan without the questions that failed transiently; by default the next run retries them."""

    def discover(self, storage: Storage, stages: Sequence[Stage], removals: Removals) -> TableLike:
        """Ask as the first of the stages does that visits the web; raises `RecipeError` where none does."""
        for stage in stages:
            if isinstance(stage, WebSettings):
                governor, run = Direct(stage.shared()), secrets.token_hex(8)
                visitor = Visitor(stage, governor, run)
                try:
                    with usage.recorded(storage, self.kind(), partial(governor.call, "counts", run)):
                        return self.expand(storage, visitor, removals)
                finally:
                    visitor.close()
        raise RecipeError(f"source {self.kind()} needs the stage `fetch`, whose settings say how the web is visited")

    def expand(self, storage: Storage, visitor: Visitor, removals: Removals) -> TableLike:
        """Ask the unanswered questions and return the candidates, but for those on the list of removals.

        Raises `SourceError` if there is none, and `MachineError` for a transient failure: a plan is made once, and
        would lack the answer for good.
        """
        found: dict[str, dict[str, Any]] = {}
        failed: list[Record] = []
        questions = self.questions()
        for number, some in enumerate(iter(lambda: list(itertools.islice(questions, _SLICE)), [])):
            for record in self._slice(storage, visitor, removals, f"{DISCOVERED}/{number:06d}.jsonl", some):
                if "failed" in record:
                    failed.append(record)
                for row in record.get("rows", ()):
                    # By platform and id where there is one, as the addresses of a clip may differ.
                    key = f"{row.get('platform')} {row['platform_id']}" if row.get("platform_id") else str(row["url"])
                    found.setdefault(key, {"search_term": record["term"], **row})
        later = [record for record in failed if record["is_transient"]]
        if later and not self.skip_failed:
            raise MachineError(
                f"{self.kind()}: {len(later)} question(s) have no answer for now, the first is {_said(later[0])}; all "
                "other answers are stored: run the same command again to retry only those, or build without them with "
                "--set source.skip_failed=true"
            )
        if not found:
            said = f"; the first of {len(failed)} failures: {_said(failed[0])}" if failed else ""
            raise SourceError(f"{self.kind()}: no question found anything{said}")
        return normalise(listing_of(found.values()), self.kind())

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"skip_failed"})

    def schemes(self) -> tuple[str, ...]:
        return WEB_SCHEMES

    @classmethod
    def kind(cls) -> str:
        return cls.__name__.removesuffix("Source").lower()

    def _slice(
        self, storage: Storage, visitor: Visitor, removals: Removals, name: str, questions: list[Question]
    ) -> list[Record]:
        """Return a record per question; answered ones are read from an earlier run, transient failures retried."""
        # Two questions may have the same address, which is asked once.
        by_url = {question.ask.url: question for question in questions}
        stored = map(json.loads, storage.read(name).splitlines()) if storage.exists(name) else ()
        records: dict[str, Record] = {record["asked"]: record for record in stored if not record.get("is_transient")}
        open_ones = [question for url, question in by_url.items() if url not in records]
        for question, answer in zip(open_ones, visitor.visit_all([q.ask for q in open_ones]), strict=True):
            record: Record = {"asked": question.ask.url, "term": question.term}
            try:
                answer.raise_if_failed()
                rows = self.rows(question, answer)
                # Not even stored: what was removed from a dataset must be in none of its files.
                record["rows"] = [row for row in rows if not removals.match({"clip_id": id_of(row["url"]), **row})]
            except ClipError as error:
                record |= {"failed": str(error), "is_transient": error.transient}
            records[question.ask.url] = record
        answered = [records[url] for url in by_url]
        # Slice by slice, so that a run that dies loses the answers of one slice at most.
        if open_ones:
            storage.write(name, as_answers(answered))
        return answered


def _said(record: Record) -> str:
    return f"{record['term']!r}: {record['failed']}"
