"""Which hosts are one platform, what rules they have, and whose terms come first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.conftest import ROOT
from tools.platforms import EXCEPTIONS
from vidal.crawl.admission import Admission
from vidal.crawl.governor import Governor
from vidal.crawl.platforms import budget_of, domains_of, known_platforms, platform_of
from vidal.crawl.reviewed import REVIEWED, KnownPlatform
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
    ("www.nbc.com", "nbc.com"), ("framatube.org", "framatube.org"), ("www.amazon.co.uk", "amazon.co.uk"),
    ("films.example.org", "films.example.org"), ("127.0.0.1", "127.0.0.1"),
])  # fmt: skip
def test_every_host_of_a_platform_uses_its_budget_and_no_other_does(host: str, budget: str) -> None:
    assert budget_of(host) == budget


def test_no_host_belongs_to_two_platforms_and_every_platform_names_its_terms() -> None:
    owners = {host: platform.name for platform in REVIEWED for host in (*platform.hosts, *platform.others)}
    assert len(owners) == sum(len(platform.hosts) + len(platform.others) for platform in REVIEWED)
    assert all(owners.get(domain, owner) == owner for host, owner in owners.items() for domain in domains_of(host))
    assert len({platform.name for platform in REVIEWED}) == len(REVIEWED) >= 40
    assert all(platform.terms.startswith("https://") for platform in REVIEWED)
    assert all("." not in platform.name for platform in REVIEWED)


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
    ("archive.org", None), ("example.org", None), ("vm.tiktok.com", None), ("www.crunchyroll.com", "crunchyroll"),
    ("open.spotify.com", "spotify"), ("www.bloomberg.com", "bloomberg"), ("y.qq.com", "qqmusic"),
    ("www.amazon.com.br", "amazon"), ("amazon.films.example", None), ("framatube.org", "peertube"),
])  # fmt: skip
def test_terms_are_accepted_by_platform(host: str, platform: str | None) -> None:
    assert WebSettings(accept_terms=["tiktok"]).needs_acceptance(host) == platform


@pytest.mark.parametrize("platform", [platform for platform in REVIEWED if platform.restricts], ids=lambda p: p.name)
def test_a_plan_with_an_address_of_a_platform_is_refused_with_the_address_of_its_terms(platform: KnownPlatform) -> None:
    urls = ["clip.mp4", "s3://bucket/a.mp4", "https://example.org/a.mp4", "https://example.org/b"]
    urls_of_it = [f"https://www.{host}/a" for host in (*platform.hosts, *platform.others)]
    for url in urls_of_it:
        with pytest.raises(RecipeError, match=re.escape(platform.terms)) as raised:
            Fetch().check_candidates([*urls, url])
        assert f'--set "fetch.accept_terms=[{platform.name}]"' in str(raised.value)
        assert ("nobody here has read" in str(raised.value)) != bool(platform.basis)
    Fetch(accept_terms=[platform.name]).check_candidates([*urls, *urls_of_it])


def test_a_plan_is_refused_once_with_all_its_platforms_in_a_line_to_paste() -> None:
    hosts = (
        "vimeo.com",
        "www.nbc.com",
        "example.org",
        "ok.ru",
        "www.youtube.com",
        "nbc.com",
        "bandlab.com",
        "coub.com",
        "rumble.com",
    )
    with pytest.raises(RecipeError) as raised:
        Fetch(accept_terms=["vimeo"]).check_candidates(f"https://{host}/a" for host in hosts)
    said = str(raised.value)
    assert "www.nbc.com: nobody here has read the terms of nbc, and most" in said
    assert "ok.ru: nobody here has read the terms of ok, and most platforms' restrict automated access (https" in said
    assert "www.youtube.com: the terms of youtube restrict automated access (https" in said
    assert "; and 1 more platforms: read them" in said and "\n" not in said
    assert said.endswith('--set "fetch.accept_terms=[vimeo,nbc,ok,youtube,bandlab,coub,rumble]"')
    (setting,) = re.findall(r'--set "fetch.accept_terms=(.*)"', said)
    Fetch(accept_terms=yaml.safe_load(setting)).check_candidates(f"https://{host}/a" for host in hosts)


def test_every_name_can_be_set_as_it_is_said() -> None:
    names = list(known_platforms())
    assert len(names) > 900 and yaml.safe_load(f"[{','.join(names)}]") == names


def test_nothing_is_taken_to_permit_automated_access_without_a_basis() -> None:
    permitting = [platform for platform in REVIEWED if not platform.restricts]
    assert [platform.name for platform in permitting] == ["archive", "wikimedia", "freesound"]
    assert all(platform.basis for platform in permitting)


_EXAMPLES = """
import json, re, sys
from urllib.parse import urlsplit
from yt_dlp.extractor import gen_extractor_classes

platforms, read = json.load(sys.stdin), []
examples = [
    (extractor, case["url"], urlsplit(case["url"]).hostname or "")
    for extractor in gen_extractor_classes() if extractor.ie_key() != "Generic"
    for case in extractor.get_testcases(include_onlymatching=True)
]
for hosts in platforms:
    of_it = [one for one in examples if any(re.search(rf"(^|\\.){re.escape(host)}$", one[2]) for host in hosts)]
    read.append([
        host for host in hosts
        if any(extractor.suitable(url.replace(theirs, prefix + host, 1))
               for extractor, url, theirs in of_it for prefix in ("", "www.", theirs.split(".")[0] + "."))
    ])
modules = {extractor.__module__.split(".")[2]: [] for extractor in gen_extractor_classes()}
for extractor, url, host in examples:
    if url.startswith("http") and extractor.suitable(url):
        modules[extractor.__module__.split(".")[2]].append(host)
print(json.dumps([read, modules]))
"""


@cache
def _of_yt_dlp() -> Any:
    """Which hosts of `REVIEWED` its extractors read, and the hosts of each module's examples."""
    # In a process of its own, as yt-dlp reads the variable once: its short list of extractors has no examples.
    done = subprocess.run(
        [sys.executable, "-c", _EXAMPLES], input=json.dumps([list(platform.hosts) for platform in REVIEWED]),
        capture_output=True, text=True, check=True, env={**os.environ, "YTDLP_NO_LAZY_EXTRACTORS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout)


def test_an_extractor_of_the_installed_yt_dlp_reads_every_host_that_is_said_to_have_pages() -> None:
    assert _of_yt_dlp()[0] == [list(platform.hosts) for platform in REVIEWED]


def test_every_extractor_of_the_installed_yt_dlp_reads_a_platform_or_is_an_exception_with_a_reason() -> None:
    modules = _of_yt_dlp()[1]
    assert modules.keys() > EXCEPTIONS.keys() and len(EXCEPTIONS) <= 18 and all(EXCEPTIONS.values())
    missing = {
        module: host for module, hosts in modules.items() if module not in EXCEPTIONS
        for host in hosts if platform_of(host) is None and not host.endswith(".onion")
    }  # fmt: skip
    assert missing == {}


def test_the_table_is_the_one_that_its_command_writes_for_the_installed_yt_dlp() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.platforms", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unknown_platform_in_accept_terms_is_answered_with_those_like_it() -> None:
    with pytest.raises(ValidationError, match=r"'you_tube' is none of the [0-9]+ platforms; did you mean youtube"):
        Fetch(accept_terms=["you_tube"])
    with pytest.raises(ValidationError, match=r"'!' is none of .*; give it an address, and the plan says which"):
        Fetch(accept_terms=["!"])


def test_a_visit_is_not_led_to_a_platform_whose_terms_nobody_accepted(tmp_path: Path) -> None:
    settings = WebSettings()
    governor = Direct(Governor(tmp_path))
    visit = governor.call("begin", "run", "blog.org", settings.any_host.model_dump())[0]
    admission = Admission(settings, governor, "run", visit)
    assert admission.admit("blog.org", "page")["waited_s"] == 0
    assert admission.admit("www.youtube.com", "page")["reason"] == "terms_not_accepted"
    admission.end("terms_not_accepted")
    assert set(governor.call("counts", "run")) == {"blog.org"}
