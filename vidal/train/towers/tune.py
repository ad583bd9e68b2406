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

import copy
import re

from torch import nn

from vidal.errors import RecipeError
from vidal.train.towers.settings import LoraSettings, TextTune, Tune
from vidal.train.towers.text import ClipText, SentenceModel, TextTower
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import fold_lora

_EXTRAS = r"embeddings\.class_embedding|post_layernorm\..*|visual_projection\..*|.*\.temporal_(embedding|layer_norm1.*)"
# CLIP's names, and those of the encoders of transformers: BERT, MPNet and DistilBERT.
_TEXT_ATTENTION = r".*\.(([qkv]|out)_proj|query|key|value|attention\.output\.dense|attn\.[qkvo]|([qkv]|out)_lin)"
_TEMPORAL = r"encoder\.layers\.\d+\.temporal_.*"
_SPATIAL = r"encoder\.layers\.\d+\.self_attn\..*"


def tune(tower: VisionTower, mode: Tune, lora: LoraSettings | None = None) -> None:
    """Set ``requires_grad`` of every parameter for ``mode``; ``lora`` also injects new adapters into the tower."""
    tower.tune = mode
    if mode == "lora" and tower.adapters is None:
        tower.adapters = lora or LoraSettings()
        attention = "temporal_attn" if tower.settings.temporal else "self_attn"
        _inject(tower, tower.adapters, rf".*\.{attention}\.(q|k|v|out)_proj")
    trained = {
        "lora": rf".*\.lora_.*|{_EXTRAS}",
        "attention": f"{_TEMPORAL if tower.settings.temporal else _SPATIAL}|{_EXTRAS}",
        "full": ".*",
        "frozen": "(?!)",
    }[mode]
    # Every parameter anew: peft has frozen all but its adapters.
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(re.fullmatch(trained, name) is not None)


def tune_text(tower: TextTower, mode: TextTune, lora: LoraSettings | None = None) -> None:
    """Tune a frozen text tower: every parameter, or the adapters that ``lora`` injects.

    Raises `RecipeError` for adapters on a model whose attention has unknown names.
    """
    if mode == "frozen":
        return
    tower.tune, tower.base_sha256 = mode, tower.weights_digest()
    if mode == "lora":
        tower.adapters = lora or LoraSettings()
        try:
            _inject(tower.model, tower.adapters, _TEXT_ATTENTION)
        except ValueError:
            raise RecipeError(
                f"text.tune: lora: {tower.reference} has no attention of known names; use full or frozen"
            ) from None
    for name, parameter in tower.model.named_parameters():
        # BERT's pooler gives no part of the embedding; DDP waits for the gradient of every trained parameter.
        parameter.requires_grad_(".lora_" in name if mode == "lora" else "pooler." not in name)


def _inject(module: nn.Module, lora: LoraSettings, targets: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    from vidal.train.towers.lora import MergedLinear

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none",
        # As a string it has to match a whole name; peft compares the entries of a list with the ends of names.
        target_modules=targets,
    )  # fmt: skip
    config._register_custom_module({nn.Linear: MergedLinear})
    inject_adapter_in_model(config, module)
    for adapted in module.modules():
        if isinstance(adapted, MergedLinear):
            # Autocast casts for the adapters as for the rest; peft would cast their input to float32 before.
            adapted.cast_input_dtype_enabled = False


def merged_text(tower: TextTower) -> ClipText | SentenceModel:
    """Return a copy of the model with the adapters folded into the weights, or the model itself if it has none."""
    if tower.adapters is None:
        return tower.model
    plain = copy.deepcopy(tower.model)
    for name, module in list(plain.named_modules()):
        if isinstance(adapted := getattr(module, "base_layer", None), nn.Module):
            plain.set_submodule(name, adapted)
    plain.load_state_dict(fold_lora(tower.model.state_dict(), tower.adapters.alpha))
    return plain


def merged(tower: VisionTower) -> VisionTower:
    """Return a copy with the adapters folded into the weights, or the tower itself if it has none."""
    if tower.adapters is None:
        return tower
    first = next(tower.parameters())
    plain = VisionTower(tower.settings).to(device=first.device, dtype=first.dtype)
    plain.load_state_dict(fold_lora(tower.state_dict(), tower.adapters.alpha))
    plain.tune = "frozen" if tower.tune == "frozen" else "full"
    return plain.train(tower.training)
