"""Captions by a server: many requests at once, what they took, and whether it is there at all."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.chat_site import Site, running_site
from tests.hub import silent_hub
from tests.processes import command
from tests.runs import write_recipe
from vidal.caption.prompt import Prompt, build_prompt
from vidal.caption.views import views_of
from vidal.clip import Clip
from vidal.engine.isolate import run_stage
from vidal.engine.job import ShardReport
from vidal.errors import MachineError, ModelError
from vidal.models import openai_server
from vidal.models.captioner import ServerCaptioner
from vidal.models.llm import ServerLlm
from vidal.models.openai_server import ChatServer, Reply, Usage
from vidal.stages.text.enhance_caption import EnhanceCaption
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.work import Member


def dog(**columns: Any) -> Clip:
    given = {"clip_id": "dog", "title": "My dog learns to catch a ball", "video_caption": "a dog with a ball on grass"}
    return Clip(**{**given, **columns})


def server(site: Site, **settings: Any) -> ChatServer:
    return ChatServer(base_url=site.url, model="m", sleep=lambda seconds: None, **settings)


class Local:
    """An LLM of this process, which counts nothing."""

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]:
        return [Reply("A dog learns to catch a ball on grass.")] * len(prompts)


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def test_clips_of_a_batch_are_asked_about_at_once_and_keep_their_order() -> None:
    def answer(request: dict[str, Any]) -> str:
        number = next(word for word in request["messages"][-1]["content"].split() if word.isdigit())
        return json.dumps({"caption": f"A dog catches ball {number} again, on grass."})

    with running_site(answer=answer, wait_for=4) as site:
        stage = EnhanceCaption(backend="server", model="m", server_url=site.url, concurrency=4, prices=(2.0, 10.0))
        stage.setup()
        clips = [dog(clip_id=str(n), title=f"My dog catches ball {n} again") for n in range(8)]
        stage.process_batch(clips)
    assert [clip.caption for clip in clips] == [f"A dog catches ball {n} again, on grass." for n in range(8)]
    assert site.most_at_once == 4


def test_what_a_server_took_is_in_the_row(site: Site) -> None:
    stage = EnhanceCaption(backend="server", model="m", prices=(2.0, 10.0))
    stage.setup(ServerLlm(server(site), 40))
    clip = dog(prompt_tokens=1000, completion_tokens=100, server_cost=0.003)
    site.says('{"caption": "A dog learns to catch a ball."}', usage={"prompt_tokens": 200, "completion_tokens": 30})
    stage.process_batch([clip])
    assert (clip.prompt_tokens, clip.completion_tokens, clip.server_cost) == (1200, 130, 0.0037)
    # A reply of the wrong form is paid for all the same, each of the times that it is asked for.
    for _ in range(3):
        site.says("no JSON", usage={"prompt_tokens": 200, "completion_tokens": 30})
    stage.process_batch([clip])
    assert (clip.prompt_tokens, clip.completion_tokens, clip.caption_source) == (1800, 220, "merge")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        {"prompt_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": "3", "completion_tokens": True},
    ],
)
def test_a_server_that_counts_nothing_or_nonsense_took_nothing(site: Site, usage: Any) -> None:
    site.says('{"caption": "A dog."}', usage=usage)
    assert server(site).ask([], "caption", 8).usage == Usage()


def test_a_local_model_leaves_no_count() -> None:
    stage = EnhanceCaption()
    stage.setup(Local())
    clip = dog()
    stage.process_batch([clip])
    assert (clip.caption_source, clip.prompt_tokens, clip.completion_tokens, clip.server_cost) == (
        "llm",
        None,
        None,
        None,
    )


def test_one_failing_request_of_many_stops_the_batch(site: Site) -> None:
    site.fails(404)
    site.says('{"caption": "A dog."}')
    llm = ServerLlm(server(site, concurrency=2), 8)
    with pytest.raises(ModelError, match="HTTP 404"):
        llm.complete([build_prompt(views_of(dog(), 200)[0])] * 2, [[], []])


OBJECT = '{"caption": "A dog."}'


@pytest.mark.parametrize(
    "content",
    [
        OBJECT,
        f"```json\n{OBJECT}\n```",
        f"```\n{OBJECT}```",
        f"Here it is:\n```json\n{OBJECT}\n```\nAnything else?",
        f"<think>\nA dog? {{yes}}\n</think>\n\n{OBJECT}",
        f"A dog, I should say.\n</think>{OBJECT}",
        f"<think>no</think>```json\n{OBJECT}\n```",
        f"\n  {OBJECT}\n",
        f"<think>\nA dog? {{yes}}\n{OBJECT}",
        f"<think>\nA dog.\n```json\n{OBJECT}\n```",
        f"Sure: {OBJECT}",
    ],
)
def test_a_reply_is_read_whatever_a_model_puts_around_it(site: Site, content: str) -> None:
    site.says(content)
    assert server(site).ask([], "caption", 8).text == "A dog."
    assert len(site.requests) == 1


def test_what_is_inside_the_caption_is_left_as_it_is(site: Site) -> None:
    site.says(json.dumps({"caption": "</think> ```json {}```"}))
    assert server(site).ask([], "caption", 8).text == "</think> ```json {}```"


def test_a_malformed_reply_is_asked_for_anew_with_another_draw_and_every_reply_counts(site: Site) -> None:
    for content in ("A dog.", '<think>It may be {"caption": "A cat."} or', OBJECT):
        site.says(content, usage={"prompt_tokens": 10, "completion_tokens": 3})
    assert server(site).ask([], "caption", 8) == Reply("A dog.", Usage(30, 9))
    assert [(r["temperature"], r["seed"]) for r in site.requests] == [(0, 0), (0.7, 1), (0.7, 2)]


def clips_with_frames(count: int) -> list[Clip]:
    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16), "green").save(jpeg, "JPEG")
    clips = [dog(clip_id=str(number)) for number in range(count)]
    for clip in clips:
        for k in range(3):
            clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=jpeg.getvalue(), time_s=float(k)))
    return clips


def run(captions: ServerCaptioner, clips: list[Clip]) -> None:
    stage = FrameCaptions(backend="server", model="m")
    stage.setup(captions)
    run_stage(stage, clips, ShardReport(shard=0), QuietNotes(), isolate=False)


class QuietNotes:
    def begin(self, shard: int, under_way: object, *, surely: bool) -> None: ...

    def advance(self, report: ShardReport) -> None: ...


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_server_that_fails_every_second_request_captions_every_clip(concurrency: int, status: int) -> None:
    clips = clips_with_frames(12)
    with running_site(lambda request: OBJECT, status=lambda number: status if number % 2 else 200) as site:
        # Of many requests at once, one would now and then meet five failures in a row.
        run(ServerCaptioner(server(site, concurrency=concurrency, tries=20), 8), clips)
    assert {(clip.status, clip.video_caption) for clip in clips} == {("candidate", "A dog.")}


@pytest.mark.parametrize(
    ("bad", "frames", "video"),
    [
        pytest.param([0], ["", "A dog.", "A dog."], "A dog.", id="a frame, and with it the clip's caption"),
        pytest.param([0, 1, 2], None, None, id="all of them"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_bad_reply_costs_its_caption_and_only_all_of_them_the_clip(
    concurrency: int, bad: list[int], frames: list[str] | None, video: str | None
) -> None:
    clips = clips_with_frames(4)
    blue = io.BytesIO()
    Image.new("RGB", (16, 16), "blue").save(blue, "JPEG")
    members = clips[2].work.members
    for k in bad:
        members[k] = dataclasses.replace(members[k], data=blue.getvalue())
    mark = base64.b64encode(blue.getvalue()).decode()
    with running_site(lambda request: "no" if mark in str(request) else OBJECT) as site:
        run(ServerCaptioner(server(site, concurrency=concurrency), 8), clips)
    assert [(clip.reason, clip.video_caption) for n, clip in enumerate(clips) if n != 2] == [(None, "A dog.")] * 3
    if frames is None:
        assert clips[2].reason == "malformed_caption"
        assert clips[2].is_transient and "3 times" in str(clips[2].detail)
    else:
        assert (clips[2].reason, clips[2].frame_captions, clips[2].video_caption) == (None, frames, video)


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (413, 1), (500, 5)])
def test_a_request_that_the_server_cannot_do_is_its_clips_failure(status: int, tries: int) -> None:
    clips = clips_with_frames(3)
    # Each clip asks four times; the sixth request is one of the second clip.
    bad = range(6, 6 + tries)
    with running_site(lambda request: OBJECT, status=lambda number: status if number in bad else 200) as site:
        run(ServerCaptioner(server(site), 8), clips)
    assert [clip.reason for clip in clips] == [None, "server_refused", None]
    assert clips[1].is_transient and f"HTTP {status}" in str(clips[1].detail)
    assert len(site.requests) == 12 - 1 + tries, "the other clips of the batch are not asked about again"


@pytest.mark.parametrize(("after", "status"), [(0, 503), (6, 503), (0, 400), (6, 400), (6, 500)])
def test_a_server_that_is_down_for_good_stops_the_run_with_one_line(after: int, status: int) -> None:
    with (
        running_site(lambda request: OBJECT, status=lambda number: 200 if number <= after else status) as site,
        pytest.raises(MachineError, match=f"^server {site.url}.*HTTP {status}") as caught,
    ):
        run(ServerCaptioner(server(site), 8), clips_with_frames(20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("is_listening", "why"), [(True, "timed out"), (False, "refused")])
def test_a_server_that_does_not_answer_is_told_by_doctor_in_seconds(
    is_listening: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_server, "_IS_UP_TIMEOUT_S", 0.5)
    with silent_hub() as address:
        address = address if is_listening else "http://127.0.0.1:9"
        served = {"backend": "server", "server_url": f"{address}/v1", "model": "acme/writer"}
        stages = ["fetch", "probe", {"media": {"frames": 2}}, {"frame_captions": served}, {"enhance_caption": served}]
        started = time.monotonic()
        done = command("doctor", write_recipe(tmp_path, stages))
        took_s = time.monotonic() - started
    assert done.returncode == 1 and took_s < 30, took_s
    for stage in ("frame_captions", "enhance_caption"):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"FAIL stage {stage}: "))
        assert f"server {address}/v1: no answer in 0.5 s (" in line and why in line


@pytest.mark.parametrize("address", ["", "localhost:8000/v1"])
@pytest.mark.parametrize("stage", ["frame_captions", "enhance_caption"])
def test_a_server_without_an_address_stops_a_build_before_its_plan(stage: str, address: str, tmp_path: Path) -> None:
    served = {"backend": "server", "server_url": address, "model": "acme/writer"}
    path = write_recipe(tmp_path, ["fetch", "probe", {"media": {"frames": 2}}, {stage: served}])
    done = command("build", path, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert (done.returncode, done.stderr) == (
        2, f"vidal: {stage}.server_url: {address!r} is no address such as http://localhost:8000/v1\n",
    )  # fmt: skip
    assert not (tmp_path / "out" / "plan.parquet").exists()


def test_a_server_that_answers_anything_is_asked_about_the_test_clip(tmp_path: Path) -> None:
    def answer(request: dict[str, object]) -> str:
        return json.dumps({"caption": "A test pattern"})

    # It knows no other address than that of chats.
    with running_site(answer) as site:
        served = {"backend": "server", "server_url": site.url, "model": "acme/writer"}
        done = command(
            "doctor",
            write_recipe(tmp_path, ["fetch", "probe", {"media": {"frames": 2}}, {"frame_captions": served}]),
        )
    assert done.returncode == 0 and "ok   stage frame_captions: ready in" in done.stdout, done.stdout
