"""GradCache: the gradient of a batch that does not fit into memory, exactly.

A contrastive loss needs all embeddings of a batch at once, but the towers' activations only for one chunk at a time:
first the embeddings are made without a graph, then the loss gives the gradient of each embedding, then each chunk is
made again, with its graph, and that gradient is sent back through it (Gao et al., 2021, arXiv 2101.06983).

Both passes of a chunk must draw the same random numbers. Each chunk's random state is kept and restored, so the
result is the full batch's under dropout of any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

Encode = Callable[[slice], Tensor]
"""Gives the embeddings (rows, d) of a slice of the rank's batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a pair: how its rows are encoded; a side that is not trained gives its embeddings as they are."""

    encode: Encode | None = None
    embeddings: Tensor | None = None
    defer_sync: Callable[[], AbstractContextManager[object]] = nullcontext
    """Around the backward pass of every chunk but the last: DDP's ``no_sync``."""


class RandomState:
    """The random state of the CPU and of the current GPU at one moment."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def chunks(rows: int, size: int | None) -> list[slice]:
    """Slices of at most ``size`` rows."""
    step = size or max(rows, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, max(rows, 1), step)]


def backward(
    sides: Sequence[Side], loss: Callable[[Tensor, Tensor], Tensor], *, rows: int, chunk_size: int | None,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """Add the gradient of ``loss(a, b)`` to every parameter that it depends on; gives the loss, detached.

    The loss' own parameters, such as its temperature, get theirs once. With a single chunk it is an ordinary backward
    pass.
    """
    parts = chunks(rows, chunk_size)
    if len(parts) == 1:
        value = loss(*(_whole(side, parts[0]) for side in sides))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    states: list[list[RandomState]] = []
    leaves = [_leaf(side, parts, states, device) for side in sides]
    value = loss(leaves[0], leaves[1])
    value.backward()  # type: ignore[no-untyped-call]
    after = RandomState(device)
    for side, leaf, kept in zip(sides, leaves, states, strict=True):
        if side.encode is not None and leaf.grad is not None:
            _send_back(side, leaf.grad, parts, kept)
    after.restore()
    return value.detach()


def _whole(side: Side, rows: slice) -> Tensor:
    if side.encode is not None:
        return _embed(side.encode, rows)
    assert side.embeddings is not None
    return side.embeddings


def _embed(encode: Encode, rows: slice) -> Tensor:
    """A slice's embeddings, in float32 at least: what is kept between the passes is not rounded to autocast's type."""
    made = encode(rows)
    return made.float() if made.dtype in (torch.bfloat16, torch.float16) else made


def _leaf(side: Side, parts: Sequence[slice], states: list[list[RandomState]], device: torch.device) -> Tensor:
    """All embeddings of a side, without a graph, as a leaf that collects their gradient."""
    kept: list[RandomState] = []
    states.append(kept)
    if side.encode is None:
        assert side.embeddings is not None
        return side.embeddings.detach()
    made = []
    with torch.no_grad():
        for part in parts:
            kept.append(RandomState(device))
            made.append(_embed(side.encode, part))
    return torch.cat(made).requires_grad_()


def _send_back(side: Side, gradient: Tensor, parts: Sequence[slice], states: Sequence[RandomState]) -> None:
    assert side.encode is not None
    for number, (part, state) in enumerate(zip(parts, states, strict=True)):
        state.restore()
        is_last = number == len(parts) - 1
        with nullcontext() if is_last else side.defer_sync():
            torch.autograd.backward(_embed(side.encode, part), gradient[part])
