"""One rule says where a model goes: the stage's share of a GPU, unless the recipe names the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidal.errors import ModelError
from vidal.models.device import DeviceChoice, device_for
from vidal.stages import step_class
from vidal.stages.modalities.depth import Depth
from vidal.stages.model_stage import ModelStage
from vidal.stages.text.speech import Speech

HAS_GPU = torch.cuda.is_available()


@pytest.mark.parametrize(
    ("choice", "gpus", "device"),
    [
        ("auto", 0.0, "cpu"),
        ("auto", 1.0, "cuda" if HAS_GPU else "cpu"),
        ("auto", 0.25, "cuda" if HAS_GPU else "cpu"),
        ("cpu", 1.0, "cpu"),
    ],
)
def test_the_device_follows_the_stages_share_of_a_gpu(choice: DeviceChoice, gpus: float, device: str) -> None:
    assert device_for(choice, gpus=gpus) == device


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_one_line() -> None:
    with pytest.raises(ModelError, match="device: cuda is asked for"):
        device_for("cuda", gpus=1.0)


@pytest.mark.parametrize(
    ("stage", "is_in_fingerprint"),
    [
        ("depth", True), ("infrared", True), ("speech", False), ("sound_caption", False), ("text_match", False),
        ("frame_captions", False), ("enhance_caption", False),
    ],
)  # fmt: skip
def test_every_stage_with_a_model_takes_a_device(stage: str, is_in_fingerprint: bool) -> None:
    kind = step_class(stage)
    assert issubclass(kind, ModelStage)
    chosen = kind.model_validate({"device": "cpu", "resources": {"gpus": 1}})
    assert chosen.chosen_device() == "cpu"
    assert (chosen.identity()["settings"] != kind().identity()["settings"]) == is_in_fingerprint
    assert ("device" in chosen.identity()["settings"]) == is_in_fingerprint


@pytest.mark.parametrize(
    ("stage", "settings", "gpus"),
    [
        ("depth", {}, 1.0),
        ("depth", {"device": "cpu"}, 0.0),
        ("frame_captions", {}, 0.0),
        ("frame_captions", {"device": "cuda"}, 1.0),
        ("frame_captions", {"backend": "transformers", "model": "some/captioner"}, 1.0),
        ("frame_captions", {"backend": "transformers", "model": "some/captioner", "device": "cpu"}, 0.0),
        ("frame_captions", {"backend": "transformers", "model": "some/captioner", "resources": {"gpus": 0.5}}, 0.5),
        ("frame_captions", {"backend": "server", "model": "some/captioner"}, 0.0),
        ("enhance_caption", {}, 0.0),
        ("enhance_caption", {"model": "some/llm"}, 1.0),
        ("enhance_caption", {"model": "some/llm", "resources": {"gpus": 0}}, 0.0),
        ("enhance_caption", {"model": "some/llm", "backend": "merge"}, 0.0),
        ("speech", {}, 0.0),
        ("speech", {"whisper": "large-v3-turbo"}, 1.0),
        ("sound_caption", {"model": "some/tagger", "backend": "transformers"}, 1.0),
        ("text_match", {"model": "some/clip"}, 0.0),
        ("text_match", {"model": "some/clip", "backend": "clip"}, 1.0),
    ],
)  # fmt: skip
def test_a_stage_asks_for_a_gpu_for_a_model_of_ones_choice(stage: str, settings: dict[str, Any], gpus: float) -> None:
    chosen = step_class(stage).model_validate(settings)
    assert isinstance(chosen, ModelStage)
    assert chosen.needs.gpus == gpus


def test_whisper_goes_where_its_stage_goes() -> None:
    stage = Speech()
    stage.setup()
    assert stage._transcriber._model.model.device == "cpu"


def test_a_precision_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="True, False or 'bfloat16'"):
        Depth(half="bf16")  # type: ignore[arg-type]
