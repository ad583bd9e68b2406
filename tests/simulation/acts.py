"""What simulated processes do: the real plan, lock, writer and reader, with a few bytes a clip in place of media.

Each attempt writes other bytes, as a crawl may be answered otherwise, so that a shard of two attempts is seen as such.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tests.simulation.checker import Checker
from tests.simulation.store import SCHEME
from vidal.clip import SCHEMA_VERSION
from vidal.dataset import manifest, planning, revisions
from vidal.dataset import plan as plans
from vidal.dataset.commit import ShardWriter
from vidal.dataset.dataset import Dataset, DatasetInfo, read_info, write_info
from vidal.dataset.lock import Lock
from vidal.dataset.storage import Storage
from vidal.errors import StorageError
from vidal.record import from_row
from vidal.work import Member

ADDRESS = f"{SCHEME}://bucket/out"
LAYERS = ("video", "depth")
_SHARD_SIZE = 2
_SEEN = ["clip_id", "shard", "members"]
_CLIPS = [f"c{number}" for number in range(3)]
_PLAN = planning.make(
    pa.table({"clip_id": _CLIPS, "url": [f"{clip_id}.mp4" for clip_id in _CLIPS]}), shard_size=_SHARD_SIZE, seed=0
)
_INFO = DatasetInfo(
    name="simulated", schema_version=SCHEMA_VERSION, fingerprint="f", layers=list(LAYERS), candidates=len(_CLIPS),
    shards=-(-len(_CLIPS) // _SHARD_SIZE), recipe={}, definition={}, created_by="a simulation",
)  # fmt: skip


@functools.cache
def _plan_file() -> bytes:
    """The plan's file, which is written in one put as by `plans.write`: Parquet's writer takes 4 ms."""
    storage = Storage("memory://simulation")
    plans.write(storage, _PLAN, _SHARD_SIZE)
    return storage.read(plans.NAME)


def build(word: str) -> None:
    """Build the shards that are not committed, as a run does; ``word`` tells its bytes from others'."""
    storage = Storage(ADDRESS)
    with Lock(storage):
        if read_info(storage) is None:
            storage.write(plans.NAME, _plan_file())
            write_info(storage, _INFO)
        dataset = Dataset.at(storage)
        for shard in sorted(set(range(_INFO.shards)) - set(dataset.committed())):
            _commit(dataset, shard, word)


def rewrite(word: str, shard: int) -> None:
    """Write one shard anew, as a retry or a removal does."""
    storage = Storage(ADDRESS)
    with Lock(storage):
        if read_info(storage) is not None:
            _commit(Dataset.at(storage), shard, word)


def _commit(dataset: Dataset, shard: int, word: str) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        ShardWriter(dataset.storage, shard, LAYERS, Path(scratch), dataset.extra_schema) as writer,
    ):
        for row in dataset.plan.rows(shard):
            clip = from_row({**row, "status": "kept", "fingerprint": dataset.info.fingerprint})
            # Of several lengths, so that members of another attempt lie elsewhere.
            data = f"{clip.clip_id} of {word} ".encode() * (1 + len(word) % 3)
            clip.work.put(Member(layer="video", suffix="mp4", data=data))
            clip.work.put(Member(layer="depth", suffix="bin", data=data[::-1]))
            writer.add(clip)
        writer.commit({"fingerprint": dataset.info.fingerprint})


def read(checker: Checker) -> None:
    """Read all that is committed, as a loader does, and hold each member to its row and each row to its revision."""
    rewrites, is_quiet = checker.rewrites, checker.unfinished_rewrites == 0
    try:
        dataset = Dataset.open(ADDRESS)
        wrong = list(unsound(dataset))
        if dataset.number and (missing := set(range(dataset.info.shards)) - set(dataset.committed())):
            wrong.append(f"revision {dataset.number} without shard {min(missing)}")
    except (FileNotFoundError, StorageError) as error:
        # A request that fails is nobody's fault, a file that is not there is.
        wrong = [f"an error: {error}"] if "no such object" in str(error) else []
    if is_quiet and checker.rewrites == rewrites:
        for line in wrong:
            checker.fault(f"a reader sees {line}")


def unsound(dataset: Dataset) -> Iterator[str]:
    """Yield what is wrong in the committed shards of a dataset, as a reader sees them."""
    fingerprints = {dataset.info.fingerprint, *dataset.info.carried}
    for shard in dataset.committed():
        data = dataset.manifest_bytes(shard)
        if manifest.metadata_of(manifest.read_schema(data))["fingerprint"] not in fingerprints:
            yield f"shard {shard} of another revision"
        rows = manifest.read(data, _SEEN).to_pylist()
        if (ids := [row["clip_id"] for row in rows]) != dataset.plan.clip_ids(shard):
            yield f"shard {shard} with the rows {ids} and not those of the plan"
        for row in rows:
            for member in row["members"]:
                if hashlib.sha256(dataset.read_member(row, member["name"])).hexdigest() != member["sha256"]:
                    yield f"{member['name']} with other bytes than its row says"


def check(checker: Checker) -> None:
    """Hold every revision of the finished dataset to its plan and its manifests."""
    root = Dataset.open(ADDRESS).storage
    for number in [0, *(n for n in revisions.numbers(root) if n <= revisions.current(root))]:
        dataset = Dataset.open(f"{ADDRESS}@{number}")
        if (shards := dataset.committed()) != list(range(dataset.info.shards)):
            checker.fault(f"in the end revision {number} has the shards {shards}")
        for line in unsound(dataset):
            checker.fault(f"in the end, revision {number} has {line}")
