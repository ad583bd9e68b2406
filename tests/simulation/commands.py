"""Whole commands over one dataset in a world, by the real driver and the real revisions, with stages of a few bytes."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests.runs import Silence, write_list, write_recipe
from tests.simulation.acts import ADDRESS
from tests.simulation.store import SimulatedS3
from vidal import recipe as recipes
from vidal.clip import Clip
from vidal.dataset import revisions
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.engine import driver
from vidal.engine.driver import Run
from vidal.engine.local import InProcessEngine
from vidal.errors import ClipError, NothingNewError
from vidal.recipe import Recipe
from vidal.record import Column
from vidal.removal.remove import remove as remove_clips
from vidal.revisions import add as additions
from vidal.revisions import grow as growth
from vidal.revisions.refilter import refilter as refilter_clips
from vidal.revisions.revise import finished
from vidal.stage import Stage
from vidal.work import Member

REMOVED = "c001"
_FAILING = "later"
_TITLES = ["aa", "aaaa", _FAILING]


def _word() -> str:
    """What tells the bytes of one attempt from those of another."""
    world = SimulatedS3.store.world
    return world.me().process.name if world.current else "nobody"


class Film(Stage):
    """A video of some bytes; the clip named so fails until it is retried."""

    layers = ("video",)
    columns: ClassVar[Mapping[str, Column]] = {"letters": Column(int, "letters of the title")}
    reads = ("title",)

    def process(self, clip: Clip) -> None:
        if clip.title == _FAILING and clip.attempts < 2:
            raise ClipError("rate_limited", "429", transient=True)
        clip["letters"] = len(clip.title or "")
        data = f"{clip.clip_id} of {_word()} ".encode() * (1 + len(_word()) % 3)
        clip.work.put(Member(layer="video", suffix="mp4", data=data))


class Long(Stage):
    """Rejects titles of few letters."""

    reads = ("letters",)
    min: int = 1

    def process(self, clip: Clip) -> None:
        if (letters := clip["letters"]) < self.min:
            clip.reject("short", f"{letters} < {self.min}", value=letters, limit=self.min)


class Depth(Stage):
    """A further layer."""

    reads = ("letters",)
    layers = ("depth",)

    def process(self, clip: Clip) -> None:
        clip.work.put(Member(layer="depth", suffix="bin", data=f"depth of {clip.clip_id} by {_word()}".encode()))


_FILM, _LONG, _DEPTH = (f"tests.simulation.commands:{kind.__name__}" for kind in (Film, Long, Depth))


@functools.cache
def _files() -> tuple[Recipe, Path, str]:
    """The recipe of the dataset, the file of what is added to it, and the source by which it grows."""
    folder = Path(tempfile.mkdtemp(prefix="vidal-simulation-"))
    recipe = recipes.load(write_recipe(folder, [_FILM, _LONG], _TITLES, shards={"size": 2}))
    (folder / "add.yaml").write_text(yaml.safe_dump({"stages": [_DEPTH]}))
    (folder / "longer").mkdir()
    return recipe, folder / "add.yaml", f"list={write_list(folder / 'longer', [*_TITLES, 'aaa'])}"


def _run(recipe: Recipe, **keys: Any) -> Run:
    return Run(recipe, Storage(ADDRESS), InProcessEngine(), Silence(), **keys)


def build() -> None:
    if not driver.is_complete(_files()[0], Storage(ADDRESS)):
        driver.build(_run(_files()[0]))


def retry() -> None:
    """Retry the failed clips, as `vidal.build.retry` chooses them."""
    dataset = Dataset.open(ADDRESS)
    chosen: dict[int, dict[str, int]] = {}
    for row in dataset.rows(["clip_id", "shard", "status", "is_transient", "attempts"]):
        if row["status"] == "failed" and row["is_transient"]:
            chosen.setdefault(row["shard"], {})[row["clip_id"]] = row["attempts"]
    if chosen:
        revisions.refuse(dataset.storage, "vidal retry")
        driver.build(_run(_files()[0], retry=chosen, removed=Removals.of(dataset)))


def add() -> None:
    _, path, _ = _files()
    base = finished(ADDRESS)
    if not additions.is_there(path, (), base) and "depth" not in base.info.layers:
        additions.add(_run(additions.load(path, (), base)), path, base)


def grow() -> None:
    source = [_files()[2]]
    base = finished(ADDRESS)
    try:
        growth.grow(_run(growth.load(base, source, ())), base, source)
    except NothingNewError:
        return


def refilter() -> None:
    refilter_clips(ADDRESS, [f"{_LONG}.min=3"])


def remove() -> None:
    remove_clips(ADDRESS, Removals({"clip_id": frozenset([REMOVED])}))
