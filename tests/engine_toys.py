"""Stages that need no media, so that tests of the engine are about the engine."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image

import vidal
from tests import toys
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.locate import identity, locate
from vidal.record import Column
from vidal.rows import TableLike, whole
from vidal.stage import Decision, Resources, Stage
from vidal.work import Member


class Paint(Stage):
    """Two small images and a text, as a function of the url alone; leaves a mark of its process before each clip."""

    writes = ("video", "duration_s", "frame_times")
    layers = ("video",)
    pixels: int = 16
    cost_s: float = 0.0
    wait_s: float = 0.0
    bulk_bytes: int = 0
    marks: str = ""

    def process(self, clip: Clip) -> None:
        if self.cost_s:
            _burn(self.cost_s)
        if self.marks:
            open(os.path.join(self.marks, f"{os.getpid()}-{clip.clip_id}"), "w").close()
        time.sleep(self.wait_s)
        clip.duration_s, clip.frame_times = 2.0, [0.5, 1.5]
        clip.frame_width = clip.frame_height = self.pixels
        clip.work.put(Member(layer="video", suffix="mp4", data=clip.url.encode() * 50 + bytes(self.bulk_bytes)))
        for k, time_s in enumerate(clip.frame_times):
            shade = (len(clip.url) * 40 + k) % 255
            out = io.BytesIO()
            Image.fromarray(np.full((self.pixels, self.pixels, 3), shade, np.uint8)).save(out, "JPEG")
            clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=out.getvalue(), time_s=time_s))


class Show(Stage):
    """Eight frames of a film; the last digit of the url says which film."""

    writes = ("video", "duration_s", "frame_times")
    layers = ("video",)

    def process(self, clip: Clip) -> None:
        film = toys.frames(int(clip.url.removesuffix(".mp4")[-1]))
        clip.duration_s, clip.frame_times = 8.0, [k + 0.5 for k in range(len(film))]
        clip.frame_height, clip.frame_width = film[0].shape[:2]
        clip.work.put(Member(layer="video", suffix="mp4", data=clip.url.encode() * 50))
        for k, frame in enumerate(film):
            data = toys.encoded(frame)
            clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=data, time_s=clip.frame_times[k]))


class Embed(Stage):
    """A unit vector for the film that the last digit of the url says, nearly the same for each clip of it."""

    columns: ClassVar[Mapping[str, Column]] = {
        "video_embedding": Column(list[float], "unit vector", "fingerprints"),
        "embedding_model": Column(str, "model that made it", "provenance"),
    }

    def process(self, clip: Clip) -> None:
        name = clip.url.removesuffix(".mp4")
        of_film, own = (
            np.random.default_rng(seed).standard_normal(12) for seed in (int(name[-1]), len(clip.title or ""))
        )
        vector = of_film + own / 20
        if clip.title != "unembedded":
            clip["video_embedding"] = (vector / np.linalg.norm(vector)).tolist()
            clip["embedding_model"] = "toy@1"


class Shade(Stage):
    """A second layer, made from the first; wants a GPU where there is one."""

    reads = ("video",)
    layers = ("depth",)
    default_resources = Resources(gpus=1.0, batch_size=4)

    def process(self, clip: Clip) -> None:
        for k, frame in enumerate(clip.work.frames()):
            out = io.BytesIO()
            Image.fromarray(frame[..., 0].astype(np.uint16) * 7).save(out, "PNG")
            clip.work.put(
                Member(layer="depth", suffix=f"depth.{k}.png", data=out.getvalue(), time_s=clip.frame_times[k])
            )


class Caption(Stage):
    """The title, where there is one, as the caption."""

    reads = ("title",)
    writes = ("caption",)

    def process(self, clip: Clip) -> None:
        clip.caption = clip.title or None


class Audio(Stage):
    """Audio as long as the video, for every clip whose title is not ``mute``."""

    reads = ("duration_s",)
    layers = ("audio",)
    writes = ("has_audio",)

    def process(self, clip: Clip) -> None:
        clip.has_audio = clip.title != "mute"
        if clip.has_audio:
            out, rate_hz = io.BytesIO(), 16_000
            samples = np.linspace(-0.5, 0.5, int((clip.duration_s or 0) * rate_hz))
            soundfile.write(out, samples, rate_hz, format="FLAC")
            clip.work.put(Member(layer="audio", suffix="flac", data=out.getvalue()))


class SameTitle(Decision):
    """Of clips with one title the first in plan order stays."""

    reads = ("title",)

    def decide(self, rows: TableLike) -> pa.Table:
        first: dict[str, str] = {}
        out = []
        for row in whole(rows).to_pylist():
            if row["status"] == "kept" and row["title"]:
                kept = first.setdefault(row["title"], row["clip_id"])
                repeats = kept != row["clip_id"]
                out.append(
                    {
                        "clip_id": row["clip_id"],
                        "status": "rejected" if repeats else "kept",
                        "reason": "duplicate" if repeats else None,
                        "duplicate_of": kept if repeats else None,
                        "duplicate_distance": 0.5 if repeats else None,
                        "decided_value": 0.5 if repeats else None,
                        "decided_limit": 10.0 if repeats else None,
                        "cluster": kept,
                    }
                )
        fields = [(n, pa.string()) for n in ("clip_id", "status", "reason", "duplicate_of", "cluster")]
        fields += [(n, pa.float64()) for n in ("duplicate_distance", "decided_value", "decided_limit")]
        return pa.Table.from_pylist(out, schema=pa.schema(fields))


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(500))


class Roll:
    """Gives each caller the next number."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


class Numbered(Stage):
    """Rejects every clip with a number from the run's one roll."""

    def shared(self) -> object:
        return Roll()

    def bind(self, proxy: Any) -> None:
        self._proxy = proxy

    def process(self, clip: Clip) -> None:
        clip.reject("numbered", str(self._proxy.call("next")))


class Sight(Stage):
    """Rejects every clip with the GPUs that a library finds in its worker."""

    def process(self, clip: Clip) -> None:
        clip.reject("sees", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


class Hash(Stage):
    """Names a file by its url, as fetch does by its bytes."""

    writes = ("source_sha256",)

    def process(self, clip: Clip) -> None:
        clip.source_sha256 = f"hash of {clip.url}"


class Shout(Stage):
    """Another caption over the one that is there."""

    reads = ("caption",)
    writes = ("caption",)

    def process(self, clip: Clip) -> None:
        clip.caption = clip.caption.upper() if clip.caption else None


class Weigh(Stage):
    """Sets up with a model of a hub; leaves a mark of the folder that its process has vidal from."""

    model: str
    marks: str

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        if locate(self.model).here is None:
            raise ModelError(f"{self.model} is not here")
        (Path(self.marks) / str(os.getpid())).write_text(str(Path(vidal.__file__).parent))

    def process(self, clip: Clip) -> None:
        time.sleep(0.5)
