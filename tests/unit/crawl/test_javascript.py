"""deno in the fetching child: what it computes, and what neither it nor any other program may do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.site import Site
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.child import FetchChild
from vidal.crawl.settings import WebSettings
from vidal.errors import RecipeError

PLAYER = """(function () {
  class Url {
    constructor() { this.parts = {} }
    set(name, value) { this.parts[name] = value }
    get(name) { return this.parts[name] }
    mix() { this.parts.n = this.parts.n.split("").reverse().join("") }
  }
  function make(url, s, sig) { var url = new Url(); url.set("alr", "yes"); return url }
}).call(this);"""
"""A player as far as yt-dlp-ejs looks at one; its challenge is to write a word backwards."""

SECRET = "S3cr3t.t0ken-of-mine"


@pytest.fixture(scope="module")
def child() -> Iterator[FetchChild]:
    with FetchChild(module="tests.site.strange_child", function="misbehaving", cpu_s=20) as child:
        yield child


def act(child: FetchChild, what: str, folder: Path, given: str = "", **settings: object) -> Answer:
    told = WebSettings(**{"javascript": "deno", **settings})  # type: ignore[arg-type]
    url = f"http://example.com/{what}?{quote(given, safe='')}"
    return child.ask(Ask(op="direct", url=url, folder=str(folder), wall_s=60, settings=told))


def said(child: FetchChild, what: str, folder: Path, given: str = "", **settings: object) -> str:
    answer = act(child, what, folder, given, **settings)
    assert answer.ok, answer
    return str(answer.metadata["said"])


def test_a_program_is_run_and_ends(child: FetchChild, tmp_path: Path) -> None:
    assert said(child, "javascript", tmp_path, "console.log([1, 2, 3].map(n => n * 2).join())") == "2,4,6\n"


FORBIDDEN = {
    "a server": "return fetch('{site}/clip/bunny-wake.mp4')",
    "a socket": "return Deno.connect({{hostname: '127.0.0.1', port: {port}}})",
    "a module of a server": "return import('{site}/x.js')",
    "a file": "return Deno.readTextFile('{file}')",
    "a file by node": "return (async () => (await import('node:fs')).readFileSync('{file}'))()",
    "a file as a module": "return import('{file}')",
    "a file as a text": "return import('file://{file}', {{with: {{type: 'text'}}}})",
    "a new file": "return Deno.writeTextFile('{folder}/new', 'x')",
    "a variable": "return Deno.env.get('HOME')",
    "a program": "return new Deno.Command('/bin/ls').output()",
    "a library": "return Deno.dlopen('libc.so.6', {{}})",
    "the machine": "return Deno.hostname()",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_players_code_reaches_nothing_of_the_machine(child: FetchChild, tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret.js"
    secret.write_text("export default 'hit'; // hit")
    with Site() as site:
        code = FORBIDDEN[what].format(site=site.url(""), port=site.port, file=secret, folder=tmp_path)
        # As a player's: a string that is evaluated.
        program = f"try {{ await new Function({json.dumps(code)})(); console.log('hit') }} catch (e) {{ console.log(String(e)) }}"
        answer = said(child, "javascript", tmp_path, program)
        assert not site.hits
    assert "hit" not in answer and ("Requires" in answer or "NotCapable" in answer or "remote" in answer), answer
    assert {path.name for path in tmp_path.iterdir()} == {"secret.js"}


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("for (;;) {}", "deno: "),
        ("const a = []; for (;;) a.push(new Array(1e6).fill(1))", "deno: "),
        ("throw 1", "deno: exit code 1"),
    ],
)
def test_a_program_without_end_or_bounds_is_ended(child: FetchChild, tmp_path: Path, program: str, end: str) -> None:
    answer = act(child, "javascript", tmp_path, program)
    assert not answer.ok and end in answer.detail, answer


def test_without_the_setting_no_program_is_started(child: FetchChild, tmp_path: Path) -> None:
    assert "no program is started here" in act(child, "javascript", tmp_path, "1", javascript="off").detail
    hit = tmp_path / "hit"
    assert "no program is started here" in act(child, "program", tmp_path, str(hit)).detail
    assert not hit.exists()


def test_yt_dlp_solves_its_challenges_there_and_is_more_than_one_client(child: FetchChild, tmp_path: Path) -> None:
    answer = json.loads(said(child, "challenge", tmp_path, PLAYER))
    assert answer["responses"] == [{"type": "result", "data": {"abc": "cba"}}]
    with_it, without = (said(child, "clients", tmp_path, javascript=how).split() for how in ("deno", "off"))
    assert len(with_it) > 1 and len(without) == 1
    chosen = {"youtube": {"player_client": ["tv", "web_safari"]}}
    assert said(child, "clients", tmp_path, javascript="off", extractor_args=chosen) == "tv web_safari"


def test_a_token_is_in_no_environment_and_in_no_answer(child: FetchChild, tmp_path: Path) -> None:
    token = {"po_token": f"web.gvs+{SECRET}", "proxy": f"http://user:{SECRET}@127.0.0.1:9"}
    tell = "console.log(await new Function('return 1')())"
    assert said(child, "javascript", tmp_path, tell, **token) == "1\n"
    assert SECRET not in said(child, "environment", tmp_path, **token) + str(dict(os.environ))
    answer = act(child, f"{SECRET}/x.mp4", tmp_path, po_token=token["po_token"], deny_hosts=["example.com"])
    assert SECRET not in str(answer)
    assert SECRET not in repr(WebSettings(**token))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"po_token": SECRET}, "po_token must be CLIENT.CONTEXT+TOKEN"),
        ({"extractor_args": {"youtube": {"po_token": [SECRET]}}}, "po_token is a secret; set po_token or cookies"),
        ({"extractor_args": {"YouTube-EJS": {"dev": ["true"]}}}, "youtube-ejs is for the developers"),
    ],
)
def test_what_would_be_stored_or_harm_is_refused_without_its_value(given: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace("+", r"\+")) as raised:
        WebSettings(**given)  # type: ignore[arg-type]
    assert SECRET not in str(raised.value)
