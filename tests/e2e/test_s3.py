"""A dataset in an object store is built, verified, resumed and read like one on a disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas
import pytest
import yaml
from rich.console import Console

import vidal
from tests.processes import command
from tests.processes import vidal as process
from tests.runs import FEW_LETTERS, LETTERS, PAINT, SAME_TITLE, SHADE, digests, run, write_list, write_recipe
from tests.store import s3_server
from vidal.build import How, add, grow
from vidal.dataset import lock
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.dataset.verify import verify
from vidal.doctor import examine_store
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.errors import OutputError, StorageError
from vidal.removal.remove import remove
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import drop
from vidal.view.api import Api
from vidal.view.server import Server, serve

BUCKET = "films"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server(BUCKET) as address:
        yield address


def stored(address: str) -> dict[str, bytes]:
    """Every object below an address but the lock's, which count the runs."""
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    root = address.removeprefix("s3://")
    paths = (path for path in fs.find(root) if f"/{lock.FOLDER}/" not in path)
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in paths}


def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file of a local dataset but the lock's."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != lock.FOLDER)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def built(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a recipe and its dataset, and the address of the same dataset in the store."""
    folder = tmp_path_factory.mktemp("s3")
    recipe = write_recipe(folder, [PAINT, SAME_TITLE, SHADE], [f"title {n % 8}" for n in range(10)])
    run(recipe, folder / "out", InProcessEngine())
    address = f"s3://{BUCKET}/some/where/out"
    run(recipe, address, PoolEngine(2))
    return folder, address


def test_the_objects_are_the_files_of_a_local_dataset(built: tuple[Path, str]) -> None:
    folder, address = built
    assert stored(address) == on_disk(folder / "out")
    assert list(verify(Dataset.open(address))) == []


def test_pandas_reads_the_manifest_where_it_is(built: tuple[Path, str]) -> None:
    folder, address = built
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": "test", "secret": "test"}
    table = pandas.read_parquet(f"{address}/manifest", storage_options=options)
    wanted = pandas.read_parquet(folder / "out" / "manifest")
    pandas.testing.assert_frame_equal(table.sort_values("position", ignore_index=True), wanted)


def test_a_member_is_read_by_its_range(built: tuple[Path, str]) -> None:
    dataset = Dataset.open(built[1])
    row = next(row for row in dataset.rows() if row["status"] == "kept")
    name = f"{row['clip_id']}.mp4"
    assert dataset.read_member(row, name) == row["url"].encode() * 50


def test_a_run_that_lost_shards_is_finished_and_then_does_nothing(built: tuple[Path, str]) -> None:
    folder, address = built
    before = stored(address)
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    for name in ("manifest/000001.parquet", "depth/000001.tar", "phases/1/manifest/000000.parquet"):
        fs.rm(f"{address}/{name}")
    assert sorted(run(folder / "toys.yaml", address, PoolEngine(1)).done_shards) == [0, 1]
    assert stored(address) == before
    assert run(folder / "toys.yaml", address, PoolEngine(1)).done_shards == []
    done = command("build", folder / "toys.yaml", "--out", address, "--engine", "local", "--workers", "0", "--json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["did_nothing"]) == (0, "", True)


def test_a_second_driver_and_another_recipe_are_rejected(built: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = built
    with lock.Lock(Storage(address)), pytest.raises(OutputError, match="another run"):
        run(folder / "toys.yaml", address, InProcessEngine())
    with pytest.raises(OutputError, match="built from a different recipe"):
        run(write_recipe(tmp_path, [PAINT], 3), address, InProcessEngine())
    with lock.Lock(Storage(address)):
        pass


def test_a_bucket_that_is_not_there_and_a_server_that_is_away_are_one_line(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, [PAINT], 3)
    with pytest.raises(StorageError, match=r"^s3://nobodys/out") as caught:
        run(recipe, "s3://nobodys/out", InProcessEngine())
    assert "\n" not in str(caught.value)
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = process("build", recipe, "--out", f"s3://{BUCKET}/x", "--engine", "local", "--workers", "0", env=away)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"vidal: s3://{BUCKET}/x")


def test_a_store_without_credentials_says_what_to_set(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # In a process of its own, as this one has a session with the store already.
    done = process("status", f"s3://{BUCKET}/some/where/out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stderr


def test_the_doctor_tells_a_store_that_refuses_a_second_writer_from_one_that_does_not(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{BUCKET}/new"
    assert examine_store(Storage(address)).is_well
    store = type(fsspec.filesystem("s3"))
    inner = store.call_s3

    def without_conditions(self: object, method: str, *more: object, **keys: object) -> object:
        return inner(self, method, *more, **{k: v for k, v in keys.items() if not k.startswith("If")})

    monkeypatch.setattr(store, "call_s3", without_conditions)
    finding = examine_store(Storage(address))
    assert not finding.is_well and "(create, replace, delete): two runs could write at once" in finding.detail
    assert stored(address) == {}
    assert not examine_store(Storage("s3://nobodys/new")).is_well


def test_an_export_goes_to_the_store(built: tuple[Path, str]) -> None:
    from vidal.export.export import write_joint

    folder, address = built
    out = f"s3://{BUCKET}/joint"
    assert write_joint(Dataset.open(address), out).clips == 8
    write_joint(Dataset.open(str(folder / "out")), str(folder / "joint"))
    local = {path.name: path.read_bytes() for path in (folder / "joint").iterdir()}
    assert stored(out) == local
    assert sorted(digests(folder / "joint")) == sorted(local)


def test_revisions_in_the_store_are_those_of_a_local_dataset(endpoint: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], ["a", "ab", "abc", "abcd", "abcde"])
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"stages": [SHADE]}))
    (tmp_path / "longer").mkdir()
    longer = f"list={write_list(tmp_path / 'longer', ['a', 'ab', 'abc', 'abcd', 'abcde', 'xyz'])}"
    places = (f"s3://{BUCKET}/revised", str(tmp_path / "revised"))
    for address in places:
        run(recipe, address, InProcessEngine())
        how, console = How(engine="local", workers=0), Console(quiet=True)
        add(tmp_path / "more.yaml", address, how, console, quiet=True)
        grow(address, [longer], how, console, quiet=True)
        refilter(address, [f"{FEW_LETTERS}.min=3"])
        remove(address, Removals({"clip_id": frozenset(["c004"])}))
        assert [len(vidal.open(f"{address}{suffix}")) for suffix in ("@0", "@1", "@2", "")] == [4, 4, 5, 3]
        assert not [*verify(Dataset.open(address)), *verify(Dataset.open(f"{address}@2"))]
    assert stored(places[0]) == on_disk(Path(places[1]))
    drop(places[0], 3)
    assert len(vidal.open(places[0])) == 5 and not [name for name in stored(places[0]) if "revisions/3" in name]


def test_a_dataset_in_a_store_is_viewed_and_flagged(built: tuple[Path, str]) -> None:
    folder, address = built[0], f"{built[1]}-viewed"
    run(folder / "toys.yaml", address, InProcessEngine())
    server = Server(Api(Dataset.open(address)))
    thread = threading.Thread(target=serve, args=[server])
    thread.start()

    def ask(path: str, data: bytes | None = None, **headers: str) -> bytes:
        request = urllib.request.Request(f"{server.url}{path}", data, headers)
        return bytes(urllib.request.urlopen(request, timeout=30).read())

    rows = json.loads(ask("api/clips?where=status%3D'kept'&sort=clip_id"))["rows"]
    clip = json.loads(ask(f"api/clip?clip={rows[0]['clip_id']}&shard={rows[0]['shard']}"))
    member = next(member for member in clip["members"] if member["type"] == "video/mp4")
    whole = ask(member["url"])
    assert member["tar"].startswith(f"{address}/video/") and hashlib.sha256(whole).hexdigest() == member["sha256"]
    assert ask(member["url"], Range="bytes=3-9") == whole[3:10]
    flag = json.dumps({"clip": rows[0]["clip_id"], "flag": "unsafe"}).encode()
    ask("api/flags", flag, **{"Content-Type": "application/json"})
    assert [row["clip_id"] for row in json.loads(ask("api/clips?where=flag_unsafe"))["rows"]] == [rows[0]["clip_id"]]
    assert len(vidal.open(address, where="not flag_unsafe")) == len(rows) - 1
    server.shutdown()
    thread.join()
