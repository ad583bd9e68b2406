"""The engine on Ray Data: one row is one shard, one actor pool is one group.

Ray Data streams, applies back-pressure, scales, spills and survives the loss of nodes. No clip depends on its fault
handling: the map function returns one row for each row, and a row that does not come back is a shard without a
manifest, which the next pass makes.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidal.clip import Clip
from vidal.engine.job import Assignment, Group, Job, Notes, Progress, ShardReport, UnderWay
from vidal.engine.ray_cluster import RayCluster
from vidal.engine.ray_nodes import beside_the_driver, gone_nodes, leaving_nodes, own_node
from vidal.engine.shared import ActorProxy
from vidal.engine.worker import Worker, become_worker, environment, fatal_error, fatal_text
from vidal.errors import NotNowError
from vidal.models.inventory import as_elsewhere
from vidal.stage import Direct, Shared

_FEWEST_PER_EXECUTION = 2_000
"""Rows of one Ray Data execution on a small cluster: few enough to keep the driver's memory small."""

_SHARDS_PER_WORKER = 16
"""From this many shards per worker on, each worker has its next shard queued, as Ray takes a tenth of a second to send
one. With fewer, waiting for the last worker at the end would cost more than these gaps."""

_SMALL, _LARGEST_SHARE = 0.001, 0.99
"""Cores that the first worker of a pool asks for, and any other one at most, where there are several pools."""

_WITH_ITS_NODE = UnderWay(is_machines_fault=True)

Row = dict[str, Any]


class RayEngine:
    """Runs groups as Ray Data actor pools, on a Ray of its own or on a cluster that it joins."""

    def __init__(self, cluster: RayCluster, workers: int | None, gpu_workers: int | None) -> None:
        self._cluster = cluster
        self._workers = workers
        self._gpu_workers = gpu_workers
        self._ledger: Any = None

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        # Ray reads its authentication mode when it is first imported, so `start` comes before.
        self._cluster.start()
        import ray

        self._ledger = beside_the_driver(Ledger, is_replaceable=True)
        left: dict[int, UnderWay | NotNowError] = {}
        start = 0
        while start < len(assignments):
            # Asked anew, as the cluster may have grown.
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            pools = cut_into_pools(job.groups, resources, self._workers, self._gpu_workers)
            part = assignments[start : start + shards_per_execution(max(pool.size for pool in pools))]
            start += len(part)
            done = set()
            for report in self._execute(job, pools, part, progress):
                done.add(report.shard)
                progress.done(report)
                if report.not_now is not None:
                    left[report.shard] = report.not_now
            lost = [a.shard for a in part if a.shard not in done]
            try:
                notes: dict[int, Note] = ray.get(self._ledger.notes.remote())
                gone = gone_nodes({notes[shard].node for shard in lost if shard in notes})
            except ray.exceptions.RayError as error:
                raise self._cluster.error(error) from error
            # A worker may die before its note arrives: that shard, too, is retried clip by clip.
            for shard in lost:
                note = notes.get(shard)
                left[shard] = UnderWay() if note is None else _WITH_ITS_NODE if note.node in gone else note.under_way
        return left

    def has_gpu(self) -> bool:
        self._cluster.start()
        import ray

        return float(ray.cluster_resources().get("GPU", 0)) > 0  # type: ignore[no-untyped-call]

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        if not objects:
            return {}
        self._cluster.start()

        def proxy_of(target: object) -> ActorProxy:
            return ActorProxy(beside_the_driver(Direct, target, cluster_name=getattr(target, "cluster_name", "")))

        return {name: proxy_of(target) for name, target in objects.items()}

    def _execute(
        self, job: Job, pools: Sequence[Pool], assignments: Sequence[Assignment], progress: Progress
    ) -> Iterator[ShardReport]:
        import ray.data

        # Pickled, as the columns of a row are Arrow's, which has no types for these.
        rows: list[Row] = [
            {"assignment": pickle.dumps(a), "clips": b"", "report": b"", "fatal": b""} for a in assignments
        ]
        # One block a row, as Ray Data loses or retries whole blocks.
        dataset: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
        # Machines of a cluster need not have the driver's models.
        models = None if self._cluster.address is None else [
            [stage.named_models() for stage in group.stages] for group in job.groups
        ]  # fmt: skip
        for index, pool in enumerate(pools):
            size = min(pool.size, len(rows))
            most = min(pool.most or len(rows), len(rows))
            in_flight = 2 if len(rows) >= size * _SHARDS_PER_WORKER else 1
            dataset = dataset.map(
                GroupActor,
                fn_constructor_args=(job, index, self._ledger, models and models[index]),
                compute=ray.data.ActorPoolStrategy(
                    # It grows with the cluster. A worker whose node has gone waits for room, which a cluster that
                    # scales by itself makes.
                    min_size=size,
                    max_size=most,
                    max_tasks_in_flight_per_actor=in_flight,
                ),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                # A dead worker is replaced, but its shard is not tried again here: the next pass does that clip by
                # clip, where Ray would run into the same clip for ever.
                max_restarts=-1,
                max_task_retries=0,
                ray_remote_args_fn=_FirstIsSmall() if len(pools) > 1 else None,
                runtime_env={"env_vars": environment(gpus=pool.gpus)},
            )
        for row in self._rows(dataset, progress):
            if row["fatal"]:
                raise fatal_error(*pickle.loads(row["fatal"]))
            yield pickle.loads(row["report"])

    def _rows(self, dataset: Any, progress: Progress) -> Iterator[Row]:
        """The rows of a dataset as they arrive, while a thread reports the counts; Ray's errors are translated."""
        import threading

        import ray

        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(1.0):
                try:
                    reports = ray.get(self._ledger.reports.remote(), timeout=10.0)
                except ray.exceptions.RayError:
                    # Counts are optional: where Ray itself fails, the rows raise.
                    continue
                for report in reports:
                    progress.update(report)
                progress.tick()

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield from dataset.iter_rows()
        except ray.exceptions.RayError as error:
            raise self._cluster.error(error) from error
        finally:
            stop.set()
            follower.join()

    def close(self) -> None:
        self._cluster.stop()


def shards_per_execution(workers: int) -> int:
    """Return how many shards one execution has, if its largest pool has so many workers.

    Each execution starts its workers anew and waits for the last of them, so that it has many shards for each.
    """
    return max(_FEWEST_PER_EXECUTION, _SHARDS_PER_WORKER * workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The number of workers of one group, and the resources that Ray reserves for each."""

    size: int
    most: int | None
    """The number to which it may grow with the cluster; None: as many as find room."""
    cpus: float
    gpus: float


def cut_into_pools(
    groups: Sequence[Group], resources: Mapping[str, float], workers: int | None, gpu_workers: int | None
) -> list[Pool]:
    """One pool per group, all fitting at once: a pool that waited for another's cores or GPU would block for ever."""
    cpus, gpus = max(resources.get("CPU", 1.0), 1.0), max(resources.get("GPU", 1.0), 1.0)
    gpu_groups = sum(group.gpus > 0 for group in groups)
    cpu_groups = len(groups) - gpu_groups
    most = [gpu_workers if group.gpus else workers and max(1, workers // cpu_groups) for group in groups]
    sizes = [
        limit or max(1, int(gpus / group.gpus / gpu_groups) if group.gpus else int(cpus) // cpu_groups)
        for group, limit in zip(groups, most, strict=True)
    ]
    # With room on each node for the small first workers.
    cpu_share = min(_LARGEST_SHARE, cpus / sum(sizes)) if len(groups) > 1 else 1.0
    gpu_share = min(1.0, gpus / max(gpus, sum(s * g.gpus for s, g in zip(sizes, groups, strict=True))))
    # Rounded down, as Ray counts resources in ten-thousandths.
    return [
        Pool(
            size=size,
            most=limit,
            cpus=math.floor(cpu_share * 1000) / 1000,
            gpus=math.floor(group.gpus * gpu_share * 1000) / 1000,
        )
        for size, limit, group in zip(sizes, most, groups, strict=True)
    ]


class _FirstIsSmall:
    """The cores of a pool's next worker: the first one finds room on any node.

    A node that is lost may have had all workers of a group, while the cores that are left are held by workers of other
    groups, which wait for them. On small nodes one worker of each group may not even find room to begin with.
    """

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self) -> dict[str, float]:
        was_first, self._is_first = self._is_first, False
        return {"num_cpus": _SMALL} if was_first else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a worker last announced for a shard, and the node that it is on, by hexadecimal id."""

    under_way: UnderWay
    node: str


class Ledger:
    """A Ray actor that keeps the latest note and counts of each worker."""

    def __init__(self) -> None:
        self._notes: dict[int, Note] = {}
        self._reports: dict[int, ShardReport] = {}

    def begin(self, shard: int, note: Note) -> None:
        self._notes[shard] = note

    def advance(self, report: ShardReport) -> None:
        self._reports[report.shard] = report

    def notes(self) -> dict[int, Note]:
        """The last note by shard; returned once, then forgotten."""
        notes, self._notes = self._notes, {}
        return notes

    def reports(self) -> list[ShardReport]:
        """The reports that changed since the last call."""
        reports, self._reports = self._reports, {}
        return list(reports.values())


class _LedgerNotes(Notes):
    """Notes to the `Ledger`: sent without waiting, or acknowledged once a worker has died on the shard."""

    def __init__(self, ledger: Any, node: str) -> None:
        self._ledger = ledger
        self._node = node
        self._sent_at = 0.0

    def begin(self, shard: int, under_way: UnderWay, *, surely: bool) -> None:
        import ray

        acknowledgement = self._ledger.begin.remote(shard, Note(under_way=under_way, node=self._node))
        if surely:
            ray.get(acknowledgement)

    def advance(self, report: ShardReport) -> None:
        # A fast stage would send thousands of messages a second to the one actor.
        now = time.monotonic()
        if now - self._sent_at > 0.5:
            self._sent_at = now
            self._ledger.advance.remote(report)


class GroupActor:
    """One worker of a group's pool: returns every row, with the clips and the report or with a fatal error."""

    def __init__(self, job: Job, index: int, ledger: Any, models: Sequence[Mapping[str, str]] | None = None) -> None:
        """``models`` are those of the driver, by stage; None on the driver's own machine."""
        become_worker(gpus=job.groups[index].gpus)
        self._is_first = index == 0
        self._is_last = index == len(job.groups) - 1
        self._job, self._group, self._ledger = job, job.groups[index], ledger
        self._models = models
        self._node = own_node()
        self._worker: Worker | None = None

    def __call__(self, row: Row) -> Row:
        # Whatever happens, one row goes out for each that comes in: an exception would cost Ray Data the whole block.
        if row["fatal"]:
            return row
        try:
            if self._node in leaving_nodes():
                # Given back to the next pass: Ray starts this worker again on a node that stays. A row that came back
                # at once would have the next one sent here, until none is left.
                shard = pickle.loads(row["assignment"]).shard
                _LedgerNotes(self._ledger, self._node).begin(shard, UnderWay(), surely=True)
                os._exit(1)
            # Here and not in the constructor: what fails here goes back as a row that says why.
            if self._worker is None:
                if self._models is not None:
                    as_elsewhere(self._group.stages, self._models)
                self._worker = Worker(self._job, [self._group], _LedgerNotes(self._ledger, self._node))
            worker = self._worker
            worker.setup()
            assignment: Assignment = pickle.loads(row["assignment"])
            # Only this run's own workers have made these pickles; what strangers wrote is in them as text.
            report = pickle.loads(row["report"]) if row["report"] else self._job.report(assignment)
            if report.not_now is not None:
                return row
            clips: Iterable[Clip] = worker.load(assignment) if self._is_first else pickle.loads(row["clips"])
            clips = worker.process(clips, assignment, report)
            pickled = b""
            try:
                if self._is_last:
                    worker.finish(clips, assignment, report)
                else:
                    pickled = pickle.dumps(list(clips))
            except NotNowError as error:
                report.give_back(error)
            return {**row, "clips": pickled, "report": pickle.dumps(report)}
        except Exception as error:
            return {**row, "clips": b"", "fatal": pickle.dumps(fatal_text(error))}
