"""`vidal doctor` on a crawl: YouTube's clients are those that yt-dlp itself would ask, and an old yt-dlp is a warning."""

from __future__ import annotations

from datetime import date, timedelta
from importlib import metadata
from pathlib import Path

import pytest
import yaml
import yt_dlp
from yt_dlp.extractor.youtube import YoutubeIE

from tests.processes import command
from vidal.crawl.youtube import clients_line
from vidal.stages.fetch import Fetch


@pytest.mark.parametrize("has_javascript", [False, True])
@pytest.mark.parametrize("has_cookies", [False, True])
@pytest.mark.parametrize(
    "asked", [[], ["all"], ["default", "-web"], ["web_safari", "ios", "default"], ["no_such", "tv"]]
)
def test_the_clients_are_those_that_yt_dlp_would_ask(
    asked: list[str], has_cookies: bool, has_javascript: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"extractor_args": {"youtube": {"player_client": asked}}, "quiet": True, "no_warnings": True}
    with yt_dlp.YoutubeDL({**options, "js_runtimes": {}}) as downloader:
        extractor = downloader.get_info_extractor("Youtube")
        extractor.initialize()
        # Neither an account nor a runtime is here; all that follows from them is yt-dlp's own.
        monkeypatch.setattr(YoutubeIE, "is_authenticated", has_cookies)
        runtime = type("Runtime", (), {"is_available": lambda self: True, "close": lambda self: None})()
        # Replaced in either case: one that vidal has registered in this process asks a downloader of vidal's.
        monkeypatch.setattr(extractor._jsc_director, "providers", {"deno": runtime} if has_javascript else {})
        wanted = extractor._get_requested_clients("https://www.youtube.com/watch?v=aBcDeFgHiJ1", {}, False)
    line = clients_line(asked, has_cookies=has_cookies, has_javascript=has_javascript)
    who, _, clients = line.partition(": ")
    assert who == ("signed in" if has_cookies else "guest")
    assert [client.partition(" (")[0] for client in clients.split("), ")] == wanted


def test_what_the_formats_of_a_client_need_is_said() -> None:
    line = clients_line(["web", "visionos"], has_cookies=False, has_javascript=True)
    assert line == "guest: web (JavaScript, PO token for https/dash), visionos (needs nothing)"


@pytest.mark.parametrize(
    ("age_days", "via", "is_old"), [(60, "auto", False), (61, "auto", True), (61, "direct", False)]
)
def test_an_old_yt_dlp_is_a_doubt(age_days: int, via: str, is_old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    released = (date.today() - timedelta(days=age_days)).strftime("%Y.%m.%d")
    monkeypatch.setattr(metadata, "version", lambda name: released)
    doubts = Fetch.model_validate({"via": via}).warnings()
    assert [f"yt-dlp {released} is {age_days} days old" in doubt for doubt in doubts] == ([True] if is_old else [])


def test_doctor_takes_what_a_recipe_does_not_hold(tmp_path: Path) -> None:
    recipe = tmp_path / "crawl.yaml"
    recipe.write_text(yaml.safe_dump({"source": {"urls": ["https://example.org/a.mp4"]}, "stages": ["fetch"]}))
    jar = tmp_path / "jar.txt"
    jar.write_text("# Netscape HTTP Cookie File\n")
    guest = command("doctor", recipe)
    assert "fetch youtube: guest: visionos" in guest.stdout, guest.stdout + guest.stderr
    signed_in = command("doctor", recipe, "--set", f"fetch.cookies={jar}", "--set", "fetch.po_token=web.gvs+S3cr3t")
    assert "fetch youtube: signed in: " in signed_in.stdout and "; cookies; po_token" in signed_in.stdout
    assert "S3cr3t" not in signed_in.stdout + signed_in.stderr
    alone = command("doctor", "--set", "fetch.cookies=x")
    assert (alone.returncode, alone.stderr) == (2, "vidal: --set needs RECIPE, whose settings it overrides\n")
