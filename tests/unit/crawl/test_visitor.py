"""Visits of one run to a real site: answers in the order of the questions, again where that may help, by the host's rules."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.processes import descendants, still_alive
from tests.site import Site
from vidal.crawl.ask import Ask
from vidal.crawl.visitor import Pauses, Visitor
from vidal.errors import RecipeError
from vidal.stage import Direct
from vidal.stages.fetch import Fetch


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    rules = {"per_s": 50, "concurrent": 4, "pause_s": 0.2, "jitter": 0}
    settings = Fetch(
        allow_addresses=["127.0.0.0/29"],
        any_host=rules,
        generic=True,
        tries=2,
        back_off_s=0.1,
        outage_s=0,
        socket_timeout_s=2,
        concurrency=3,
    )
    visitor = Visitor(settings, Direct(settings.shared()))
    yield visitor
    visitor.close()


def asks(site: Site, *paths: str) -> list[Ask]:
    return [Ask(op="search", url=site.url(path)) for path in paths]


def visits(site: Site, path: str) -> int:
    return [hit.path for hit in site.hits].count(path)


def test_answers_come_in_the_order_of_the_questions_and_a_failure_is_one(site: Site, visitor: Visitor) -> None:
    answers = visitor.visit_all(asks(site, "/page/playlist", "/fault/gone/x", "/page/playlist", "/fault/unavailable/x"))
    assert [(answer.ok, answer.reason) for answer in answers] == [
        (True, None), (False, "gone"), (True, None), (False, "server_error"),
    ]  # fmt: skip
    assert answers[0].metadata == answers[2].metadata and answers[0].metadata["entries"]


@pytest.mark.parametrize(("path", "times"), [("/fault/gone/x", 1), ("/fault/unavailable/x", 2)])
def test_only_what_may_do_better_is_visited_again(path: str, times: int, site: Site, visitor: Visitor) -> None:
    visitor.visit_all(asks(site, path))
    assert visits(site, path) == times


def test_a_visit_that_took_all_its_time_is_not_made_again(site: Site, visitor: Visitor) -> None:
    visitor.settings = visitor.settings.model_copy(update={"wall_s": 1.5})
    path = "/fault/drip/x.mp4"
    with tempfile.TemporaryDirectory() as folder:
        (answer,) = visitor.visit_all([Ask(op="direct", url=site.url(path), folder=folder, max_bytes=10_000_000)])
    assert (answer.reason, answer.transient, visits(site, path)) == ("timeout", True, 1)


def test_a_platform_whose_terms_nobody_accepted_is_not_visited(visitor: Visitor) -> None:
    with pytest.raises(
        RecipeError, match=r'youtube.com: the terms of youtube .*--set "fetch.accept_terms=\[youtube\]"'
    ):
        visitor.visit_all([Ask(op="search", url="https://www.youtube.com/results?search_query=rain")])


def test_a_visitor_that_is_closed_leaves_no_process(site: Site, visitor: Visitor) -> None:
    before = descendants(os.getpid())
    visitor.visit_all(asks(site, "/page/playlist"))
    started = [process for process in descendants(os.getpid()) if process not in before]
    assert started
    visitor.close()
    assert still_alive(started) == []


def test_a_pause_counts_once_however_many_visits_are_told_of_it_and_an_answer_after_it_begins_anew() -> None:
    pauses = Pauses()
    assert all(pauses.begin("host", now, 103.0 - now, patience_s=4) for now in (100.0, 100.5, 101.0, 102.5))
    assert pauses.total_s("host") == 3.0
    pauses.end("host", 102.0)
    assert not pauses.begin("host", 103.0, 2.0, patience_s=4), "asked before the pause, that answer ends none"
    pauses.end("host", 103.0)
    assert pauses.begin("host", 103.5, 2.0, patience_s=4) and pauses.total_s("host") == 5.0
