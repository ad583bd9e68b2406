"""GradCache: the exact gradient of a contrastive batch whose activations do not fit into memory.

A contrastive loss needs all embeddings of a batch at once, but the towers' activations of only one chunk at a time:
the embeddings are computed without a graph, the loss gives the gradient with respect to each, and each chunk is then
encoded again, with its graph, to backpropagate that gradient (Gao et al., 2021, arXiv 2101.06983). The chunk that is
encoded last before the loss is not encoded again.

Both passes of a chunk must draw the same random numbers, so each chunk's random state is saved and restored; the
result is exact under dropout as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

Encode = Callable[[slice], Tensor]
"""Returns the embeddings (rows, d) of a slice of the rank's batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a step: an ``encode`` function, or ``embeddings`` (b, d) of a side that is not trained."""

    encode: Encode | None = None
    embeddings: Tensor | None = None
    defer_sync: Callable[[], AbstractContextManager[object]] = nullcontext
    """Context of the backward pass of every chunk except the last, such as DDP's ``no_sync``."""


class RandomState:
    """A snapshot of the random state of the CPU and of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set the generators back to the snapshot."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def chunks(rows: int, size: int | None) -> list[slice]:
    """Return consecutive slices of at most ``size`` rows (None: one slice of all rows)."""
    step = size or max(rows, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, max(rows, 1), step)]


def backward(
    sides: Sequence[Side], loss: Callable[..., Tensor], *, rows: int, chunk_size: int | None, device: torch.device
) -> Tensor:
    """Accumulate the gradient of ``loss(first, second, …)`` into every parameter; return the loss, detached.

    ``loss`` gets the embeddings (rows, d) of every side; if it returns several losses (p,), the gradient is that of
    their sum. Its own parameters, such as the temperature, get their gradient once. With a single chunk this is an
    ordinary backward pass.
    """
    slices = chunks(rows, chunk_size)
    if len(slices) == 1:
        value = loss(*(_encode(side, slices[0]) for side in sides))
        value.sum().backward()  # type: ignore[no-untyped-call]
        return value.detach()
    leaves: list[Tensor] = []
    states: list[list[RandomState]] = []
    embeddings: list[Tensor] = []
    for side in sides:
        chunk_states, embeddings = [], []
        for rows_of_chunk in slices:
            chunk_states.append(RandomState(device))
            # What is encoded last keeps its graph: one forward pass less, with no more memory. It is backpropagated
            # before the others, and DDP wants to know in the forward pass whether gradients are averaged after it.
            is_kept = side is sides[-1] and rows_of_chunk is slices[-1]
            with side.defer_sync() if is_kept else torch.no_grad():
                embeddings.append(_encode(side, rows_of_chunk))
        states.append(chunk_states)
        # A leaf without a graph, which accumulates the gradient of the embeddings.
        leaves.append(torch.cat([part.detach() for part in embeddings]).requires_grad_(side.encode is not None))
    value = loss(*leaves)
    value.sum().backward()  # type: ignore[no-untyped-call]
    kept = embeddings[-1]
    if kept.requires_grad and (gradient := leaves[-1].grad) is not None:
        with sides[-1].defer_sync():
            torch.autograd.backward(kept, gradient[slices[-1]])
    # The second passes rewind the generators; afterwards they continue as if there had been one pass.
    after = RandomState(device)
    for side, leaf, chunk_states in zip(sides, leaves, states, strict=True):
        if leaf.grad is None:
            continue
        # The last state of the last side is left over: its chunk kept its graph.
        again = slices[:-1] if side is sides[-1] else slices
        for rows_of_chunk, state in zip(again, chunk_states, strict=False):
            state.restore()
            with nullcontext() if rows_of_chunk is again[-1] else side.defer_sync():
                torch.autograd.backward(_encode(side, rows_of_chunk), leaf.grad[rows_of_chunk])
    after.restore()
    return value.detach()


def _encode(side: Side, rows: slice) -> Tensor:
    if side.encode is None:
        assert side.embeddings is not None
        return side.embeddings[rows]
    embeddings = side.encode(rows)
    # At least float32: embeddings are stored between the passes, and must not be rounded to autocast's dtype.
    return embeddings.float() if embeddings.dtype in (torch.bfloat16, torch.float16) else embeddings
