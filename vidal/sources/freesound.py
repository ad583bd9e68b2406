"""Candidates from Freesound's search API, ranked by how well their texts match each term."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field

from vidal.crawl.ask import Answer, Ask
from vidal.errors import ClipError, SourceError
from vidal.licences import licence_name
from vidal.sources.expanding import ExpandingSource, Question
from vidal.sources.search import read_terms
from vidal.sources.source import file_hash

KEY_VARIABLE = "FREESOUND_API_KEY"
_FIELDS = (
    "id,name,tags,description,license,gen_ai_preference,username,duration,created,avg_rating,num_ratings,num_downloads,"
    "num_comments,previews,url"
)
_WORD = re.compile(r"[^\W_]+")
_OPERATORS = re.compile(r"[\"+]|(?<!\w)-")
"""What the API's query syntax takes for operators; a hyphen within a word is none."""
_LICENCES = {
    "cc0": "Creative Commons 0", "cc-by": "Attribution", "cc-by-nc": "Attribution NonCommercial",
    "cc-sampling+": "Sampling+",
}  # fmt: skip
"""The API's names of licences."""


class FreesoundSource(ExpandingSource):
    """``{freesound: TERMS}``; the API key is in the environment variable FREESOUND_API_KEY.

    The API is asked for sounds that pass every threshold. Of those, the ``per_term`` whose name, tags and description
    are most similar to the term become candidates. Their high-quality preview is fetched, which needs no login.
    """

    freesound: str
    address: str = "https://freesound.org/apiv2"
    per_term: int = Field(10, ge=1, le=150)
    # The API's largest page.
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
    licences: list[Literal["cc0", "cc-by", "cc-by-nc", "cc-sampling+"]] = Field(default_factory=list)
    """Accepted licences; empty accepts any."""
    gen_ai_preferences: list[str] = Field(["no-additional-preferences"])
    """Accepted wishes of uploaders about the training of generative models; others are ``open-source-models``,
    ``noncommercial-open-source-models`` and ``no-gen-ai``. Empty accepts any."""
    min_tags: int = Field(0, ge=0)
    with_tags: list[str] = Field(default_factory=list)
    """Tags that a sound must all have."""
    without_tags: list[str] = Field(default_factory=list)

    def questions(self) -> Iterator[Question]:
        key = os.environ.get(KEY_VARIABLE)
        if not key:
            raise SourceError(f"freesound: no API key; set the environment variable {KEY_VARIABLE}")
        for term, _ in read_terms(Path(self.freesound).expanduser()):
            query = {
                "query": " ".join(_OPERATORS.sub(" ", term).split()), "filter": self._filter(), "fields": _FIELDS,
                "page_size": self.asked_per_term,
            }  # fmt: skip
            url = f"{self.address}/search/?{urlencode(query)}"
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
                    "gen_ai_preference": sound.get("gen_ai_preference"),
                }  # fmt: skip

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "freesound": file_hash(Path(self.freesound).expanduser())}

    def _filter(self) -> str:
        """The thresholds in the API's filter syntax, so that none of the results that are asked for is wasted."""
        parts = [f"duration:[{self.min_duration_s:g} TO {self.max_duration_s:g}]"]
        parts += [f"avg_rating:[{self.min_rating:g} TO 5]"] if self.min_rating else []
        counts = {
            "num_ratings": self.min_ratings if self.min_rating else 0, "num_downloads": self.min_downloads,
            "num_comments": self.min_comments,
        }  # fmt: skip
        parts += [f"{name}:[{least} TO *]" for name, least in counts.items() if least]
        parts += [f'tag:"{tag}"' for tag in self.with_tags]
        choices = {"license": [_LICENCES[name] for name in self.licences], "gen_ai_preference": self.gen_ai_preferences}
        for name, values in choices.items():
            if values:
                quoted = [f'"{value}"' for value in values]
                parts.append(f"{name}:({' OR '.join(quoted)})")
        return " ".join(parts)

    def _passes(self, sound: dict[str, Any]) -> bool:
        """Whether a sound passes every threshold: the API is a stranger, and its filters change."""
        tags = {str(tag).casefold() for tag in sound.get("tags") or ()}
        rating = float(sound.get("avg_rating") or 0) if int(sound.get("num_ratings") or 0) >= self.min_ratings else 0.0
        return (
            isinstance(sound.get("previews"), dict) and bool(sound["previews"].get("preview-hq-ogg"))
            and self.min_duration_s <= float(sound.get("duration") or 0) <= self.max_duration_s
            and rating >= self.min_rating
            and int(sound.get("num_downloads") or 0) >= self.min_downloads
            and int(sound.get("num_comments") or 0) >= self.min_comments
            and (not self.licences or licence_name(sound.get("license")) in self.licences)
            and (not self.gen_ai_preferences or sound.get("gen_ai_preference") in (None, *self.gen_ai_preferences))
            and len(tags) >= self.min_tags
            and tags >= {tag.casefold() for tag in self.with_tags}
            and not tags & {tag.casefold() for tag in self.without_tags}
        )  # fmt: skip


def similarity(term: str, sound: dict[str, Any]) -> float:
    """Return the cosine in [0, 1] of the word counts of a term and a sound's name (twice), tags and description."""
    texts = [sound.get("name"), sound.get("name"), *(sound.get("tags") or ()), sound.get("description")]
    query, document = _words([term]), _words(texts)
    length = (sum(n * n for n in query.values()) * sum(n * n for n in document.values())) ** 0.5
    return sum(n * document[word] for word, n in query.items()) / length if length else 0.0


def _words(texts: Iterable[Any]) -> Counter[str]:
    return Counter(word for text in texts for word in _WORD.findall(str(text or "").casefold()))
