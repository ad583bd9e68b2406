"""Seeded corruptions of small clips in MPEG-TS, FLV and AVI: a result or one `ClipError` each."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from vidal.errors import ClipError
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.graph import Target
from vidal.media.limits import Limits
from vidal.media.probe import probe
from vidal.media.transcode import transcode

SEED = 20260101
COPIES = 24
LIMITS = Limits(cpu_s=10, wall_s=60, max_duration_s=60)
# Small and quick: what is tested here is the damage, not the images.
TARGET = Target(short_side=64, frames=4, preset="ultrafast")

CLIPS = {
    "rocket.ts": ("rocket-hold.mp4", "-c copy"),
    "flower.flv": ("bunny-flower.mp4", "-c copy"),
    "forest.avi": ("bunny-forest.mkv", "-c:v copy -c:a mp3"),
}


def ffmpeg(*args: str | Path) -> None:
    command = [str(find_ffmpeg()), "-y", "-loglevel", "quiet", "-nostdin", *map(str, args)]
    subprocess.run(command, check=False, timeout=60)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    for name, (source, options) in CLIPS.items():
        ffmpeg("-i", samples / source, "-t", "1", *options.split(), folder / name)
    return {name: (folder / name).read_bytes() for name in CLIPS}


def truncate(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 30))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def zero(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    length = dice.choice((16, 400, 4000))
    data[start : start + length] = bytes(len(data[start : start + length]))


def flip_payload(data: bytearray, dice: random.Random) -> None:
    """Leave the first and last tenths alone, where most containers keep headers and index."""
    for _ in range(dice.choice((1, 1, 3))):
        data[dice.randrange(len(data) // 10, len(data) * 9 // 10)] ^= 1 << dice.randrange(8)


def outcome_of(path: Path) -> str:
    """The reason of the failure, ``flagged`` or ``clean``."""
    try:
        facts = probe(path, path.parent, LIMITS)
        made = transcode(facts.path, facts, path.parent, TARGET, LIMITS)
    except ClipError as error:
        return error.reason
    return "flagged" if made.video_damage.corrupt_frames else "clean"


def test_each_corruption_is_a_result_or_one_named_failure(clips: dict[str, bytes], tmp_path: Path) -> None:
    dice = random.Random(SEED)
    kinds = (truncate, flip, zero, flip_payload)
    outcomes = set()
    for number in range(COPIES):
        name = list(clips)[number % len(clips)]
        data = bytearray(clips[name])
        kinds[number % len(kinds)](data, dice)
        path = tmp_path / "source"
        path.write_bytes(data)
        outcomes.add(outcome_of(path))
        assert [left.name for left in tmp_path.iterdir()] == ["source"]
    assert "flagged" in outcomes
    assert outcomes <= {
        "flagged",
        "clean",
        "undecodable",
        "truncated",
        "no_video",
        "unsupported_codec",
        "over_duration",
        "too_many_frames",
        "too_many_pixels",
        "too_small",
        "broken_clock",
        "still_image",
    }
