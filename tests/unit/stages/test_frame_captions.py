"""FrameCaptions: with the real classifier on real frames, tiny transformers models, and a real local server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers

from tests import captioners
from tests.chat_site import Site, running_site
from tests.toys import clip_of
from vidal.clip import Clip
from vidal.errors import ClipError, ModelError
from vidal.models.captioner import Captioned, ServerCaptioner, TransformersCaptioner, most_shared
from vidal.models.openai_server import ChatServer
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.work import Work


def sample(path: Path, count: int = 3) -> Clip:
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return clip_of([np.asarray(frames[index * len(frames) // count]) for index in range(count)])


def noise(count: int = 2, size: int = 48) -> Clip:
    random = np.random.default_rng(0)
    return clip_of([random.integers(0, 255, (size, size, 3), dtype=np.uint8) for _ in range(count)])


# ---- labels, by the real classifier


@pytest.fixture(scope="module")
def labels() -> FrameCaptions:
    stage = FrameCaptions()
    stage.setup()
    return stage


def test_a_cup_of_coffee_is_a_guessed_espresso(labels: FrameCaptions, samples: Path) -> None:
    clip = sample(samples / "coffee-still.mp4")
    labels.process_batch([clip])
    assert clip.frame_captions == ["a frame that may show an espresso"] * 3
    assert clip.video_caption == "a video that may show an espresso"
    assert clip.frame_caption_score is not None and 0.6 < clip.frame_caption_score < 1
    assert (
        clip.frame_caption_model is not None and "efficientnet-lite0-57934424.pth sha256:" in clip.frame_caption_model
    )


def test_a_cat_is_a_cat(labels: FrameCaptions, samples: Path) -> None:
    clip = sample(samples / "cat-stare.mp4")
    labels.process_batch([clip])
    assert clip.frame_captions == ["a frame that may show a cat"] * 3
    assert clip.video_caption == "a video that may show a cat"


def test_what_the_classifier_does_not_know_is_not_named(labels: FrameCaptions) -> None:
    clip = clip_of([np.full((48, 64, 3), 128, np.uint8)] * 2)
    labels.process_batch([clip])
    assert clip.frame_captions == ["", ""]
    assert clip.video_caption is None
    assert clip.frame_caption_score is None


def test_the_same_frames_give_the_same_row(labels: FrameCaptions, samples: Path) -> None:
    one, two = (sample(samples / "cat-stare.mp4") for _ in range(2))
    labels.process_batch([one])
    labels.process_batch([noise()])
    labels.process_batch([two])
    assert one == two


def test_a_higher_limit_names_less(samples: Path) -> None:
    stage = FrameCaptions(min_score=1.0)
    stage.setup()
    clip = sample(samples / "coffee-still.mp4", 1)
    stage.process_batch([clip])
    assert (clip.frame_captions, clip.video_caption) == ([""], None)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelError, match="no EfficientNet-lite0 checkpoint") as caught:
        FrameCaptions(model=str(tmp_path / "x.pth")).setup()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_one_line(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match="no EfficientNet-lite0 checkpoint"):
        FrameCaptions(model=str(tmp_path / "x.pth")).setup()


# ---- transformers: what every class does is in tests/unit/models/test_captioners.py


def smolvlm(folder: Path) -> str:
    transformers.SmolVLMConfig().save_pretrained(folder)
    captioners.bert_tokenizer(folder).save_pretrained(folder)
    transformers.SmolVLMImageProcessor().save_pretrained(folder)
    transformers.SmolVLMVideoProcessor().save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor"}')
    return "num2words"


def needing_another_image(folder: Path) -> str:
    """A model whose trial fails, as that of a class that wants more than images would."""
    captioners.git(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["image_size"] = 64
    path.write_text(json.dumps(config))
    transformers.GitForCausalLM(transformers.GitConfig.from_pretrained(folder)).save_pretrained(folder)
    return "git cannot be driven as a captioner (Input image size (32*32) doesn't match model (64*64)"


@pytest.mark.parametrize("build", [smolvlm, needing_another_image])
def test_a_class_that_cannot_be_driven_is_rejected_in_one_line_before_any_clip(build: Any, tmp_path: Path) -> None:
    why = build(tmp_path)
    with pytest.raises(ModelError, match=re.escape(why)) as caught:
        FrameCaptions(backend="transformers", model=str(tmp_path)).setup()
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^model /") as caught:
        TransformersCaptioner(str(tmp_path), device="cpu", max_new_tokens=4)
    assert "\n" not in str(caught.value)


def test_the_clip_gets_the_caption_that_shares_most() -> None:
    assert most_shared(["a red car", "a dog runs", "a dog sleeps", "dogs run"]) == "a dog runs"


# ---- a real server on the loopback


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def captioner(site: Site) -> ServerCaptioner:
    return ServerCaptioner(ChatServer(base_url=site.url, model="vlm", sleep=lambda seconds: None), 40)


def test_a_server_sees_the_stored_bytes_of_each_frame_then_of_all(site: Site) -> None:
    for text in ("a  dog\nruns", "a dog sits", "a dog in a park"):
        site.says(f'{{"caption": {text!r}}}'.replace("'", '"'))
    clip = noise()
    stage = FrameCaptions(backend="server", model="vlm")
    stage.setup(captioner(site))
    stage.process_batch([clip])
    assert (clip.frame_captions, clip.video_caption) == (["a dog runs", "a dog sits"], "a dog in a park")
    assert (clip.frame_caption_score, clip.frame_caption_model) == (None, "server vlm")
    parts = [request["messages"][0]["content"] for request in site.requests]
    assert [[part["type"] for part in content] for content in parts] == [
        ["image_url", "text"],
        ["image_url", "text"],
        ["image_url", "image_url", "text"],
    ]
    addresses = [part["image_url"]["url"] for content in parts for part in content if part["type"] == "image_url"]
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)


def test_frames_of_many_clips_are_asked_about_at_once_and_each_clip_gets_its_own() -> None:
    def answer(request: dict[str, Any]) -> str:
        shown = [part for part in request["messages"][0]["content"] if part["type"] == "image_url"]
        size = sum(len(part["image_url"]["url"]) for part in shown)
        return json.dumps({"caption": f"{len(shown)} images of {size}"})

    clips = [noise(2, size=16 + 8 * n) for n in range(3)]
    with running_site(answer=answer, wait_for=5) as site:
        stage = FrameCaptions(backend="server", model="vlm", server_url=site.url, concurrency=5, prices=(1.0, 0.0))
        stage.setup()
        stage.process_batch(clips)
        assert site.most_at_once == 5
        for clip in clips:
            alone = clip_of([])
            alone.work.members = clip.work.members
            stage.process_batch([alone])
            assert (alone.frame_captions, alone.video_caption) == (clip.frame_captions, clip.video_caption)
            assert (clip.prompt_tokens, clip.completion_tokens) == (3 * 100, 3 * 10)
            assert clip.server_cost == 300 / 1e6
    assert len({clip.video_caption for clip in clips}) == 3


def test_replies_that_are_all_outside_the_schema_fail_the_clip(site: Site) -> None:
    for _ in range(9):
        site.says("a dog")
    (error,) = captioner(site).caption([noise().work])
    assert isinstance(error, ClipError) and error.reason == "malformed_caption"


def test_a_server_is_asked_in_the_recipes_words_and_never_shown_a_video(site: Site) -> None:
    for _ in range(3):
        site.says('{"caption": "a dog"}')
    words = {"frame_prompt": "What is here?", "video_prompt": "What happens?"}
    stage = FrameCaptions(backend="server", model="vlm", server_url=site.url, concurrency=1, **words)
    stage.setup()
    clip = noise()
    stage.process_batch([clip])
    asked = [request["messages"][0]["content"][-1]["text"] for request in site.requests]
    assert asked == ["What is here?", "What is here?", "What happens?"]
    with pytest.raises(ValueError, match="a server is shown images"):
        FrameCaptions(backend="server", model="vlm", server_url=site.url, video_input="video")


@pytest.mark.parametrize("prompt", ["frame_prompt", "video_prompt"])
def test_a_classifier_takes_no_prompt(prompt: str) -> None:
    with pytest.raises(ValueError, match="a classifier is asked nothing"):
        FrameCaptions(**{prompt: "What is here?"})


class Blank:
    """A captioner that finds nothing to say."""

    def caption(self, works: Sequence[Work]) -> list[Captioned]:
        return [Captioned(frames=[""] * len(work.frame_members()), video="", score=None) for work in works]


def test_a_caption_without_words_is_none() -> None:
    stage = FrameCaptions()
    stage.setup(Blank())
    clip = noise()
    stage.process_batch([clip])
    assert (clip.frame_captions, clip.video_caption) == (["", ""], None)
