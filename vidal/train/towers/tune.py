"""Which parameters of a tower are trained.

    lora        LoRA adapters on q, k, v and out (of the temporal attention in a temporal tower), and the extras
    attention   the temporal parameters of the layers, or the spatial attention without them, and the extras: what
                LanguageBind's released "full tuning" trains
    full        every parameter
    frozen      no parameter

The extras follow LanguageBind (Zhu et al., 2023): class embedding, post_layernorm, visual projection, and the temporal
embedding and its norm. LoRA: Hu et al., 2021.
"""

from __future__ import annotations

import re

from vidal.train.towers.settings import LoraSettings, Tune
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import fold_lora

_EXTRAS = r"embeddings\.class_embedding|post_layernorm\..*|visual_projection\..*|.*\.temporal_(embedding|layer_norm1.*)"
_TEMPORAL = r"encoder\.layers\.\d+\.temporal_.*"
_SPATIAL = r"encoder\.layers\.\d+\.self_attn\..*"


def tune(tower: VisionTower, mode: Tune, lora: LoraSettings | None = None) -> None:
    """Set ``requires_grad`` of every parameter for ``mode``; ``lora`` also injects new adapters into the tower."""
    tower.tune = mode
    if mode == "lora" and tower.adapters is None:
        from peft import LoraConfig, inject_adapter_in_model

        lora = lora or LoraSettings()
        attention = "temporal_attn" if tower.settings.temporal else "self_attn"
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none",
            # As a string it has to match a whole name; peft compares the entries of a list with the ends of names.
            target_modules=rf".*\.{attention}\.(q|k|v|out)_proj",
        )  # fmt: skip
        inject_adapter_in_model(config, tower)
        tower.adapters = lora
    trained = {
        "lora": rf".*\.lora_.*|{_EXTRAS}",
        "attention": f"{_TEMPORAL if tower.settings.temporal else _SPATIAL}|{_EXTRAS}",
        "full": ".*",
        "frozen": "(?!)",
    }[mode]
    # Every parameter anew: peft has frozen all but its adapters.
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(re.fullmatch(trained, name) is not None)


def merged(tower: VisionTower) -> VisionTower:
    """Return a copy with the adapters folded into the weights, or the tower itself if it has none."""
    if tower.adapters is None:
        return tower
    first = next(tower.parameters())
    plain = VisionTower(tower.settings).to(device=first.device, dtype=first.dtype)
    plain.load_state_dict(fold_lora(tower.state_dict(), tower.adapters.alpha))
    plain.tune = "frozen" if tower.tune == "frozen" else "full"
    return plain.train(tower.training)
