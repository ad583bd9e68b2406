"""Captions by a server: many requests at once, and what they took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.chat_site import Site, running_site
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.llm import ServerLlm
from vidal.models.openai_server import ChatServer, Reply, Usage
from vidal.stages.text.enhance_caption import EnhanceCaption
from vidal.text.prompt import Prompt, build_prompt
from vidal.text.views import views_of


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
        return json.dumps({"caption": f"The dog catches ball {number}."})

    with running_site(answer=answer, wait_for=4) as site:
        stage = EnhanceCaption(backend="server", model="m", server_url=site.url, concurrency=4, prices=(2.0, 10.0))
        stage.setup()
        clips = [dog(clip_id=str(n), title=f"My dog catches ball {n} again") for n in range(8)]
        stage.process_batch(clips)
    assert [clip.caption for clip in clips] == [f"The dog catches ball {n}." for n in range(8)]
    assert site.most_at_once == 4


def test_what_a_server_took_is_in_the_row(site: Site) -> None:
    stage = EnhanceCaption(backend="server", model="m", prices=(2.0, 10.0))
    stage.setup(ServerLlm(server(site), 40))
    clip = dog(prompt_tokens=1000, completion_tokens=100, server_cost=0.003)
    site.says('{"caption": "A dog learns to catch a ball."}', usage={"prompt_tokens": 200, "completion_tokens": 30})
    stage.process_batch([clip])
    assert (clip.prompt_tokens, clip.completion_tokens, clip.server_cost) == (1200, 130, 0.0037)
    # A reply of the wrong form is paid for all the same.
    site.says("no JSON", usage={"prompt_tokens": 200, "completion_tokens": 30})
    stage.process_batch([clip])
    assert (clip.prompt_tokens, clip.completion_tokens, clip.caption_source) == (1400, 160, "merge")


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
