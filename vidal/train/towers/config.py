"""``config.json`` of CLIP and LanguageBind folders, read into settings and written from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vidal.errors import ModelError
from vidal.train.towers.settings import ClipTextSettings, StackSizes, VisionSettings

Model = TypeVar("Model", bound=BaseModel)

# What transformers takes where an old config.json is silent.
_TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048,
    "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_STACK = {
    "hidden_size": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size", "activation": "hidden_act", "layer_norm_eps": "layer_norm_eps",
}  # fmt: skip
_TEXT = _STACK | {"vocabulary": "vocab_size", "max_tokens": "max_position_embeddings"}
_VISION = _STACK | {"patch_size": "patch_size", "image_size": "image_size", "channels": "num_channels"}


def clip_text_settings(config: Mapping[str, object], place: str) -> ClipTextSettings:
    """Of the text tower; raises `ModelError`."""
    said = _TEXT_DEFAULTS | _group(config, "text_config", place)
    return checked(ClipTextSettings, {k: said[v] for k, v in _TEXT.items()} | _projection(config), place)


def clip_vision_settings(config: Mapping[str, object], place: str) -> VisionSettings:
    """Of the vision tower, with LanguageBind's additions; raises `ModelError`."""
    said = _VISION_DEFAULTS | _group(config, "vision_config", place)
    if said.get("tube_size", 1) != 1:
        raise ModelError(f"{place}: tube_size {said['tube_size']} is not known, only 1")
    settings = {k: said[v] for k, v in _VISION.items()} | _projection(config)
    if said.get("num_mel_bins") and said.get("target_length"):
        settings["image_size"] = (int(said["num_mel_bins"]), int(said["target_length"]))
    if said.get("add_time_attn"):
        settings |= {"temporal": True, "frames": said["num_frames"]}
        settings["class_embedding_per_frame"] = said.get("clip_type") == "vl_new"
    settings["patch_dropout"] = said.get("force_patch_dropout") or 0.0
    return checked(VisionSettings, settings, place)


def lora_alpha(config: Mapping[str, object], place: str) -> float:
    return float(_group(config, "vision_config", place).get("lora_alpha", 16))


def hf_text_config(s: ClipTextSettings) -> dict[str, Any]:
    """``text_config``; the end of text is the vocabulary's last token, as pooling takes it to be."""
    ends = {"bos_token_id": s.vocabulary - 2, "eos_token_id": s.vocabulary - 1}
    return {"model_type": "clip_text_model", "projection_dim": s.projection_dim} | _written(s, _TEXT) | ends


def hf_vision_config(s: VisionSettings) -> dict[str, Any]:
    """``vision_config``."""
    written = _written(s, _VISION)
    height, width = s.height_width
    written["image_size"] = height if height == width else [height, width]
    if s.temporal:
        written |= {"add_time_attn": True, "num_frames": s.frames}
        written |= {"clip_type": "vl_new"} if s.class_embedding_per_frame else {}
    return {"model_type": "clip_vision_model", "projection_dim": s.projection_dim} | written


def _written(s: StackSizes, names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: getattr(s, ours) for ours, theirs in names.items()} | {"intermediate_size": s.mlp_size}


def _projection(config: Mapping[str, object]) -> dict[str, Any]:
    return {"projection_dim": config.get("projection_dim", 512)}


def _group(config: Mapping[str, object], name: str, place: str) -> dict[str, Any]:
    group = config.get(name)
    if not isinstance(group, dict):
        raise ModelError(f"{place}: config.json has no {name}")
    return group


def checked(kind: type[Model], values: Mapping[str, Any], place: str) -> Model:
    """Settings of a stored mapping; raises `ModelError` on the first thing wrong with it."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{place}: config.json: {where}: {first['msg']} (got {first.get('input')!r})") from None
