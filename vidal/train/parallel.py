"""The towers of a run as they are trained: in float8, halved, compiled, and on several ranks replicated or sharded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from vidal.train import float8
from vidal.train.distributed import World
from vidal.train.recipe import Precision, TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.vit import PatchEmbedding

# Of torch's limit of 8, a recipe of three towers with chunks of two sizes would exceed it, and run as written.
_MAX_GRAPHS = 64


def prepared(encoder: Encoder, recipe: TrainRecipe, here: World, *, stores_bases: bool) -> dict[str, nn.Module]:
    """Return the towers by name, sharded or each in a DDP of its own, which expects all its parameters in a step.

    ``stores_bases``: checkpoints hold the frozen weights as well, which therefore stay in float32.
    """
    towers: dict[str, tuple[nn.Module, nn.ModuleList]] = {}
    for modality in recipe.towers:
        vision = encoder.tower(modality)
        towers[modality] = (vision, vision.encoder.layers)
    if encoder.trains_text:
        towers["text"] = (encoder.text_tower(), encoder.text_tower().layers)
    if recipe.float8:
        for name, (_, layers) in towers.items():
            float8.convert(name, layers, here.device)
    is_bf16, is_sharded = recipe.precision == "bf16", recipe.fsdp and here.size > 1
    wrapped: dict[str, nn.Module] = {}
    for modality, (tower, layers) in towers.items():
        wrapped[modality] = tower
        if is_sharded:
            _shard(tower, layers, here, is_bf16=is_bf16 and modality != "text")
        elif is_bf16 and not stores_bases and modality != "text":
            # A text tower that is trained also encodes without autocast, in an evaluation.
            _halve_frozen(tower)
        if compiles(recipe, here):
            _compile(layers)
        # DDP refuses a module without a trained parameter.
        if here.size > 1 and not is_sharded and any(p.requires_grad for p in tower.parameters()):
            devices = [here.device] if here.is_gpu else None
            wrapped[modality] = DistributedDataParallel(tower, device_ids=devices)
    return wrapped


def _shard(tower: nn.Module, layers: nn.ModuleList, here: World, *, is_bf16: bool) -> None:
    mesh = init_device_mesh(here.device.type, (here.size,))
    # Weights are gathered in the type that autocast would cast them to; gradients are summed in float32.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if is_bf16 else None, reduce_dtype=torch.float32 if is_bf16 else None,
        cast_forward_inputs=False,
    )  # fmt: skip
    # Each layer, then the rest: a layer's parameters are gathered only while it runs.
    for part in (*layers, tower):
        fully_shard(part, mesh=mesh, mp_policy=policy)


def _compile(layers: nn.ModuleList) -> None:
    from torch._dynamo import config  # seconds, which no other run has to wait

    # One graph for all layers of a tower, which takes seconds, where that of a whole tower takes more than a minute.
    # Towers, chunks of another size, and passes with and without gradients, have graphs of their own.
    config.recompile_limit = max(config.recompile_limit, _MAX_GRAPHS)
    for layer in layers:
        # In place, as a wrapper would give the parameters other names. Of a step's chunks only the last may be smaller,
        # and a graph for any size would be slower for all.
        layer.compile(dynamic=False)


def _halve_frozen(tower: nn.Module) -> None:
    """Store the frozen weights of matrix products in bfloat16: autocast would cast them anew in every pass.

    Those that have an adapter stay in float32, as the sum of both is rounded.
    """
    adapted = {base.weight for module in tower.modules() if (base := getattr(module, "base_layer", None)) is not None}
    for module in tower.modules():
        if isinstance(module, nn.Linear | PatchEmbedding):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter not in adapted:
                    parameter.data = parameter.data.to(torch.bfloat16)


def compiles(recipe: TrainRecipe, here: World) -> bool:
    """Return whether the towers are compiled: as the recipe says, or else on a GPU beside a C compiler."""
    if recipe.compile is not None:
        return recipe.compile
    # The code that torch.compile generates for a GPU is started by a small C program.
    return here.is_gpu and any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang"))))


def as_written(recipe: TrainRecipe, here: World) -> AbstractContextManager[object]:
    """Return a context in which compiled towers run as they are written: no graph is made for the sizes it sees."""
    return torch.compiler.set_stance("force_eager") if compiles(recipe, here) else nullcontext()


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Within the block, float32 matrix products on a GPU run in TF32, unless the precision is ``fp32``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
