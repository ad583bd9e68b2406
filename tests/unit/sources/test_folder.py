"""The candidates of a folder are its media files, in order; what it skips is counted by kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.processes import command
from tests.runs import PAINT, SAME_TITLE, SHADE
from vidal.crawl.files import path_of
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import notes_of
from vidal.errors import SourceError
from vidal.rows import whole
from vidal.sources.folder import FolderSource


def folder_of(folder: Path, *names: str) -> FolderSource:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return FolderSource(folder=str(folder))


def test_a_folder_gives_its_media_files_in_order_each_under_an_address_that_fetch_opens(tmp_path: Path) -> None:
    names = ["b/two_words.MP4", "a.webm", "C.MTS", "x.gif", "song.Flac", "file:/y.mp4", ".hidden.mov", "caf\udce9.mp4"]
    source = folder_of(tmp_path, *names)
    table = whole(source.candidates())
    assert table.to_pylist() == [
        {"url": ".hidden.mov", "title": ".hidden"},
        {"url": "C.MTS", "title": "C"},
        {"url": "a.webm", "title": "a"},
        {"url": "b/two_words.MP4", "title": "two words"},
        {"url": "file:caf%E9.mp4", "title": "caf\ufffd"},
        {"url": "file:file%3A/y.mp4", "title": "y"},
        {"url": "song.Flac", "title": "song"},
        {"url": "x.gif", "title": "x"},
    ]
    paths = [Path(source.base(), path_of(url)) for url in table.column("url").to_pylist()]
    assert sorted(path.read_bytes() for path in paths) == sorted(map(os.fsencode, names))
    assert notes_of(table.schema) == []


def test_what_a_folder_skips_is_counted_by_kind(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").touch()
    source = folder_of(folder, "a.mp4", "a.srt", "notes.TXT", "b.txt", "README")
    (folder / "linked.mp4").symlink_to(folder / "a.mp4")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    table = whole(source.candidates())
    assert table.column("url").to_pylist() == ["a.mp4", "linked.mp4"]
    assert notes_of(table.schema) == [
        "videos/: 2 files; skipped 6: 4 of another kind (.txt, .srt, no suffix), 2 symlinked folders"
    ]


def test_what_a_source_noted_is_told_by_the_build_and_kept_with_the_plan(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    folder_of(tmp_path / "videos", "a.mp4", "b.txt")
    note = "videos/: 1 file; skipped 1: 1 of another kind (.txt)"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"source": {"folder": "videos"}, "stages": [PAINT, SAME_TITLE, SHADE]}))
    for out, more in (("told", []), ("json", ["--json"]), ("json", ["--json"])):
        done = command("build", recipe, "--out", tmp_path / out, "--engine", "local", "--workers", "0", *more)
        assert done.returncode == 0
        assert json.loads(done.stdout)["notes"] == [note] if more else done.stdout.count(f"{note}\n") == 1
        assert Dataset.open(str(tmp_path / out)).plan.notes == [note]


def test_a_folder_without_media_or_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no media file under it; looked for \.3gp"):
        FolderSource(folder=str(tmp_path)).candidates()
    with pytest.raises(SourceError, match=r"no such folder; source\.folder names a folder of media files"):
        FolderSource(folder=str(tmp_path / "no")).candidates()
