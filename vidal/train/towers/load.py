"""`load_encoder`: the encoder of a LanguageBind or CLIP folder, an exported folder, or a training run.

from vidal.train import load_encoder
encoder = load_encoder("LanguageBind/LanguageBind_Depth")      # or a folder
encoder.encode("depth", pixel_values)                          # (b, d) float32, not normalised
encoder.encode_text(input_ids, attention_mask)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidal import modality as modalities
from vidal.dataset.storage import Storage
from vidal.errors import ModelError, RecipeError
from vidal.modality.image import ImageModality
from vidal.train.towers.encoder import Encoder, pairs_of
from vidal.train.towers.start import vision_folder
from vidal.train.towers.text import TextTower
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import State, model_folder, read_config, read_weights, with_weights

LANGUAGEBIND = {
    "LanguageBindDepth": "depth",
    "LanguageBindThermal": "infrared",
    "LanguageBindAudio": "audio",
    "LanguageBindVideo": "video",
    "LanguageBindImage": "image",
}


def load_encoder(folder: str | Path) -> Encoder:
    """Load the encoder of a folder or hub id, in evaluation mode, with adapters folded in.

    A LanguageBind folder encodes its own modality, a CLIP folder every image modality. Of a training run, in a folder
    or at an address, it is the newest checkpoint, or the one that is named behind an @: ``RUN@best``,
    ``s3://bucket/run@000500``. Raises `ModelError` if the folder is missing, of an unsupported model type, or its
    weights do not match its configuration.
    """
    if (run := run_of(folder)) is not None:
        return _run(*run).eval()
    if "://" in str(folder):
        raise ModelError(f"{folder}: no training run there (no run.json)")
    path = model_folder(folder)
    config = read_config(path)
    if "vidal" in config:
        return _exported(path, config["vidal"]).eval()
    model_type = str(config.get("model_type"))
    if model_type == "clip":
        layers = [modality.layer for modality in modalities.all() if isinstance(modality, ImageModality)]
        served = ["image", *layers]
    elif model_type in LANGUAGEBIND:
        served = [LANGUAGEBIND[model_type]]
    else:
        known = ", ".join([*LANGUAGEBIND, "clip", "vidal"])
        raise ModelError(f"{path}: model_type {model_type} is not supported, only {known}")
    weights = read_weights(path)
    tower = _vision_tower(path, config, weights)
    text = TextTower.of_clip(path, config, weights)
    pairs = {("text", modality): None for modality in served}
    # One tower serves them all: CLIP has only one, whatever the frames that it is given show.
    encoder = Encoder({served[0]: tower}, text, pairs=pairs, serves=dict.fromkeys(served, served[0]))
    if "logit_scale" in weights:
        _fill(encoder.logit_scale, dict.fromkeys(encoder.logit_scale, float(weights["logit_scale"])))
    return encoder.eval()


def run_of(reference: str | Path) -> tuple[str, str] | None:
    """Return the address and the name of the checkpoint of a training run; None if ``reference`` is no training run."""
    folder, at, checkpoint = str(reference).rpartition("@")
    # The whole of it first, as the name of a folder may have an @ in it.
    for path, name in ((str(reference), "latest"), (folder, checkpoint) if at else ("", "")):
        if path and Storage(path if "://" in path else str(Path(path).expanduser())).exists("run.json"):
            return path, name
    return None


def joined(encoders: Mapping[str, Encoder]) -> Encoder:
    """Return one encoder with the towers of several, given by their names, which share a text tower.

    Raises `RecipeError` if two encode the same modality, or their text towers differ.
    """
    (first, base), *others = encoders.items()
    if not others:
        return base
    of: dict[str, str] = {}
    for name, encoder in encoders.items():
        if encoder.text_tower().weights_digest() != base.text_tower().weights_digest():
            raise RecipeError(
                f"{name}: its text tower is another than that of {first}; their embeddings do not compare"
            )
        for modality in encoder.serves:
            if modality in of:
                raise RecipeError(f"{name}: encodes {modality}, as does {of[modality]}; name one of the two")
            of[modality] = name
    towers = {modality: encoders[name].tower(modality) for modality, name in of.items()}
    pairs = dict.fromkeys(pair for encoder in encoders.values() for pair in pairs_of(encoder.logit_scale))
    return Encoder(towers, base.text, pairs=pairs).eval()


def _run(address: str, checkpoint: str) -> Encoder:
    """A checkpoint of a training run, with its averaged weights if it has them."""
    from vidal.train.assemble import build_encoder
    from vidal.train.checkpoint import Checkpoints
    from vidal.train.preprocessing import described, transforms_of
    from vidal.train.run_folder import RunFolder

    run = RunFolder(address)
    found = Checkpoints(run.address).named(checkpoint)
    if found is None:
        which = "no checkpoint yet" if checkpoint == "latest" else f"no intact checkpoint `{checkpoint}`"
        raise ModelError(f"{address}: the run has {which}")
    info = run.read()
    bases = found.bases()
    if bases.keys() - {"text"}:
        # What the checkpoint leaves out is in the models that the recipe names.
        encoder = build_encoder(info.settings())
        encoder.text_tower().check_start(info.encoder["text"])
    else:
        encoder = Encoder.from_description(info.encoder)
    encoder.preprocessing = described(transforms_of(info.settings().transforms, encoder))
    # Evaluated and exported is the average, where a run keeps one.
    averaged = {k.removeprefix("ema."): v for k, v in found.optimiser().items() if k.startswith("ema.")}
    encoder.load_trainable_state(found.model() | averaged, found.address, bases)
    return encoder


def _exported(folder: Path, index: Any) -> Encoder:
    """A folder of `save_folder`: one modality, or an index of such folders."""
    modalities.load_recorded(index.get("modalities", {}), str(folder))
    towers: dict[str, VisionTower] = {}
    text: TextTower | None = None
    for part in [folder / name for name in index["folders"]] if "folders" in index else [folder]:
        config: Any = read_config(part)
        weights = read_weights(part)
        towers[config["vidal"]["modality"]] = _vision_tower(part, config, weights)
        if index["has_text"] and text is None:
            max_tokens = config["vidal"]["max_tokens"]
            if (part / "text" / "modules.json").is_file():
                text = TextTower.load(part / "text", max_tokens)
            else:
                text = TextTower.of_clip(part, config, weights, max_tokens)
    encoder = Encoder(
        towers, text, pairs=pairs_of(index["logit_scale"]), is_sigmoid=bool(index["logit_bias"]),
        serves=index.get("serves"),
    )  # fmt: skip
    encoder.preprocessing = index.get("preprocessing", {})
    _fill(encoder.logit_scale, index["logit_scale"])
    _fill(encoder.logit_bias, index["logit_bias"])
    return encoder


def _vision_tower(folder: Path, config: dict[str, object], weights: State) -> VisionTower:
    settings, state = vision_folder(weights, config, str(folder))
    return with_weights(lambda: VisionTower(settings), state, str(folder))


@torch.no_grad()
def _fill(parameters: nn.ParameterDict, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        parameters[name].fill_(value)
