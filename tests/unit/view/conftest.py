"""A dataset of toys and the viewer over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import AUDIO, CAPTION, FEW_LETTERS, LETTERS, PAINT, SHADE, run, write_recipe
from tests.unit.view.serving import TITLES, Client, serving
from vidal.engine.local import InProcessEngine


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips in two shards, of which two are rejected; its folder has a name that is a pattern to some."""
    folder = tmp_path_factory.mktemp("view")
    stages = [PAINT, LETTERS, FEW_LETTERS, SHADE, AUDIO, CAPTION, {"too_short": {"min_s": 1.5}}]
    out = folder / "it's [a] set*"
    run(write_recipe(folder, stages, TITLES), out, InProcessEngine())
    return out


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "mine"))


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[Client]:
    yield from serving(built)


@pytest.fixture
def writer(mine: Path) -> Iterator[Client]:
    yield from serving(mine)
