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


USAGE = """
User-agent: *
Content-Usage: train-ai=n
Content-Usage: /free/ search=n, train-ai=y  # longer
Content-Usage: /both train-ai=y
Content-Usage: /both train-ai=n
Disallow: /never

User-agent: foobot
User-agent: barbot
Content-Signal: search=yes, ai-train=no
Content-signal: /music/*.ogg$ ai-train=yes

User-agent: bazbot
Disallow: /a
Content-Usage: bots=n

User-agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "target", "is_forbidden"),
    [
        ("vidal", "/a", True), ("vidal", "/free/a", False), ("vidal", "/free", True), ("vidal", "/both", True), ("foobot", "/a", True),
        ("barbot", "/music/a.ogg", False), ("barbot", "/music/a.oga", True), ("bazbot", "/a", False), ("quxbot", "/a", False),
    ],
)  # fmt: skip
def test_training_is_forbidden_by_the_longest_rule_of_the_own_group(
    agent: str, target: str, is_forbidden: bool
) -> None:
    assert Robots(USAGE, agent=agent).forbids_training(target) is is_forbidden


@pytest.mark.parametrize(
    ("text", "is_forbidden"),
    [
        ("", False), (EXAMPLE, False), ("Content-Usage: train-ai=n", True), ("User-agent: foobot\nContent-Usage: train-ai=n", False),
        ("Content-Signal: ai-train=no\nUser-agent: vidal\nDisallow:", True), ("User-agent: *\nContent-Usage: train-ai=y", False),
        ("\ufeffuser agent: vidal\nSitemap: /x\nCONTENT-USAGE:/ TRAIN-AI=N", True), ("User-agent: *\nContent-Usage: /x", False),
        ("User-agent: *\n# Content-Usage: train-ai=n", False), ("User-agent: *\nContent-Signal: search=yes", False),
    ],
)  # fmt: skip
def test_training_is_forbidden_only_where_that_is_said(text: str, is_forbidden: bool) -> None:
    assert Robots(text).forbids_training("/a") is is_forbidden


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
