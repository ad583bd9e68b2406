"""A clip's failure stays that clip's: the rest of its batch is as if it had not been there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from vidal.clip import Clip
from vidal.engine.isolate import clean_detail, run_stage
from vidal.engine.job import ShardReport, UnderWay
from vidal.errors import ClipError, MachineError, RecipeError, StorageError, ToolError
from vidal.stage import Resources, Stage
from vidal.work import Member


class Told:
    """Notes that were made."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, tuple[str, ...], bool]] = []

    def begin(self, shard: int, under_way: UnderWay, *, surely: bool) -> None:
        self.begun.append((under_way.stage, under_way.clip_ids, surely))

    def advance(self, report: ShardReport) -> None:
        """Not looked at."""


class Batched(Stage):
    """Half its work is done when it meets the clip that is poisoned."""

    default_resources = Resources(batch_size=3)
    poison: ClassVar[Callable[[], Any]]
    sizes: ClassVar[list[int]] = []

    def process_batch(self, clips: Sequence[Clip]) -> None:
        self.sizes.append(len(clips))
        for clip in clips:
            clip.scene_changes = (clip.scene_changes or 0) + 1
            clip["visits"] = (clip["visits"] or 0) + 1
            clip.work.put(Member(layer="video", suffix="mp4", data=b"1"))
            clip.work.members.append(Member(layer="video", suffix=f"x.{len(clip.work.members)}.jpg", data=b"2"))
            if clip.clip_id == "bad":
                type(self).poison()
            if clip.clip_id == "unwanted":
                clip.reject("unwanted", "1 > 0")


def raising(error: BaseException) -> Callable[[], Any]:
    def poison() -> None:
        raise error

    return poison


def ran(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, *, isolate: bool = False
) -> tuple[dict[str, Clip], Told, list[int]]:
    monkeypatch.setattr(Batched, "poison", staticmethod(raising(error)), raising=False)
    monkeypatch.setattr(Batched, "sizes", [])
    clips = [Clip(clip_id=name, extra={"visits": None}) for name in ("a", "bad", "b", "c", "unwanted", "gone")]
    clips[-1].reject("earlier", "")
    clips[-1].stage = "earlier_stage"
    told = Told()
    run_stage(Batched(), clips, ShardReport(shard=7), told, isolate=isolate)
    return {clip.clip_id: clip for clip in clips}, told, list(Batched.sizes)


FAILURES: list[tuple[BaseException, tuple[str, str, bool]]] = [
    (ClipError("undecodable", "no frame"), ("undecodable", "no frame", False)),
    (ClipError("rate_limited", "429", transient=True), ("rate_limited", "429", True)),
    (ValueError("two\nlines\x00"), ("value_error", "two lines", False)),
    (KeyError("x"), ("key_error", "'x'", False)),
    (OSError(errno.ENOENT, "gone"), ("file_not_found_error", "[Errno 2] gone", False)),
    (OSError(errno.EPIPE, "x"), ("broken_pipe_error", "[Errno 32] x", False)),
    (OSError("odd"), ("os_error", "odd", False)),
    (type("HTTPError", (Exception,), {})("404"), ("http_error", "404", False)),
    (MemoryError(), ("out_of_memory", "", True)),
    (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), ("out_of_memory", "CUDA", True)),
    (RecursionError("deep"), ("recursion_error", "deep", False)),
    (SystemExit(3), ("system_exit", "3", False)),
]


@pytest.mark.parametrize(("error", "row"), FAILURES, ids=[type(e).__name__ for e, _ in FAILURES])
def test_what_a_stage_raises_becomes_that_clips_row_alone(
    error: BaseException, row: tuple[str, str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, _, sizes = ran(monkeypatch, error)
    bad = clips["bad"]
    assert (bad.status, bad.stage, bad.reason, bad.detail, bool(bad.is_transient)) == ("failed", "batched", *row)
    assert {name: clip.status for name, clip in clips.items() if name != "bad"} == {
        "a": "candidate", "b": "candidate", "c": "candidate", "unwanted": "rejected", "gone": "rejected"
    }  # fmt: skip
    assert (clips["unwanted"].stage, clips["gone"].stage) == ("batched", "earlier_stage")
    # The batch was tried, put back as it was, and gone through clip by clip.
    assert sizes == [3, 1, 1, 1, 2]
    for column in ("scene_changes", "visits"):
        assert [clips[name][column] for name in ("a", "b", "c", "gone")] == [1, 1, 1, None]
    assert [m.suffix for m in clips["a"].work.members] == ["mp4", "x.1.jpg"]


MACHINE = [
    (OSError(errno.ENOSPC, "No space left"), StorageError, "stage batched: the disk is full"),
    (StorageError("bucket gone"), StorageError, "bucket gone"),
    (ToolError("no ffmpeg"), ToolError, "no ffmpeg"),
    (RecipeError("bad setting"), RecipeError, "bad setting"),
]


@pytest.mark.parametrize(("error", "kind", "text"), MACHINE)
@pytest.mark.parametrize("isolate", [True, False])
def test_an_environment_error_fails_no_clip(
    error: Exception, kind: type[Exception], text: str, isolate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=text):
        ran(monkeypatch, error, isolate=isolate)


def test_ctrl_c_fails_no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        ran(monkeypatch, KeyboardInterrupt())


def test_every_batch_is_announced_before_it_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told, _ = ran(monkeypatch, ValueError())
    assert told.begun == [("batched", ("a", "bad", "b"), False), ("batched", ("c", "unwanted"), False)]
    _, told, _ = ran(monkeypatch, ValueError(), isolate=True)
    assert told.begun == [("batched", (name,), True) for name in ("a", "bad", "b", "c", "unwanted")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a\r\n\tb\x1b[31m\x00c", "a b [31m c"),
        ("half an emoji \ud83d", "half an emoji ?"),
        ("x" * 10_000_000, "x" * 500 + "…"),
        ("\u202egnp.exe", "gnp.exe"),
    ],
)
def test_a_detail_is_one_short_printable_line(text: str, line: str) -> None:
    assert clean_detail(text) == line


def test_a_machine_error_is_raised_and_not_a_clip_error() -> None:
    assert not issubclass(ClipError, MachineError)
