"""Every class of captioning model, with random weights: through a recipe, in batches, as video, with prompts."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests.captioners import ALL, TAKE_VIDEO
from tests.processes import command
from tests.runs import rows, write_recipe
from tests.toys import clip_of
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.captioner import VIDEO_PROMPT, TransformersCaptioner
from vidal.stage import Stage
from vidal.work import Member, Work


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in ALL.items()}


class Oblong(Stage):
    """Three frames that are no squares."""

    writes = ("video", "duration_s", "frame_times")
    layers = ("video",)

    def process(self, clip: Clip) -> None:
        clip.duration_s, clip.frame_times, clip.frame_width, clip.frame_height = 3.0, [0.5, 1.5, 2.5], 80, 48
        clip.work.put(Member(layer="video", suffix="mp4", data=b"no video"))
        for k, time_s in enumerate(clip.frame_times):
            out = io.BytesIO()
            Image.fromarray(noise(48, 80, k)).save(out, "JPEG")
            clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=out.getvalue(), time_s=time_s))


def noise(height: int, width: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def work(height: int, width: int, seed: int, count: int = 3) -> Work:
    return clip_of([noise(height, width, 10 * seed + k) for k in range(count)]).work


def captioner(reference: str, **settings: Any) -> TransformersCaptioner:
    return TransformersCaptioner(reference, device="cpu", max_new_tokens=6, **settings)


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_captions_oblong_frames_and_the_clip_with_any_class(
    name: str, models: dict[str, str], tmp_path: Path
) -> None:
    captions = {"backend": "transformers", "model": models[name], "max_new_tokens": 6}
    stages = [f"{Oblong.__module__}:Oblong", {"frame_captions": captions}]
    path = write_recipe(tmp_path, stages, titles=2)
    done = command("build", path, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    row = rows(tmp_path / "out")["c000"]
    assert (row["status"], len(row["frame_captions"])) == ("kept", 3)
    assert 0 < row["frame_caption_score"] <= 1 and "sha256:" in row["frame_caption_model"]
    assert row["frame_caption_model"].endswith(" video") == (name in TAKE_VIDEO)


@pytest.mark.parametrize("name", ALL)
def test_clips_at_once_get_the_captions_of_each_alone(name: str, models: dict[str, str]) -> None:
    """On a GPU the frames of several clips are one batch, also those of other sizes and numbers."""
    mixing = captioner(models[name], batch_frames=5)
    works = [work(48, 80, 1), work(80, 48, 2, count=2), work(40, 40, 3)]
    alone = mixing.caption(works)
    mixing.mix_clips = True
    together = mixing.caption(works)
    assert [(one.frames, one.video) for one in together] == [(one.frames, one.video) for one in alone]
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-6)
    assert any(text for one in alone for text in one.frames)


@pytest.mark.parametrize("name", TAKE_VIDEO)
def test_a_model_that_takes_video_sees_the_frames_with_their_times(
    name: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing = captioner(models[name])
    seen: list[dict[str, Any]] = []
    processor = seeing._processor
    whole = type(processor).__call__

    def look(self: Any, *args: Any, **given: Any) -> Any:
        seen.append(copy.deepcopy({**given, "out": (out := whole(self, *args, **given))}))
        return out

    monkeypatch.setattr(type(processor), "__call__", look)
    clip = work(48, 80, 1, count=4)
    # Two frames a second, from a quarter of a second on.
    clip.members = [
        Member(layer=m.layer, suffix=m.suffix, data=m.data, time_s=0.25 + k / 2) for k, m in enumerate(clip.members)
    ]
    seeing.caption([clip])
    of_clip = seen[-1]
    ((video,),) = of_clip["videos"]
    assert np.array_equal(video.permute(0, 2, 3, 1), np.stack(clip.frames()))
    ((metadata,),) = of_clip["video_metadata"]
    assert [index / metadata["fps"] for index in metadata["frames_indices"]] == [0.25, 0.75, 1.25, 1.75]
    assert VIDEO_PROMPT in of_clip["text"][0]
    if name == "qwen2_5_vl":
        assert of_clip["out"]["second_per_grid_ts"].tolist() == [1.0]
    if name == "qwen3_vl":
        text = processor.replace_video_token({**of_clip["out"], "video_metadata": [VideoMetadata(**metadata)]}, 0)
        assert text.startswith("<0.5 seconds>") and "<1.5 seconds>" in text
    shown = captioner(models[name], video_input="images").caption([clip])
    assert not shown[0].saw_video and len(seen[-1]["images"][0]) == 4


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("blip", {"frame_prompt": "a"}),
        ("instructblip", {"frame_prompt": "a dog on the grass"}),
        ("florence_2", {"frame_prompt": "<MORE_DETAILED_CAPTION>"}),
        ("llava", {"frame_prompt": "a dog on the grass"}),
        ("llava", {"video_prompt": "a dog on the grass"}),
    ],
)
def test_a_prompt_of_the_recipe_reaches_the_model(name: str, setting: dict[str, str], models: dict[str, str]) -> None:
    clip = work(48, 80, 1)
    (usual,), (asked,) = (captioner(models[name], **given).caption([clip]) for given in ({}, setting))
    is_of_frames = "frame_prompt" in setting
    assert (asked.score != usual.score) == is_of_frames
    assert is_of_frames or asked.video != usual.video


@pytest.mark.parametrize(
    ("name", "setting", "why"),
    [
        ("florence_2", {"frame_prompt": "What is this?"}, "frame_prompt of florence2 is one of <CAPTION>"),
        ("git", {"frame_prompt": "a"}, "git has no use for frame_prompt"),
        ("encoder_decoder", {"frame_prompt": "a"}, "vision-encoder-decoder has no use for frame_prompt"),
        ("blip", {"video_prompt": "a"}, "blip has no use for video_prompt"),
        ("llava", {"video_input": "video"}, "llava has no use for video_input: video"),
    ],
)
def test_a_setting_that_a_class_has_no_use_for_is_refused_in_one_line(
    name: str, setting: dict[str, str], why: str, models: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        captioner(models[name], **setting)
    assert "\n" not in str(caught.value)


def test_half_precision_is_that_of_the_model_and_its_pixels(models: dict[str, str]) -> None:
    assert captioner(models["blip"], half="bfloat16")._model.dtype == torch.float32, "on a CPU, whatever is asked for"
    halved = captioner(models["blip"])
    halved._model, halved._dtype = halved._model.to(torch.bfloat16), torch.bfloat16
    assert halved.caption([work(48, 80, 1)])[0].score == pytest.approx(
        captioner(models["blip"]).caption([work(48, 80, 1)])[0].score, abs=0.05
    )
