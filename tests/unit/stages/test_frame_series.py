"""What depth and infrared have in common: a batch changes no byte, frames that stand still do not flicker."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.stages.layered import clip_of, image
from vidal.clip import Clip
from vidal.models.frame_batch import FrameBatch
from vidal.stages.modalities.depth import Depth
from vidal.stages.modalities.frame_series import finishing, flicker, for_each_frame, put_images, steadied
from vidal.stages.modalities.infrared import Infrared
from vidal.work import Work


@pytest.fixture(scope="module", params=[Depth, Infrared])
def stage(request: pytest.FixtureRequest) -> Depth | Infrared:
    stage: Depth | Infrared = request.param()
    stage.setup()
    return stage


def test_a_batch_gives_the_bytes_of_one_by_one(stage: Depth | Infrared) -> None:
    shapes = [(64, 112), (112, 64), (64, 112)]

    def clips() -> list[Clip]:
        return [clip_of([image(h, w, 10 * i + k) for k in range(4)], str(i)) for i, (h, w) in enumerate(shapes)]

    together, alone = clips(), clips()
    stage.process_batch(together)
    for clip in alone:
        stage.process_batch([clip])
    assert [c.work.members for c in together] == [c.work.members for c in alone]
    assert together == alone
    stage.process_batch(together)
    assert [c.work.members for c in together] == [c.work.members for c in alone]


def test_frames_that_stand_still_do_not_flicker(stage: Depth | Infrared) -> None:
    layer = stage.step_name()
    clip = clip_of([image(96, 96, 4)] * 3)
    stage.process_batch([clip])
    first, second, third = (member.data for member in clip.work.members if member.layer == layer)
    assert first == second == third
    assert getattr(clip, f"{layer}_flicker") == 0.0


def test_flicker_counts_only_where_the_colour_stands_still() -> None:
    still, moved = np.full((10, 10, 3), 100, np.uint8), np.full((10, 10, 3), 100, np.uint8)
    moved[:5] = 200
    before, after = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    after[:5], after[5:] = 255, 51
    assert flicker([still, moved], [before, after], 255.0) == pytest.approx(0.2)
    assert flicker([still, 255 - still], [before, after], 255.0) is None
    assert flicker([still], [before], 255.0) is None


def test_what_stands_still_is_steadied_and_what_moves_is_not() -> None:
    still, moved = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 102, np.uint8)
    moved[:10] = 200
    before, after = np.full((20, 20), 60, np.uint8), np.full((20, 20), 100, np.uint8)
    for made, own in zip(steadied([still, moved], [before, after]), (60, 100), strict=True):
        assert (made[:8] == own).all()
        assert (made[12:] == 80).all()


@pytest.mark.parametrize(("mix", "expected"), [(False, [2, 1, 2, 1]), (True, [2, 2, 2])])
def test_batches_hold_one_size_and_one_clip_unless_mixing(mix: bool, expected: list[int]) -> None:
    wide, tall = np.zeros((2, 4, 3), np.uint8), np.zeros((4, 2, 3), np.uint8)
    sizes: list[int] = []

    def make(batch: FrameBatch) -> list[tuple[int, ...]]:
        assert len({frame.shape for frame in batch}) == 1
        sizes.append(len(batch))
        return [frame.shape for frame in batch]

    works = [Work(_frames=[wide] * 3), Work(_frames=[tall] * 2), Work(_frames=[wide])]
    made = for_each_frame(works, make, batch_frames=2, mix_clips=mix)
    first = next(made)
    assert sizes == [2, 2 if mix else 1]
    assert [first, *made] == [[wide.shape] * 3, [tall.shape] * 2, [wide.shape]]
    assert sizes == expected


@pytest.mark.parametrize(("ending", "layer"), [(".png", "depth"), (".jpg", "infrared")])
def test_threads_change_no_byte_and_hide_no_error(ending: str, layer: str) -> None:
    made = []
    for in_threads in (False, True):
        clips = [clip_of([image(64, 96, 10 * i + k) for k in range(4)], str(i)) for i in range(9)]
        with finishing(in_threads=in_threads) as finish:
            for clip in clips:
                finish(put_images, clip, layer, [frame[..., 0] for frame in clip.work.frames()], ending, [])
        made.append([(clip.work.members, clip.synthetic_layers) for clip in clips])
    assert made[0] == made[1]
    assert all(len(members) == 8 for members, _ in made[1])
    with pytest.raises(ValueError, match="shorter"), finishing(in_threads=True) as finish:
        finish(put_images, clips[0], layer, [], ending, [])
