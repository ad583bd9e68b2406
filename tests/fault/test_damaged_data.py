"""A dataset in a real object store: read by workers too, and what is wrong is told from what is away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

import vidal
from tools.rendering import learning_set
from vidal.errors import StorageError
from vidal.reader.index import write_index
from vidal.reader.ranges import BrokenSampleError

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

CLIPS = 12
BUCKET = "ranges"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learning") / "set"
    learning_set.write(str(out), clips=CLIPS, scenes=6, size=32, workers=1)
    return out


@pytest.fixture
def store(local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadedMotoServer]:
    """An S3 server that holds the dataset; nothing is in the cache."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "VIDAL_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    put(local, "set")
    yield server
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


def put(folder: Path, name: str) -> str:
    fs = fsspec.filesystem("s3")
    if not fs.exists(BUCKET):
        fs.mkdir(BUCKET)
    fs.put(f"{folder}/", f"{BUCKET}/{name}/", recursive=True)
    return f"s3://{BUCKET}/{name}"


def test_forks_read_from_the_store_after_their_parent_did(store: object, local: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("read_in_forks.py")
    # A fork that crashes says on stderr where.
    command = [sys.executable, "-X", "faulthandler", script, f"s3://{BUCKET}/set", local, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_a_range_is_fetched_once(store: ThreadedMotoServer, local: Path) -> None:
    samples = vidal.open(f"s3://{BUCKET}/set")
    read = samples.read(2, "depth")
    store.stop()
    assert vidal.open(local).read(2, "depth") == read == samples.read(2, "depth")


def test_another_content_at_the_same_address_is_fetched_anew(store: object, tmp_path: Path) -> None:
    """The new shards differ in one image's bytes, of the same size at the same place."""
    index, tar = tmp_path / "index", tmp_path / "a.tar"
    found = []
    for shade in (b"\xff\xd8one", b"\xff\xd8two"):
        write_tar(tar, {"k.jpg": shade, "k.txt": b"said"})
        fsspec.filesystem("s3").put_file(str(tar), f"{BUCKET}/tars/a.tar")
        shutil.rmtree(index, ignore_errors=True)
        write_index([f"s3://{BUCKET}/tars/*.tar"], str(index))
        found.append(vidal.open(index).read(0, "video", verify=True)["jpg"])
    assert found == [b"\xff\xd8one", b"\xff\xd8two"]


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    import io
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_store_that_is_away_is_not_blamed_on_the_sample(store: ThreadedMotoServer) -> None:
    samples = vidal.open(f"s3://{BUCKET}/set")
    store.stop()
    with pytest.raises(StorageError) as caught:
        samples.read(5, "video")
    assert f"s3://{BUCKET}/set/video/000000.tar" in str(caught.value) and "\n" not in str(caught.value)


DAMAGE = {
    "gone": (lambda path: fsspec.filesystem("s3").rm(path), "is missing"),
    "cut short": (lambda path: fsspec.filesystem("s3").pipe_file(path, b"x" * 700), "has 700 bytes of at least"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_tar_in_the_store_is_named_and_its_samples_are_broken(
    store: object, damage: object, said: str
) -> None:
    samples = vidal.open(f"s3://{BUCKET}/set")
    damage(f"{BUCKET}/set/depth/000000.tar")  # type: ignore[operator]
    assert [str(one) for one in samples.damaged() if f"depth/000000.tar {said}" in str(one)]
    assert len(samples.without(samples.damaged())) == 0
    with pytest.raises(BrokenSampleError, match=samples.clip_id(8)):
        samples.read(8, "depth")
    assert samples.read(8, "video")


def test_the_cache_is_where_it_was_asked_for(store: object, tmp_path: Path) -> None:
    vidal.open(f"s3://{BUCKET}/set").read(0, "depth")
    vidal.open(f"s3://{BUCKET}/set", cache=tmp_path / "mine").read(0, "depth")
    vidal.open(f"s3://{BUCKET}/set", cache=tmp_path / "none", cache_bytes=0).read(0, "depth")
    kept = {name: len(list((tmp_path / name).rglob("ranges/??/*"))) for name in ("cache", "mine", "none")}
    # A manifest and a part of a tar.
    assert kept == {"cache": 2, "mine": 2, "none": 0}
    assert os.environ["VIDAL_CACHE"] == str(tmp_path / "cache")
