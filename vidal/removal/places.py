"""The places that a removal reaches: each is recognised by the file that says what it was made of.

    dataset.json                   a dataset that the removal's was built from, or that was built from it
    export.json, NAME.export.json  an export (`vidal export`); a Croissant file says its dataset itself
    embeddings.json                embeddings (`vidal embed`)
    run.json                       a training run, which is not changed: its checkpoints are named

A place of another dataset is refused before anything is removed anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidal.dataset import embeddings, revisions
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.export import record
from vidal.export.croissant import fingerprint_in
from vidal.export.formats import WRITERS
from vidal.removal.remove import changeable, parts

RUN_NAME = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPlace:
    """A place that a removal reaches."""

    address: str
    """As it was named; `real` is the same however that was."""
    kind: str
    """``dataset``, ``export``, ``embeddings`` or ``run``."""
    storage: Storage
    fingerprint: str
    """Of the dataset, or of the revision of it, that the place was made of."""
    dataset: Dataset | None = None
    """The dataset itself; for an export, the revision that it is of."""
    format: str = ""
    """Of an export; ``""`` for other kinds."""
    where: str | None = None
    """Condition of an export."""
    files: tuple[str, ...] = ()
    """The files of an export to a single file; empty for a place that is a whole folder."""

    @property
    def real(self) -> str:
        """The address without links and relative parts."""
        return _real(Storage(self.address))

    def rewrite(self, clip_ids: Iterable[str]) -> None:
        """Take the clips out of an export or embeddings, file by file; repeated, it goes on where it ended.

        The export is made again, of the files that changed: the clips are out of its dataset by now.
        """
        if self.kind not in ("export", "embeddings"):
            return
        if not self.files:
            # A killed export's: hidden, and a clip may be in them.
            self.storage.remove_temporaries()
        if self.kind == "embeddings":
            embeddings.erase(self.storage, set(clip_ids))
        elif self.dataset is not None:
            WRITERS[self.format](self.dataset, self.address, self.where)


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that a removal reaches, the dataset of the removal first."""

    datasets: list[Dataset]
    places: list[NamedPlace]
    fingerprints: frozenset[str] = field(default_factory=frozenset)
    """Of all datasets, their revisions and phases, and of revisions that were dropped since."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Number of the revision that has a fingerprint."""

    @classmethod
    def of(cls, address: str, also: Sequence[str]) -> Reach:
        """Recognise a dataset and the places named beside it; raises `UserError` for one that is not of it."""
        main = changeable(address)
        named = {_real(Storage(revisions.parse(place)[0])): place for place in also}
        is_dataset = {real: Storage(real).exists(revisions.INFO_NAME) for real in named}
        others = [changeable(place) for real, place in named.items() if is_dataset[real]]
        # Each once: a revision is of the dataset that it is in.
        datasets = _related(main, [*{_real(other.storage): other for other in others}.values()])
        by_fingerprint: dict[str, Dataset] = {}
        for dataset in datasets:
            for part in parts(dataset):
                by_fingerprint.setdefault(part.info.fingerprint, part)
        carried = {name for part in by_fingerprint.values() for name in part.info.carried}
        reach = cls(
            datasets, [_of_dataset(dataset) for dataset in datasets], frozenset({*by_fingerprint, *carried}),
            {name: part.number for name, part in by_fingerprint.items()},
        )  # fmt: skip
        for place in (place for real, place in named.items() if not is_dataset[real]):
            reach.places.append(_recognised(place, by_fingerprint, reach.fingerprints))
        return reach


def _real(storage: Storage) -> str:
    return os.path.realpath(storage.path()) if storage.is_local else storage.address


def _of_dataset(dataset: Dataset) -> NamedPlace:
    storage = dataset.storage
    return NamedPlace(
        address=storage.address, kind="dataset", storage=storage, fingerprint=dataset.info.fingerprint, dataset=dataset
    )


def _related(main: Dataset, others: Sequence[Dataset]) -> list[Dataset]:
    """Return the datasets with the main one first; raises `SourceError` for one without any tie to another of them."""
    related, waiting = [main], [other for other in others if _real(other.storage) != _real(main.storage)]
    while tied := [other for other in waiting if any(_is_tied(other, one) for one in related)]:
        related += tied
        waiting = [other for other in waiting if other not in tied]
    if waiting:
        raise SourceError(
            f"{waiting[0].storage.address}: is a dataset that {main.storage.address} was not built from, nor is it "
            f"built from that; remove the clips from it by a command of its own"
        )
    return related


def _is_tied(one: Dataset, other: Dataset) -> bool:
    return any(
        {part.info.fingerprint for part in parts(origin)} & _sources_of(made)
        or _real(origin.storage) in _addresses_of(made)
        for origin, made in ((one, other), (other, one))
    )


def _sources_of(made: Dataset) -> set[str]:
    """Return the fingerprints of the datasets that a dataset, or what it grew by, was built from."""
    sources = [part.info.recipe.get("source") or {} for part in parts(made)]
    each = [one for source in sources for one in source.get("datasets", [source])]
    return {one["dataset"] for one in each if isinstance(one, dict) and "dataset" in one}


def _addresses_of(made: Dataset) -> set[str]:
    # Besides the fingerprints, as a revision that it was built from may have been dropped since.
    source: Any = made.info.definition.get("source")
    source = source if isinstance(source, dict) else {}
    named = [source.get("dataset"), *(source.get("datasets") or [])]
    return {_real(Storage(revisions.parse(name)[0])) for name in named if isinstance(name, str)}


def _recognised(place: str, by_fingerprint: Mapping[str, Dataset], known: frozenset[str]) -> NamedPlace:
    storage = Storage(place)
    if storage.exists(RUN_NAME):
        return _run(place, storage, known)
    if storage.exists(embeddings.NAME):
        fingerprint = embeddings.read_info(storage).fingerprint
        if fingerprint not in known:
            raise _foreign(place, "embeddings", fingerprint)
        return NamedPlace(address=place, kind="embeddings", storage=storage, fingerprint=fingerprint)
    if storage.exists(record.NAME):
        return _export(place, storage, record.NAME, (), by_fingerprint)
    folder, _, name = (place if "://" in place else str(Path(place).absolute())).rpartition("/")
    beside, record_name = Storage(folder), f"{Path(name).stem}.{record.NAME}"
    if beside.exists(name) and beside.exists(record_name):
        return _export(place, beside, record_name, (name, record_name), by_fingerprint)
    if name.endswith(".json") and beside.exists(name) and (described := fingerprint_in(beside, name)):
        if described not in by_fingerprint:
            raise _foreign(place, "Croissant metadata", described)
        return NamedPlace(
            address=place, kind="export", storage=beside, fingerprint=described, format="croissant", files=(name,),
            dataset=by_fingerprint[described],
        )  # fmt: skip
    raise SourceError(
        f"{place}: has no dataset.json, export.json, embeddings.json or run.json, so it is nothing that vidal made of "
        f"a dataset; name the folder that --out named"
    )


def _export(
    place: str, storage: Storage, name: str, files: tuple[str, ...], by_fingerprint: Mapping[str, Dataset]
) -> NamedPlace:
    try:
        made = record.ExportRecord.model_validate_json(storage.read(name))
    except ValidationError as error:
        raise SourceError(f"{storage.address}/{name}: not of an export ({error.error_count()} errors)") from None
    if made.fingerprint not in by_fingerprint or made.format not in WRITERS:
        raise _foreign(place, f"an export of {made.dataset}", made.fingerprint)
    return NamedPlace(
        address=place, kind="export", storage=storage, fingerprint=made.fingerprint, format=made.format,
        where=made.where, files=files, dataset=by_fingerprint[made.fingerprint],
    )  # fmt: skip


def _run(place: str, storage: Storage, known: frozenset[str]) -> NamedPlace:
    # Here, as it imports torch, which a removal without runs does not need.
    from vidal.train.run_folder import RunFolder

    data = RunFolder(place).read().data
    fingerprint = next((one["fingerprint"] for one in data if one["fingerprint"] in known), None)
    if fingerprint is None:
        raise _foreign(place, "a training run", ", ".join(one["fingerprint"] for one in data))
    return NamedPlace(address=place, kind="run", storage=storage, fingerprint=fingerprint)


def _foreign(place: str, what: str, fingerprint: str) -> SourceError:
    return SourceError(
        f"{place}: is {what} of another dataset, or of a revision that was dropped (fingerprint {fingerprint}); "
        f"name the dataset that it was made of, too, with --also, or delete it"
    )
