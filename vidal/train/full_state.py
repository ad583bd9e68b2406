"""Conversion between sharded tensors (FSDP2) and full ones: checkpoints do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from vidal.train.towers.weights import clean_name


def full_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of full tensors on the CPU, by clean name; a collective if any is sharded: every rank must call it.

    Those of a GPU's tensors are in pinned memory, and complete once the current stream has come this far.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # One at a time, so that the device holds at most one full tensor besides its shards.
        tensor = tensor.detach()
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        copy = torch.empty(full.shape, dtype=full.dtype, pin_memory=full.is_cuda)
        state[clean_name(name)] = copy.copy_(full, non_blocking=True)
    return state


def laid_out_as(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a full tensor with the device and sharding of ``like``.

    Not a collective: every rank has read the full value from the checkpoint.
    """
    if isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value.to(like.device).clone()
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
