"""`Trainer`: the training step.

All randomness of a step is a function of the seed and the step: its pair and samples (the plan), their crops (the
loader), the dropped patches and all other draws (`Trainer`). To resume, a run therefore needs only the step and the
state of model and optimiser, and is bitwise identical to an uninterrupted run.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from vidal.train import gradcache
from vidal.train.data.loader import Batch, Inputs
from vidal.train.data.plan import Sides, generator, modalities_of
from vidal.train.data.rows import Broken
from vidal.train.distributed import World, from_all
from vidal.train.loss import PairTerms, contrastive_losses, normalised
from vidal.train.optim import Optimisation
from vidal.train.recipe import Pair, TrainRecipe
from vidal.train.teachers import Teachers
from vidal.train.texts import Texts
from vidal.train.totals import StepTotals
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The outcome of one step, over all ranks unless stated otherwise."""

    step: int
    sides: Sides
    """What was aligned."""
    epoch: int
    """Epoch of the sides."""
    losses: dict[Pair, float]
    """Loss of each pair, before it is weighted."""
    loss: float
    """Weighted sum of the losses."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    lr: float
    scales: dict[Pair, float]
    """exp(logit_scale) of each pair, of which its loss was computed."""
    samples: int
    """Valid rows of the batch."""
    duplicate_negatives: int
    """Negatives that have the same text or are the same clip; 0 if the loss masks them."""
    broken: list[Broken]
    """Samples that could not be read."""
    was_interrupted: bool
    """Whether rank 0 was told to end the run after this step."""
    bad_steps: int
    """Consecutive steps, up to this one, that were skipped as their loss or gradient was not finite."""
    clip_ids: list[str]
    """Clips of this rank's share of the batch."""
    data_s: float
    """Time that this rank waited for the batch."""
    wall_s: float
    """Time of the whole step on this rank, ``data_s`` included."""

    @property
    def name(self) -> str:
        """The names of its pairs, with + between."""
        return "+".join("-".join(pair) for pair in self.losses)

    @property
    def is_finite(self) -> bool:
        """Whether the step was applied."""
        return self.bad_steps == 0


class Trainer:
    """Runs the steps of one rank; ``towers`` are the encoder's, wrapped for distributed training."""

    def __init__(
        self, recipe: TrainRecipe, encoder: Encoder, towers: dict[str, nn.Module], optimisation: Optimisation,
        texts: Texts, world: World, interrupted: threading.Event, teachers: Teachers | None = None,
    ) -> None:  # fmt: skip
        self._recipe, self._encoder, self._towers = recipe, encoder, towers
        self._loss_weights = recipe.loss_weights()
        self._optimisation, self._texts, self._world = optimisation, texts, world
        self._interrupted, self._teachers = interrupted, teachers
        # Temperatures belong to no tower, and each DDP averages the gradients of its tower alone.
        self._alone = [p for name, p in encoder.named_parameters() if name.startswith("logit_")]

    def steps(self, batches: Iterator[Batch]) -> Iterator[StepResult]:
        """Train on each batch; a step whose loss or gradient is not finite is skipped."""
        bad_steps = 0
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            data_s = time.perf_counter() - started
            self._encoder.train()
            # Of the step, so that a resumed run draws the same; of the rank, so that no two rows share a dropout mask.
            rng = generator(self._recipe.seed, "step", batch.step, self._world.rank)
            torch.manual_seed(int(rng.integers(2**62)))
            lr = self._optimisation.begin(batch.step)
            # Each rank's loss is scaled such that the mean over ranks is that of the whole batch (`vidal.train.loss`).
            # Rank 0 decides: a rank that stopped at its own signal would leave the others in a collective.
            totals = StepTotals(
                self._backward(batch), self._alone, group=batch.group, valid=batch.valid, broken=batch.broken_rows,
                interrupted=self._interrupted.is_set(), here=self._world,
            )  # fmt: skip
            # The only time in a step that the CPU waits for a GPU.
            weights = self._loss_weights[batch.sides]
            told = totals.read(self._optimisation.clip(), *(self._encoder.pair_scale(pair) for pair in weights))
            norm, *scales = told.own
            loss = sum(told.losses)
            # The same on every rank, as both numbers are of all ranks: none would step alone.
            if math.isfinite(loss) and math.isfinite(norm):
                self._optimisation.step()
                self._encoder.clamp_scales()
                bad_steps = 0
            else:
                bad_steps += 1
            masks = self._recipe.loss.mask_duplicates
            yield StepResult(
                step=batch.step, sides=batch.sides, epoch=batch.epoch,
                losses={pair: x / w for (pair, w), x in zip(weights.items(), told.losses, strict=True)},
                loss=loss, grad_norm=norm, lr=lr, scales=dict(zip(weights, scales, strict=True)), samples=told.samples,
                duplicate_negatives=0 if masks else told.duplicate_negatives,
                # The lists, which have to be pickled, are gathered only in a step that has one.
                broken=from_all(batch.broken) if told.broken else [],
                was_interrupted=told.was_interrupted, bad_steps=bad_steps,
                clip_ids=[clip_id for clip_id in batch.clip_ids if clip_id],
                data_s=data_s, wall_s=time.perf_counter() - started,
            )  # fmt: skip

    def _backward(self, batch: Batch) -> Tensor:
        """The weighted loss of each pair of the step (p,), detached."""
        names = modalities_of(batch.sides)
        sides = [self._side(name, batch) for name in names]
        weights = self._loss_weights[batch.sides]
        taught = {pair: self._teachers.of(pair, batch) if self._teachers is not None else [] for pair in weights}
        distil_weight = self._recipe.distil.weight if self._recipe.distil is not None else 0.0

        def losses(*embeddings: Tensor) -> Tensor:
            terms = [
                PairTerms(
                    sides=(batch.sides.index(pair[0]), batch.sides.index(pair[1])),
                    logit_scale=self._encoder.pair_scale(pair), logit_bias=self._encoder.pair_bias(pair),
                    group=batch.group if "text" in pair else batch.clip_group,
                    teachers=taught[pair], distil_weight=distil_weight,
                )
                for pair in weights
            ]  # fmt: skip
            features = _features(batch, dict(zip(names, embeddings, strict=True)))
            found = contrastive_losses(self._recipe.loss, features, terms, batch.valid)
            return torch.stack([weight * loss for weight, loss in zip(weights.values(), found, strict=True)])

        return gradcache.backward(
            sides, losses, rows=len(batch.valid), chunk_size=self._recipe.chunk_size, device=self._world.device,
            kept_chunks=self._recipe.kept_chunks,
        )  # fmt: skip

    def _side(self, name: str, batch: Batch) -> gradcache.Side:
        if name == "text" and not self._encoder.trains_text:
            return gradcache.Side(embeddings=self._texts.encode(batch.texts, batch.tokens))
        tower, device = self._towers[name], self._world.device
        inputs: Sequence[Inputs | Tensor]
        if name == "text":
            assert batch.tokens is not None
            inputs = batch.tokens
        else:
            inputs = [batch.inputs[name], *self._kept_patches(name, batch)]
        is_bf16 = self._recipe.precision == "bf16"

        def encode(rows: slice) -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16) if is_bf16 else nullcontext():
                embeddings: Tensor = tower(*(x[rows] for x in inputs))
            return embeddings.float()

        if not any(p.requires_grad for p in tower.parameters()):
            with torch.no_grad():
                parts = [encode(rows) for rows in gradcache.chunks(len(batch.valid), self._recipe.chunk_size)]
            return gradcache.Side(embeddings=torch.cat(parts))
        return gradcache.Side(encode=encode, defer_sync=partial(_deferred_sync, tower))

    def _kept_patches(self, name: str, batch: Batch) -> list[Tensor]:
        """The patches (b, k) that each row keeps; nothing if all are kept."""
        device = self._world.device
        # Drawn for all rows of the step: a sample keeps the same patches on any number of ranks.
        rng = torch.Generator(device=device)
        rng.manual_seed(int(generator(self._recipe.seed, "patches", name, batch.step).integers(2**62)))
        keep = self._encoder.tower(name).draw_keep(batch.step_rows, device, rng)
        if keep is None:
            return []
        own = torch.arange(batch.first, batch.first + len(batch.valid), device=device)
        # Rows past the end are padding; it does not matter which patches they keep.
        return [keep[own.clamp(max=batch.step_rows - 1)]]


def _features(batch: Batch, embeddings: Mapping[str, Tensor]) -> list[Tensor]:
    """The features (b, d) of each side; those of a fused one are the sum of the unit embeddings that a clip has.

    The loss divides features by their length: a sum is the mean.
    """
    features = []
    for side in batch.sides:
        if side in embeddings:
            features.append(embeddings[side])
            continue
        present = {part: batch.valid & batch.present.get(part, batch.valid) for part in side.split("+")}
        units = [normalised(embeddings[part], rows) for part, rows in present.items()]
        features.append(torch.stack(units).sum(dim=0))
    return features


@contextmanager
def _deferred_sync(tower: nn.Module) -> Iterator[None]:
    """Within the block, a backward pass does not average gradients over ranks yet."""
    if isinstance(tower, FSDPModule):
        tower.set_requires_gradient_sync(False)
    try:
        with tower.no_sync() if isinstance(tower, DistributedDataParallel) else nullcontext():
            yield
    finally:
        if isinstance(tower, FSDPModule):
            tower.set_requires_gradient_sync(True)
