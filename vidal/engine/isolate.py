"""Runs one stage on a batch, so that a clip's error fails that clip alone.

A batch whose processing raises is retried clip by clip; a clip that raises again becomes a ``failed`` row.
Environment errors are raised. A watchdog that needs no interpreter lock ends a worker that hangs.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import os
import re
from collections.abc import Iterator, Sequence

from vidal.clip import Clip
from vidal.engine.job import Notes, ShardReport, UnderWay
from vidal.errors import ClipError, NotNowError, UserError, machine_error
from vidal.stage import Stage

_DETAIL_CHARACTERS = 500
_CLIP_ERRORS = (Exception, SystemExit)
"""A library that calls `sys.exit` has failed on a clip, too."""


def run_stage(stage: Stage, clips: Sequence[Clip], report: ShardReport, notes: Notes, *, isolate: bool) -> None:
    """Run one stage over the clips that are open: in batches of ``stage.needs.batch_size``, or one by one.

    Raises `UserError`, `MachineError` and `NotNowError`; any other exception fails the clip that caused it, with
    `ClipError.reason` or the exception's name as the reason. The time spent goes into ``report``.
    """
    size = 1 if isolate else stage.needs.batch_size
    open_clips = [clip for clip in clips if clip.is_open]
    for start in range(0, len(open_clips), size):
        batch = open_clips[start : start + size]
        under_way = UnderWay(stage=stage.step_name(), clip_ids=tuple(clip.clip_id for clip in batch))
        notes.begin(report.shard, under_way, surely=isolate)
        report.stage = under_way.stage
        notes.advance(report)
        # The limit is a clip's, and a batch takes as long as its clips.
        limit_s = stage.needs.timeout_s
        with report.timed(under_way.stage, under_way.clip_ids), _watchdog(limit_s and limit_s * len(batch)):
            _run_batch(stage, batch)


def _run_batch(stage: Stage, batch: Sequence[Clip]) -> None:
    """Process a batch; where that raises, restore its clips and process each alone."""
    # Half of a batch may be processed when it raises, so each clip is retried from the state before. A deep copy would
    # copy the decoded pixels; stages replace arrays and members, and mutate only what is copied here.
    snapshots = []
    for clip in batch if len(batch) > 1 else ():
        snapshot = copy.copy(clip)
        snapshot.extra = dict(clip.extra)
        snapshot.work = copy.copy(clip.work)
        snapshot.work.members = list(clip.work.members)
        snapshots.append(snapshot)
    try:
        stage.process_batch(batch)
    except _CLIP_ERRORS as error:
        if isinstance(error, (UserError, NotNowError)):
            raise
        if (fault := machine_error(error, f"stage {stage.step_name()}")) is not None:
            raise fault from error
        if not snapshots:
            _fail(batch[0], error)
        # In place, as the caller holds these very objects.
        for clip, snapshot in zip(batch, snapshots, strict=False):
            for name in Clip.__slots__:
                setattr(clip, name, getattr(snapshot, name))
            _run_batch(stage, [clip])
    for clip in batch:
        if not clip.is_open:
            clip.stage = stage.step_name()
            if not stage.keeps_thumbnail:
                # Before anything writes it: the thumbnail of a rejected clip is made of its frames.
                clip.work.members = []
                clip.work.forget_decoded()


def _fail(clip: Clip, error: BaseException) -> None:
    if isinstance(error, ClipError):
        clip.fail(error.reason, clean_detail(error.detail), is_transient=error.transient)
    # By name, as torch's class would have to be imported in runs that have no torch.
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        clip.fail("out_of_memory", clean_detail(str(error)), is_transient=True)
    else:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(error).__name__)
        clip.fail(words.lower(), clean_detail(str(error)))


def clean_detail(text: str) -> str:
    """The text as one printable line of at most 500 characters, however long or malformed it is."""
    # Cut first: an error may quote megabytes of a file. Lone surrogates, which Parquet cannot store, become "?".
    head = text[: 4 * _DETAIL_CHARACTERS].encode("utf-8", "replace").decode()
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= _DETAIL_CHARACTERS else line[:_DETAIL_CHARACTERS] + "…"


@contextlib.contextmanager
def _watchdog(limit_s: float | None) -> Iterator[None]:
    """End this worker process if the block takes longer; `faulthandler` fires even while native code holds the GIL."""
    if limit_s is None or not watchdog_may_exit:
        yield
        return
    # faulthandler's traceback would otherwise go to the terminal; the death itself is what the driver attributes.
    with open(os.devnull, "w") as devnull:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=devnull)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


watchdog_may_exit = False
"""Set by worker processes; the driver's own process is never ended by the watchdog."""
