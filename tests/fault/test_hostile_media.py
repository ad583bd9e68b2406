"""Files made to harm: each gives one `ClipError` with the right reason, soon, and opens nothing else."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidal.clip import Clip
from vidal.errors import ClipError, StorageError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.limits import MIB, Limits
from vidal.stages.fetch import Fetch
from vidal.stages.media import Media
from vidal.stages.probe import Probe

LIMITS = Limits(cpu_s=20, wall_s=40, max_duration_s=120)
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def ffmpeg(*args: str | Path) -> None:
    subprocess.run([find_ffmpeg(), "-y", "-loglevel", "error", "-nostdin", *args], check=True)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest clip with audio, its index first."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    video, audio = "testsrc2=s=320x180:r=25:d=4", "sine=d=4"
    ffmpeg("-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio, *X264, "-movflags", "+faststart", path)
    return path


def process(path: Path | str, folder: Path, limits: Limits = LIMITS) -> Clip:
    clip = Clip(url=str(path))
    clip.work.folder = folder / "private"
    clip.work.folder.mkdir()
    for stage in (Fetch(max_bytes=32 * MIB), Probe(limits=limits), Media(limits=limits)):
        stage.process_batch([clip])
        if clip.reason is not None:
            raise ClipError(clip.reason, clip.detail or "")
    return clip


def rejection(path: Path | str, folder: Path, limits: Limits = LIMITS) -> ClipError:
    started = time.monotonic()
    with pytest.raises(ClipError) as caught:
        process(path, folder, limits)
    assert time.monotonic() - started < 60
    return caught.value


def cut(film: Path, path: Path) -> None:
    path.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])


def cut_matroska(film: Path, path: Path) -> None:
    whole = path.with_suffix(".mkv")
    ffmpeg("-i", film, "-c", "copy", whole)
    cut(whole, path)


def cut_without_index(film: Path, path: Path) -> None:
    whole = path.with_suffix(".mov")
    ffmpeg("-i", film, "-c", "copy", whole)
    cut(whole, path)


def endless_duration(film: Path, path: Path) -> None:
    """The time-to-sample table says that each frame lasts for minutes."""
    data = bytearray(film.read_bytes())
    at = data.index(b"stts") + 16
    data[at : at + 4] = struct.pack(">I", 0xFFFFFF)
    path.write_bytes(data)


def dead_tail(film: Path, path: Path) -> None:
    """All packets are there, and the last half of them is zeros."""
    data = film.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def audio_only(film: Path, path: Path) -> None:
    ffmpeg("-i", film, "-vn", "-c", "copy", path)


def many_streams(film: Path, path: Path) -> None:
    ffmpeg("-i", film, *["-map", "0:a"] * 40, "-map", "0:v", "-c", "copy", path)


def tiny_frames(film: Path, path: Path) -> None:
    """10^5 frames of 16x16 at a thousand a second."""
    few = path.with_suffix(".mkv")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=16x16:r=1000:d=1", "-c:v", "mjpeg", few)
    ffmpeg("-stream_loop", "99", "-i", few, "-c", "copy", "-f", "matroska", path)


def png_bomb(film: Path, path: Path) -> None:
    """16000x16000 in some 40 KB: under FFmpeg's own limit, over ours."""
    side = 16_000
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(side * (side // 8 + 1)), 9)),
        (b"IEND", b""),
    ]
    image = path.with_suffix(".png")
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    ffmpeg("-max_pixels", "1000000000", "-i", image, "-c", "copy", "-f", "mov", path)


def lying_header(film: Path, path: Path) -> None:
    """4096x4096 in the bit stream, 320x180 in the container."""
    big = path.with_suffix(".mov")
    ffmpeg("-f", "lavfi", "-i", "color=s=4096x4096:r=5:d=0.4", *X264, big)
    data = bytearray(big.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    assert struct.unpack(">HH", data[at : at + 4]) == (4096, 4096)
    data[at : at + 4] = struct.pack(">HH", 320, 180)
    path.write_bytes(data)


def text(film: Path, path: Path) -> None:
    path.write_text("I am not a film.\n" * 100)


def empty(film: Path, path: Path) -> None:
    path.touch()


def noise(film: Path, path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(20_000))


HOSTILE: list[tuple[Callable[[Path, Path], None], str]] = [
    (cut, "truncated"),
    (cut_matroska, "truncated"),
    (cut_without_index, "truncated"),
    (dead_tail, "truncated"),
    (endless_duration, "over_duration"),
    (audio_only, "no_video"),
    (many_streams, "too_many_streams"),
    (tiny_frames, "too_many_frames"),
    (png_bomb, "unsupported_codec"),
    (lying_header, "too_many_pixels"),
    (text, "undecodable"),
    (empty, "undecodable"),
    (noise, "undecodable"),
]


@pytest.mark.parametrize(("maker", "reason"), HOSTILE, ids=[maker.__name__ for maker, _ in HOSTILE])
def test_a_hostile_file_is_one_failure_with_its_reason(
    maker: Callable[[Path, Path], None], reason: str, film: Path, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    maker(film, path)
    error = rejection(path, tmp_path)
    assert "0x" not in error.detail and str(tmp_path) not in error.detail
    assert (error.reason, error.transient) == (reason, False), str(error)


def test_the_honest_film_passes(film: Path, tmp_path: Path) -> None:
    assert process(film, tmp_path).corrupt_frames == 0


@pytest.mark.parametrize("form", ["device", "fifo", "symlink"])
def test_a_file_without_end_is_never_begun(form: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    if form == "fifo":
        os.mkfifo(path)
    elif form == "symlink":
        path.symlink_to("/dev/zero")
    assert rejection("/dev/zero" if form == "device" else path, tmp_path).reason == "not_a_file"


@pytest.fixture
def bell() -> Any:
    """A listening socket; it must not ring."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile sibling.mp4\n",
    "ffconcat-absolute": "ffconcat version 1.0\nfile '{sibling}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{sibling}\n#EXTINF:4,\nhttp://{bell}/a.ts\n#EXT-X-ENDLIST\n",
    "hls-concat": "#EXTM3U\n#EXTINF:4,\nconcat:{sibling}|{sibling}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="9"><BaseURL>http://{bell}/a.mp4</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "image-sequence": "sibling%d.mp4",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="http://{bell}/a.png"/></svg>',
}


@pytest.mark.parametrize("ending", ["mp4", "m3u8", "ffconcat"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_in_disguise_opens_no_sibling_and_no_socket(
    name: str, ending: str, bell: socket.socket, tmp_path: Path
) -> None:
    sibling = tmp_path / "private" / "sibling.mp4"
    text = SCRIPTS[name].format(sibling=sibling, bell=f"127.0.0.1:{bell.getsockname()[1]}")
    path = tmp_path / f"clip.{ending}"
    path.write_text(text)
    clip = Clip(url=str(path))
    clip.work.folder = sibling.parent
    clip.work.folder.mkdir()
    # Whoever opened this would wait for a writer until the limit, and fail as `timeout`.
    os.mkfifo(sibling)
    Fetch().process_batch([clip])
    with pytest.raises(ClipError) as caught:
        Probe(limits=Limits(wall_s=10)).process(clip)
    assert caught.value.reason in ("undecodable", "unsupported_container")


@pytest.mark.parametrize("name", ["new\nline.mp4", "../up.mp4", "-y.mp4", "[error] x: File too large"])
def test_a_name_means_nothing(name: str, film: Path, tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / name).write_bytes(film.read_bytes())
    clip = process(tmp_path / "list" / name, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {"list", "private", *(["up.mp4"] if ".." in name else [])}
    )
    assert len(clip.work.members) == 10


SHELL = "/bin/sh"
CHILDREN = [
    ("busy", "while :; do :; done", "timeout", False),
    ("asleep", "exec sleep 60", "timeout", True),
    ("closed log", "exec 2>&-; sleep 60", "timeout", True),
    ("segfault", "kill -SEGV $$", "decoder_died", False),
    ("killed", "kill -KILL $$", "decoder_died", True),
    ("output", "exec head -c 3000000 /dev/zero > big", "too_much_output", False),
]


@pytest.mark.parametrize(("name", "script", "reason", "transient"), CHILDREN, ids=[c[0] for c in CHILDREN])
def test_a_child_out_of_bounds_is_ended(name: str, script: str, reason: str, transient: bool, tmp_path: Path) -> None:
    # On a loaded machine a busy process needs longer for its second of CPU.
    limits = Limits(cpu_s=1, wall_s=60 if name == "busy" else 3, output_bytes=MIB)
    started = time.monotonic()
    with pytest.raises(ClipError) as caught:
        child.run([SHELL, "-c", script], tmp_path, limits)
    assert (caught.value.reason, caught.value.transient) == (reason, transient)
    assert time.monotonic() - started < 60


def test_a_child_cannot_take_more_memory_than_allowed(tmp_path: Path) -> None:
    done = child.run([sys.executable, "-c", "x = bytearray(10**9)"], tmp_path, Limits(memory_bytes=300 * MIB))
    assert done.returncode == 1 and "MemoryError" in done.log


def test_a_flood_of_log_neither_blocks_nor_fills_memory(tmp_path: Path) -> None:
    script = "yes 'corrupt decoded frame' | head -c 50000000 >&2; echo end >&2"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = child.run([SHELL, "-c", script], tmp_path, Limits(), marks=[b"corrupt decoded frame"])
    assert len(done.log) <= child.STDERR_KEPT_BYTES and done.log.endswith("end\n")
    assert done.counts[b"corrupt decoded frame"] == pytest.approx(50_000_000 / 22, abs=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_child_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFREPORT", "file=report.log")
    monkeypatch.setenv("SECRET", "x")
    log = child.run([SHELL, "-c", "env >&2; readlink /proc/$$/fd/0 >&2; ls /proc/$$/fd >&2"], tmp_path, Limits()).log
    assert "SECRET" not in log and "FFREPORT" not in log and "/dev/null" in log
    assert len(log.split("/dev/null")[1].split()) <= 4


def test_a_full_disk_is_not_the_clip_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match="disk is full"):
        child.run([SHELL, "-c", "exit 1"], tmp_path, Limits())


RUNNER = """
import sys; from pathlib import Path; from vidal.media import child; from vidal.media.limits import Limits
child.run(["/bin/sh", "-c", "sleep 100 & echo $! > inner; echo $$ > outer; wait"], Path(sys.argv[1]), Limits())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("sent", "names"), [(signal.SIGKILL, ["outer"]), (signal.SIGINT, ["outer", "inner"])])
def test_nothing_outlives_its_parent(sent: int, names: list[str], tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not all((tmp_path / n).exists() and (tmp_path / n).read_text().strip() for n in ("outer", "inner")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = {name: int((tmp_path / name).read_text()) for name in ("outer", "inner")}
    parent.send_signal(sent)
    parent.wait(timeout=20)
    while any(alive(pids[name]) for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if alive(pids["inner"]):
        os.kill(pids["inner"], signal.SIGKILL)


def test_children_may_be_run_from_threads(tmp_path: Path) -> None:
    ended: list[int] = []
    threads = [
        threading.Thread(target=lambda: ended.append(child.run([SHELL, "-c", "exit 3"], tmp_path, Limits()).returncode))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [3] * 8
