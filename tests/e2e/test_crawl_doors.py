"""Doors that stay shut: files of this machine, terms that nobody accepted, secrets in files, a stranger's modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.crawls import by_path, crawl, rows, write_recipe, written
from tests.processes import command, vidal
from tests.site import Site
from vidal.dataset.dataset import Dataset


def test_a_crawl_grows_only_with_what_it_began_with_which_the_environment_may_hold(tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\ts3cr3t-cookie-value\n")
    with Site() as site:
        recipe = write_recipe(tmp_path, {"urls": [site.url("/members/bunny-wake.mp4")]})
        assert crawl(tmp_path, recipe, "--set", f"fetch.cookies={cookies}").returncode == 0
        (tmp_path / "more.csv").write_text(f"url\n{site.url('/members/bunny-apple.mp4')}\n")
        source = ["--source", f"list={tmp_path / 'more.csv'}", "--engine", "local", "--workers", "0"]
        hits = len(site.hits)
        refused = command("grow", tmp_path / "crawl", *source)
        assert refused.returncode == 2 and len(site.hits) == hits
        line = (
            "was started with fetch.cookies, which is not stored in the dataset; pass it again: --set fetch.cookies=…"
        )
        assert f"{line}, or set VIDAL_FETCH_COOKIES" in refused.stderr
        # In a process of its own: the variable is taken out of the environment.
        done = vidal("grow", tmp_path / "crawl", *source, env={"VIDAL_FETCH_COOKIES": str(cookies)})
        assert done.returncode == 0, done.stderr
    assert [row["status"] for row in Dataset.open(str(tmp_path / "crawl")).rows(["status"])] == ["kept", "kept"]


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crawled")
    with Site() as site:
        assert crawl(folder, write_recipe(folder, {"urls": [site.url("/fault/unavailable/late.mp4")]})).returncode in (
            0,
            1,
        )
    return folder / "crawl"


RETRY = ("retry", "--engine", "local", "--workers", "0")


@pytest.mark.parametrize(
    "act", [RETRY, ("grow", "--source", "list=more.csv"), ("refilter", "--set", "too_long.max_s=5")], ids=lambda a: a[0]
)
@pytest.mark.parametrize(
    "named",
    [{"stages": "strange:Stage"}, {"modalities": "strange:NORMALS"}, {"stages": {"depth": {"model": "strange:load"}}}],
    ids=["a stage", "a modality", "a model"],
)
def test_a_module_that_a_dataset_names_is_not_imported(
    act: tuple[str, ...], named: dict[str, Any], crawled: Path, tmp_path: Path
) -> None:
    name, *rest = act
    refused = command(name, named_by(crawled, named, tmp_path), *rest, cwd=tmp_path)
    assert refused.returncode == 2 and "use --allow-module strange" in refused.stderr, refused.stderr


def test_a_module_that_is_allowed_is_imported(crawled: Path, tmp_path: Path) -> None:
    dataset, ran = named_by(crawled, {"stages": "strange:Stage"}, tmp_path), tmp_path / "ran"
    (tmp_path / "strange.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    assert vidal(RETRY[0], dataset, *RETRY[1:], cwd=tmp_path, env=environment).returncode == 2 and not ran.exists()
    vidal(RETRY[0], dataset, *RETRY[1:], "--allow-module", "strange", cwd=tmp_path, env=environment)
    assert ran.exists()


def named_by(crawled: Path, named: dict[str, Any], folder: Path) -> Path:
    """A copy of the dataset whose recipe names what is given."""
    shutil.copytree(crawled, folder / "copy")
    path = folder / "copy" / "dataset.json"
    info = json.loads(path.read_text())
    for key, value in named.items():
        info["definition"][key] = [*info["definition"].get(key, []), value]
    path.write_text(json.dumps(info))
    return folder / "copy"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.mark.parametrize("source", ["urls", "list"])
def test_a_crawls_list_names_no_file_of_this_machine_unless_the_recipe_says_so(
    site: Site, samples: Path, tmp_path: Path, source: str
) -> None:
    (tmp_path / "here.mp4").write_bytes((samples / "bunny-apple.mp4").read_bytes())
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    named = ["/etc/passwd", str(secret), f"file://{secret}", "here.mp4", "s3://bucket/a.mp4", "ftp://127.0.0.1/a.mp4"]
    web = site.url("/clip/bunny-wake.mp4")
    listed = tmp_path / "urls.csv"
    listed.write_text("\n".join(["url", *named, web, ""]))
    given = {"urls": {"urls": [*named, web]}, "list": {"list": str(listed)}}[source]
    recipe = write_recipe(tmp_path, given)
    done = crawl(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    found = {row["url"]: (row["status"], row["reason"], row["is_transient"]) for row in rows(tmp_path)}
    assert found == {**dict.fromkeys(named, ("failed", "scheme_not_allowed", False)), web: ("kept", None, None)}
    assert b"root:x:0:0" not in written(tmp_path)
    other = crawl(tmp_path, recipe, "--set", "fetch.schemes=[file,http]")
    assert other.returncode == 2 and "schemes" in other.stderr, "another recipe than the folder's"
    if source == "list":
        shutil.rmtree(tmp_path / "crawl")
        done = crawl(tmp_path, recipe, "--set", "fetch.schemes=[file,http]")
        assert done.returncode == 0, done.stderr
        assert {row["url"] for row in rows(tmp_path) if row["status"] == "kept"} >= {"here.mp4", web}


def test_what_a_crawl_began_with_is_asked_for_again_and_stands_in_no_file(tmp_path: Path) -> None:
    cookies, value = tmp_path / "cookies.txt", "s3cr3t-cookie-value"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{value}\n")
    given = ["--set", f"fetch.cookies={cookies}"]
    with Site() as site:
        recipe = write_recipe(tmp_path, {"urls": [site.url(f"/members/{p}bunny-wake.mp4") for p in ("", "busy/")]})
        done = crawl(tmp_path, recipe, *given)
        assert done.returncode == 0, done.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None), ("failed", "server_error")}
        assert json.loads((tmp_path / "crawl" / "dataset.json").read_text())["secrets"] == ["fetch.cookies"]
        site.heal()
        retry = ["retry", tmp_path / "crawl", "--engine", "local", "--workers", "0"]
        rejected = command(*retry)
        assert (rejected.returncode, rejected.stderr.count("\n")) == (2, 1)
        assert "was started with fetch.cookies" in rejected.stderr and "--set fetch.cookies=…" in rejected.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None), ("failed", "server_error")}, "nothing was touched"
        done = command(*retry, *given)
        assert done.returncode == 0, done.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None)}
        (tmp_path / "crawl" / "manifest" / "000000.parquet").unlink()
        rejected = crawl(tmp_path, recipe)
        assert rejected.returncode == 2 and "was started with fetch.cookies" in rejected.stderr
        done = crawl(tmp_path, recipe, *given)
        assert done.returncode == 0, done.stderr
    for secret in (value, str(cookies)):
        assert secret.encode() not in written(tmp_path)


def test_a_proxys_password_is_in_no_row_file_or_message(site: Site, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-wake.mp4")]})
    said = []
    for proxy in (
        "http://name:p4ssw0rd@127.0.0.1:9",
        "socks5://name:p4ssw0rd@127.0.0.1:9",
        "[p4ssw0rd",
        "{p4ssw0rd: 1}",
    ):
        # In a process of its own, as the words of its children are looked at, too.
        done = crawl(tmp_path, recipe, "--set", f"fetch.proxy={proxy}", workers=1, run=vidal)
        said.append((done.returncode, done.stdout + done.stderr))
    assert [code for code, _ in said] == [1, 2, 2, 2]
    assert not any("p4ssw0rd" in text for _, text in said)
    assert by_path(tmp_path) == {"clip/bunny-wake.mp4": ("failed", "network")}
    assert b"p4ssw0rd" not in written(tmp_path)


def test_cookies_that_cannot_be_read_are_a_usage_error(site: Site, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-wake.mp4")]})
    done = crawl(tmp_path, recipe, "--set", f"fetch.cookies={tmp_path}/none.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "fetch.cookies" in done.stderr


def test_a_list_with_a_platform_whose_terms_nobody_accepted_is_refused_before_any_request(tmp_path: Path) -> None:
    with Site() as site:
        urls = [site.url("/clip/bunny-wake.mp4"), "https://youtu.be/aBcDeFgHiJ1"]
        done = crawl(tmp_path, write_recipe(tmp_path, {"urls": urls}))
        assert (done.returncode, done.stderr.count("\n"), len(site.hits)) == (2, 1, 0), done.stderr
    assert "youtu.be: the terms of youtube" in done.stderr and "https://www.youtube.com/t/terms" in done.stderr
