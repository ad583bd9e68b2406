"""`Trainer`: takes batches and makes steps of them.

Everything random in a step is a function of the seed and the step: which pair and samples (the plan), how they are
cropped (the loader), which patches are dropped and every other draw (`_seed`). A run that goes on from a checkpoint
therefore needs the number of the step and the state of model and optimiser, and is the run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from vidal.train import gradcache
from vidal.train.data.loader import Batch
from vidal.train.data.plan import generator
from vidal.train.data.rows import Broken
from vidal.train.distributed import World, from_all, mean_gradients, total
from vidal.train.loss import contrastive_loss, duplicate_negatives
from vidal.train.optim import Optimisation
from vidal.train.recipe import Pair, TrainRecipe
from vidal.train.texts import Texts
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step gave."""

    step: int
    pair: Pair
    epoch: int
    loss: float
    grad_norm: float
    lr: float
    scale: float
    samples: int
    duplicate_negatives: int
    """Pairs that were told apart although they have the same text or are the same clip; 0 where they are masked."""
    broken: list[Broken]
    """Of all ranks."""
    bad_steps: int
    """How many steps in a row, this one included, changed nothing as their numbers are not finite."""
    clip_ids: list[str]
    """Of this rank."""
    data_s: float
    wall_s: float

    @property
    def is_finite(self) -> bool:
        return self.bad_steps == 0


class Trainer:
    """Owns a rank's model and optimiser; ``towers`` are the encoder's, wrapped for this world."""

    def __init__(
        self, recipe: TrainRecipe, encoder: Encoder, towers: dict[str, nn.Module], optimisation: Optimisation,
        texts: Texts, world: World,
    ) -> None:  # fmt: skip
        self._recipe, self._encoder, self._towers = recipe, encoder, towers
        self._optimisation, self._texts, self._world = optimisation, texts, world
        self._bad_steps = 0

    def steps(self, batches: Iterator[Batch]) -> Iterator[StepResult]:
        """Train on each batch in turn; a step whose numbers are not finite changes nothing."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            data_s = time.perf_counter() - started
            yield self._step(batch.to(self._world.device), started, data_s)

    def _step(self, batch: Batch, started: float, data_s: float) -> StepResult:
        self._encoder.train()
        self._seed(batch.step)
        lr = self._optimisation.begin(batch.step)
        loss = float(total(self._backward(batch))) / self._world.size
        mean_gradients(p for n, p in self._encoder.named_parameters() if n.startswith("logit_"))
        norm = self._optimisation.clip()
        if math.isfinite(loss) and math.isfinite(norm):
            self._optimisation.step()
            self._encoder.clamp_scales()
            self._bad_steps = 0
        else:
            self._bad_steps += 1
        read = torch.tensor([int(batch.valid.sum()), len(batch.broken)], device=self._world.device)
        samples, broken = total(read).tolist()
        return StepResult(
            step=batch.step, pair=batch.pair, epoch=batch.epoch, loss=loss, grad_norm=norm, lr=lr,
            scale=self._encoder.pair_scale(batch.pair).item(), samples=samples,
            duplicate_negatives=self._duplicates(batch), broken=from_all(batch.broken) if broken else [],
            bad_steps=self._bad_steps, clip_ids=[clip_id for clip_id in batch.clip_ids if clip_id],
            data_s=data_s, wall_s=time.perf_counter() - started,
        )  # fmt: skip

    def _duplicates(self, batch: Batch) -> int:
        return 0 if self._recipe.loss.mask_duplicates else int(duplicate_negatives(batch.group, batch.valid))

    def _seed(self, step: int) -> None:
        draws = generator(self._recipe.seed, "step", step, self._world.rank)
        torch.manual_seed(int(draws.integers(2**62)))

    def _backward(self, batch: Batch) -> Tensor:
        sides = [self._side(name, batch) for name in batch.pair]

        def loss(a: Tensor, b: Tensor) -> Tensor:
            return contrastive_loss(
                self._recipe.loss, a, b, self._encoder.pair_scale(batch.pair), self._encoder.pair_bias(batch.pair),
                batch.valid, batch.group,
            )  # fmt: skip

        return gradcache.backward(
            sides, loss, rows=len(batch.valid), chunk_size=self._recipe.chunk_size, device=self._world.device
        )

    def _side(self, name: str, batch: Batch) -> gradcache.Side:
        if name == "text":
            return gradcache.Side(embeddings=self._texts.encode(batch.texts))
        tower, pixels, keep = self._towers[name], batch.inputs[name], self._keep(name, batch)

        def encode(rows: slice) -> Tensor:
            with self._autocast():
                embeddings: Tensor = tower(pixels[rows], None if keep is None else keep[rows])
            return embeddings.float()

        return gradcache.Side(encode=encode, defer_sync=_defer_sync(tower))

    def _keep(self, name: str, batch: Batch) -> Tensor | None:
        """Patches to look at: drawn for every row of the step, so that a sample has the same on any number of ranks."""
        device = self._world.device
        drawn = torch.Generator(device=device)
        drawn.manual_seed(int(generator(self._recipe.seed, "patches", name, batch.step).integers(2**62)))
        keep = self._encoder.tower(name).draw_keep(batch.step_rows, device, drawn)
        if keep is None:
            return None
        # Rows past the end are padding, and are given any patches.
        mine = torch.arange(batch.first, batch.first + len(batch.valid), device=device)
        return keep[mine.clamp(max=batch.step_rows - 1)]

    def _autocast(self) -> AbstractContextManager[object]:
        if self._recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._world.device.type, dtype=torch.bfloat16)


def _defer_sync(tower: nn.Module) -> Callable[[], AbstractContextManager[object]]:
    """Around a backward pass whose gradients are not to be averaged over ranks yet."""
    if isinstance(tower, DistributedDataParallel):
        return tower.no_sync
    return partial(_unsynced, tower) if isinstance(tower, FSDPModule) else nullcontext


@contextmanager
def _unsynced(tower: FSDPModule) -> Iterator[None]:
    tower.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        tower.set_requires_gradient_sync(True)
