"""The loader's promises about failure: broken samples are named rows, a dead worker is one line and no hang."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data._utils import signal_handling

import vidal
from tools.rendering import learning_set
from vidal.errors import MachineError, StorageError
from vidal.modality.audio import AudioTransform
from vidal.modality.depth import DepthTransform
from vidal.modality.infrared import InfraredTransform
from vidal.modality.video import VideoTransform
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.slabs import allocate
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.embeddings import embed_samples
from vidal.train.towers.encoder import Encoder, TowerSettings, tower_from
from vidal.train.towers.settings import Sizes

CLIPS = 12
SMALL = {
    "video": VideoTransform(size=32),
    "depth": DepthTransform(size=32),
    "infrared": InfraredTransform(size=32),
    "audio": AudioTransform(),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learning") / "set"
    learning_set.write(str(out), clips=CLIPS, size=48, workers=1)
    return out


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "set"))


def loader(folder: Path, layer: str, workers: int = 0, epochs: int = 1, **keys) -> Loader:
    samples, pair = vidal.open(str(folder)), ("text", layer)
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=4, seed=0, epochs=epochs)
    return Loader(
        [samples], {pair: [np.arange(len(samples))]}, plan, SMALL, TextViews(), seed=0, workers=workers, **keys
    )


def members(folder: Path, layer: str, clip: int) -> list[dict[str, object]]:
    return [
        m
        for m in vidal.open(str(folder)).manifest().to_pylist()[clip]["members"]
        if m["layer"] == layer and not m["name"].endswith("json")
    ]


def overwrite(folder: Path, layer: str, clip: int, share: float, data: bytes) -> str:
    """Write into every member of a clip, from a share of its length on; gives the clip's id."""
    row = vidal.open(str(folder)).manifest().to_pylist()[clip]
    with (folder / layer / "000000.tar").open("r+b") as tar:
        for member in members(folder, layer, clip):
            tar.seek(member["offset"] + int(member["size"] * share))
            tar.write(data)
    return str(row["clip_id"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("layer", "data"),
    [
        ("video", bytes(40)),
        ("infrared", bytes(40)),
        ("depth", bytes(40)),
        ("audio", bytes(400)),
        ("video", b"\xff" * 9),
    ],
    ids=["video-zeros", "infrared-zeros", "depth-zeros", "audio-zeros", "video-ones"],
)
def test_a_damaged_sample_is_an_invalid_row_that_is_named(folder, layer, data, workers):
    broken = {overwrite(folder, layer, clip, 0.6, data) for clip in (2, 7)}
    batches: list[Batch] = list(loader(folder, layer, workers))
    named = [b for batch in batches for b in batch.broken]
    assert {b.clip_id for b in named} == broken and len(named) == 2
    assert all(b.why and "\n" not in b.why and b.dataset == str(folder) for b in named)
    rows = [
        (clip, bool(ok), x)
        for b in batches
        for clip, ok, x in zip(b.clip_ids, b.valid, b.inputs[layer][:], strict=True)
    ]
    assert {clip for clip, ok, _ in rows if not ok and clip} == broken
    assert all(not x.any() for _, ok, x in rows if not ok)
    assert len({clip for clip, ok, _ in rows if ok}) == CLIPS - 2


def test_a_tar_cut_short_names_the_samples_that_it_lost(folder):
    at = min(m["offset"] for m in members(folder, "depth", 9))
    os.truncate(folder / "depth" / "000000.tar", at)
    named = [b for batch in loader(folder, "depth") for b in batch.broken]
    assert len(named) == 3 and all("too early" in b.why for b in named)


def test_a_killed_worker_is_one_line_and_no_hang(folder, monkeypatch):
    main = os.getpid()
    original = DepthTransform.prepare

    def deadly(self, *given):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *given)

    monkeypatch.setattr(DepthTransform, "prepare", deadly)
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"a worker process died .*pid.*lower data.workers") as caught:
        list(loader(folder, "depth", workers=2))
    assert time.monotonic() - started < 30 and "\n" not in str(caught.value)


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("another", [False, True], ids=["alone", "after another DataLoader"])
def test_a_killed_worker_does_not_interrupt_the_step_under_way(another, folder, monkeypatch):
    if another:
        # Torch sets a signal handler with a process' first loader, and it stays; here, whichever test came first.
        monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
        list(torch.utils.data.DataLoader(range(4), num_workers=1))
        assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
    others = children()
    batches = iter(loader(folder, "depth", workers=1, epochs=300))
    next(batches)
    (worker,) = children() - others
    worker.kill()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        sum(range(1000))
    with pytest.raises(MachineError, match="a worker process died"):
        list(batches)


def test_workers_need_no_room_in_shared_memory(folder, monkeypatch):
    original = DepthTransform.prepare

    def limited(self, *given):
        # Files may not grow any more: the memory of a tensor in /dev/shm could not be allocated.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return original(self, *given)

    monkeypatch.setattr(DepthTransform, "prepare", limited)
    batches = list(loader(folder, "depth", workers=2))
    assert sum(batch.samples for batch in batches) == CLIPS


def test_workers_of_an_evaluation_need_no_room_in_shared_memory(folder, monkeypatch):
    original = DepthTransform.prepare

    def limited(self, *given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return original(self, *given)

    monkeypatch.setattr(DepthTransform, "prepare", limited)
    sizes = Sizes(hidden_size=16, layers=1, heads=2, patch_size=8, image_size=32)
    encoder = Encoder({"depth": tower_from(TowerSettings(sizes=sizes))}, None)
    found = embed_samples([encoder], vidal.open(str(folder)), range(CLIPS), "depth", SMALL["depth"], workers=2)
    assert (len(found.numbers), found.broken) == (CLIPS, [])


def test_batches_that_do_not_fit_into_memory_are_one_line():
    with pytest.raises(MachineError, match=r"^3 batches of \d+ MB do not fit into memory .*; lower batch_size$"):
        allocate(3, 1 << 60)


def stopped_worker(folder: Path, **keys):
    """Batches whose only worker is alive and does nothing any more."""
    others = children()
    batches = iter(loader(folder, "depth", workers=1, epochs=300, **keys))
    next(batches)
    (worker,) = children() - others
    worker.suspend()
    return batches, worker


def test_a_worker_that_stalls_ends_the_batches_in_one_line_and_is_killed(folder):
    batches, worker = stopped_worker(folder, stall_s=1.5)
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"no sample arrived from the 1 worker processes for 1.5 s.*data.stall_s"):
        list(batches)
    assert time.monotonic() - started < 30
    assert not psutil.wait_procs([worker], timeout=10)[1]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_request_to_stop_ends_a_wait_where_no_other_rank_waits_for_the_batch(folder, ranks):
    stop = threading.Event()
    batches, _ = stopped_worker(folder, stall_s=8, stop=stop, ranks=ranks)
    stop.set()
    if ranks == 1:
        assert len(list(batches)) < 10
    else:
        with pytest.raises(MachineError, match="no sample arrived"):
            list(batches)


def test_time_in_which_the_trainer_is_busy_is_no_stall(folder):
    batches = iter(loader(folder, "depth", workers=1, epochs=10, stall_s=1))
    next(batches)
    time.sleep(2)
    assert len(list(batches)) == 29


def test_a_broken_machine_is_told_in_one_line_from_a_worker(folder, monkeypatch):
    def full(*given, **named):
        raise StorageError("disk: is full")

    monkeypatch.setattr("vidal.train.data.rows.read_input", full)
    for workers in (0, 1):
        with pytest.raises(StorageError, match=r"^disk: is full$"):
            list(loader(folder, "depth", workers=workers))


def test_leaving_early_ends_the_workers(folder):
    others = children()
    batches = iter(loader(folder, "depth", workers=2, epochs=300))
    next(batches)
    workers = children() - others
    assert len(workers) >= 2
    batches.close()
    del batches
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
