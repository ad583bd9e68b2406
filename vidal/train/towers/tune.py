"""What of a tower is trained: LoRA adapters, its attention, all of it, or nothing.

    lora        adapters on q, k, v, out (of the attention across frames where there is one), and the extras
    attention   the temporal parameters inside the layers, else the spatial attention, and the extras: what
                LanguageBind's released "full tuning" trains
    full        every parameter
    frozen      none

The extras are LanguageBind's: class embedding, post_layernorm, visual projection, and the temporal embedding and norm.
"""

from __future__ import annotations

import re

from vidal.train.towers.settings import LoraSettings, Tune
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import fold_lora

_EXTRAS = r"embeddings\.class_embedding|post_layernorm\..*|visual_projection\..*|.*\.temporal_(embedding|layer_norm1.*)"
_TEMPORAL = r"encoder\.layers\.\d+\.temporal_.*"
_SPATIAL = r"encoder\.layers\.\d+\.self_attn\..*"


def tune(tower: VisionTower, how: Tune, lora: LoraSettings | None = None) -> None:
    """Say which parameters are trained; ``lora`` also puts fresh adapters into the tower."""
    tower.tune = how
    if how == "lora" and tower.adapters is None:
        _inject(tower, lora or LoraSettings())
    wanted = re.compile(_trained(tower, how))
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(wanted.fullmatch(name) is not None)


def _trained(tower: VisionTower, how: Tune) -> str:
    if how == "attention":
        return f"{_TEMPORAL if tower.settings.temporal else _SPATIAL}|{_EXTRAS}"
    return {"lora": rf".*\.lora_.*|{_EXTRAS}", "full": ".*", "frozen": "(?!)"}[how]


def _inject(tower: VisionTower, lora: LoraSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    attention = "temporal_attn" if tower.settings.temporal else "self_attn"
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none",
        target_modules=rf".*\.{attention}\.(q|k|v|out)_proj",
    )  # fmt: skip
    inject_adapter_in_model(config, tower)
    tower.adapters = lora


def merged(tower: VisionTower) -> VisionTower:
    """A copy without adapters that gives the same embeddings; the tower itself where it has none."""
    if tower.adapters is None:
        return tower
    first = next(tower.parameters())
    plain = VisionTower(tower.settings).to(device=first.device, dtype=first.dtype)
    plain.load_state_dict(fold_lora(tower.state_dict(), tower.adapters.alpha))
    plain.tune = "frozen" if tower.tune == "frozen" else "full"
    return plain.train(tower.training)
