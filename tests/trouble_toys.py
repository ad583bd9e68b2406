"""Stages that fail, hang, wait and kill their workers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import ClassVar

from pydantic import PrivateAttr

from vidal.clip import Clip
from vidal.errors import ClipError, NotNowError, StorageError
from vidal.stage import Resources, Stage, Waiting


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
