"""Running one stage on a batch, so that a clip's trouble stays that clip's.

A stage's exception on a batch is retried clip by clip and becomes that clip's ``failed`` row; the
machine's trouble is raised. A hang is turned into the worker's death by a watchdog that needs no
interpreter lock.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import os
import re
import time
from collections.abc import Iterator, Sequence

from vidal.clip import Clip
from vidal.engine.job import Notes, ShardReport, UnderWay
from vidal.errors import ClipError, UserError, machine_error
from vidal.stage import Stage

_DETAIL_CHARACTERS = 500

_A_CLIPS_TROUBLE = (Exception, SystemExit)
"""A library that leaves through `sys.exit` has had trouble with a clip, too."""


def run_stage(stage: Stage, clips: Sequence[Clip], report: ShardReport, notes: Notes, *, isolate: bool) -> None:
    """Run one stage over the clips that no stage has turned away."""
    size = 1 if isolate else stage.needs.batch_size
    open_clips = [clip for clip in clips if clip.is_open]
    for start in range(0, len(open_clips), size):
        batch = open_clips[start : start + size]
        under_way = UnderWay(stage=stage.step_name(), clip_ids=tuple(clip.clip_id for clip in batch))
        notes.begin(report.shard, under_way, surely=isolate)
        report.stage = under_way.stage
        notes.advance(report)
        started = time.perf_counter()
        limit_s = stage.needs.timeout_s
        with _watchdog(limit_s and limit_s * len(batch)):
            _run_batch(stage, batch)
        report.spend(under_way.stage, time.perf_counter() - started, len(batch))


def _run_batch(stage: Stage, batch: Sequence[Clip]) -> None:
    if len(batch) == 1:
        _run_one(stage, batch[0])
        return
    before = [_snapshot(clip) for clip in batch]
    try:
        stage.process_batch(batch)
    except _A_CLIPS_TROUBLE as error:
        _raise_machine_error(error, stage)
        for clip, snapshot in zip(batch, before, strict=True):
            _restore(clip, snapshot)
            _run_one(stage, clip)
    else:
        _name_stage(stage, batch)


def _run_one(stage: Stage, clip: Clip) -> None:
    try:
        stage.process_batch([clip])
    except _A_CLIPS_TROUBLE as error:
        _raise_machine_error(error, stage)
        _record_failure(clip, error)
    _name_stage(stage, [clip])


def _name_stage(stage: Stage, clips: Sequence[Clip]) -> None:
    for clip in clips:
        if not clip.is_open:
            clip.stage = stage.step_name()


def _raise_machine_error(error: BaseException, stage: Stage) -> None:
    if isinstance(error, UserError):
        raise error
    broken = machine_error(error, f"stage {stage.step_name()}")
    if broken is not None:
        raise broken from error


def _record_failure(clip: Clip, error: BaseException) -> None:
    if isinstance(error, ClipError):
        clip.fail(error.reason, clean_detail(error.detail), is_transient=error.transient)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        clip.fail("out_of_memory", clean_detail(str(error)), is_transient=True)
    else:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(error).__name__)
        clip.fail(words.lower(), clean_detail(str(error)))


def clean_detail(text: str) -> str:
    """One short printable line of any text, however long or foul."""
    head = text[: 4 * _DETAIL_CHARACTERS].encode("utf-8", "replace").decode()
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= _DETAIL_CHARACTERS else line[:_DETAIL_CHARACTERS] + "…"


def _snapshot(clip: Clip) -> Clip:
    kept = copy.copy(clip)
    kept.extra = dict(clip.extra)
    kept.work = copy.copy(clip.work)
    kept.work.members = list(clip.work.members)
    return kept


def _restore(clip: Clip, snapshot: Clip) -> None:
    for name in Clip.__slots__:
        setattr(clip, name, getattr(snapshot, name))


@contextlib.contextmanager
def _watchdog(limit_s: float | None) -> Iterator[None]:
    """End this worker if the block takes longer; `faulthandler` also fires while native code holds the GIL."""
    if limit_s is None or not watchdog_may_exit:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


watchdog_may_exit = False
"""Set by worker processes; the driver's own process is never ended by the watchdog."""
