"""Conversion between tower settings and the ``config.json`` of CLIP and LanguageBind folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vidal.errors import ModelError
from vidal.train.towers.settings import ClipTextSettings, StackSizes, VisionSettings

Model = TypeVar("Model", bound=BaseModel)

# transformers' defaults, for keys that an older config.json omits.
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
    """Return the settings of the text tower; raises `ModelError` for a missing or invalid ``text_config``."""
    text = _TEXT_DEFAULTS | _group(config, "text_config", place)
    return checked(ClipTextSettings, _our_names(text, _TEXT, config), place)


def clip_vision_settings(config: Mapping[str, object], place: str) -> VisionSettings:
    """Return the settings of the vision tower, including LanguageBind's extensions.

    Raises `ModelError` for a missing or invalid ``vision_config``, or a ``tube_size`` other than 1.
    """
    vision = _VISION_DEFAULTS | _group(config, "vision_config", place)
    if vision.get("tube_size", 1) != 1:
        raise ModelError(f"{place}: tube_size {vision['tube_size']} is not supported, only 1")
    settings = _our_names(vision, _VISION, config)
    if vision.get("num_mel_bins") and vision.get("target_length"):
        settings["image_size"] = (int(vision["num_mel_bins"]), int(vision["target_length"]))
    if vision.get("add_time_attn"):
        settings |= {"temporal": True, "frames": vision["num_frames"]}
        # LanguageBind's video model v1.5.
        settings["class_embedding_per_frame"] = vision.get("clip_type") == "vl_new"
    settings["patch_dropout"] = vision.get("force_patch_dropout") or 0.0
    return checked(VisionSettings, settings, place)


def lora_alpha(config: Mapping[str, object], place: str) -> float:
    """Return LanguageBind's ``lora_alpha``, 16 if ``vision_config`` omits it."""
    return float(_group(config, "vision_config", place).get("lora_alpha", 16))


def hf_text_config(s: ClipTextSettings) -> dict[str, Any]:
    """Return ``text_config``; its end-of-text token is the last of the vocabulary, where `ClipText` pools."""
    special = {"bos_token_id": s.vocabulary - 2, "eos_token_id": s.vocabulary - 1}
    return {"model_type": "clip_text_model", "projection_dim": s.projection_dim} | _hf_names(s, _TEXT) | special


def hf_vision_config(s: VisionSettings) -> dict[str, Any]:
    """Return ``vision_config``, including LanguageBind's keys for a temporal tower."""
    config = _hf_names(s, _VISION)
    height, width = s.height_width
    config["image_size"] = height if height == width else [height, width]
    if s.temporal:
        config |= {"add_time_attn": True, "num_frames": s.frames}
        config |= {"clip_type": "vl_new"} if s.class_embedding_per_frame else {}
    return {"model_type": "clip_vision_model", "projection_dim": s.projection_dim} | config


def _hf_names(s: StackSizes, names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: getattr(s, ours) for ours, theirs in names.items()} | {"intermediate_size": s.mlp_size}


def _our_names(group: Mapping[str, Any], names: Mapping[str, str], config: Mapping[str, object]) -> dict[str, Any]:
    projection_dim = config.get("projection_dim", 512)
    return {ours: group[theirs] for ours, theirs in names.items()} | {"projection_dim": projection_dim}


def _group(config: Mapping[str, object], name: str, place: str) -> dict[str, Any]:
    group = config.get(name)
    if not isinstance(group, dict):
        raise ModelError(f"{place}: config.json has no {name}")
    return group


def checked(kind: type[Model], values: Mapping[str, Any], place: str) -> Model:
    """Validate a stored mapping as settings of ``kind``; raises `ModelError` that names the first invalid key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # One line for a person; pydantic's own message is a page, with a link.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{place}: config.json: {where}: {first['msg']} (got {first.get('input')!r})") from None
