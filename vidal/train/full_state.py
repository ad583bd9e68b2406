"""Whole tensors of a model that may be sharded over ranks (FSDP2), and back: a checkpoint knows nothing of ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vidal.errors import ModelError

_WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


def clean_name(name: str) -> str:
    """Without what DDP, `torch.compile` and checkpointing put before and between the parts of a name."""
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


def full_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU by clean names; where some are sharded every rank has to ask, in the same order."""
    return {clean_name(name): _full(tensor.detach()) for name, tensor in tensors.items()}


def _full(tensor: Tensor) -> Tensor:
    # One at a time: the device never holds more than one whole tensor beside its shards.
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def laid_out_as(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor on the device of another, and in shards where that is sharded.

    Every rank has the value, as each reads the checkpoint: nothing is sent.
    """
    if isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value.to(like.device).clone()
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load_full(module: nn.Module, state: Mapping[str, Tensor], place: str = "checkpoint") -> None:
    """Put whole tensors into a module, wrapped and sharded as it may be; raises `ModelError` where they do not fit."""
    own = {clean_name(name): tensor for name, tensor in module.state_dict().items()}
    wrong = sorted(own.keys() ^ state.keys()) + [k for k in own if k in state and own[k].shape != state[k].shape]
    if wrong:
        raise ModelError(f"{place}: the weights do not fit this model: {', '.join(wrong[:3])}")
    for name, tensor in own.items():
        tensor.copy_(laid_out_as(state[name], tensor))
