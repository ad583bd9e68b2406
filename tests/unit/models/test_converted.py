"""Models converted from GGUF: read once, and kept in a cache that one of several processes fills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from vidal.models.llm import cached_folder, parsing_once


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_gguf_file_is_parsed_once_for_a_conversion_and_anew_for_the_next() -> None:
    table = gguf.get_tensor_name_map
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == "llama")
    with parsing_once():
        first = gguf.get_tensor_name_map(arch, 2)
        assert gguf.get_tensor_name_map(arch, 2) is first
    assert gguf.get_tensor_name_map is table
    assert gguf.get_tensor_name_map(arch, 2) is not first


def test_a_conversion_reads_of_a_gguf_file_what_its_own_reader_reads(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(["<s>", "spring", "\u0120é"])
    writer.add_token_scores([0.0, -1.5, 2.0])
    writer.add_token_types([3, 1, 1])
    writer.add_tensor("f", np.arange(6, dtype=np.float32).reshape(2, 3))
    blocks = gguf.quantize(np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64), gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    with parsing_once():
        ours = gguf.GGUFReader(tmp_path / "m.gguf")
    # A map's slices are maps, each made by Python's code.
    assert (type(theirs.data), type(ours.data)) == (np.memmap, np.ndarray)
    told, expected = (
        [(name, field.types, field.contents()) for name, field in reader.fields.items()] for reader in (ours, theirs)
    )
    assert told == expected and told[-1][2] == [3, 1, 1]
    held, expected_tensors = (
        [(t.name, t.tensor_type, t.data.dtype, t.data.tolist()) for t in reader.tensors] for reader in (ours, theirs)
    )
    assert held == expected_tensors and len(held) == 2


def test_a_folder_is_built_once(cache: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "weights").write_text("w")

    assert cached_folder("m", build) == cached_folder("m", build) == cache / "m"
    assert len(built) == 1 and built[0].parent == cache
    assert [path.name for path in cache.rglob("*")] == ["m", "weights"]


def test_of_processes_that_need_it_at_once_one_builds_it(cache: Path) -> None:
    code = (
        "import time; from vidal.models.llm import cached_folder; "
        "cached_folder('m', lambda folder: (time.sleep(0.5), (folder / 'built').touch(), print('built')))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert "".join(process.communicate()[0] for process in started) == "built\n"


def test_of_two_that_build_at_once_one_wins(cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_text("mine")
        (cache / "m").mkdir()
        (cache / "m" / "weights").write_text("theirs")

    assert cached_folder("m", build) == cache / "m"
    assert (cache / "m" / "weights").read_text() == "theirs"
    assert [path.name for path in cache.iterdir()] == ["m"]


def test_a_full_disk_leaves_no_half_of_a_folder(cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    assert cached_folder("m", build) is None
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDAL_CACHE", str(tmp_path / "file" / "cache"))
    assert cached_folder("m", lambda folder: None) is None
