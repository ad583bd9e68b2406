"""What a file's author wrote is logged by FFmpeg, and is never taken for FFmpeg's own word."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options
from vidal.media.limits import Limits
from vidal.media.log_lines import CUT_SHORT, find_error
from vidal.media.probe import COLOUR_NAMES, colour_tag, probe

FORGED = "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5581e4f6cd80] [error] "
LIES = [
    "stream 0, offset 0x30: partial file",
    "File ended prematurely at pos. 48 (0x30)",
    "Picture size 9x9 exceeds specified max pixel count 1",
    "moov atom not found",
    "Codec (h264) not on whitelist 'x'",
    "Cannot allocate memory",
]
PLACES = {
    "title": ("film.mkv", "-metadata", "title={}"),
    "stream title": ("film.mkv", "-metadata:s:v", "title={}"),
    "language": ("film.mkv", "-metadata:s:v", "language={}"),
    # The key itself is printed as it stands, line ends included.
    "key": ("film.mp4", "-movflags", "use_metadata_tags", "-metadata", "{}=x"),
}


def film(path: Path, *options: str) -> Path:
    video = ("-f", "lavfi", "-i", "testsrc2=s=160x120:d=1", "-c:v", "libx264", "-preset", "ultrafast")
    command = [find_ffmpeg(), "-y", "-loglevel", "error", *video, "-pix_fmt", "yuv420p", *options, path]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("opening", ["x\n", "x\r\n", "x\n\x1b[0;35m", "\x1b[1;31m", ""], ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_a_line_that_the_author_forged_says_nothing(place: str, opening: str, tmp_path: Path) -> None:
    lie = opening + "\n".join(FORGED + line for line in LIES) + "\ny"
    name, *options, text = PLACES[place]
    path = film(tmp_path / name, *options, text.format(lie))
    command = [str(find_ffmpeg()), *global_options(Limits()), "-i", str(path), "-c", "copy", "-f", "null", "-"]
    done = child.run(command, tmp_path, Limits(), marks=CUT_SHORT)
    assert "partial file" in done.log and not any(done.counts.values())
    assert not any(find_error(done.log, f".*{line[:12]}") for line in ("partial file", *LIES[1:4], LIES[5]))
    assert len(probe(path, tmp_path, Limits()).frame_ticks) == 25


@pytest.mark.parametrize("ending", ["mov", "mkv"])
def test_the_demuxer_s_own_word_counts(ending: str, tmp_path: Path) -> None:
    path = film(tmp_path / f"film.{ending}", *(["-movflags", "+faststart"] if ending == "mov" else []))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(ClipError, match="truncated"):
        probe(path, tmp_path, Limits())


def test_a_title_that_speaks_of_partial_files_is_a_title(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", "-metadata", "title=How to fix a partial file download")
    assert len(probe(path, tmp_path, Limits()).frame_ticks) == 25


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("color_range:tv color_space:bt470bg color_primaries:bt470bg color_trc:smpte170m", "bt470bg"),
        ("color_space:bt470bgStarting new cluster due to timestamp color_trc:bt709", "bt470bg"),
        ("color_space:ycgco-re[libopus @ 0x1] 1 frame left", "ycgco-re"),
        ("color_space:bt709n:0 pts:0 pts_time:0 fmt:fltp", "bt709"),
        ("color_space:unknown00000000 00000000 ]", "unknown"),
        ("color_space:of-a-later-version color_trc:bt709", "of-a-later-version"),
        ("color_trc:iec61966-2-1", ""),
    ],
)
def test_a_colour_tag_is_told_from_the_words_of_another_thread_behind_it(line: str, name: str) -> None:
    assert colour_tag("space", line) == name


@pytest.mark.parametrize(
    ("kind", "option"), [("space", "colorspace"), ("primaries", "color_primaries"), ("trc", "color_trc")]
)
def test_every_colour_name_of_ffmpeg_is_known(kind: str, option: str) -> None:
    command = [find_ffmpeg(), "-hide_banner", "-h", "filter=setparams"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.search(rf"^   {option} .*\n((?:     .*\n)+)", said, re.M)
    assert names is not None
    assert {line.split()[0] for line in names[1].splitlines()} - {"auto"} <= set(COLOUR_NAMES[kind])
