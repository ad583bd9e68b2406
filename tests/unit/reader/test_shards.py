"""A manifest of an object store is fetched once, and again when it was written anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.runs import CAPTION, PAINT, run, write_recipe
from tests.store import s3_server
from vidal.dataset.dataset import manifest_tokens
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.reader.samples import Samples
from vidal.removal.remove import remove

SET = "s3://clips/set"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset of three shards, a title missing in one of them; a store is there meanwhile."""
    folder = tmp_path_factory.mktemp("built")
    titles = [f"clip {n}" if n < 8 else "" for n in range(12)]
    run(write_recipe(folder, [PAINT, CAPTION], titles), folder / "out", InProcessEngine())
    with s3_server("clips"):
        yield folder / "out"


@pytest.fixture
def fetched(built: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the manifests that were fetched from the store, which has the dataset anew."""
    store = fsspec.filesystem("s3")
    if store.exists("clips/set"):
        store.rm("clips/set", recursive=True)
    store.put(str(built), "clips/set", recursive=True)
    names: list[str] = []
    read = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, name: (names.append(name), read(self, name))[1])
    return names


def manifests(names: list[str]) -> list[str]:
    found = sorted(name for name in names if name.endswith(".parquet"))
    names.clear()
    return found


def content(samples: Samples) -> list[object]:
    return [(samples.row(i), samples.read(i, "video", verify=True)) for i in range(len(samples))]


def test_a_second_opening_fetches_no_manifest_and_is_the_same(built: Path, fetched: list[str], tmp_path: Path) -> None:
    wanted = content(Samples.open(built))
    fetched.clear()
    for expected in (["manifest/000000.parquet", "manifest/000001.parquet", "manifest/000002.parquet"], []):
        samples = Samples.open(SET, cache=tmp_path)
        assert manifests(fetched) == expected
        assert content(samples) == wanted


def test_a_clip_that_was_removed_is_in_no_later_opening(fetched: list[str], tmp_path: Path) -> None:
    Samples.open(SET, cache=tmp_path)
    remove(SET, Removals({"clip_id": frozenset(["c005"])}))
    fetched.clear()
    samples = Samples.open(SET, cache=tmp_path)
    assert len(manifests(fetched)) == 1
    assert "c005" not in samples.column("clip_id").to_pylist() and len(samples) == 11


def test_a_manifest_written_between_listing_and_fetch_is_not_kept_as_the_one_listed(
    built: Path, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_another(storage: Storage) -> dict[int, str | None]:
        listed = manifest_tokens(storage)
        # Another shard's in its place.
        storage.write("manifest/000000.parquet", (built / "manifest" / "000001.parquet").read_bytes())
        return listed

    with monkeypatch.context() as patch:
        patch.setattr("vidal.reader.samples.manifest_tokens", then_another)
        assert len(set(Samples.open(SET, cache=tmp_path).column("clip_id").to_pylist())) == 8

    Storage(SET).write("manifest/000000.parquet", (built / "manifest" / "000000.parquet").read_bytes())
    assert len(set(Samples.open(SET, cache=tmp_path).column("clip_id").to_pylist())) == 12


def test_what_the_cache_has_damaged_is_fetched_again(fetched: list[str], tmp_path: Path) -> None:
    wanted = content(Samples.open(SET, cache=tmp_path))
    for file in (tmp_path / "ranges").glob("??/*"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    fetched.clear()
    assert content(Samples.open(SET, cache=tmp_path)) == wanted
    assert len(manifests(fetched)) == 3


def test_an_opening_imports_neither_pandas_nor_other_modalities(
    built: Path, fetched: list[str], tmp_path: Path
) -> None:
    # Cold, then with what that has left in the cache; pandas took a third of the CPU time of either.
    program = f"import sys, vidal; vidal.open({SET!r}, cache={str(tmp_path)!r}); print(*sys.modules)"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert not {"pandas", "vidal.modality.audio"} & set(done.stdout.split())
