"""The site's media: the sample clips, each address's own bytes, HLS streams and audio files cut when first asked for."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from vidal.media.ffmpeg import find_ffmpeg

CLIPS = Path(__file__).resolve().parents[2] / "samples" / "clips"
IMAGE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
"""The head and the end of a JPEG."""
_lock = threading.Lock()


def clip(name: str) -> Path | None:
    path = CLIPS / Path(name).name
    return path if path.is_file() else None


def numbered(number: int) -> bytes:
    """A whole MP4 of its own for each number: a sample clip with the number in a box that players skip."""
    films = sorted(path for path in CLIPS.glob("*.mp4") if not path.name.startswith(("broken", "long")))
    note = f"{number:016}".encode()
    return films[number % len(films)].read_bytes() + (8 + len(note)).to_bytes(4, "big") + b"free" + note


def hls(cache: Path, name: str, *, is_apart: bool) -> Path:
    """The folder with ``index.m3u8``; ``is_apart`` has video and audio in playlists of their own."""
    folder = cache / f"{name}{'-apart' if is_apart else ''}"
    with _lock:
        if (folder / "index.m3u8").exists():
            return folder
        folder.mkdir(parents=True)
        cut = ["-c", "copy", "-hls_time", "2", "-hls_playlist_type", "vod"]
        if not is_apart:
            _ffmpeg(folder, name, [*cut, "-f", "hls", "index.m3u8"])
            return folder
        _ffmpeg(folder, name, ["-map", "0:v", *cut, "-f", "hls", "video.m3u8"])
        _ffmpeg(folder, name, ["-map", "0:a", *cut, "-f", "hls", "audio.m3u8"])
        (folder / "index.m3u8").write_text(
            '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="main",DEFAULT=YES,URI="audio.m3u8"\n'
            '#EXT-X-STREAM-INF:BANDWIDTH=400000,RESOLUTION=640x360,CODECS="avc1.64001f,mp4a.40.2",AUDIO="a"\n'
            "video.m3u8\n"
        )
    return folder


def minutes_of_hls(cache: Path, name: str) -> Path:
    """The folder with ``index.m3u8`` of 42 segments: those of a clip, again and again."""
    folder = cache / f"{name}-minutes"
    whole = hls(cache, name, is_apart=False)
    with _lock:
        if not folder.exists():
            folder.mkdir()
            lines = (whole / "index.m3u8").read_text().splitlines()
            segments = [line for line in lines if line.endswith(".ts")]
            head = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:10", "#EXT-X-PLAYLIST-TYPE:VOD"]
            entries = [
                f"#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\n../{name}/{segments[n % len(segments)]}?n={n}" for n in range(42)
            ]
            (folder / "index.m3u8").write_text("\n".join([*head, *entries, "#EXT-X-ENDLIST", ""]))
    return folder


def dash(cache: Path, name: str) -> Path:
    """The folder with ``index.mpd``."""
    folder = cache / f"{name}-dash"
    with _lock:
        if not (folder / "index.mpd").exists():
            folder.mkdir(parents=True)
            sets = "id=0,streams=v id=1,streams=a"
            _ffmpeg(
                folder, name, ["-c", "copy", "-f", "dash", "-seg_duration", "2", "-adaptation_sets", sets, "index.mpd"]
            )
    return folder


def sound(cache: Path, number: int, ending: str) -> Path:
    """A short tone whose pitch is the number's."""
    path = cache / f"sound-{number}.{ending}"
    with _lock:
        if not path.exists():
            tone = f"sine=frequency={200 + 40 * (number % 40)}:duration={2 + number % 3}"
            command = [str(find_ffmpeg()), "-v", "error", "-y", "-f", "lavfi", "-i", tone, str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def _ffmpeg(folder: Path, name: str, options: list[str]) -> None:
    command = [str(find_ffmpeg()), "-v", "error", "-y", "-i", str(CLIPS / name), *options]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)
