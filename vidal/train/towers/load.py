"""`load_encoder`: a published LanguageBind or CLIP folder, or one of ours, ready for use.

from vidal.train import load_encoder
enc = load_encoder("LanguageBind/LanguageBind_Depth")      # or a folder
enc.encode("depth", pixel_values)                          # (b, d) float32, not normalised
enc.encode_text(input_ids, attention_mask)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidal import modality as modalities
from vidal.errors import ModelError
from vidal.modality.image import ImageModality
from vidal.train.towers.config import clip_text_settings
from vidal.train.towers.encoder import Encoder, Pair
from vidal.train.towers.start import vision_folder
from vidal.train.towers.text import ClipText, TextTower
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import (
    State,
    model_folder,
    plain_names,
    read_config,
    read_weights,
    text_part,
    with_weights,
)

LANGUAGEBIND = {
    "LanguageBindDepth": "depth",
    "LanguageBindThermal": "infrared",
    "LanguageBindAudio": "audio",
    "LanguageBindVideo": "video",
    "LanguageBindImage": "image",
}


def load_encoder(folder: str | Path) -> Encoder:
    """The encoder of a folder (or hub id), in evaluation mode; raises `ModelError` in one line.

    A LanguageBind folder serves its own modality, a CLIP folder every kind of picture; adapters are folded in.
    """
    path = model_folder(folder)
    return _load(path).eval()


def _load(folder: Path) -> Encoder:
    if (folder / "run.json").is_file():
        return load_run(folder)
    config = read_config(folder)
    if "vidal" in config:
        return _ours(folder, config["vidal"])
    kind = str(config.get("model_type"))
    if kind in LANGUAGEBIND:
        return _published(folder, config, [LANGUAGEBIND[kind]])
    if kind == "clip":
        return _published(folder, config, ["image", *_image_layers()])
    known = ", ".join([*LANGUAGEBIND, "clip", "vidal"])
    raise ModelError(f"{folder}: model_type {kind} is not known, only {known}")


def _image_layers() -> list[str]:
    return [m.layer for m in modalities.all() if isinstance(m, ImageModality)]


def load_run(folder: Path) -> Encoder:
    """A training run's newest checkpoint, with its averaged weights where it has them."""
    from vidal.train.checkpoint import Checkpoints
    from vidal.train.preprocessing import described, transforms_of
    from vidal.train.run_folder import RunFolder

    latest = Checkpoints(folder).latest()
    if latest is None:
        raise ModelError(f"{folder}: the run has no checkpoint yet")
    info = RunFolder(folder).read()
    encoder = Encoder.from_description(info.encoder)
    encoder.preprocessing = described(transforms_of(info.settings().transforms, encoder))
    averaged = {k.removeprefix("ema."): v for k, v in latest.optimiser().items() if k.startswith("ema.")}
    encoder.load_trainable_state(latest.model() | averaged, str(latest.path))
    return encoder


def _published(folder: Path, config: dict[str, object], modalities: list[str]) -> Encoder:
    weights, place = read_weights(folder), str(folder)
    settings, state = vision_folder(weights, config, place)
    tower = with_weights(lambda: VisionTower(settings), state, place)
    said = clip_text_settings(config, place)
    text = with_weights(lambda: ClipText(said), text_part(plain_names(weights)), place)
    name = modalities[0]
    serves = dict.fromkeys(modalities, name)
    pairs: dict[Pair, float | None] = {("text", modality): None for modality in modalities}
    encoder = Encoder({name: tower}, TextTower(text, place, folder), pairs=pairs, serves=serves)
    if "logit_scale" in weights:
        _set(encoder.logit_scale, dict.fromkeys(encoder.logit_scale, float(weights["logit_scale"])))
    return encoder


def _ours(folder: Path, said: Any) -> Encoder:
    """A folder of `save_folder`: one modality, or an index of such folders."""
    modalities.load_recorded(said.get("modalities", {}), str(folder))
    parts = [folder / name for name in said["folders"]] if "folders" in said else [folder]
    loaded = [_part(part) for part in parts]
    towers = {modality: tower for _, modality, tower in loaded}
    text = _our_text(parts[0], loaded[0][0]) if said["has_text"] else None
    pairs: dict[Pair, float | None] = {(p.split("-")[0], p.split("-")[1]): None for p in said["logit_scale"]}
    serves = said.get("serves")
    encoder = Encoder(towers, text, pairs=pairs, is_sigmoid=bool(said["logit_bias"]), serves=serves)
    encoder.preprocessing = said.get("preprocessing", {})
    _set(encoder.logit_scale, said["logit_scale"])
    _set(encoder.logit_bias, said["logit_bias"])
    return encoder


def _part(folder: Path) -> tuple[State, str, VisionTower]:
    config: Any = read_config(folder)
    weights = read_weights(folder)
    settings, state = vision_folder(weights, config, str(folder))
    tower = with_weights(lambda: VisionTower(settings), state, str(folder))
    return weights, config["vidal"]["modality"], tower


def _our_text(folder: Path, weights: State) -> TextTower:
    said: Any = read_config(folder)
    if (folder / "text" / "modules.json").is_file():
        return TextTower.load(folder / "text", said["vidal"]["max_tokens"])
    settings = clip_text_settings(said, str(folder))
    text = with_weights(lambda: ClipText(settings), text_part(weights), str(folder))
    return TextTower(text, str(folder), folder, said["vidal"]["max_tokens"])


@torch.no_grad()
def _set(parameters: nn.ParameterDict, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        parameters[name].fill_(value)
