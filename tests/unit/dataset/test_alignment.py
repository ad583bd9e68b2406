"""The writer rejects a clip whose members do not belong together, and says which and why."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from PIL import Image

from vidal.clip import Clip
from vidal.dataset import alignment
from vidal.errors import ClipError
from vidal.modality.image_bytes import image_size
from vidal.work import SAMPLE_RATE, Member

TIMES = [0.5, 1.5]


def image(kind: str = "JPEG", width: int = 24, height: int = 16, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, kind, **options)
    return out.getvalue()


def flac(seconds: float, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros((round(seconds * rate), channels), np.float32), rate, format="FLAC")
    return out.getvalue()


def put(layer: str, suffix: str, data: bytes, time_s: float | None = None) -> Callable[[Clip], None]:
    return lambda clip: clip.work.put(Member(layer=layer, suffix=suffix, data=data, time_s=time_s))


def drop(suffix: str) -> Callable[[Clip], None]:
    def change(clip: Clip) -> None:
        clip.work.members = [m for m in clip.work.members if m.suffix != suffix]

    return change


def aligned() -> Clip:
    clip = Clip(clip_id="a", duration_s=2.0, frame_times=list(TIMES), frame_width=24, frame_height=16)
    put("video", "mp4", b"not looked at")(clip)
    put("audio", "flac", flac(2.0))(clip)
    for k, time_s in enumerate(TIMES):
        put("video", f"frame.{k}.jpg", image(), time_s)(clip)
        put("depth", f"depth.{k}.png", image("PNG"), time_s)(clip)
        put("infrared", f"infrared.{k}.jpg", image(progressive=True), time_s)(clip)
    return clip


FINE: list[tuple[str, Callable[[Clip], None]]] = [
    ("as it is", lambda clip: None),
    ("no audio", drop("flac")),
    ("rounded audio", put("audio", "flac", flac(2.0 + 0.001))),
    ("no images of a layer", lambda clip: (drop("depth.0.png")(clip), drop("depth.1.png")(clip))[0]),
]


@pytest.mark.parametrize(("name", "change"), FINE)
def test_a_clip_whose_members_belong_together_passes(name: str, change: Callable[[Clip], None]) -> None:
    clip = aligned()
    change(clip)
    alignment.check(clip)


ODD: list[tuple[Callable[[Clip], None], str]] = [
    (put("depth", "depth.1.png", image("PNG"), 1.4), "depth image 1 is of 1.4 s, not of 1.5 s"),
    (put("depth", "depth.1.png", image("PNG"), None), "depth image 1 is of None s, not of 1.5 s"),
    (put("video", "frame.0.jpg", image(), 0.5 + 1e-9), "video image 0 is of 0.500000001 s, not of 0.5 s"),
    (drop("infrared.0.jpg"), "infrared has images [1] for 2 times"),
    (drop("frame.1.jpg"), "video has images [0] for 2 times"),
    (put("infrared", "infrared.2.jpg", image(), 2.0), "infrared has images [0, 1, 2] for 2 times"),
    (lambda clip: setattr(clip, "frame_times", [0.5]), "images [0, 1] for 1 times"),
    (lambda clip: setattr(clip, "frame_times", [1.5, 0.5]), "video image 0 is of 0.5 s, not of 1.5 s"),
    (put("depth", "depth.0.png", image("PNG", 16, 24), 0.5), "depth image 0 is (16, 24), the frames are (24, 16)"),
    (lambda clip: setattr(clip, "frame_width", None), "the frames are (None, 16)"),
    (put("infrared", "infrared.0.jpg", image("WEBP"), 0.5), "an image is neither PNG nor JPEG"),
    (put("infrared", "infrared.0.jpg", b"", 0.5), "an image is neither PNG nor JPEG"),
    (put("infrared", "infrared.0.jpg", image()[:12], 0.5), "an image is neither PNG nor JPEG"),
    (put("audio", "flac", flac(1.9)), "audio of 1.9000 s for a video of 2.0 s"),
    (put("audio", "flac", flac(2.01)), "audio of 2.0100 s for a video of 2.0 s"),
    (put("audio", "flac", flac(2.0, rate=44_100)), "audio at 44100 Hz with 1 channels, not 16000 Hz mono"),
    (put("audio", "flac", flac(2.0, channels=2)), "audio at 16000 Hz with 2 channels, not 16000 Hz mono"),
    (put("audio", "flac", b"RIFF" + bytes(40)), "the audio is not FLAC"),
    (put("audio", "flac", b"fLaC"), "the audio is not FLAC"),
    (lambda clip: setattr(clip, "duration_s", None), "for a video of None s"),
]


@pytest.mark.parametrize(("change", "detail"), ODD)
def test_a_misaligned_clip_is_rejected_and_the_member_named(change: Callable[[Clip], None], detail: str) -> None:
    clip = aligned()
    change(clip)
    with pytest.raises(ClipError) as caught:
        alignment.check(clip)
    assert (caught.value.reason, caught.value.transient) == ("misaligned", False)
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("suffix", "index"),
    [("frame.0.jpg", 0), ("depth.12.png", 12), ("mp4", None), ("json", None), ("a.b.c", None), ("frame.1.x.jpg", None)],
)
def test_the_number_of_an_image_is_in_its_suffix(suffix: str, index: int | None) -> None:
    assert alignment.image_index(suffix) == index


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (image(width=300, height=5), (300, 5)),
        (image(progressive=True), (24, 16)),
        (image("PNG", 1, 65_000), (1, 65_000)),
        (image(exif=b"Exif\0\0" + bytes(3000)), (24, 16)),
    ],
)
def test_the_size_of_an_image_is_read_from_its_header(data: bytes, size: tuple[int, int]) -> None:
    assert image_size(data) == size
