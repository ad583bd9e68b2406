"""A step on two ranks has two collectives of the loss and one of its numbers, beside those of DDP."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import on_ranks
from vidal.train.data.loader import Batch
from vidal.train.distributed import World
from vidal.train.loop import Trainer
from vidal.train.optim import Optimisation
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder, pairs_of
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.vit import VisionTower

ROWS = 4
SIDES = {"one": ("depth", "audio"), "all": ("audio", "depth", "infrared")}
PAIRS = {"one": ["depth-audio"], "all": ["depth-audio", "audio-infrared", "depth-infrared"]}
SIZES = VisionSettings(hidden_size=16, layers=1, heads=2, patch_size=4, image_size=8, projection_dim=6)
COLLECTIVES = (
    "all_reduce", "all_gather", "all_gather_single", "reduce_scatter_single", "broadcast", "broadcast_object_list",
    "all_gather_object", "barrier",
)  # fmt: skip


def batch(rank: int, step: int, sides: tuple[str, ...]) -> Batch:
    """Row 3 of rank 0 is padding; the groups 7 and 9 are on both ranks."""
    torch.manual_seed(10 * step + rank)
    valid = torch.tensor([True, True, True, rank != 0])
    group = torch.tensor([[7, 7, 2**48 - 1, 9], [7, 2**48 - 2, 9, 9]][rank])
    return Batch(
        step=step, epoch=0, sides=sides, inputs={side: torch.randn(ROWS, 3, 8, 8) for side in sides},  # type: ignore[misc]
        texts=[], tokens=None, valid=valid, broken_rows=torch.zeros_like(valid), group=group, clip_group=group, first=rank * ROWS,
        step_rows=2 * ROWS, clip_ids=["x"] * ROWS, samples=int(valid.sum()), nbytes=0,
    )  # fmt: skip


def counted(patch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keys: Any) -> Any:
            # Without what a collective calls itself.
            found[name] += "/torch/distributed/" not in sys._getframe(1).f_code.co_filename
            return real(*arguments, **keys)

        return call

    for name in COLLECTIVES:
        patch.setattr(dist, name, counting(name, getattr(dist, name)))
    return found


def second_step(rank: int, ranks: int, pairs_per_step: str) -> dict[str, Any]:
    sides = SIDES[pairs_per_step]
    recipe = TrainRecipe.model_validate({
        "text": {"model": "none"}, "towers": {side: {"model": "none"} for side in sides},
        "pairs": {name: {} for name in PAIRS[pairs_per_step]}, "pairs_per_step": pairs_per_step,
        "batch_size": 2 * ROWS, "steps": 2,
    })  # fmt: skip
    torch.manual_seed(0)
    towers = {side: VisionTower(SIZES) for side in sides}
    encoder = Encoder(towers, None, pairs=pairs_of(PAIRS[pairs_per_step]))
    interrupted = threading.Event()
    trainer = Trainer(
        recipe, encoder, {side: DistributedDataParallel(tower) for side, tower in towers.items()},
        Optimisation(encoder, recipe.optimiser, 2), None,  # type: ignore[arg-type]  # no text is encoded
        World(rank=rank, size=ranks), interrupted,
    )  # fmt: skip
    steps = trainer.steps(iter([batch(rank, 0, sides), batch(rank, 1, sides)]))
    first = next(steps)
    if rank == 0:
        interrupted.set()
    with pytest.MonkeyPatch.context() as patch:
        found = counted(patch)
        step = next(steps)
    return {
        "calls": {name: n for name, n in found.items() if n},
        "step": [first.was_interrupted, step.was_interrupted, step.samples, step.duplicate_negatives, step.loss,
                 step.grad_norm, *step.losses.values(), *step.scales.values()],
    }  # fmt: skip


@pytest.mark.parametrize("pairs_per_step", ["one", "all"])
def test_a_step_sums_its_numbers_at_once(pairs_per_step: str) -> None:
    first, second = on_ranks(2, second_step, pairs_per_step)
    assert first == second
    # Of the loss: all sides and which rows count are gathered, and the gradients of all are summed.
    assert first["calls"] == {"all_gather_single": 1, "reduce_scatter_single": 1, "all_reduce": 1}
    # 7 is there three times, and 9 twice among the rows that count.
    assert first["step"][:4] == [False, True, 7, 3 * 2 + 2]
