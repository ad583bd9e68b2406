"""What a tower starts from: a CLIP or LanguageBind folder, a timm ViT, or sizes alone."""

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


def tower_from(start: TowerSettings | VisionSettings | str, projection_dim: int | None = None) -> VisionTower:
    """A tower with the weights of ``start``; what it lacks is drawn from torch's global generator.

    tower_from("openai/clip-vit-large-patch14")   a CLIP folder, hub id or package:NAME/folder
    tower_from("timm:vit_tiny_patch16_224")
    tower_from(TowerSettings(model=…, frames=8, temporal=True))
    tower_from(VisionSettings(hidden_size=64, …))
    """
    if isinstance(start, VisionSettings):
        return VisionTower(start)
    wanted = TowerSettings(model=start) if isinstance(start, str) else start
    base, state = _start(wanted)
    settings = _settings(wanted, base, projection_dim)
    tower = VisionTower(settings)
    if state:
        place = str(wanted.model)
        fitted, tower.drawn = _fitted(tower, state, base, place)
        put(tower, fitted, place)
        if settings.temporal and not base.temporal:
            tower.start_temporal()
    return tower


def vision_folder(folder_state: State, config: dict[str, object], place: str) -> tuple[VisionSettings, State]:
    """Settings and weights of the vision tower of a CLIP, LanguageBind or exported folder, adapters folded in."""
    ours = config.get("vidal")
    if isinstance(ours, dict):
        # Its config.json has all that the tower is, also what Hugging Face has no name for.
        return checked(VisionSettings, ours["vision"], place), vision_part(folder_state)
    settings = clip_vision_settings(config, place)
    state = fold_lora(vision_part(plain_names(folder_state)), lora_alpha(config, place))
    if not state:
        raise ModelError(f"{place}: its weights have no vision_model; name a CLIP or LanguageBind folder")
    return settings, fit_positions(state, settings.grid, None)


def _start(wanted: TowerSettings) -> tuple[VisionSettings, State]:
    if wanted.sizes is not None:
        return VisionSettings(**wanted.sizes.model_dump()), {}
    name = str(wanted.model)
    if name.startswith("timm:"):
        from vidal.train.towers.timm_vit import timm_start

        return timm_start(name.removeprefix("timm:"), pretrained=wanted.pretrained)
    folder = model_folder(name)
    config = read_config(folder)
    ours = config.get("vidal")
    if isinstance(ours, dict) and "folders" in ours:
        parts = ", ".join(f"{folder}/{part}" for part in ours["folders"])
        raise ModelError(f"{folder}: holds several towers; name the folder of one: {parts}")
    return vision_folder(read_weights(folder), config, str(folder))


def _settings(wanted: TowerSettings, base: VisionSettings, projection_dim: int | None) -> VisionSettings:
    """The base's settings with what the recipe says otherwise."""
    said = {name: getattr(wanted, name) for name in ("frames", "image_size") if name in wanted.model_fields_set}
    said = {name: value for name, value in said.items() if value is not None}
    values = base.model_dump() | said
    values |= {
        "projection_dim": projection_dim or base.projection_dim,
        "temporal": wanted.temporal or base.temporal,
        "temporal_init": wanted.temporal_init,
        "class_embedding_per_frame": wanted.class_embedding_per_frame or base.class_embedding_per_frame,
        "patch_dropout": wanted.patch_dropout,
        "gradient_checkpointing": wanted.gradient_checkpointing,
    }
    return VisionSettings(**values)


def _fitted(tower: VisionTower, state: State, base: VisionSettings, place: str) -> tuple[State, list[str]]:
    """The state for the tower's own grid and frames, and the names of what it lacks, with the drawn values.

    Only a projection to another space and temporal attention that the base is without are drawn; what else the state
    lacks is told by `put`.
    """
    s, own = tower.settings, tower.state_dict()
    state = fit_frames(fit_positions(state, s.grid, base), s.frames)
    if s.class_embedding_per_frame and not base.class_embedding_per_frame:
        first, patch = "embeddings.class_embedding", "embeddings.patch_embedding.weight"
        state |= {first: state[first].expand(s.frames, -1).clone(), patch: state[patch].unsqueeze(2)}
    if _PROJECTION in state and state[_PROJECTION].shape != own[_PROJECTION].shape:
        state = {k: v for k, v in state.items() if k != _PROJECTION}  # to another space: learnt anew
    new = {k for k in own if k == _PROJECTION or (".temporal_" in k and not base.temporal)}
    return {k: own[k] for k in new} | state, sorted(new - state.keys())
