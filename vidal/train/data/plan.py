"""`SamplePlan`: which samples every step of a run is made of, as a pure function of the seed and the step.

Nothing is remembered from step to step, so a run goes on at any step, with any number of ranks and workers. An epoch
over n samples is cut into ceil(n / batch) steps of nearly equal size: no sample is dropped or repeated, and there is
no tiny last batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidal.errors import RecipeError, SourceError

Slots = npt.NDArray[np.int64]
"""(n, 2): number of the data set, and place in its list of samples of the pair; -1 where there is none."""
Codes = npt.NDArray[np.uint32]
"""Samples of a pair, its data sets counted through."""
Pair = tuple[str, str]

_NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan:
    """A pair, with how many samples each data set has for it."""

    pair: Pair
    sizes: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    """Share of each data set in an epoch; without them each sample is seen once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What one step is made of."""

    step: int
    pair: Pair
    epoch: int
    """Of the pair."""
    slots: Slots


class SamplePlan:
    """The whole run's; raises `SourceError` where there is less than a rank's worth of samples."""

    def __init__(
        self, pairs: Sequence[PairPlan], *, batch_size: int, seed: int, epochs: int | None = None,
        steps: int | None = None, pair_weights: Sequence[float] | None = None, drop_last: bool = False, ranks: int = 1,
    ) -> None:  # fmt: skip
        self._pairs = tuple(pairs)
        self._seed = seed
        self.batch_size = min(batch_size, max(sum(pair.sizes) for pair in pairs))
        self._drop_last = drop_last
        if batch_size < ranks:
            raise RecipeError(f"batch_size {batch_size}: some of {ranks} ranks would have nothing; raise it")
        self._steps_per_epoch = [self._count(pair, batch_size, ranks) for pair in self._pairs]
        if pair_weights is None:
            self._order = self._mixed(epochs, steps)
        elif steps is None:
            raise RecipeError("weights of pairs need `steps`: an epoch of a mixture has no length")
        else:
            self._order = self._drawn(pair_weights, steps)
        self.steps = len(self._order)
        # How many steps of its pair came before each step.
        self._turns = np.zeros(self.steps, np.int64)
        for number in range(len(self._pairs)):
            mine = self._order == number
            self._turns[mine] = np.arange(mine.sum())
        self._ends = [np.cumsum(pair.sizes, dtype=np.int64) for pair in self._pairs]
        # Of each pair the epoch that was asked for last: 4 bytes a sample.
        self._cache: dict[int, tuple[int, Codes]] = {}

    def at(self, step: int) -> StepPlan:
        """The step's pair and samples, over all ranks."""
        number, epoch = int(self._order[step]), self.epoch_of(step)
        if self._cache.get(number, (-1,))[0] != epoch:
            self._cache[number] = (epoch, self._epoch(number, epoch))
        start, stop = self._span(step)
        slots = self._slots(number, self._cache[number][1][start:stop])
        return StepPlan(step=step, pair=self._pairs[number].pair, epoch=epoch, slots=slots)

    def share(self, step: int, rank: int, ranks: int) -> Slots:
        """A rank's part of a step: as many rows on each rank, the missing ones -1."""
        return self.share_of(self.at(step).slots, rank, ranks)

    def share_of(self, slots: Slots, rank: int, ranks: int) -> Slots:
        """A rank's part of a step's slots."""
        rows = self.rows_per_rank(ranks)
        start, stop = (len(slots) * r // ranks for r in (rank, rank + 1))
        part = np.full((rows, 2), _NOTHING, np.int64)
        part[: stop - start] = slots[start:stop]
        return part

    def first_row(self, step: int, rank: int, ranks: int) -> int:
        """Where a rank's part begins in a step."""
        start, stop = self._span(step)
        return (stop - start) * rank // ranks

    def rows_per_rank(self, ranks: int) -> int:
        """Rows of every rank's part, in every step of the run."""
        return -(-self.batch_size // ranks)

    def pairs(self) -> list[Pair]:
        return [planned.pair for planned in self._pairs]

    def pair_of(self, step: int) -> Pair:
        return self._pairs[int(self._order[step])].pair

    def epoch_of(self, step: int) -> int:
        """Of the step's pair."""
        return int(self._turns[step]) // self._steps_per_epoch[int(self._order[step])]

    def _span(self, step: int) -> tuple[int, int]:
        """Where a step begins and ends among the samples of its epoch."""
        number = int(self._order[step])
        per_epoch = self._steps_per_epoch[number]
        turn = int(self._turns[step]) % per_epoch
        size = sum(self._pairs[number].sizes) if not self._drop_last else per_epoch * self.batch_size
        return size * turn // per_epoch, size * (turn + 1) // per_epoch

    def _count(self, pair: PairPlan, batch_size: int, ranks: int) -> int:
        """Steps of an epoch."""
        samples, name = sum(pair.sizes), "-".join(pair.pair)
        if samples < ranks:
            raise SourceError(f"pair {name}: {samples} samples are fewer than {ranks} ranks; use fewer, or more data")
        if samples < 2:
            raise SourceError(f"pair {name}: {samples} samples, and a contrast needs two")
        if self._drop_last and samples < batch_size:
            raise SourceError(
                f"pair {name}: {samples} samples fill no batch of {batch_size}; "
                "lower batch_size, or set data.drop_last to false"
            )
        return samples // self.batch_size if self._drop_last else -(-samples // self.batch_size)

    def _mixed(self, epochs: int | None, steps: int | None) -> Slots:
        """Each pair's steps of an epoch, mixed; every pair makes as many epochs."""
        once = np.repeat(np.arange(len(self._pairs)), self._steps_per_epoch)
        rounds = epochs if epochs is not None else -(-(steps or 1) // len(once))
        order = np.concatenate([self._generator("order", r).permutation(once) for r in range(rounds)])
        return order if steps is None else order[:steps]

    def _drawn(self, weights: Sequence[float], steps: int) -> Slots:
        shares = np.asarray(weights, np.float64)
        return self._generator("order", 0).choice(len(shares), size=steps, p=shares / shares.sum())

    def _epoch(self, number: int, epoch: int) -> Codes:
        """All samples of one epoch of a pair, in order."""
        pair = self._pairs[number]
        name, total = "-".join(pair.pair), sum(pair.sizes)
        order = permutation(total, self._generator("epoch", name, epoch))
        if pair.weights is None:
            return order
        quotas = _quotas(total, pair.weights, pair.sizes)
        parts = [self._stream(number, d, epoch * quota, quota) for d, quota in enumerate(quotas)]
        return np.concatenate(parts)[order]

    def _stream(self, number: int, data_set: int, first: int, count: int) -> Codes:
        """Samples ``first`` … of a data set's endless stream: one permutation of all of it after the other."""
        pair = self._pairs[number]
        size, name = pair.sizes[data_set], "-".join(pair.pair)
        offset = int(self._ends[number][data_set]) - size
        found = [np.zeros(0, np.uint32)]
        while count > 0:
            turn, at = divmod(first, size)
            part = permutation(size, self._generator("stream", name, data_set, turn))[at : at + count]
            found.append(part + np.uint32(offset))
            first, count = first + len(part), count - len(part)
        return np.concatenate(found)

    def _slots(self, number: int, codes: Codes) -> Slots:
        ends = self._ends[number]
        places = codes.astype(np.int64)
        data_sets = np.searchsorted(ends, places, side="right")
        return np.stack([data_sets, places - (ends - self._pairs[number].sizes)[data_sets]], axis=1)

    def _generator(self, *what: object) -> np.random.Generator:
        return generator(self._seed, *what)


def permutation(size: int, draws: np.random.Generator) -> Codes:
    """0 … size - 1 in random order, by sorting random numbers that carry them: faster than a shuffle."""
    bits = max(size - 1, 1).bit_length()
    keys = draws.integers(0, 1 << 64, size, dtype=np.uint64)
    # The random part has 32 bits and more: a tie would be told apart by the number, and is too rare to matter.
    keys = (keys >> np.uint64(bits) << np.uint64(bits)) | np.arange(size, dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64((1 << bits) - 1)).astype(np.uint32)


def generator(seed: int, *what: object) -> np.random.Generator:
    """A generator of its own for each thing that is drawn: independent of every other, and of what was drawn before."""
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _quotas(total: int, weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """Samples of each data set in an epoch of ``total``; a data set without any has no share."""
    shares = np.asarray([w if n else 0.0 for w, n in zip(weights, sizes, strict=True)])
    ends = np.round(np.cumsum(shares) / shares.sum() * total).astype(int)
    return [int(n) for n in np.diff(ends, prepend=0)]
