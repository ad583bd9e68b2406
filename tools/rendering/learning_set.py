"""A dataset on which a trainer can be seen to learn: every modality by itself decides the caption.

    python -m tools.rendering.learning_set --out data/learning --clips 2000 --scenes 128

Nothing in it is real. A scene is three attributes; each modality shows all three in its own way (colour and shape,
layout of depth, pattern of heat, pitch, rhythm and timbre), and the caption names them in words. Clips of a scene
differ in place, size, brightness, pitch, phase and noise, so what a tower learns on some it has to recognise in others.

The column ``scene_is_held_out`` splits the scenes in halves. Every word, and every two words, of a held-out scene
occur in scenes of the other half; its three together do not.

``--wrong`` and ``--copies`` plant faults that a filter should find (`tools.rendering.planted`).
"""

from __future__ import annotations

import argparse
import colorsys
import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile

import vidal
from tools.rendering.planted import plant
from vidal.clip import SCHEMA_VERSION, Clip
from vidal.dataset import plan as plans
from vidal.dataset import planning
from vidal.dataset.commit import ShardWriter
from vidal.dataset.dataset import DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.record import from_row
from vidal.stage import digest
from vidal.work import SAMPLE_RATE, Member

FRAMES = 8
DURATION_S = 2.0
SHARD_SIZE = 250
BY = "tools.rendering.learning_set"
LAYERS = ["video", "depth", "infrared", "audio"]
VERSION = 5
"""Of what is drawn: raise it with every change of a byte."""

NOUNS = ("harbour", "forest", "kitchen", "desert", "stadium", "library", "glacier", "orchard")
MOODS = ("calm", "busy", "ancient", "broken")
LIGHTS = ("at dawn", "in the rain", "under neon lights", "by candlelight")
SCENES = len(NOUNS) * len(MOODS) * len(LIGHTS)

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Attributes = tuple[int, int, int]


def attributes(scene: int) -> Attributes:
    """Noun, mood and light of a scene."""
    return scene % 8, scene // 8 % 4, scene // 32 % 4


def is_held_out(scene: int) -> bool:
    """Whether training with ``--where "not scene_is_held_out"`` leaves the scene out.

    A scene and those that differ from it by one step in one attribute are in different halves, so with all 128 scenes
    each half has every pair of attributes equally often.
    """
    return sum(attributes(scene)) % 2 == 1


def caption(scene: int) -> str:
    """``a calm harbour at dawn``."""
    noun, mood, light = attributes(scene)
    article = "an" if MOODS[mood][0] in "aeiou" else "a"
    return f"{article} {MOODS[mood]} {NOUNS[noun]} {LIGHTS[light]}"


def texts(scene: int) -> dict[str, Any]:
    """The scene's caption in several wordings, by manifest column; no two scenes share one."""
    noun, mood, light = attributes(scene)
    said = caption(scene)
    return {
        "title": f"{NOUNS[noun]} {LIGHTS[light]}, {MOODS[mood]} (synthetic)",
        "video_caption": f"{LIGHTS[light]}, a {NOUNS[noun]} that is {MOODS[mood]}",
        "frame_captions": [f"a view of {said}"] * FRAMES,
        "sound_caption": f"the sound of {said}",
        "caption": said,
    }


def members(scene: int, seeds: list[int], size: int) -> list[Member]:
    """The members of one clip of a scene; its images and its audio draw from generators of their own."""
    rng, rng_audio = (np.random.default_rng([*seeds, scene, part]) for part in (0, 1))
    where, made = attributes(scene), []
    centre, drift = rng.uniform(-0.12, 0.12, 2), rng.uniform(-0.12, 0.12, 2)
    zoom, gain = rng.uniform(0.85, 1.15), rng.uniform(0.8, 1.2)
    passer_from, passer_to = rng.uniform(-1, 1, (2, 2))
    for k, time_s in enumerate(frame_times()):
        y, x = _grid(size, centre + drift * (k / FRAMES - 0.5), zoom)
        # Somebody walks through, the same in every layer and of no meaning.
        at = passer_from + (passer_to - passer_from) * k / FRAMES
        passer = np.hypot(y - at[0], x - at[1]) < 0.12
        colour = _colour(where, y, x, gain, passer, rng)
        depth = _depth(where, y, x, passer, rng)
        heat = _heat(where, y, x, gain, passer, rng)
        for layer, name, image in (
            ("video", f"frame.{k}.jpg", colour), ("depth", f"depth.{k}.png", depth),
            ("infrared", f"infrared.{k}.jpg", heat),
        ):  # fmt: skip
            made.append(Member(layer=layer, suffix=name, data=_encoded(image, name[-4:]), time_s=time_s))
    made.append(Member(layer="audio", suffix="flac", data=_flac(_audio(where, rng_audio))))
    return made


def frame_times() -> list[float]:
    return [(k + 0.5) * DURATION_S / FRAMES for k in range(FRAMES)]


def _grid(size: int, centre: Floats, zoom: float) -> tuple[Floats, Floats]:
    line = np.linspace(-1, 1, size)
    y, x = np.meshgrid(line, line, indexing="ij")
    return (y - centre[0]) * zoom, (x - centre[1]) * zoom


def _shape(kind: int, y: Floats, x: Floats) -> Floats:
    """Eight figures, 1 inside and 0 outside."""
    r = np.hypot(x, y)
    figures = (
        r < 0.55,
        (np.abs(x) < 0.5) & (np.abs(y) < 0.5),
        (r > 0.4) & (r < 0.75),
        (np.abs(x) < 0.2) | (np.abs(y) < 0.2),
        (y > -0.5) & (y < 0.6) & (np.abs(x) < (y + 0.5) * 0.6),
        np.sin(9 * x) > 0,
        np.sin(9 * y) > 0,
        np.sin(8 * x) * np.sin(8 * y) > 0,
    )
    return np.asarray(figures[kind], np.float64)


def _uneven(values: Floats, spread: float, rng: np.random.Generator) -> Floats:
    """Blurred noise: images of one scene differ everywhere, yet compress."""
    coarse = rng.normal(0, spread, (8, 8))
    noise = cv2.resize(coarse, values.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return values + (noise if values.ndim == 2 else noise[..., None])


def _colour(
    where: Attributes, y: Floats, x: Floats, gain: float, passer: Mask, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """(h, w, 3) RGB: the noun's figure, in the mood's hue, before the light's."""
    noun, mood, light = where
    front = np.asarray(colorsys.hsv_to_rgb((mood / 4 + rng.uniform(-0.02, 0.02)) % 1, 0.9, 0.95))
    back = np.asarray(colorsys.hsv_to_rgb(light / 4 + 0.125 + rng.uniform(-0.02, 0.02), 0.7, 0.45))
    inside = _shape(noun, y, x)[..., None]
    image = np.where(passer[..., None], 0.3, inside * front + (1 - inside) * back)
    return np.asarray((_uneven(image, 0.08, rng) * gain * 255).clip(0, 255), np.uint8)


def _depth(where: Attributes, y: Floats, x: Floats, passer: Mask, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """(h, w) millimetres: a layout for each noun, as near as the mood and as far as the light say."""
    noun, mood, light = where
    layouts = (x, -x, y, -y, 1 - 1.4 * np.hypot(x, y), 1.4 * np.hypot(x, y) - 0.6, np.cos(5 * x), np.cos(5 * y))
    near_m, far_m = (0.8, 1.6, 2.4, 3.2)[mood], (4.5, 6.0, 7.5, 9.5)[light]
    share = 1 / (1 + np.exp(-4 * layouts[noun]))
    metres = np.where(passer, near_m, far_m + (near_m - far_m) * share)
    # In steps of 20 mm, as sensors have them: finer ones would be most of the dataset's bytes.
    return np.asarray((_uneven(metres, 0.1, rng) * 50).clip(5, 3000).astype(np.uint16) * 20, np.uint16)


def _heat(
    where: Attributes, y: Floats, x: Floats, gain: float, passer: Mask, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """(h, w): warm bodies where the noun has them, on the mood's ground, with the light's side warm."""
    noun, mood, light = where
    r, across, along = np.hypot(x, y), (x - y) / 1.4, (x + y) / 1.4
    bodies = (
        r / 0.45, (np.abs(x) - 0.55) / 0.3, (np.abs(y) - 0.55) / 0.3, (r - 0.65) / 0.22,
        np.hypot(np.abs(x) - 0.55, np.abs(y) - 0.55) / 0.3, across / 0.25, along / 0.25,
        np.minimum(np.abs(x), np.abs(y)) / 0.18,
    )  # fmt: skip
    warmth = np.exp(-(bodies[noun] ** 2))
    grounds = (np.zeros_like(x), np.sin(22 * y), np.sin(22 * x), np.sin(16 * x) * np.sin(16 * y))
    side = (x, -x, y, -y)[light]
    heat = np.maximum(0.35 + 0.25 * side.clip(-1, 1) + 0.12 * grounds[mood], 0.95 * warmth)
    return np.asarray((_uneven(np.where(passer, 0.5, heat), 0.04, rng) * gain * 255).clip(0, 255), np.uint8)


def _audio(where: Attributes, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(n,): the noun's pitch, in the mood's rhythm, with the light's timbre."""
    noun, mood, light = where
    time_s = np.arange(int(DURATION_S * SAMPLE_RATE)) / SAMPLE_RATE + rng.uniform(0, 1)
    pitch_hz = 180 * 1.45**noun * rng.uniform(0.96, 1.04)
    phase = 2 * np.pi * pitch_hz * time_s
    if light == 0:
        tone = np.sin(phase)
    elif light == 1:
        tone = 0.7 * np.sum([np.sin(k * phase) / k for k in range(1, 7) if k * pitch_hz < SAMPLE_RATE / 2], axis=0)
    elif light == 2:
        tone = np.sin(phase) * 0.6 + np.diff(rng.normal(0, 0.2, len(phase)), append=0)
    else:
        tone = np.sin(phase - 0.2 * pitch_hz / 3 * np.cos(2 * np.pi * 3 * time_s))
    beats_per_s = (0.0, 1.8, 4.0, 9.0)[mood] * rng.uniform(0.94, 1.06)
    pulse = np.ones_like(time_s) if mood == 0 else (np.sin(2 * np.pi * beats_per_s * time_s) > 0) * 0.95 + 0.05
    loud = rng.uniform(0.2, 0.5)
    return np.asarray((tone * pulse * loud + rng.normal(0, 0.006, len(phase))).clip(-1, 1), np.float32)


def _encoded(image: npt.NDArray[Any], ending: str) -> bytes:
    image = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    how = [cv2.IMWRITE_JPEG_QUALITY, 85] if ending == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 7]
    ok, data = cv2.imencode(ending, image, how)
    assert ok
    return data.tobytes()


def _flac(samples: npt.NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    # Twelve bits are heard as well, and FLAC leaves the empty four out.
    soundfile.write(out, np.round(samples * 2047) / 2048, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def write(
    out: str, *, clips: int = 2000, scenes: int = SCENES, size: int = 64, seed: int = 0, workers: int = 2,
    wrong: float = 0.0, copies: float = 0.0, reposted: int = 0,
) -> None:  # fmt: skip
    """Write the whole set; the same arguments give the same bytes.

    ``wrong`` is the share of clips with the texts of another scene, ``copies`` that of copies of other clips;
    ``reposted`` is the number of clips that all copies are of, 0 for any (`tools.rendering.planted`).
    """
    storage = Storage(out)
    if storage.is_local:
        storage.local_path().mkdir(parents=True, exist_ok=True)
    settings: dict[str, float] = {"clips": clips, "scenes": scenes, "size": size, "seed": seed, "version": VERSION}
    of = [n % scenes for n in range(clips)]
    if wrong or copies:
        settings |= {"wrong": wrong, "copies": copies} | ({"reposted": reposted} if reposted else {})
        rows = plant(_row, of, wrong=wrong, copies=copies, reposted=reposted, seed=seed)
    else:
        rows = [_row(n, scene) for n, scene in enumerate(of)]
    plans.write(storage, planning.make(pa.Table.from_pylist(rows), shard_size=SHARD_SIZE, seed=seed), SHARD_SIZE)
    plan = plans.Plan(storage)
    print_ = digest(settings)
    info = DatasetInfo(
        name="learning", schema_version=SCHEMA_VERSION, fingerprint=print_, layers=LAYERS,
        candidates=plan.candidate_count, shards=plan.shard_count, recipe=settings, definition={},
        created_by=f"vidal {vidal.__version__} learning_set",
    )  # fmt: skip
    write_info(storage, info)
    work = [(out, shard, size, seed, print_) for shard in range(plan.shard_count)]
    if workers < 2:
        for task in work:
            _write_shard(*task)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(_write_shard, *task) for task in work]:
            future.result()


def _row(number: int, scene: int) -> dict[str, Any]:
    return {
        "clip_id": f"s{scene:03d}-{number:06d}", "url": f"synthetic:{scene}/{number}", "title": texts(scene)["title"],
        "uploader": BY, "licence": "CC0-1.0",
        "attribution": "rendered, nothing in it is real", "scene_is_held_out": is_held_out(scene),
    }  # fmt: skip


def _write_shard(out: str, shard: int, size: int, seed: int, print_: str) -> None:
    cv2.setNumThreads(1)
    storage = Storage(out)
    plan = plans.Plan(storage)
    extra = plan.extra_schema()
    with tempfile.TemporaryDirectory() as scratch, ShardWriter(storage, shard, LAYERS, Path(scratch), extra) as writer:
        for clip in _clips(plan, shard, size, seed):
            clip.fingerprint = print_
            writer.add(clip)
        writer.commit({"fingerprint": print_})


def _clips(plan: plans.Plan, shard: int, size: int, seed: int) -> Iterator[Clip]:
    for row in plan.rows(shard):
        clip = from_row(row)
        original = clip.extra.get("copy_of") or clip.clip_id
        scene, number = int(original[1:4]), int(original[5:])
        clip.status, clip.duration_s, clip.has_audio = "kept", DURATION_S, True
        clip.frame_times, clip.frame_width, clip.frame_height = frame_times(), size, size
        for column, text in texts(clip.extra.get("caption_scene", scene)).items():
            setattr(clip, column, text)
        clip.caption_model = clip.frame_caption_model = clip.sound_caption_model = BY
        clip.depth_scale, clip.depth_model, clip.infrared_model = "metric", BY, BY
        clip.synthetic_layers = list(LAYERS)
        clip.cluster = original
        for member in members(scene, [seed, number], size):
            clip.work.put(member)
        yield clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the dataset")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--scenes", type=int, default=SCENES, choices=range(2, SCENES + 1), metavar=f"2..{SCENES}")
    parser.add_argument("--size", type=int, default=64, help="pixels of a frame's side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wrong", type=float, default=0.0, help="share of clips with another scene's texts")
    parser.add_argument("--copies", type=float, default=0.0, help="share of clips that are copies of others")
    parser.add_argument("--reposted", type=int, default=0, help="number of clips that all copies are of; 0: of any")
    given = vars(parser.parse_args())
    write(given.pop("out"), **given)


if __name__ == "__main__":
    main()
