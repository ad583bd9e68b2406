"""How a clip is cut and encoded: a Clip becomes one ffmpeg command."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
from cuts import Clip
from origins import FONT, SOURCES, VOICES, Source, find

VIDEO_OPTIONS: dict[str, list[str]] = {
    "h264": ["-c:v", "libx264", "-preset", "slow", "-pix_fmt", "yuv420p"],
    "hevc": ["-c:v", "libx265", "-preset", "medium", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error"],
    "vp9": ["-c:v", "libvpx-vp9", "-b:v", "0", "-cpu-used", "3", "-pix_fmt", "yuv420p"],
    "mpeg4": ["-c:v", "mpeg4", "-q:v", "7", "-pix_fmt", "yuv420p"],
}
WEBM_SOUND = ["-c:a", "libopus", "-b:a", "48k"]
MP4_SOUND = ["-c:a", "aac", "-b:a", "64k", "-ac", "2"]
STILL_FPS = 25


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True)


def _size(clip: Clip) -> tuple[int, int]:
    width, height = clip.size.split("x")
    return int(width), int(height)


def _framing(clip: Clip, source: Source) -> list[str]:
    """Fills the wanted size and cuts off what is too much."""
    width, height = _size(clip)
    fill = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=lanczos"
    cut = f"crop={width}:{height}:(iw-{width})*{clip.focus}:(ih-{height})/2"
    return [*([source.crop] if source.crop else []), fill, cut, "setsar=1"]


def _slow_pan(clip: Clip) -> list[str]:
    """Ken Burns: ever closer, and from top left to bottom right; enlarged first, or whole-pixel steps would shake."""
    width, height = _size(clip)
    frames = round(clip.duration_s * STILL_FPS)
    large = f"{width * 4}:{height * 4}"
    fill = f"scale={large}:force_original_aspect_ratio=increase:flags=lanczos,crop={large}"
    move = f"x='(iw-iw/zoom)*on/{frames}':y='(ih-ih/zoom)*(0.2+0.5*on/{frames})'"
    return [
        f"{fill},zoompan=z='1.05+{clip.closer}*on/{frames}':{move}:d={frames}:s={width}x{height}:fps={STILL_FPS}",
        "setsar=1",
    ]


def _caption(clip: Clip, work: Path) -> list[str]:
    """Centred, outlined lines as phone editors draw them; words two spaces apart, or OCR runs capitals together."""
    width, height = _size(clip)
    font = find(*FONT, work)
    lines = [line.replace(" ", "  ") for line in clip.caption]
    longest = max(map(len, lines), default=1)
    font_size = min(width // 8, round(width * 0.9 / (0.76 * longest)))
    style = f"fontfile={font}:fontsize={font_size}:fontcolor=white:borderw={max(2, font_size // 10)}:bordercolor=black"
    return [
        f"drawtext={style}:text='{line}':x=(w-tw)/2:y={round(height * clip.caption_y + row * font_size * 1.35)}"
        for row, line in enumerate(lines)
    ]


def _pace(clip: Clip) -> list[str]:
    if clip.rate == "variable":
        third = clip.duration_s / 3
        return [f"select='not(between(t,{third},{2 * third}))+not(mod(n,3))'"]
    return [f"fps={clip.rate}"] if clip.rate else []


def _picture(clip: Clip, source: Source, work: Path) -> str:
    still = source.still and clip.look != "still"
    steps = _slow_pan(clip) if still else _framing(clip, source)
    look = [clip.look] if clip.look not in {"", "still"} else []
    turned = ["transpose=cclock"] if clip.rotation == 90 else []
    return ",".join([*steps, *look, *_pace(clip), *_caption(clip, work), *turned])


def _picture_input(clip: Clip, source: Source, file: Path) -> list[str]:
    if not source.still:
        return ["-ss", str(clip.start_s), "-t", str(clip.duration_s), "-i", str(file)]
    repeat = ["-loop", "1", "-framerate", str(STILL_FPS), "-t", str(clip.duration_s)] if clip.look == "still" else []
    return [*repeat, "-i", str(file)]


def _sound(clip: Clip, file: Path, work: Path) -> tuple[list[str], str]:
    """Further inputs, and the filter that makes the sound track ("" for none)."""
    if clip.sound == "none":
        return [], ""
    if clip.sound == "silent":
        return ["-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo"], "[1:a]anull[a]"
    if clip.sound == "late":
        shorter = ["-ss", str(clip.start_s + 2), "-t", str(clip.duration_s - 2)]
        return ["-itsoffset", "2", *shorter, "-i", str(file)], "[1:a]anull[a]"
    if not clip.voice:
        return [], "[0:a]anull[a]"
    voice = VOICES[clip.voice]
    inputs = ["-i", str(find(voice.package, voice.path, work))]
    spoken = "[1:a]aresample=44100,adelay=400:all=1,volume=1.5,apad"
    return inputs, f"[0:a]aresample=44100,volume=0.08[m];{spoken}[s];[m][s]amix=inputs=2:normalize=0:duration=first[a]"


def cut(clip: Clip, work: Path, folder: Path) -> Path:
    source = SOURCES[clip.source]
    file = find(source.package, source.path, work)
    target = folder / f"{clip.clip_id}.{clip.suffix}"
    inputs, sound = _sound(clip, file, work)
    filters = f"[0:v]{_picture(clip, source, work)}[v]" + (f";{sound}" if sound else "")
    outputs = ["-map", "[v]", *(["-map", "[a]"] if sound else [])]
    quality = [] if clip.codec == "mpeg4" else ["-crf", str(clip.crf)]
    encoders = [*VIDEO_OPTIONS[clip.codec], *quality, *(WEBM_SOUND if clip.suffix == "webm" else MP4_SOUND)]
    timing = ["-t", str(clip.duration_s), *(["-fps_mode", "vfr"] if clip.rate == "variable" else [])]
    plain = work / target.name if clip.rotation else target
    ffmpeg(
        *_picture_input(clip, source, file), *inputs, "-filter_complex", filters, *outputs, *encoders, *timing,
        "-map_metadata", "-1", "-fflags", "+bitexact", str(plain),
    )  # fmt: skip
    if clip.rotation:
        ffmpeg("-display_rotation", str(-clip.rotation), "-i", str(plain), "-c", "copy", str(target))
    return target
