"""What is held out: the same for every arm, and with everything that is nearly the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import vidal
from tools.rendering import learning_set
from vidal.ablate.arms import EvaluatedOn
from vidal.ablate.queries import hold_out
from vidal.errors import RecipeError
from vidal.train.data.text_views import TextViews

VIEWS = TextViews()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, of which the second has other copies of the same clips, and other clips beside."""
    out = tmp_path_factory.mktemp("held-out")
    learning_set.write(str(out / "a"), clips=48, scenes=8, size=16, workers=1, wrong=0.3, copies=0.4)
    learning_set.write(str(out / "b"), clips=64, scenes=8, size=16, workers=1, wrong=0.3, copies=0.3, seed=1)
    return out


def clusters(address: Path) -> dict[str, str]:
    ds = vidal.open(address)
    return dict(zip((ds.clip_id(i) for i in range(len(ds))), ds.column("cluster").to_pylist(), strict=True))


def test_no_clip_of_a_held_out_cluster_is_trained_on(folder: Path) -> None:
    found = hold_out([str(folder / "a")], EvaluatedOn(), VIEWS, 0.4)
    cluster = clusters(folder / "a")
    held = {cluster[clip] for clip in found.units}
    assert set(found.untrained) == {clip for clip in cluster if cluster[clip] in held} == set(found.units)
    assert 10 < len(found.units) < 30 and any(cluster[clip] != clip for clip in found.units)


def test_clips_that_any_dataset_ties_together_are_held_out_together(folder: Path) -> None:
    a, b = (clusters(folder / name) for name in "ab")
    found = hold_out([str(folder / "a"), str(folder / "b")], EvaluatedOn(), VIEWS, 0.2)
    untrained = set(found.untrained)
    assert set(found.units) <= untrained & set(a) and untrained > set(found.units)
    for cluster in (a, b):
        trained = {cluster[clip] for clip in cluster.keys() - untrained}
        assert not {cluster[clip] for clip in untrained & cluster.keys()} & trained


def test_a_condition_chooses_what_is_evaluated_and_another_dataset_all_of_it(folder: Path) -> None:
    right = EvaluatedOn(data=str(folder / "b"), where="not caption_is_wrong and cluster = clip_id")
    found = hold_out([str(folder / "a")], right, VIEWS, 0.0)
    chosen = vidal.open(folder / "b", where=right.where)
    assert set(found.units) == {chosen.clip_id(i) for i in range(len(chosen))}
    assert set(found.units) <= set(found.untrained)


def test_clips_with_one_caption_are_one_unit(folder: Path) -> None:
    found = hold_out([str(folder / "a")], EvaluatedOn(where="not caption_is_wrong"), VIEWS, 0.5)
    by_scene: dict[str, set[int]] = {}
    for clip, unit in found.units.items():
        by_scene.setdefault(clip[:4], set()).add(unit)
    assert all(len(units) == 1 for units in by_scene.values())
    assert len(set(found.units.values())) == len(by_scene) > 4


def test_without_a_share_or_another_dataset_nothing_is_held_out(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"all of its clips are trained on: set data\.heldout, or evaluate\.data"):
        hold_out([str(folder / "a")], EvaluatedOn(), VIEWS, 0.0)
