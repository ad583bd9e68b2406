"""Candidates from Freesound's search API, ranked by how well their texts match each term."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pydantic import Field

from vidal.crawl.ask import Answer, Ask
from vidal.errors import ClipError, SourceError
from vidal.sources.expanding import ExpandingSource, Question
from vidal.sources.search import read_terms
from vidal.sources.source import file_hash

KEY_VARIABLE = "FREESOUND_API_KEY"
_FIELDS = (
    "id,name,tags,description,license,username,duration,created,avg_rating,num_ratings,num_downloads,num_comments,"
    "previews,url"
)
_WORD = re.compile(r"[^\W_]+")


class FreesoundSource(ExpandingSource):
    """``{freesound: TERMS}``; the API key is in the environment variable FREESOUND_API_KEY.

    Sounds must pass every threshold. Of those, the ``per_term`` whose name, tags and description are most similar to
    the term become candidates. Their high-quality preview is fetched, which needs no login.
    """

    freesound: str
    address: str = "https://freesound.org/apiv2"
    per_term: int = Field(10, ge=1, le=150)
    asked_per_term: int = Field(150, ge=1, le=150)
    """Results requested for each term."""
    min_duration_s: float = Field(1.0, ge=0)
    max_duration_s: float = Field(30.0, gt=0)
    min_rating: float = Field(0.0, ge=0, le=5)
    min_ratings: int = Field(0, ge=0)
    """A rating by fewer users counts as 0."""
    min_downloads: int = Field(0, ge=0)
    min_comments: int = Field(0, ge=0)
    min_similarity: float = Field(0.0, ge=0, le=1)
    licences: list[str] = Field(default_factory=list)
    """Substrings of accepted licence URLs, such as ``publicdomain`` or ``by/``; empty accepts any."""
    without_tags: list[str] = Field(default_factory=list)

    def questions(self) -> Iterator[Question]:
        key = os.environ.get(KEY_VARIABLE)
        if not key:
            raise SourceError(f"freesound: no API key; set the environment variable {KEY_VARIABLE}")
        for term, _ in read_terms(Path(self.freesound).expanduser()):
            query = {
                "query": term, "fields": _FIELDS, "page_size": self.asked_per_term,
                "filter": f"duration:[{self.min_duration_s:g} TO {self.max_duration_s:g}]",
            }  # fmt: skip
            url = f"{self.address}/search/text/?{urlencode(query)}"
            # In a header rather than in the address, which is stored with the answers.
            headers = {"Authorization": f"Token {key}"}
            yield Question(term=term, ask=Ask(op="get_json", url=url, headers=headers))

    def rows(self, question: Question, answer: Answer) -> Iterable[dict[str, Any]]:
        page = answer.metadata.get("json")
        results = page.get("results") if isinstance(page, dict) else None
        if not isinstance(results, list) or not all(isinstance(sound, dict) and "id" in sound for sound in results):
            raise ClipError("server_error", "the API's answer has no list of sounds under `results`", transient=True)
        scored = [(similarity(question.term, sound), sound) for sound in results if self._passes(sound)]
        # Of equally similar sounds the most downloaded, then the oldest come first, whatever the API's order.
        scored.sort(key=lambda pair: (-pair[0], -int(pair[1].get("num_downloads") or 0), int(pair[1]["id"])))
        for score, sound in scored[: self.per_term]:
            if score >= self.min_similarity:
                yield {
                    "url": sound["previews"]["preview-hq-ogg"], "platform": "Freesound",
                    "platform_id": str(sound["id"]), "title": sound.get("name"),
                    "description": sound.get("description"), "tags": sound.get("tags") or [],
                    "uploader": sound.get("username"), "licence": sound.get("license"),
                    "uploaded_at": str(sound.get("created") or "")[:10] or None, "rating": sound.get("avg_rating"),
                    "download_count": sound.get("num_downloads"), "term_similarity": round(score, 4),
                }  # fmt: skip

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "freesound": file_hash(Path(self.freesound).expanduser())}

    def _passes(self, sound: dict[str, Any]) -> bool:
        rating = float(sound.get("avg_rating") or 0) if int(sound.get("num_ratings") or 0) >= self.min_ratings else 0.0
        return (
            isinstance(sound.get("previews"), dict) and bool(sound["previews"].get("preview-hq-ogg"))
            and self.min_duration_s <= float(sound.get("duration") or 0) <= self.max_duration_s
            and rating >= self.min_rating
            and int(sound.get("num_downloads") or 0) >= self.min_downloads
            and int(sound.get("num_comments") or 0) >= self.min_comments
            and (not self.licences or any(part in str(sound.get("license")) for part in self.licences))
            and not {tag.casefold() for tag in sound.get("tags") or ()} & {tag.casefold() for tag in self.without_tags}
        )  # fmt: skip


def similarity(term: str, sound: dict[str, Any]) -> float:
    """Return the cosine in [0, 1] of the word counts of a term and a sound's name (twice), tags and description."""
    texts = [sound.get("name"), sound.get("name"), *(sound.get("tags") or ()), sound.get("description")]
    query, document = _words([term]), _words(texts)
    length = (sum(n * n for n in query.values()) * sum(n * n for n in document.values())) ** 0.5
    return sum(n * document[word] for word, n in query.items()) / length if length else 0.0


def _words(texts: Iterable[Any]) -> Counter[str]:
    return Counter(word for text in texts for word in _WORD.findall(str(text or "").casefold()))
