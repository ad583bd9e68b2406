"""What the detector finds is in no image of the dataset: neither a stored frame, nor the video, nor what is made of them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.detectors import magenta
from tests.films import audio_of, ffmpeg, process
from tests.runs import problems, rows, run, write_recipe
from tests.toys import image
from vidal import recipe as recipes
from vidal.dataset.dataset import Dataset
from vidal.engine.local import InProcessEngine
from vidal.errors import ModelError, RecipeError
from vidal.media.hide import hide, mask_of
from vidal.media.stored_video import video_frames
from vidal.media.tracks import survey
from vidal.stages.blur_faces import BlurFaces
from vidal.stages.media import Media

TOY, SEEN = "tests.detectors:load", "tests.detectors:Seen"
BLUR: dict[str, Any] = {"blur_faces": {"detector": TOY}}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square, smaller than the cells that remain, that moves over grey noise, with audio, at intervals of one to three frames."""
    path = tmp_path_factory.mktemp("film") / "0.mp4"
    noise = "color=gray:size=320x256:rate=25:duration=2,noise=c0s=20:c0f=t"
    ffmpeg(
        "-f", "lavfi", "-i", noise, "-f", "lavfi", "-i", "color=magenta:size=14x14:rate=25:duration=2",
        "-f", "lavfi", "-i", "sine=d=2", "-filter_complex",
        r"[0][1]overlay=x=10+100*t:y=60,select='not(eq(mod(n\,7)\,3)+eq(mod(n\,7)\,4))'",
        "-fps_mode", "vfr", "-map", "2:a", "-pix_fmt", "yuv420p", path,
    )  # fmt: skip
    return path


def shows(frames: Sequence[Any]) -> int:
    """How many of these frames show the square."""
    return sum(int(magenta(frame).sum()) > 20 for frame in frames)


def of_video(mp4: bytes) -> list[tuple[float, Any]]:
    return list(video_frames(mp4, 1e6))


@pytest.mark.parametrize("video", ["blur", "drop"])
def test_no_image_of_a_built_dataset_shows_what_was_found(tmp_path: Path, film: Path, video: str) -> None:
    (tmp_path / "0.mp4").write_bytes(film.read_bytes())
    stages = ["fetch", "probe", "keep_source", "media", {"blur_faces": {"detector": TOY, "video": video}}, SEEN]
    out = tmp_path / "out"
    run(write_recipe(tmp_path, stages, 1), out, InProcessEngine())
    row, dataset = rows(out)["c000"], Dataset.open(str(out))
    assert (row["status"], row["detail"], row["seen"], row["face_count"]) == ("kept", None, 0, 1)
    assert 0.002 < row["blurred_share"] < 0.02
    data = {member["name"].partition(".")[2]: dataset.read_member(row, member["name"]) for member in row["members"]}
    stored = [np.asarray(Image.open(io.BytesIO(data[f"frame.{k}.jpg"]))) for k in range(8)]
    assert shows(stored) == 0 and {"source"}.isdisjoint(row["layers"])
    assert ("mp4" in data) == (video == "blur")
    assert video == "drop" or shows([frame for _, frame in of_video(data["mp4"])]) == 0
    assert problems(out) == []


def test_times_audio_and_what_is_beside_the_square_stay(tmp_path: Path, film: Path) -> None:
    clip = process(film, tmp_path)
    before = {(m.layer, m.suffix): m for m in clip.work.members}
    seen, audio = of_video(before["video", "mp4"].data), audio_of(clip)
    assert shows([frame for _, frame in seen]) == len(seen) > 20
    assert shows(clip.work.frames()) == 8
    stage = BlurFaces(detector=TOY)
    stage.setup()
    clip.extra = {"face_count": None, "blurred_share": None}
    stage.process(clip)
    after = {(m.layer, m.suffix): m for m in clip.work.members}
    assert {key: m.time_s for key, m in after.items()} == {key: m.time_s for key, m in before.items()}
    hidden = of_video(after["video", "mp4"].data)
    assert [time for time, _ in hidden] == [time for time, _ in seen] and shows([f for _, f in hidden]) == 0
    assert len({round(b - a, 3) for (a, _), (b, _) in itertools.pairwise(seen)}) > 1
    tracks = []
    for key, members in (("before", before), ("after", after)):
        path = tmp_path / f"{key}.mp4"
        path.write_bytes(members["video", "mp4"].data)
        tracks.append(survey(path, tmp_path, Media().limits))
    assert [t.packets for t in tracks[0].of("audio")] == [t.packets for t in tracks[1].of("audio")] != []
    one, two = (track.of("video")[0] for track in tracks)
    assert sorted(tick for tick, _ in one.packets) == sorted(tick for tick, _ in two.packets)
    assert np.array_equal(audio_of(clip), audio)
    # The square is in the upper half: below it, only the coding has changed.
    errors = [
        np.abs(a[150:].astype(int) - b[150:].astype(int)).mean() for (_, a), (_, b) in zip(seen, hidden, strict=True)
    ]
    assert max(errors) < 6
    assert list((tmp_path / "work").iterdir()) == []


def test_a_clip_without_faces_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:size=256x256:rate=10:duration=1", "-pix_fmt", "yuv420p", path)
    clip = process(path, tmp_path)
    before = list(clip.work.members)
    stage = BlurFaces(detector=TOY)
    stage.setup()
    clip.extra = {"face_count": None, "blurred_share": None}
    stage.process(clip)
    assert sorted(map(repr, clip.work.members)) == sorted(map(repr, before))
    assert (clip["face_count"], clip["blurred_share"]) == (0, 0.0)


@pytest.mark.parametrize(
    ("box", "margin", "hidden"),
    [
        ((10, 20, 30, 40), 0, (10, 20, 40, 60)),
        ((10, 20, 30, 40), 0.5, (0, 0, 55, 80)),
        ((-50, -50, 60.5, 60.5), 0, (0, 0, 11, 11)),
        ((90, 90, 500, 500), 0, (90, 90, 100, 100)),
        ((-50, -50, 10, 10), 0, None),
    ],
)
def test_a_box_hides_all_that_it_touches(
    box: tuple[float, float, float, float], margin: float, hidden: tuple[int, int, int, int] | None
) -> None:
    expected = np.zeros((100, 100), np.uint8)
    if hidden is not None:
        left, top, right, bottom = hidden
        expected[top:bottom, left:right] = 255
    assert np.array_equal(mask_of([box], 100, 100, margin), expected)


def test_of_what_is_hidden_a_few_colours_remain() -> None:
    """Two images that differ in all but the mean colours of their cells are hidden alike."""
    frame = image(1, 240, 240).astype(int)
    board = np.indices((240, 240)).sum(axis=0) % 2 * 2 - 1
    others = [np.clip(frame + sign * 20 * board[:, :, None], 0, 255).astype(np.uint8) for sign in (1, -1)]
    everywhere = np.full((240, 240), 255, np.uint8)
    one, two = (hide(other, everywhere).astype(int) for other in others)
    assert np.abs(others[0].astype(int) - others[1].astype(int)).mean() > 30 and np.abs(one - two).max() <= 2


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([BLUR, "media"], "reads `video`"),
        (["media", SEEN, BLUR], "hides what `depth` shows by then; put `tests.detectors:Seen` behind it"),
        (["media", "fingerprints", "duplicates", BLUR], "put `duplicates` behind it"),
        (["media", {"blur_faces": {"detector": "yunet"}}], "as package.module:load"),
    ],
)  # fmt: skip
def test_a_recipe_that_would_store_what_is_hidden_is_refused(tmp_path: Path, stages: list[Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load(write_recipe(tmp_path, ["fetch", "probe", *stages]))
    assert says.replace("tests.detectors:Seen", "seen") in str(caught.value)


@pytest.mark.parametrize(
    ("detector", "says"),
    [("load_of_corners", "is not left, top, width and height"), ("load_of_one", "boxes of 0 frames for 1")],
)
def test_a_detector_that_gives_no_boxes_ends_the_run_at_once(detector: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        BlurFaces(detector=f"tests.detectors:{detector}").setup()
