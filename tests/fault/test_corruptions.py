"""Two hundred seeded corruptions of small clips: a result or one `ClipError` each, and damage does not pass unseen."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vidal.errors import ClipError
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.graph import Target
from vidal.media.limits import Limits
from vidal.media.probe import probe
from vidal.media.transcode import transcode

SEED = 20260101
COPIES = 200
LIMITS = Limits(cpu_s=10, wall_s=60, max_duration_s=60)
# Small and quick: what is tested here is the damage, not the images.
TARGET = Target(short_side=64, frames=4, preset="ultrafast")

# One second of real footage each: in synthetic images most flipped bits decode as well as the right ones.
CLIPS = {
    "dunes.mp4": ("sintel-dunes.mp4", "-c copy"),
    "weasels.mp4": ("bunny-weasels.mp4", "-c copy"),
    "cat.mkv": ("cat-stare.mp4", "-c copy"),
    "rocket.ts": ("rocket-hold.mp4", "-c copy"),
    "flower.flv": ("bunny-flower.mp4", "-c copy"),
    "spikes.mkv": ("bunny-spikes.mkv", "-c copy"),
    "city.webm": ("city-night.webm", "-c copy"),
    "forest.avi": ("bunny-forest.mkv", "-c:v copy -c:a mp3"),
}
H264 = list(CLIPS)[:5]


def ffmpeg(*args: str | Path) -> bytes:
    command = [str(find_ffmpeg()), "-y", "-loglevel", "quiet", "-nostdin", *map(str, args)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=60).stdout


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


@dataclass(frozen=True)
class Verdict:
    kind: str
    clip: str
    outcome: str
    """The reason of the failure, ``flagged`` or ``clean``."""
    shows_damage: bool
    """Whether the images differ from the whole clip's; looked at for `is_weighed` ones only."""

    def is_weighed(self) -> bool:
        """Whether what shows of it is held against what is flagged."""
        return self.kind == "flip_payload" and self.clip in H264 and self.outcome in ("flagged", "clean")


def outcome_of(path: Path) -> str:
    try:
        facts = probe(path, path.parent, LIMITS)
        made = transcode(facts.path, facts, path.parent, TARGET, LIMITS)
    except ClipError as error:
        return error.reason
    return "flagged" if made.video_damage.corrupt_frames else "clean"


def decoded(path: Path) -> bytes:
    """A hash of each image, with its time."""
    return ffmpeg("-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-flags", "+bitexact", "-f", "framemd5", "-")


@pytest.fixture(scope="module")
def verdicts(clips: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    dice = random.Random(SEED)
    folder = tmp_path_factory.mktemp("corrupt")
    whole = {name: decoded_of(clips[name], folder / name) for name in H264}
    kinds = (truncate, flip, zero, flip_payload, flip_payload)
    found = []
    for number in range(COPIES):
        kind, name = kinds[number % len(kinds)], dice.choice(list(CLIPS))
        data = bytearray(clips[name])
        kind(data, dice)
        path = folder / "source"
        path.write_bytes(data)
        verdict = Verdict(kind.__name__, name, outcome_of(path), False)
        found.append(replace(verdict, shows_damage=verdict.is_weighed() and decoded(path) != whole[name]))
        assert [p.name for p in folder.iterdir() if p.name not in CLIPS] == ["source"]
    return found


def decoded_of(data: bytes, path: Path) -> bytes:
    path.write_bytes(data)
    return decoded(path)


def test_each_corruption_is_a_result_or_one_named_failure(verdicts: list[Verdict]) -> None:
    assert len(verdicts) == COPIES
    print(*sorted(map(str, verdicts)), sep="\n")
    reasons = {verdict.outcome for verdict in verdicts} - {"flagged", "clean"}
    assert reasons <= {
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


def test_silent_damage_of_h264_is_flagged(verdicts: list[Verdict]) -> None:
    """FFmpeg's decoders of HEVC, VP9 and MPEG-4 Part 2 take most flipped bits for good: no one can flag those."""
    damaged = [v for v in verdicts if v.is_weighed() and v.shows_damage]
    missed = [v for v in damaged if v.outcome == "clean"]
    assert len(damaged) >= 20
    assert len(missed) <= 0.05 * len(damaged), missed
