"""`SamplePlan`: the samples of each training step, as a pure function of the seed and the step.

There is no state between steps, so a run can resume at any step, with any number of ranks and workers. An epoch over n
samples is divided into ceil(n / batch_size) steps of nearly equal size: no sample is dropped or repeated, and the last
batch is not a small remainder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

from vidal.errors import RecipeError, SourceError

Slots = npt.NDArray[np.int64]
"""(n, 2): index of the dataset, and index into its samples that have all sides; -1 for padding."""
Codes = npt.NDArray[np.uint32]
"""(n,) samples that have all sides, numbered consecutively through their datasets."""
Sides = tuple[str, ...]
"""What a step aligns: the two sides of a pair, or those of several pairs that are trained together.

A side is a modality, or a fusion of several with + between, of which a clip needs only one: ``video+audio+text``.
"""

_PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SidesPlan:
    """The sides of some of the steps, and the number of samples in each dataset."""

    sides: Sides
    sizes: tuple[int, ...]
    """Samples of each dataset that have all sides."""
    weights: tuple[float, ...] | None = None
    """Share of each dataset in an epoch; without weights, an epoch sees each sample once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The sides and samples of one step, over all ranks."""

    sides: Sides
    epoch: int
    """Epoch of the sides."""
    slots: Slots


class SamplePlan:
    """The samples of every step of a run.

    A step trains one of ``plans``. The length is given by ``epochs`` or ``steps``. With ``shares`` the plan of each
    step is drawn, otherwise all run for the same number of epochs. Raises `SourceError` if one has too few samples,
    `RecipeError` if the batch is smaller than the number of ranks, or ``shares`` come without ``steps``.
    """

    def __init__(
        self, plans: Sequence[SidesPlan], *, batch_size: int, seed: int, epochs: int | None = None,
        steps: int | None = None, shares: Sequence[float] | None = None, drop_last: bool = False, ranks: int = 1,
    ) -> None:  # fmt: skip
        self._plans = tuple(plans)
        self._seed = seed
        self.batch_size = min(batch_size, max(sum(part.sizes) for part in plans))
        self._drop_last = drop_last
        if batch_size < ranks:
            raise RecipeError(f"batch_size {batch_size}: some of the {ranks} ranks would have no rows; raise it")
        self._steps_per_epoch = [self._count(part, batch_size, ranks) for part in self._plans]
        if shares is None:
            # Each epoch shuffles the steps of all plans.
            once = np.repeat(np.arange(len(self._plans)), self._steps_per_epoch)
            rounds = epochs if epochs is not None else -(-(steps or 1) // len(once))
            orders = [generator(seed, "order", number).permutation(once) for number in range(rounds)]
            self._order = np.concatenate(orders)[:steps]
        elif steps is None:
            raise RecipeError("weights of pairs need `steps`: with weights an epoch has no defined length")
        else:
            weights = np.asarray(shares, np.float64)
            self._order = generator(seed, "order", 0).choice(len(weights), size=steps, p=weights / weights.sum())
        self.steps = len(self._order)
        # The number of earlier steps of the same plan.
        self._turns = np.zeros(self.steps, np.int64)
        for number in range(len(self._plans)):
            is_own = self._order == number
            self._turns[is_own] = np.arange(is_own.sum())
        self._ends = [np.cumsum(part.sizes, dtype=np.int64) for part in self._plans]
        # The most recent epoch of each plan, at 4 bytes per sample.
        self._cache: dict[int, tuple[int, Codes]] = {}

    def at(self, step: int) -> StepPlan:
        """Return the sides and samples of a step, over all ranks."""
        number, epoch = int(self._order[step]), self.epoch_of(step)
        if self._cache.get(number, (-1,))[0] != epoch:
            self._cache[number] = (epoch, self._epoch(number, epoch))
        start, stop = self._span(step)
        places = self._cache[number][1][start:stop].astype(np.int64)
        ends = self._ends[number]
        datasets = np.searchsorted(ends, places, side="right")
        slots = np.stack([datasets, places - (ends - self._plans[number].sizes)[datasets]], axis=1)
        return StepPlan(sides=self._plans[number].sides, epoch=epoch, slots=slots)

    def share_of(self, slots: Slots, rank: int, ranks: int) -> Slots:
        """Return a rank's share (rows_per_rank, 2) of the slots (n, 2) of a step, padded to the same on each rank."""
        start, stop = (len(slots) * r // ranks for r in (rank, rank + 1))
        padded = np.full((self.rows_per_rank(ranks), 2), _PADDING, np.int64)
        padded[: stop - start] = slots[start:stop]
        return padded

    def first_row(self, step: int, rank: int, ranks: int) -> int:
        """Return the index of a rank's first row among those of the step."""
        start, stop = self._span(step)
        return (stop - start) * rank // ranks

    def rows_per_rank(self, ranks: int) -> int:
        """Return the number of rows of a rank's share, padding included; the same in every step."""
        return -(-self.batch_size // ranks)

    def sides(self) -> list[Sides]:
        """Return the sides of all plans, in the order of the recipe."""
        return [part.sides for part in self._plans]

    def sides_of(self, step: int) -> Sides:
        """Return the sides of a step."""
        return self._plans[int(self._order[step])].sides

    def epoch_of(self, step: int) -> int:
        """Return the epoch, of the step's sides, that a step belongs to."""
        return int(self._turns[step]) // self._steps_per_epoch[int(self._order[step])]

    def _span(self, step: int) -> tuple[int, int]:
        """The start and stop of a step within its epoch."""
        number = int(self._order[step])
        per_epoch = self._steps_per_epoch[number]
        turn = int(self._turns[step]) % per_epoch
        size = sum(self._plans[number].sizes) if not self._drop_last else per_epoch * self.batch_size
        return size * turn // per_epoch, size * (turn + 1) // per_epoch

    def _count(self, plan: SidesPlan, batch_size: int, ranks: int) -> int:
        """The number of steps in an epoch."""
        samples, name = sum(plan.sizes), label(plan.sides)
        if samples < ranks:
            raise SourceError(f"{name}: {samples} samples are fewer than {ranks} ranks; use fewer ranks or more data")
        if samples < 2:
            raise SourceError(f"{name}: {samples} samples; a contrastive loss needs at least two")
        if self._drop_last and samples < batch_size:
            raise SourceError(
                f"{name}: {samples} samples do not fill a batch of {batch_size}; "
                "lower batch_size, or set data.drop_last to false"
            )
        return samples // self.batch_size if self._drop_last else -(-samples // self.batch_size)

    def _epoch(self, number: int, epoch: int) -> Codes:
        """All samples of one epoch of a plan, in order."""
        plan = self._plans[number]
        name, total = "-".join(plan.sides), sum(plan.sizes)
        order = permutation(total, generator(self._seed, "epoch", name, epoch))
        if plan.weights is None:
            return order
        # An empty dataset gets no share of the epoch.
        shares = np.asarray([w if size else 0.0 for w, size in zip(plan.weights, plan.sizes, strict=True)])
        # Sums are rounded, not shares, so that the quotas add up to the epoch's length.
        stops = np.round(np.cumsum(shares) / shares.sum() * total).astype(int)
        quotas = [int(quota) for quota in np.diff(stops, prepend=0)]
        # A dataset's stream goes on where the epoch before ended, so that a small share still sees all its samples.
        parts = [self._stream(number, dataset, epoch * quota, quota) for dataset, quota in enumerate(quotas)]
        return np.concatenate(parts)[order]

    def _stream(self, number: int, dataset: int, first: int, count: int) -> Codes:
        """Samples ``first`` … of a dataset's infinite stream, which is one permutation of the dataset after another."""
        plan = self._plans[number]
        size, name = plan.sizes[dataset], "-".join(plan.sides)
        offset = int(self._ends[number][dataset]) - size
        parts = [np.zeros(0, np.uint32)]
        while count > 0:
            turn, at = divmod(first, size)
            part = permutation(size, generator(self._seed, "stream", name, dataset, turn))[at : at + count]
            parts.append(part + np.uint32(offset))
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts)


def modalities_of(sides: Sides) -> list[str]:
    """Return the modalities that a step encodes, each once, in the order of its sides."""
    return list(dict.fromkeys(modality for side in sides for modality in side.split("+")))


def optional_of(sides: Sides) -> list[str]:
    """Return those of them that a clip may lack: they are parts of a fused side, and no side themselves."""
    return [modality for modality in modalities_of(sides) if modality not in sides]


def label(sides: Sides) -> str:
    """Return how messages name the samples that have all sides."""
    return f"pair {'-'.join(sides)}" if len(sides) == 2 else f"clips with {', '.join(sides[:-1])} and {sides[-1]}"


def permutation(size: int, rng: np.random.Generator) -> Codes:
    """Return 0 … size - 1 in random order, by sorting random keys whose low bits are the numbers.

    That is faster than numpy's shuffle.
    """
    bits = max(size - 1, 1).bit_length()
    keys = rng.integers(0, 1 << 64, size, dtype=np.uint64)
    # At least 32 bits stay random, so ties, which the numbers would decide, are too rare to bias the order.
    keys = (keys >> np.uint64(bits) << np.uint64(bits)) | np.arange(size, dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64((1 << bits) - 1)).astype(np.uint32)


def generator(seed: int, *key: object) -> np.random.Generator:
    """Return the random generator of a seed and key; different keys give independent streams.

    generator(0, "epoch", "text-depth", 3)
    """
    # Philox is counter-based: each key of 128 bits is a stream by itself, with no state to store or to skip through.
    key_of_stream: Any = _Key(hashlib.sha256(repr((seed, *key)).encode()).digest()[:16])
    return np.random.Generator(np.random.Philox(key_of_stream))


class _Key(ISeedSequence):
    """A key of Philox; given as ``key``, NumPy would first draw a seed from the system, for most of the time."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[Any]:
        return np.frombuffer(self._key, "<u8").astype(dtype)
