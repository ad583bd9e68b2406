"""Initialisation of a tower from a CLIP or LanguageBind folder, a timm ViT, or sizes alone."""

from __future__ import annotations

from vidal.errors import ModelError
from vidal.train.towers.config import checked, clip_vision_settings, lora_alpha
from vidal.train.towers.settings import TowerSettings, VisionSettings
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import (
    State,
    fit_frames,
    fit_positions,
    fold_lora,
    model_folder,
    plain_names,
    put,
    read_config,
    read_weights,
    vision_part,
)

_PROJECTION = "visual_projection.weight"


def tower_from(
    start: TowerSettings | VisionSettings | str, projection_dim: int | None = None, own: VisionTower | None = None
) -> VisionTower:
    """Build a tower with the weights of ``start``; missing ones are drawn from torch's global generator.

    ``own`` is a tower whose sizes and weights replace those that ``start`` names.

    tower_from("openai/clip-vit-large-patch14")   a CLIP folder, hub id or package:NAME/folder
    tower_from("timm:vit_tiny_patch16_224")
    tower_from(TowerSettings(model=…, frames=8, temporal=True))
    tower_from(VisionSettings(hidden_size=64, …))
    """
    if isinstance(start, VisionSettings):
        return VisionTower(start)
    start = TowerSettings(model=start) if isinstance(start, str) else start
    base, state = (own.settings, own.state_dict()) if own is not None else _base(start)
    # The defaults of these two are not overrides: the base model's own values hold.
    explicit = {name: getattr(start, name) for name in ("frames", "image_size") if name in start.model_fields_set}
    settings = VisionSettings(
        **base.model_dump()
        | {name: value for name, value in explicit.items() if value is not None}
        | start.model_dump(include={"temporal_init", "patch_dropout", "gradient_checkpointing"})
        | {
            "projection_dim": projection_dim or base.projection_dim,
            "temporal": start.temporal or base.temporal,
            "class_embedding_per_frame": start.class_embedding_per_frame or base.class_embedding_per_frame,
        }
    )
    tower = VisionTower(settings)
    if state:
        fitted, tower.drawn = _fitted(tower, state, base)
        put(tower, fitted, str(start.model))
        if settings.temporal and not base.temporal:
            tower.start_temporal()
    return tower


def vision_folder(folder_state: State, config: dict[str, object], place: str) -> tuple[VisionSettings, State]:
    """Return settings and weights of the vision tower of a CLIP, LanguageBind or exported folder, adapters folded in.

    Raises `ModelError` if the configuration is invalid or the weights have no vision tower.
    """
    exported = config.get("vidal")
    if isinstance(exported, dict):
        # An exported config.json records every setting, including those without a Hugging Face key.
        return checked(VisionSettings, exported["vision"], place), vision_part(folder_state)
    settings = clip_vision_settings(config, place)
    state = fold_lora(vision_part(plain_names(folder_state)), lora_alpha(config, place))
    if not state:
        raise ModelError(f"{place}: its weights have no vision_model; name a CLIP or LanguageBind folder")
    return settings, fit_positions(state, settings.grid, None)


def _base(start: TowerSettings) -> tuple[VisionSettings, State]:
    if start.sizes is not None:
        return VisionSettings(**start.sizes.model_dump()), {}
    name = str(start.model)
    if name.startswith("timm:"):
        from vidal.train.towers.timm_vit import timm_start

        return timm_start(name.removeprefix("timm:"), pretrained=start.pretrained)
    folder = model_folder(name)
    config = read_config(folder)
    exported = config.get("vidal")
    if isinstance(exported, dict) and "folders" in exported:
        parts = ", ".join(f"{folder}/{part}" for part in exported["folders"])
        raise ModelError(f"{folder}: holds several towers; name the folder of one: {parts}")
    return vision_folder(read_weights(folder), config, str(folder))


def _fitted(tower: VisionTower, state: State, base: VisionSettings) -> tuple[State, list[str]]:
    """The state resized to the tower's grid and frames, and the names of the tensors that stay randomly initialised.

    Only a projection to another dimension, and temporal attention that the base lacks, may stay so; `put` rejects a
    state that lacks any other tensor.
    """
    s, own = tower.settings, tower.state_dict()
    state = fit_frames(fit_positions(state, s.grid, base), s.frames)
    if s.class_embedding_per_frame and not base.class_embedding_per_frame:
        first, patch = "embeddings.class_embedding", "embeddings.patch_embedding.weight"
        # The kernel gets the time axis of length 1 with which such models are stored.
        state |= {first: state[first].expand(s.frames, -1).clone(), patch: state[patch].unsqueeze(2)}
    if _PROJECTION in state and state[_PROJECTION].shape != own[_PROJECTION].shape:
        state = {k: v for k, v in state.items() if k != _PROJECTION}
    optional = {k for k in own if k == _PROJECTION or (".temporal_" in k and not base.temporal)}
    return {k: own[k] for k in optional} | state, sorted(optional - state.keys())
