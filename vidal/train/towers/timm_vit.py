"""Conversion of a timm ViT to the settings and parameter names of `VisionTower`."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from vidal.errors import ModelError, one_line
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
_BLOCK_TENSOR = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<part>.+)\.(?P<kind>\w+)")


def timm_start(name: str, *, pretrained: bool) -> tuple[VisionSettings, State]:
    """Return settings and weights of ``timm:NAME``; raises `ModelError` unless it is a plain ViT with a class token."""
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"{name.split('_patch')[0]}*")[:3]
        raise ModelError(f"timm:{name}: timm has no such model{'; it has ' + ', '.join(near) if near else ''}")
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub client raises dozens of exception types
        remedy = "set `pretrained: false` to start from random weights"
        raise ModelError(f"timm:{name}: {one_line(error, 200)}; {remedy}") from error
    # Cloned, as q, k and v are views of timm's one tensor.
    return vit_settings(model, name), {k: v.clone() for k, v in vit_state(model, name).items()}


def vit_settings(model: nn.Module, name: str) -> VisionSettings:
    """Return the settings of a timm model; raises `ModelError` for an unsupported architecture or activation."""
    m: Any = model
    if type(model).__name__ != "VisionTransformer" or m.cls_token is None or m.global_pool != "token":
        raise ModelError(f"timm:{name}: only a ViT that pools by its class token can be a tower (vit_*_patch*)")
    block = m.blocks[0]
    activations: dict[str, Any] = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
    activation = type(block.mlp.act).__name__
    if activation not in activations:
        raise ModelError(f"timm:{name}: activation {activation} is not supported, only {', '.join(activations)}")
    return VisionSettings(
        hidden_size=m.embed_dim, layers=len(m.blocks), heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features, patch_size=m.patch_embed.patch_size[0],
        image_size=m.patch_embed.img_size, channels=m.patch_embed.proj.in_channels,
        activation=activations[activation], layer_norm_eps=block.norm1.eps,
        pre_norm=not isinstance(m.norm_pre, nn.Identity), patch_bias=m.patch_embed.proj.bias is not None,
        projection_dim=m.embed_dim,
    )  # fmt: skip


def vit_state(model: nn.Module, name: str) -> State:
    """Return the weights under `VisionTower`'s names, the fused qkv split; raises `ModelError` for an extra tensor."""
    state: State = {}
    for key, value in model.state_dict().items():
        block = _BLOCK_TENSOR.fullmatch(key)
        if key in _PLAIN:
            # timm keeps a batch axis on the class token (1, 1, d) and the position table (1, n, d).
            shape = {"cls_token": (-1,), "pos_embed": value.shape[1:]}.get(key, value.shape)
            state[_PLAIN[key]] = value.reshape(shape)
        elif block and block["part"] == "attn.qkv":
            for letter, tensor in zip("qkv", torch.chunk(value, 3), strict=True):
                state[f"encoder.layers.{block['layer']}.self_attn.{letter}_proj.{block['kind']}"] = tensor
        elif block and block["part"] in _BLOCK:
            state[f"encoder.layers.{block['layer']}.{_BLOCK[block['part']]}.{block['kind']}"] = value
        else:
            raise ModelError(f"timm:{name}: {key} is not part of a plain ViT")
    return state
