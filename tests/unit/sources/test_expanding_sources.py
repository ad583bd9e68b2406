"""What a search asks for a list of terms, and which of the answers become candidates; the crawl itself is in `tests/e2e`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from pydantic import ValidationError

from tests.site import freesound
from tests.site.freesound import sound
from vidal.crawl.ask import Answer
from vidal.errors import ClipError, SourceError
from vidal.sources.freesound import KEY_VARIABLE, FreesoundSource, similarity
from vidal.sources.search import SearchSource

SOUNDS = [sound(number, "http://127.0.0.1") for number in range(1, 61)]


@pytest.fixture
def terms(tmp_path: Path) -> str:
    (tmp_path / "terms.txt").write_text("# chosen by hand\nrain\n\nslow piano\n", encoding="utf-8-sig")
    return str(tmp_path / "terms.txt")


def asked(source: SearchSource | FreesoundSource) -> list[tuple[str, str, int]]:
    return [(question.term, question.ask.url, question.ask.entries) for question in source.questions()]


@pytest.mark.parametrize(("settings", "wanted"), [
    ({}, [("rain", "ytsearch20:rain", 20), ("slow piano", "ytsearch20:slow piano", 20)]),
    ({"platform": "nicosearchdate", "per_term": 3, "max_terms": 1}, [("rain", "nicosearchdate3:rain", 3)]),
    ({"address": "https://a.b/?q={term}", "per_term": 3, "max_terms": 2},
     [("rain", "https://a.b/?q=rain", 3), ("slow piano", "https://a.b/?q=slow+piano", 3)]),
])  # fmt: skip
def test_a_search_asks_once_for_each_term(settings: dict[str, Any], wanted: list[Any], terms: str) -> None:
    assert asked(SearchSource(search=terms, **settings)) == wanted


def test_a_terms_own_quota_goes_above_the_settings(tmp_path: Path) -> None:
    pd.DataFrame({"term": ["rain", "snow"], "quota": [7, 2]}).to_parquet(tmp_path / "t.parquet")
    source = SearchSource(search=str(tmp_path / "t.parquet"), per_term=50)
    assert [(term, count) for term, _, count in asked(source)] == [("rain", 7), ("snow", 2)]


@pytest.mark.parametrize(("limit", "kept"), [(60.0, ["short", "unknown"]), (None, ["short", "long", "unknown"])])
def test_what_is_too_long_for_a_short_is_no_candidate(limit: float | None, kept: list[str], terms: str) -> None:
    source = SearchSource(search=terms, max_duration_s=limit)
    entries = [
        {"url": "short", "duration_s": 60.0},
        {"url": "long", "duration_s": 60.5},
        {"url": "unknown"},
        {"title": "x"},
    ]
    question = next(source.questions())
    rows = list(source.rows(question, Answer(ok=True, metadata={"entries": entries})))
    assert [row["url"] for row in rows] == kept
    assert all("duration_s" not in row for row in rows)


@pytest.mark.parametrize(("settings", "said"), [
    ({"address": "https://a.b/?q=term"}, r"lacks the placeholder \{term\}"),
    ({"platform": "https://a.b/?q="}, "platform"),
    ({"per_term": 0}, "per_term"),
])  # fmt: skip
def test_a_search_that_cannot_be_asked_is_rejected(settings: dict[str, Any], said: str, terms: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SearchSource(search=terms, **settings)


def test_a_file_of_terms_that_is_none_is_one_line(tmp_path: Path) -> None:
    pd.DataFrame({"word": ["rain"]}).to_parquet(tmp_path / "t.parquet")
    for name, said in (("none.txt", "none.txt: no such file"), ("t.parquet", r"no column `term` \(it has word\)")):
        with pytest.raises(SourceError, match=said):
            list(SearchSource(search=str(tmp_path / name)).questions())


def found(terms: str, sounds: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    """The candidates for "rain" among the sounds."""
    source = FreesoundSource(freesound=terms, **{"per_term": 150, **settings})
    question = next(source.questions())
    return list(source.rows(question, Answer(ok=True, metadata={"json": {"results": sounds}})))


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-key")


def test_freesound_is_asked_with_the_key_in_a_header_and_not_in_the_address(key: None, terms: str) -> None:
    question = next(FreesoundSource(freesound=terms, max_duration_s=12.5).questions())
    assert question.ask.headers == {"Authorization": "Token a-key"}
    assert "a-key" not in question.ask.url
    assert "query=rain" in question.ask.url and "duration%3A%5B1+TO+12.5%5D" in question.ask.url


def test_freesound_without_a_key_says_where_to_put_it(terms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(SourceError, match=f"no API key; set the environment variable {KEY_VARIABLE}"):
        list(FreesoundSource(freesound=terms).questions())


@pytest.mark.parametrize(("settings", "passes"), [
    ({}, lambda s: True),
    ({"min_duration_s": 3}, lambda s: s["duration"] >= 3),
    ({"max_duration_s": 3}, lambda s: s["duration"] <= 3),
    ({"min_rating": 2.5}, lambda s: s["avg_rating"] >= 2.5),
    ({"min_ratings": 5, "min_rating": 1.0}, lambda s: s["num_ratings"] >= 5 and s["avg_rating"] >= 1),
    ({"min_downloads": 100}, lambda s: s["num_downloads"] >= 100),
    ({"min_comments": 2}, lambda s: s["num_comments"] >= 2),
    ({"licences": ["cc0", "cc-by"]}, lambda s: "by-nc" not in s["license"]),
    ({"gen_ai_preferences": ["no-additional-preferences", "no-gen-ai"]},
     lambda s: s["gen_ai_preference"] != "open-source-models"),
    ({"min_tags": 3}, lambda s: len(set(s["tags"])) >= 3),
    ({"with_tags": ["Dog", "field-recording"]}, lambda s: "dog" in s["tags"]),
    ({"without_tags": ["Dog"]}, lambda s: "dog" not in s["tags"]),
])  # fmt: skip
def test_a_sound_is_a_candidate_if_it_passes_every_threshold(
    settings: dict[str, Any], passes: Any, key: None, terms: str
) -> None:
    settings = {"gen_ai_preferences": [], **settings}
    wanted = {str(s["id"]) for s in SOUNDS if passes(s)}
    assert {row["platform_id"] for row in found(terms, SOUNDS, **settings)} == wanted
    assert len(settings) == 1 or 0 < len(wanted) < len(SOUNDS)
    if not {"min_tags", "without_tags"} & set(settings):
        assert {str(s["id"]) for s in SOUNDS if freesound.passes(s, filter_of(terms, **settings))} == wanted


def filter_of(terms: str, **settings: Any) -> str:
    question = next(FreesoundSource(freesound=terms, **settings).questions())
    return parse_qs(urlsplit(question.ask.url).query)["filter"][0]


def test_a_wish_against_generative_models_is_respected_unless_the_recipe_says_otherwise(key: None, terms: str) -> None:
    assert {row["gen_ai_preference"] for row in found(terms, SOUNDS)} == {"no-additional-preferences"}
    unstated = [{**SOUNDS[1], "gen_ai_preference": None}]
    assert len(found(terms, unstated)) == 1
    chosen = found(terms, SOUNDS, gen_ai_preferences=[])
    assert {row["gen_ai_preference"] for row in chosen} == set(freesound.PREFERENCES)


def test_the_query_is_what_the_api_documents(key: None, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text('-rain +"heavy storm" x-ray\n')
    source = FreesoundSource(
        freesound=str(tmp_path / "terms.txt"), min_rating=3.5, min_ratings=3, min_downloads=50, min_comments=1,
        licences=["cc0", "cc-by"], with_tags=["field-recording"],
    )  # fmt: skip
    url = urlsplit(next(source.questions()).ask.url)
    query = {name: value for name, (value,) in parse_qs(url.query).items()}
    assert (url.path, query["query"], query["page_size"]) == ("/apiv2/search/", "rain heavy storm x-ray", "150")
    assert query["filter"] == (
        "duration:[1 TO 30] avg_rating:[3.5 TO 5] num_ratings:[3 TO *] num_downloads:[50 TO *] num_comments:[1 TO *] "
        'tag:"field-recording" license:("Creative Commons 0" OR "Attribution") '
        'gen_ai_preference:("no-additional-preferences")'
    )
    assert {"id", "license", "gen_ai_preference", "previews"} <= set(query["fields"].split(","))


def test_a_licence_that_freesound_does_not_have_is_rejected(terms: str) -> None:
    with pytest.raises(ValidationError, match="licences"):
        FreesoundSource(freesound=terms, licences=["by/"])


def test_of_the_sounds_those_that_share_most_words_are_taken_and_the_popular_before_others(
    key: None, terms: str
) -> None:
    settings = {"gen_ai_preferences": []}
    best = found(terms, SOUNDS, per_term=6, **settings)
    by_id = {str(s["id"]): s for s in SOUNDS}
    ranks = [(-row["term_similarity"], -by_id[row["platform_id"]]["num_downloads"]) for row in best]
    assert len(best) == 6 and ranks == sorted(ranks)
    assert all("rain" in row["title"] for row in best)
    worst = min(row["term_similarity"] for row in best)
    assert (
        worst
        >= max(similarity("rain", s) for s in SOUNDS if str(s["id"]) not in {r["platform_id"] for r in best}) - 1e-4
    )
    assert all(row["term_similarity"] >= 0.5 for row in found(terms, SOUNDS, min_similarity=0.5))


@pytest.mark.parametrize(
    "page", [None, [], {}, {"results": None}, {"results": ["x"]}, {"results": [{"name": "no id"}]}]
)
def test_an_answer_of_another_shape_fails_for_now(page: Any, key: None, terms: str) -> None:
    source = FreesoundSource(freesound=terms)
    with pytest.raises(ClipError, match="no list of sounds") as caught:
        list(source.rows(next(source.questions()), Answer(ok=True, metadata={"json": page})))
    assert caught.value.transient
