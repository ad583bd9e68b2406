"""Stages that need no media, so that tests of the engine are about the engine."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image
from pydantic import PrivateAttr

import vidal
from tests import toys
from vidal.clip import Clip
from vidal.errors import ClipError, ModelError, NotNowError, StorageError
from vidal.models.locate import identity, locate
from vidal.record import Column
from vidal.rows import TableLike, whole
from vidal.stage import Decision, Resources, Stage, Waiting
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


class Trouble(Stage):
    """Does what the uploader or the title says, to the process it is in; ``once x`` does x the first time only."""

    default_resources = Resources(timeout_s=2.0)
    marks: str = ""

    def process(self, clip: Clip) -> None:
        word = clip.uploader or clip.title or ""
        if word.startswith("once ") and self.marks:
            mark = os.path.join(self.marks, clip.clip_id)
            if os.path.exists(mark):
                return
            open(mark, "w").close()
            word = word.removeprefix("once ")
        action = self.ACTIONS.get(word)
        if action:
            action(clip)

    @staticmethod
    def _raise(clip: Clip) -> None:
        raise ValueError("a stage's own error\n\x00" + "x" * 10_000_000)

    @staticmethod
    def _gone(clip: Clip) -> None:
        raise ClipError("rate_limited", "429", transient=True)

    @staticmethod
    def _later(clip: Clip) -> None:
        raise NotNowError("example.org", "rate_limited", 4e9)

    @staticmethod
    def _segfault(clip: Clip) -> None:
        ctypes.string_at(0)

    @staticmethod
    def _hold_the_lock(clip: Clip) -> None:
        ctypes.PyDLL(None).sleep(600)

    @staticmethod
    def _hog(clip: Clip) -> None:
        """Take memory, page by page, until somebody ends this process."""
        held = [os.urandom(1 << 20) * 64 for _ in range(80)]
        time.sleep(60)
        del held

    @staticmethod
    def _disk_full(clip: Clip) -> None:
        raise OSError(28, "No space left on device")

    ACTIONS: ClassVar = {
        "raise": _raise,
        "gone": _gone,
        "later": _later,
        "reject": lambda clip: clip.reject("unwanted", "1 > 0"),
        "segfault": _segfault,
        "kill": lambda clip: os.kill(os.getpid(), signal.SIGKILL),
        "exit": lambda clip: os._exit(3),
        "leave": lambda clip: sys.exit("goodbye"),
        "memory": lambda clip: bytearray(1 << 60),
        "sleep": lambda clip: time.sleep(600),
        "hold the lock": _hold_the_lock,
        "hog": _hog,
        "disk full": _disk_full,
        "misalign": lambda clip: setattr(clip, "frame_times", [0.5, 1.4]),
    }


class Wait(Stage):
    """Waits with the clips of some shards, as fetch does for hosts, until another shard of its worker comes here."""

    default_resources = Resources(batch_size=4, timeout_s=None)
    shards: tuple[int, ...] = ()
    asks_once: bool = False
    _waiting: Waiting | None = PrivateAttr(default=None)
    _came: int = PrivateAttr(default=0)

    def wait_in(self, waiting: Waiting) -> None:
        self._waiting = waiting

    def process_batch(self, clips: Sequence[Clip]) -> None:
        self._came += 1
        # Clip by clip no other shard is made meanwhile.
        if self._waiting is None or clips[0].shard not in self.shards or len(clips) == 1:
            return
        with self._waiting() as ask_for_more:
            before, deadline = self._came, time.monotonic() + 60
            ask_for_more()
            while self._came == before:
                if not self.asks_once:
                    ask_for_more()
                if time.monotonic() > deadline:
                    raise TimeoutError("no other shard came")
                time.sleep(0.01)


class BrokenSetup(Stage):
    """A model that is not there, is broken, or kills who loads it."""

    how: str = "gone"

    def setup(self) -> None:
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "broken":
            raise RuntimeError("the weights are half a file")
        raise StorageError("the model's folder is gone; put it back")

    def process(self, clip: Clip) -> None:
        """Never reached."""


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


class Letters(Stage):
    """Counts the letters of the title, in columns of its own; certain titles make it do what it must not."""

    reads = ("title",)
    columns: ClassVar[Mapping[str, Column]] = {
        "letters": Column(int, "letters of the title"),
        "letter_share": Column(float, "letters among the characters of the title"),
        "letter_words": Column(list[str], "words of the title", group="texts"),
        "letter_rule": Column(str, "rule that counted", group="provenance"),
        "is_shouted": Column(bool, "whether the title has capitals alone"),
    }
    default_resources = Resources(batch_size=4)

    def process(self, clip: Clip) -> None:
        title = clip["title"] or ""
        letters = np.char.isalpha(list(title)) if title else np.zeros(0, bool)
        clip["letters"] = np.int64(letters.sum())
        clip["letter_share"] = np.float32(0.5) if title == "half" else int(letters.all())
        clip["letter_words"], clip["letter_rule"] = title.split(), "isalpha"
        if title == "undeclared":
            clip["vowels"] = 3
        if title == "behind its back":
            clip.extra["vowels"] = 3
        if title == "unread":
            clip["is_shouted"] = clip["vowels"] > 2
        if title == "unstorable":
            clip["letters"] = "many"
        if title == "raises":
            raise ValueError("no such letter")


class FewLetters(Stage):
    """Rejects titles of few letters."""

    reads = ("letters",)
    min: int = 3

    def process(self, clip: Clip) -> None:
        if (letters := clip["letters"]) < self.min:
            clip.reject("few_letters", f"{letters} < {self.min}", value=letters, limit=self.min)


class Rank(Decision):
    """Writes how many clips have more letters, in a column of its own; ``also`` is one that it does not declare."""

    reads = ("letters",)
    columns: ClassVar[Mapping[str, Column]] = {"rank": Column(int, "clips with more letters")}
    also: str | None = None

    def decide(self, rows: TableLike) -> pa.Table:
        letters = whole(rows).column("letters").to_pylist()
        ranks = [sum((other or 0) > (mine or 0) for other in letters) for mine in letters]
        table = whole(rows).select(["clip_id"]).append_column("rank", pa.array(ranks))
        return table.append_column(self.also, pa.array(ranks)) if self.also else table


class Shout(Stage):
    """Another caption over the one that is there."""

    reads = ("caption",)
    writes = ("caption",)

    def process(self, clip: Clip) -> None:
        clip.caption = clip.caption.upper() if clip.caption else None


class HalfLetters(Stage):
    """Declares ``letters`` as something else than `Letters` does."""

    columns: ClassVar[Mapping[str, Column]] = {"letters": Column(float, "half the letters of the title")}

    def process(self, clip: Clip) -> None:
        clip["letters"] = len(clip.title or "") / 2


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
