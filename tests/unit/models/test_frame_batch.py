"""Frames go to the device once for all models, as uint8; what models make of them there comes back once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.captioners import blip
from tests.toys import clip_of, image
from tests.unit.stages.test_depth_stage import models as models
from tests.unit.stages.test_text_match import tiny_clip
from vidal.clip import Clip
from vidal.models.depth import DepthModel, load_depth
from vidal.models.frame_batch import MOVED, FrameBatch, Moved, pixels
from vidal.stage import Stage
from vidal.stages.modalities.depth import Depth
from vidal.stages.modalities.infrared import Infrared
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.stages.text.text_match import TextMatch
from vidal.work import Member, Work

HEIGHT, WIDTH = 72, 128
FRAME_BYTES = HEIGHT * WIDTH * 3


@pytest.fixture(autouse=True)
def _from_nothing() -> Iterator[None]:
    MOVED.reset()
    yield


def clips(count: int = 2) -> list[Clip]:
    return [clip_of([image(10 * c + k, WIDTH, HEIGHT) for k in range(3)], title="a dog") for c in range(count)]


@pytest.fixture(scope="module")
def chain(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    captioner, matcher = (tmp_path_factory.mktemp(name) for name in ("captioner", "matcher"))
    stages: list[Stage] = [
        Depth(model=str(models["metric"])), Infrared(),
        FrameCaptions(backend="transformers", model=blip(captioner), max_new_tokens=4),
        TextMatch(backend="clip", model=tiny_clip(matcher)),
    ]  # fmt: skip
    for stage in stages:
        stage.setup()
    return stages


def test_depth_infrared_captions_and_match_share_one_upload_of_each_frame(chain: list[Stage]) -> None:
    seen = clips()
    ups, downs = [], []
    for stage in chain:
        stage.process_batch(seen)
        ups.append(MOVED.frames_up)
        downs.append(MOVED.down)
    assert ups == [6 * FRAME_BYTES] * 4
    # Metres of four bytes a pixel, grey of one; tokens and vectors are a few bytes, and so is what goes up beside.
    assert downs[:2] == [6 * HEIGHT * WIDTH * 4, 6 * HEIGHT * WIDTH * 5]
    assert downs[1] < downs[2] < downs[3] < downs[1] + 2000
    assert 0 < MOVED.other_up < 2000
    for clip in seen:
        clip.work.forget_decoded()
        assert not clip.work.on_devices
    chain[0].process_batch(seen)
    assert MOVED.frames_up == 12 * FRAME_BYTES, "nothing stays where a clip has left the worker"


def test_the_frames_of_a_clip_leave_the_host_in_one_piece() -> None:
    """The device ``meta`` has shapes and no memory: the way of any device that is not the CPU."""
    work = Work(_frames=[image(0, 8, 4), image(1, 4, 8), image(2, 8, 4)])
    batch = FrameBatch([(work, 2), (work, 1)])
    moved = pixels(batch, "meta")
    assert [(frame.device.type, frame.dtype, tuple(frame.shape)) for frame in moved] == [
        ("meta", torch.uint8, (3, 4, 8)), ("meta", torch.uint8, (3, 8, 4)),
    ]  # fmt: skip
    assert moved[0] is pixels(FrameBatch.of([work])[2:], "meta")[0]
    assert Moved(frames_up=3 * 96) == MOVED


def test_a_batch_is_a_sequence_of_arrays_that_a_function_cannot_change() -> None:
    one, other = (Work(_frames=[image(10 * w + k, 8, 4) for k in range(2)]) for w in range(2))
    batch = FrameBatch.joined([FrameBatch.of([one]), FrameBatch([(other, 1)])])
    assert [frame.tobytes() for frame in batch] == [frame.tobytes() for frame in [*one.frames(), other.frames()[1]]]
    assert [frame.tobytes() for frame in batch[1:]] == [frame.tobytes() for frame in list(batch)[1:]]
    with pytest.raises(ValueError, match="read-only"):
        batch[0][:] = 0
    assert np.array_equal(pixels(batch, "cpu")[2].permute(1, 2, 0), other.frames()[1])
    assert np.shares_memory(pixels(batch, "cpu")[2].numpy(), other.frames()[1]), "nothing is copied on a CPU"


def test_a_processor_that_computes_on_the_host_sends_its_own_pixels(models: dict[str, Path]) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    on_device: Any = load_depth(str(models["metric"]), device="cpu", half=False)
    frames = FrameBatch.of(clip.work for clip in clips(1))
    MOVED.reset()
    expected = on_device.estimate(frames)
    assert (MOVED.frames_up, MOVED.other_up) == (3 * FRAME_BYTES, 0)
    on_host = DepthModel(
        model=on_device.model, processor=DPTImageProcessorPil.from_pretrained(models["metric"]), device=on_device.device,
        dtype=on_device.dtype, is_metric=True,
    )  # fmt: skip
    MOVED.reset()
    made = on_host.estimate(frames)
    pixel_values = on_host.processor(images=[frame for frame in frames], return_tensors="pt")["pixel_values"]
    assert (MOVED.frames_up, MOVED.other_up) == (0, pixel_values.nbytes)
    assert np.abs(np.stack(made) - np.stack(expected)).max() < 0.05 * np.stack(expected).max()


def test_each_processor_of_transformers_in_use_takes_tensors() -> None:
    classes = (transformers.DPTImageProcessor, transformers.GLPNImageProcessor, transformers.CLIPImageProcessor,
               transformers.BlipImageProcessor, transformers.SiglipImageProcessor)  # fmt: skip
    assert [one().backend for one in classes] == ["torchvision"] * 5


def test_beside_a_gpu_frames_are_decoded_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, threaded = clips(5), clips(5)
    expected = [[frame.tobytes() for frame in clip.work.frames()] for clip in alone]
    used: set[str] = set()
    decode = Work.frames

    def noted(work: Work) -> Any:
        used.add(threading.current_thread().name)
        return decode(work)

    monkeypatch.setattr(Work, "frames", noted)
    assert len(Depth(device="cpu").with_frames(threaded)) == 5
    assert not used, "a CPU worker has one thread, which decodes what it needs when it needs it"
    monkeypatch.setattr(Depth, "chosen_device", lambda self: "cuda")
    assert len(Depth().with_frames([*threaded, Clip(clip_id="no frames")])) == 5
    assert used and threading.current_thread().name not in used
    assert [[frame.tobytes() for frame in clip.work.frames()] for clip in threaded] == expected
    broken = clips(1)
    broken[0].work.put(Member(layer="video", suffix="frame.0.jpg", data=b"no picture"))
    with pytest.raises(OSError, match="cannot identify"):
        Depth().with_frames(broken)
