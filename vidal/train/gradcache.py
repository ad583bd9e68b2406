"""GradCache: the exact gradient of a contrastive batch whose activations do not fit into memory.

A contrastive loss needs all embeddings of a batch at once, but the towers' activations of only one chunk at a time:
the embeddings are computed without a graph, the loss gives the gradient with respect to each, and each chunk is then
encoded again, with its graph, to backpropagate that gradient (Gao et al., 2021, arXiv 2101.06983). The chunks that are
encoded last before the loss may keep theirs, and are not encoded again.

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
    sides: Sequence[Side], loss: Callable[..., Tensor], *, rows: int, chunk_size: int | None, device: torch.device,
    kept_chunks: int = 1,
) -> Tensor:  # fmt: skip
    """Accumulate the gradient of ``loss(first, second, …)`` into every parameter; return the loss, detached.

    ``loss`` gets the embeddings (rows, d) of every side; if it returns several losses (p,), the gradient is that of
    their sum. Its own parameters, such as the temperature, get their gradient once. Of the side that is encoded last,
    ``kept_chunks`` keep their activations, at most all but one. With a single chunk this is an ordinary backward pass.
    """
    slices = chunks(rows, chunk_size)
    if len(slices) == 1:
        value = loss(*(_encode(side, slices[0]) for side in sides))
        value.sum().backward()  # type: ignore[no-untyped-call]
        return value.detach()
    passes = [(number, part) for number, side in enumerate(sides) if side.encode for part in range(len(slices))]
    # DDP wants to know in the forward pass whether its gradients are averaged after the backward pass, so the one that
    # does, of a side's first chunk, is made anew.
    first_kept = len(passes) - min(kept_chunks, len(slices) - 1)
    states: list[RandomState] = []
    embeddings: list[list[Tensor]] = [[] for _ in sides]
    for index, (number, part) in enumerate(passes):
        states.append(RandomState(device))
        with sides[number].defer_sync() if index >= first_kept else torch.no_grad():
            embeddings[number].append(_encode(sides[number], slices[part]))
    # Leaves without a graph, which accumulate the gradients of the embeddings.
    leaves = [
        torch.cat([part.detach() for part in parts]).requires_grad_() if side.encode else _encode(side, slice(rows))
        for side, parts in zip(sides, embeddings, strict=True)
    ]
    value = loss(*leaves)
    value.sum().backward()  # type: ignore[no-untyped-call]
    # The second passes rewind the generators; afterwards they continue as if there had been one pass.
    after = RandomState(device)
    # Backwards, so that each kept graph is freed before one is made anew, and that gradients are added up in the same
    # order whatever is kept.
    for index, (number, part) in reversed(list(enumerate(passes))):
        if (gradient := leaves[number].grad) is None:
            continue
        encoded = embeddings[number].pop()
        with nullcontext() if part == 0 else sides[number].defer_sync():
            if index < first_kept:
                states[index].restore()
                encoded = _encode(sides[number], slices[part])
            torch.autograd.backward(encoded, gradient[slices[part]])
        del encoded
    after.restore()
    return value.detach()


def _encode(side: Side, rows: slice) -> Tensor:
    if side.encode is None:
        assert side.embeddings is not None
        return side.embeddings[rows]
    embeddings = side.encode(rows)
    # At least float32: embeddings are stored between the passes, and must not be rounded to autocast's dtype.
    return embeddings.float() if embeddings.dtype in (torch.bfloat16, torch.float16) else embeddings
