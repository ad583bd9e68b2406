"""Depth by functions that a recipe names: models outside transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runs import ROOT
from tests.unit.stages.layered import clip_of, image, images_of
from vidal.errors import ModelError
from vidal.stages.modalities.depth import Depth

OUTSIDE = """
import numpy as np
def load(device, dtype):
    return lambda frames: [frame[..., 0].astype(np.float32) / 25 for frame in frames]
def ints(device, dtype):
    return lambda frames: [frame[..., 0] for frame in frames]
def broken(device, dtype):
    return lambda frames: 1 / 0
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "depth_outside.py").write_text(OUTSIDE)
    return "depth_outside"


def test_a_function_from_outside_gives_metres_or_where_the_recipe_says_so_an_order(outside: str) -> None:
    for scale, farthest in (("auto", 65_535), ("relative", 10_000)):
        stage = Depth(model=f"{outside}:load", scale=scale)
        stage.setup()
        clip = clip_of([image(60, 100, 1)])
        stage.process_batch([clip])
        (depth,) = images_of(clip, "depth")
        assert stage._farthest_mm == farthest and depth.shape == (60, 100)
        red = clip.work.frames()[0][..., 0].astype(float)
        if scale == "auto":
            assert clip.depth_scale == "metric" and np.abs(depth - red * 40).max() <= 1
        else:
            # A greater value of an inverse depth is nearer.
            assert clip.depth_scale == "relative" and np.corrcoef(depth.ravel(), red.ravel())[0, 1] < -0.5
        assert clip.depth_model and clip.depth_model.startswith(f"{outside}:load sha256:")


@pytest.mark.parametrize(("name", "why"), [("ints", "one float array"), ("broken", "division by zero")])
def test_a_function_from_outside_that_does_not_fit_is_one_error(outside: str, name: str, why: str) -> None:
    with pytest.raises(ModelError, match=f"depth: model {outside}:{name} .*{why}"):
        Depth(model=f"{outside}:{name}").setup()


def test_a_range_for_a_function_of_metres_is_refused_as_it_would_be_ignored(outside: str) -> None:
    with pytest.raises(ModelError, match=r"depth\.value_range: .* or set scale: relative"):
        Depth(model=f"{outside}:load", value_range=(0, 11)).setup()
    Depth(model=f"{outside}:load", value_range=(0, 11), scale="relative").setup()


MOGE = """
import torch
class MoGeModel(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, name):
        return cls()
    def infer(self, image, use_fp16=True):
        assert image.ndim == 4 and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
        depth = image.mean(1) * 20
        depth[:, :5] = torch.inf
        return {"depth": depth, "mask": depth.isfinite()}
"""


def test_the_tutorials_function_for_moge_2_works_with_what_its_authors_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MoGe is not a dependency: in its place stands a module with the interface of its README."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (tmp_path / "my_depth.py").write_text(page.partition("# my_depth.py\n")[2].partition("```")[0])
    (tmp_path / "moge" / "model").mkdir(parents=True)
    (tmp_path / "moge" / "model" / "v2.py").write_text(MOGE)
    monkeypatch.syspath_prepend(tmp_path)
    stage = Depth(model="my_depth:load", max_depth_m=65)
    stage.setup()
    clip = clip_of([image(60, 100, seed) for seed in range(2)])
    stage.process_batch([clip])
    for depth, frame in zip(images_of(clip, "depth"), clip.work.frames(), strict=True):
        assert (depth[:5] == 65_000).all() and np.abs(depth[5:] - frame[5:].mean(-1) / 255 * 20_000).max() < 2
