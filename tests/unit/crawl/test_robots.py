"""robots.txt, as RFC 9309's own examples have it."""

from __future__ import annotations

import time

import pytest

from vidal.crawl.robots import Robots

EXAMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html   # a comment
Crawl-delay: 2.5

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "target", "is_allowed"),
    [
        ("vidal", "/example/", False), ("vidal", "/publications/a", True), ("vidal", "/a.gif", False), ("vidal", "/a.gif?x", True),
        ("vidal", "/else", True), ("FooBot", "/else", False), ("foobot", "/example/page.html", True), ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False), ("barbot", "/a.gif", True), ("quxbot", "/example/", True), ("vidal", "/robots.txt", True),
        ("vidal", "/ex%61mple/", False),
    ],
)  # fmt: skip
def test_the_longest_rule_of_the_own_group_decides(agent: str, target: str, is_allowed: bool) -> None:
    assert Robots(EXAMPLE, agent=agent).allows(target) is is_allowed


def test_a_misspelt_rule_counts() -> None:
    assert not Robots("User agent: *\nDisalow /a").allows("/ab")


def test_an_allow_wins_over_a_disallow_of_the_same_length() -> None:
    assert Robots("User-agent: *\nDisallow: /a\nAllow: /a").allows("/ab")


def test_a_crawl_delay_is_read() -> None:
    assert Robots(EXAMPLE, agent="barbot").crawl_delay_s == 2.5
    assert Robots(EXAMPLE).crawl_delay_s is None


@pytest.mark.parametrize("text", ["", "nonsense", "Disallow: /", "\ufeff\0\n:::\n", "User-agent: *\nDisallow:"])
def test_what_says_nothing_allows_all(text: str) -> None:
    assert Robots(text).allows("/any")


def test_no_pattern_takes_long() -> None:
    rules = Robots("User-agent: *\nDisallow: /" + "a*" * 2000 + "b$")
    started = time.perf_counter()
    assert rules.allows("/" + "a" * 5000)
    assert time.perf_counter() - started < 1


RESERVATIONS = """[
    {"location": "/images/free*.jpg$", "tdm-reservation": "0"},
    {"location": "/images/", "tdm-reservation": 1, "tdm-policy": "https://example.com/policy.json"},
    {"location": "/images/more/free/", "tdm-reservation": 0}, {"location": "/odd/", "tdm-reservation": 2},
    {"location": "/odd/", "tdm-reservation": true}, {"location": "/odd/free/", "tdm-reservation": 0},
    {"location": "*/private", "tdm-reservation": "1"}, {"location": "/x\\nAllow: /images/", "tdm-reservation": 0}, 7, {}
]"""


@pytest.mark.parametrize(
    ("target", "is_reserved"),
    [
        ("/images/a.jpg", True),
        ("/images/free1.jpg", False),
        ("/images/free1.jpg?x", True),
        ("/images/more/free/1.jpg", True),  # the first match counts, not the longest
        ("/odd/free/a", True),  # 2 is no value, so the rule after it is the first
        ("/IMAGES/a.jpg", False),
        ("/im%61ges/a.jpg", True),
        ("/a", False),
        ("/a/private/b", True),
    ],
)
def test_a_reservation_covers_the_files_at_its_location(target: str, is_reserved: bool) -> None:
    assert Robots(reservations=RESERVATIONS).reserves(target) is is_reserved


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", "null", "[" * 100_000, '[{"location": 1}]', '[{"location": "/"}]']
)
def test_what_is_no_reservation_reserves_nothing(text: str) -> None:
    assert not Robots(reservations=text).reserves("/a")
