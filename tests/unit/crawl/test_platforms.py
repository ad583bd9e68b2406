"""Which hosts are one platform, what rules they have, and whose terms come first."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from vidal.crawl.admission import Admission
from vidal.crawl.governor import Governor
from vidal.crawl.platforms import PLATFORMS, KnownPlatform, budget_of
from vidal.crawl.settings import HostRules, WebSettings
from vidal.errors import RecipeError
from vidal.stage import Direct
from vidal.stages.fetch import Fetch


@pytest.mark.parametrize(("host", "budget"), [
    ("youtube.com", "youtube"), ("WWW.YouTube.com", "youtube"), ("m.youtube.com", "youtube"), ("youtu.be", "youtube"),
    ("www.youtube-nocookie.com", "youtube"), ("music.youtube.com", "youtube"), ("i.ytimg.com.", "youtube"),
    ("rr3---sn-4g5ednsl.googlevideo.com", "youtube"), ("v16-web.tiktok.com", "tiktok"), ("fb.watch", "facebook"),
    ("video.twimg.com", "x"), ("t.co", "x"), ("b23.tv", "bilibili"), ("v.redd.it", "reddit"),
    ("upload.wikimedia.org", "wikimedia"),
    ("notyoutube.com", "notyoutube.com"), ("youtube.com.evil.example", "youtube.com.evil.example"),
    ("films.example.org", "films.example.org"), ("127.0.0.1", "127.0.0.1"),
])  # fmt: skip
def test_every_host_of_a_platform_uses_its_budget_and_no_other_does(host: str, budget: str) -> None:
    assert budget_of(host) == budget


def test_no_host_belongs_to_two_platforms_and_every_platform_names_its_terms() -> None:
    hosts = Counter(host for platform in PLATFORMS for host in platform.hosts)
    assert set(hosts.values()) == {1}
    assert all(platform.terms.startswith("https://") for platform in PLATFORMS)
    assert all("." not in platform.name for platform in PLATFORMS)


@pytest.mark.parametrize(("host", "per_s"), [
    ("youtube.com", 0.1), ("www.youtube.com", 0.1), ("youtu.be", 0.1), ("r1.googlevideo.com", 5.0), ("i.ytimg.com", 0.1),
    ("slow.org", 0.2), ("www.slow.org", 0.2), ("notslow.org", 2.0), ("vimeo.com", 2.0),
])  # fmt: skip
def test_a_host_has_its_own_rules_its_domains_or_its_platforms(host: str, per_s: float) -> None:
    hosts = {"youtube.com": 0.1, "googlevideo.com": 5.0, "slow.org": 0.2}
    settings = WebSettings(hosts={name: HostRules(per_s=rate) for name, rate in hosts.items()})
    assert settings.rules_of(host).per_s == per_s


@pytest.mark.parametrize(("host", "platform"), [
    ("m.youtube.com", "youtube"), ("youtu.be", "youtube"), ("instagr.am", "instagram"), ("twitter.com", "x"),
    ("archive.org", None), ("example.org", None), ("vm.tiktok.com", None),
])  # fmt: skip
def test_terms_are_accepted_by_platform(host: str, platform: str | None) -> None:
    assert WebSettings(accept_terms=["tiktok"]).needs_acceptance(host) == platform


@pytest.mark.parametrize("platform", [platform for platform in PLATFORMS if platform.restricts], ids=lambda p: p.name)
def test_a_plan_with_an_address_of_a_platform_is_refused_with_the_address_of_its_terms(platform: KnownPlatform) -> None:
    urls = ["clip.mp4", "s3://bucket/a.mp4", "https://example.org/a.mp4", f"https://www.{platform.hosts[0]}/a"]
    with pytest.raises(RecipeError, match=re.escape(platform.terms)) as raised:
        Fetch().check_candidates(urls)
    assert f"--set fetch.accept_terms=[{platform.name}]" in str(raised.value)
    Fetch(accept_terms=[platform.name]).check_candidates(urls)


def test_an_unknown_platform_in_accept_terms_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="'you_tube' is no platform; choose from youtube, tiktok"):
        Fetch(accept_terms=["you_tube"])


def test_a_visit_is_not_led_to_a_platform_whose_terms_nobody_accepted(tmp_path: Path) -> None:
    settings = WebSettings()
    governor = Direct(Governor(tmp_path))
    visit = governor.call("begin", "run", "blog.org", settings.any_host.model_dump())[0]
    admission = Admission(settings, governor, "run", visit)
    assert admission.admit("blog.org", "page") == {"waited_s": 0.0}
    assert admission.admit("www.youtube.com", "page")["reason"] == "terms_not_accepted"
    admission.end("terms_not_accepted")
    assert set(governor.call("counts", "run")) == {"blog.org"}
