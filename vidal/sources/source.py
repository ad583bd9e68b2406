"""The base class of sources, which yield an Arrow table of candidates with a column ``url`` and any other columns.

Columns that `vidal.clip.Clip` declares in its crawl group keep their name. Any other column keeps its name, unless
`Clip` uses it for something else: then it is prefixed with ``crawl_``. Two more columns are for the plan: the line of
each candidate, and why it is unusable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from vidal.addresses import ALL_SCHEMES
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.record import Column
from vidal.rows import TableLike
from vidal.sources.normalise import GIVEN_COLUMNS
from vidal.stage import Stage


class Source(BaseModel):
    """Where candidates come from: the ``source`` of a recipe."""

    model_config = ConfigDict(extra="forbid")

    asks: ClassVar[bool] = False
    """Whether candidates have to be asked for, so that a dataset's folder has something in it before its plan."""

    needs_step: ClassVar[str | None] = None
    """A stage without which the candidates would not be what they are; a recipe that lacks it is rejected."""

    def candidates(self) -> TableLike:
        """Return every candidate, in the source's own order: an Arrow table, or rows that are read part by part.

        Raises `SourceError` if there is none.
        """
        raise NotImplementedError

    def discover(self, storage: Storage, stages: Sequence[Stage], removals: Removals) -> TableLike:
        """The candidates of the plan that a dataset is about to get.

        A source that `asks` keeps the answers in the dataset's ``storage``, without what is on the list of
        ``removals``, and asks as the recipe's ``stages`` visit. Raises `SourceError` where there is no candidate,
        `RecipeError` where no stage says how to visit.
        """
        return self.candidates()

    def earlier_datasets(self) -> list[str]:
        """Return the addresses of the datasets that the clips come from, with their rows and members; mostly none."""
        return []

    def removals(self) -> list[str]:
        """Return the lists of removals that those datasets remember; raises `SourceError` for one that is gone."""
        return []

    def removed(self) -> Removals:
        """Return what was removed from one of several such datasets, which the others may have."""
        return Removals()

    def identity(self) -> dict[str, Any]:
        """What stands for the source's content in the fingerprint."""
        raise NotImplementedError

    def base(self) -> str:
        """Return the folder against which relative urls are resolved, empty for none."""
        return ""

    def schemes(self) -> tuple[str, ...]:
        """What kinds of address its candidates may have, where the recipe does not say so in ``fetch.schemes``."""
        return ALL_SCHEMES

    def columns(self) -> set[str]:
        """Return the columns and layers that clips of this source come with."""
        return set(GIVEN_COLUMNS)

    def own_columns(self) -> set[str]:
        """Columns that `Clip` has no field for; reads the source, so it is asked only where a step reads one."""
        return set()

    def declared(self) -> dict[str, Column]:
        """Return the columns that stages have declared in the dataset that the clips come from."""
        return {}

    def layers(self) -> list[str]:
        """Return the layers that clips of this source come with."""
        return []

    def modalities(self) -> dict[str, str]:
        """Return the ``package.module:NAME`` of each of those layers' modalities that is not vidal's own."""
        return {}


def file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
