"""`Worker` makes shards: the same code in the driver's process, in a pool's process and in a Ray actor."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from vidal.clip import Clip
from vidal.dataset.commit import ShardWriter
from vidal.engine import isolate
from vidal.engine.isolate import run_stage
from vidal.engine.job import Assignment, Group, Job, Notes, ShardReport, UnderWay
from vidal.engine.load import ClipLoader
from vidal.errors import MachineError, ModelError, NotNowError, UserError, VidalError, one_line
from vidal.process import private_folder

COMMIT = "pack"
"""The name under which the time of writing and committing a shard is listed among the stages."""

# One thread per worker: many workers on few cores lose more to switching than they gain.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "RAYON")}
# tokenizers warns at every fork after its threads have run, unless they are off.
_QUIET_MODELS = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}


def environment(*, gpus: float) -> dict[str, str]:
    """The environment variables that a worker needs before its first import; without a GPU of its own it sees none.

    Ray does not hide the GPUs from an actor that requested none, and a library that picks its device itself would load
    a copy of its model there for each worker.
    """
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {**_ONE_THREAD, **_QUIET_MODELS, **hidden}


def become_worker(*, gpus: float) -> None:
    """Arm the watchdog, and see no GPU where no stage wants one."""
    isolate.watchdog_may_exit = True
    os.environ.update(environment(gpus=gpus))


class Worker:
    """Holds the loaded stages of some groups of a job and runs shards through them.

    One thread at a time computes. Once a stage waits, as for the last clips of a crawl, another thread may make
    another shard, which the worker asks for through ``more``: its files are fetched while the first is packed.
    """

    def __init__(self, job: Job, groups: Sequence[Group], notes: Notes, more: Callable[[], None] | None = None) -> None:
        self._job = job
        self._groups = groups
        self._notes = notes
        self._more = more
        self._turn = threading.Lock()
        self._shard = -1
        """The shard that has the turn."""
        self._making: dict[int, Assignment] = {}
        self._has_asked = False
        self._asking: set[int] = set()
        """The shards whose stage has asked for another one, in its last wait."""
        self._asking_lock = threading.Lock()
        self._loader: ClipLoader | None = None
        self._setup_s: dict[str, float] = {}
        self._scratch = private_folder("worker")

    def setup(self) -> None:
        """Load every model once; raises `UserError` or `MachineError`, as no clip is to blame for a failure here."""
        # A Ray actor asks before each of its shards.
        if self._loader is not None:
            return
        for stage in (stage for group in self._groups for stage in group.stages):
            if stage.step_name() in self._job.shared:
                stage.bind(self._job.shared[stage.step_name()])
            stage.withhold(self._job.removals.names)
            # The watchdog has one timer, which the stages of the other shard need.
            if self._more is not None and stage.needs.timeout_s is None:
                stage.wait_in(self._waiting)
            started = time.perf_counter()
            try:
                stage.setup()
            except VidalError:
                raise
            except Exception as error:
                raise ModelError(
                    f"stage {stage.step_name()} could not be set up: {type(error).__name__}: {error}"
                ) from error
            self._setup_s[stage.step_name()] = time.perf_counter() - started
        self._loader = ClipLoader(self._job)
        # Arrow imports pandas, where there is one, at its first conversion: the first clip's, while others are fetched.
        pa.array([None])

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def load(self, assignment: Assignment) -> Iterator[Clip]:
        """The clips of a shard before the first stage."""
        assert self._loader is not None
        return (self._job.removals.apply(clip, "plan") for clip in self._loader.clips(assignment))

    def process(self, clips: Iterable[Clip], assignment: Assignment, report: ShardReport) -> Iterator[Clip]:
        """Run clips through this worker's stages, one window at a time, in order."""
        size = 1 if assignment.isolate else self._job.window
        # All open clips of a window are in memory at once; a window, not a shard, bounds what a worker holds.
        for window in _windows(clips, size):
            for clip in window:
                if clip.is_open:
                    clip.work.folder = Path(tempfile.mkdtemp(dir=self._scratch))
            try:
                for group in self._groups:
                    for stage in group.stages:
                        run_stage(stage, window, report, self._notes, isolate=assignment.isolate)
            finally:
                for clip in window:
                    if clip.work.folder is not None:
                        shutil.rmtree(clip.work.folder, ignore_errors=True)
            for clip in window:
                clip.work.folder = clip.work.source_path = clip.work.probe = None
                clip.work.forget_decoded()
            for clip in window:
                if clip.work.read_members is not None:
                    clip.work.read_members()
                    clip.work.read_members = None
                yield clip
        if report.trace is not None:
            report.trace.setup_s |= self._setup_s
            report.trace.peak_bytes = max(report.trace.peak_bytes, peak_bytes())

    def finish(self, clips: Iterable[Clip], assignment: Assignment, report: ShardReport) -> None:
        """Mark the clips that are still open as kept, write all of them with their members, and commit the shard."""
        assert self._loader is not None
        shard = assignment.shard
        extra, job = self._loader.extra_schema, self._job
        with ShardWriter(job.storage, shard, job.layers, self._scratch, extra, job.inherited) as writer:
            for clip in clips:
                if clip.is_open:
                    clip.status = "kept"
                # By now the hash of the file and its uploader are known.
                clip = job.removals.apply(clip, COMMIT)
                clip.fingerprint = job.fingerprint
                with report.timed(COMMIT, (clip.clip_id,)):
                    writer.add(clip)
                report.outcomes[clip.status] += 1
                self._notes.advance(report)
            # No clip is to blame for a death from here on.
            self._notes.begin(shard, UnderWay(stage=COMMIT, clip_ids=()), surely=assignment.isolate)
            with report.timed(COMMIT):
                writer.commit({"fingerprint": job.fingerprint})

    def make(self, assignment: Assignment) -> ShardReport:
        """Make a whole shard, from plan to commit, in this process, or give it back."""
        report = self._job.report(assignment)
        self._take_turn(assignment.shard)
        self._making[assignment.shard] = assignment
        # Each shard may have one more made beside it, and no further one.
        self._has_asked = False
        try:
            self.finish(self.process(self.load(assignment), assignment, report), assignment, report)
        except NotNowError as error:
            report.give_back(error)
        finally:
            del self._making[assignment.shard]
            self._asking.discard(assignment.shard)
            self._turn.release()
            # The other one may have asked while there were two.
            self._ask_for_more()
        return report

    def _ask_for_more(self) -> None:
        with self._asking_lock:
            # After a death each clip is alone, so that the next one tells which it was.
            # A copy, as the other thread may begin its shard at any moment.
            making = list(self._making.values())
            is_alone = len(making) == 1 and making[0].shard in self._asking and not making[0].isolate
            if self._more is not None and is_alone and not self._has_asked:
                self._has_asked = True
                self._more()

    def _take_turn(self, shard: int) -> None:
        self._turn.acquire()
        self._shard = shard
        self._notes.turn(shard)

    @contextmanager
    def _waiting(self) -> Iterator[Callable[[], None]]:
        """Let another shard be made meanwhile; gives the function that asks for one."""
        shard = self._shard
        self._asking.discard(shard)

        def ask() -> None:
            self._asking.add(shard)
            self._ask_for_more()

        # Before it is released: the next note of a turn is of whoever takes it.
        self._notes.turn(None)
        self._turn.release()
        try:
            yield ask
        finally:
            self._take_turn(shard)


def peak_bytes() -> int:
    """Return the memory of this process at its highest, with that of its largest child that has ended."""
    # In KiB on Linux, in bytes on macOS. A spawned process begins with what its parent had at that time.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _windows(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    """Cut the clips into windows with ``size`` open ones each; the others hold no media, and wait for no stage."""
    window: list[Clip] = []
    open_clips = 0
    for clip in clips:
        window.append(clip)
        open_clips += clip.is_open
        if open_clips == size:
            yield window
            window, open_clips = [], 0
    if window:
        yield window


def fatal_text(error: BaseException) -> tuple[str, str]:
    """The class name and the one-line text of an error that ends the run, to be sent to the driver."""
    # As text: an exception of a stage's library may not be picklable, or not importable in the driver.
    if isinstance(error, VidalError):
        return type(error).__name__, str(error)
    return MachineError.__name__, f"a worker failed: {type(error).__name__}: {one_line(error, 500)}"


def fatal_error(class_name: str, text: str) -> VidalError:
    """The error that `fatal_text` described; a `MachineError` where its class is not of vidal's."""
    import vidal.errors

    kind = getattr(vidal.errors, class_name, MachineError)
    return kind(text) if issubclass(kind, (UserError, MachineError)) else MachineError(text)
