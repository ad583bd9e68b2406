"""What a crawl's dataset may not do to whoever goes on with it: import a module, or ask on without its secrets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.test_crawl import crawl, write_recipe
from tests.runs import command, vidal
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
