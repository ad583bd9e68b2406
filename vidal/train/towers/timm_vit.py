"""A timm ViT under `VisionTower`'s names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vidal.errors import ModelError
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.weights import State

_PLAIN = {
    "cls_token": "embeddings.class_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "pos_embed": "embeddings.position_embedding.weight",
    "norm_pre.weight": "pre_layrnorm.weight",
    "norm_pre.bias": "pre_layrnorm.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def timm_start(name: str, *, pretrained: bool) -> tuple[VisionSettings, State]:
    """Settings and weights of ``timm:NAME``; raises `ModelError` where it is no plain ViT with a class token."""
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"{name.split('_patch')[0]}*")[:3]
        raise ModelError(f"timm:{name}: timm has no such model{'; it has ' + ', '.join(near) if near else ''}")
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub raises dozens of kinds
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"timm:{name}: {why}; without `pretrained: true` its weights are drawn") from error
    return vit_settings(model, name), {k: v.clone() for k, v in vit_state(model, name).items()}


def vit_settings(model: nn.Module, name: str) -> VisionSettings:
    m: Any = model
    if type(model).__name__ != "VisionTransformer" or m.cls_token is None or m.global_pool != "token":
        raise ModelError(f"timm:{name}: only a ViT that pools by its class token can be a tower (vit_*_patch*)")
    block = m.blocks[0]
    return VisionSettings(
        hidden_size=m.embed_dim, layers=len(m.blocks), heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features, patch_size=m.patch_embed.patch_size[0],
        image_size=m.patch_embed.img_size, channels=m.patch_embed.proj.in_channels,
        activation=_activation(block.mlp.act, name), layer_norm_eps=block.norm1.eps,
        pre_norm=not isinstance(m.norm_pre, nn.Identity), patch_bias=m.patch_embed.proj.bias is not None,
        projection_dim=m.embed_dim,
    )  # fmt: skip


def _activation(act: nn.Module, name: str) -> Any:
    kinds = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
    kind = type(act).__name__
    if kind not in kinds:
        raise ModelError(f"timm:{name}: its activation {kind} is not known, only {', '.join(kinds)}")
    return kinds[kind]


def vit_state(model: nn.Module, name: str) -> State:
    """The weights under our names; the fused qkv is cut in three."""
    state: State = {}
    for key, value in model.state_dict().items():
        if key in _PLAIN:
            state[_PLAIN[key]] = _flat(key, value)
        elif key.startswith("blocks."):
            state |= _block(key, value, name)
        else:
            raise ModelError(f"timm:{name}: has a part that a plain ViT lacks ({key})")
    return state


def _flat(key: str, value: Tensor) -> Tensor:
    return {"cls_token": lambda: value.flatten(), "pos_embed": lambda: value[0]}.get(key, lambda: value)()


def _block(key: str, value: Tensor, name: str) -> State:
    _, number, *rest = key.split(".")
    part, kind = ".".join(rest[:-1]), rest[-1]
    layer = f"encoder.layers.{number}"
    if part == "attn.qkv":
        return {f"{layer}.self_attn.{p}_proj.{kind}": x for p, x in zip("qkv", torch.chunk(value, 3), strict=True)}
    if part not in _BLOCK:
        raise ModelError(f"timm:{name}: has a part that a plain ViT lacks ({key})")
    return {f"{layer}.{_BLOCK[part]}.{kind}": value}
