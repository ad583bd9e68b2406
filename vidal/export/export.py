"""Exports of clips: joint tars, Parquet for Hugging Face, pairs for open_clip, and VIDAL-10M's annotation JSON.

The ``export.json`` of an export names its dataset. An export that is run again writes only what is missing or changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from vidal import modality as modalities
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.tars import TarWriter, member_order, suffix_of
from vidal.errors import OutputError, SourceError
from vidal.export import card, huggingface
from vidal.export.record import NAME, Claim, ExportedShard, ExportRecord, source_of
from vidal.reader.samples import NothingSelectedError, Samples
from vidal.record import from_row, json_member

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The result of an export."""

    out: str
    clips: int
    left_out: int
    """Selected clips that the format cannot represent."""
    shards_written: int
    why_left_out: str

    def lines(self) -> Iterator[str]:
        left_out = f"; {self.left_out} clips left out: {self.why_left_out}" if self.left_out else ""
        if not self.shards_written:
            yield f"{self.out}: nothing to do, {self.clips} clips are exported already{left_out}"
        else:
            yield f"wrote {self.clips} clips to {self.out}{left_out}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How the clips of a shard become the samples of one file."""

    name: str
    takes: Callable[[Row], bool]
    write: Callable[[BinaryIO, Dataset, list[Row]], None]
    card: Callable[[Dataset, Collection[str] | None], bytes]
    """The ``README.md`` of the selected clips."""
    extension: str = "tar"
    why_left_out: str = "none is kept"


def write_joint(dataset: Dataset, out: str, where: str | None = None) -> Exported:
    """Write one tar per shard, in which each kept clip is one sample with the members of all its layers."""
    return _write_shards(dataset, out, where, _JOINT)


def write_hugging_face(dataset: Dataset, out: str, where: str | None = None) -> Exported:
    """Write one Parquet file per shard with a row for each kept clip, media included, and a card for the Hub."""
    dataset.own_tars("whose columns vidal does not know; export it as joint")
    return _write_shards(dataset, out, where, _HUGGING_FACE)


def write_open_clip(dataset: Dataset, out: str, where: str | None = None) -> Exported:
    """Write tars of ``KEY.jpg``, ``KEY.txt`` and ``KEY.json`` for open_clip: a clip's middle frame and its caption.

    There is one frame per clip, as open_clip treats every other text of a batch as a negative. ``sizes.json`` has the
    number of samples per tar, which open_clip requires.
    """
    result = _write_shards(dataset, out, where, _PAIRS)
    storage = Storage(out)
    shards = ExportRecord.model_validate_json(storage.read(NAME)).shards
    sizes = {f"{stem}.tar": shard.clips for stem, shard in shards.items()}
    storage.write("sizes.json", (json.dumps(sizes, indent=1) + "\n").encode())
    return result


def write_vidal_json(dataset: Dataset, out: Path, where: str | None = None) -> Exported:
    """Write the texts of the kept clips under VIDAL-10M's keys as one object by clip id, with the record beside it.

    Raises `OutputError` if ``out`` is a folder or holds another export.
    """
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; --out must name a file for this format")
    storage, record_name = Storage(str(out.absolute().parent)), f"{out.stem}.{NAME}"
    selected = selected_clips(dataset, where, may_be_none=storage.exists(record_name))
    existing = {name for name in (out.name, record_name) if storage.exists(name)}
    claim = Claim.make(dataset, storage, ExportRecord.of(dataset, "vidal-json", where), record_name, existing)
    shards: dict[str, ExportedShard] = {}
    annotations: dict[str, dict[str, Any]] = {}
    for shard in dataset.committed():
        rows = list(kept_rows(dataset, shard, selected))
        annotations |= {row["clip_id"]: vidal_annotation(row) for row in rows}
        source = source_of(dataset, shard, [row["clip_id"] for row in rows])
        shards[manifest.stem_of(shard)] = ExportedShard(source=source, clips=len(rows))
    is_new = shards != claim.record.shards or out.name not in existing
    if is_new:
        text = json.dumps(annotations, ensure_ascii=False, indent=1, sort_keys=True)
        storage.write(out.name, (text + "\n").encode())
        claim.record.shards = shards
        claim.save()
    return Exported(
        out=str(out), clips=len(annotations), left_out=0, shards_written=len(shards) * is_new, why_left_out=""
    )


def vidal_annotation(row: Row) -> dict[str, Any]:
    """Return a row's texts under VIDAL-10M's keys: title and hashtags in ``raw``, frame captions in ``ofa``."""
    return {
        "folder": manifest.stem_of(row["shard"]),
        "raw": "#".join([row["title"] or "", *(row["hashtags"] or ())]),
        "ofa": row["frame_captions"],
        "mplug": row["video_caption"] or "",
        "polish_mplug": row["caption"] or "",
        "sound_mplug": row["sound_caption"] or "",
    }


def selected_clips(dataset: Dataset, where: str | None, *, may_be_none: bool = False) -> frozenset[str] | None:
    """Return the ids of the kept clips that meet a condition; None, which selects all, if there is no condition.

    Raises `SourceError` if there is no such clip, unless ``may_be_none``.
    """
    if where is None:
        return None
    # By its number: the address alone opens the current revision, also for the dataset as it was built.
    try:
        samples = Samples.open(f"{dataset.storage.address}@{dataset.number}", where=where)
    except NothingSelectedError:
        if may_be_none:
            return frozenset()
        raise
    return frozenset(samples.column("clip_id").to_pylist())


def claim_folder(
    dataset: Dataset, storage: Storage, where: str | None, format: str,
    takes: Callable[[Row], bool] = lambda row: True, why_left_out: str = "none is kept",
) -> tuple[Claim, frozenset[str] | None]:  # fmt: skip
    """Claim the folder of an export; return the claim and the selected clips. Raises `SourceError` if none is taken."""
    # An export that is there may lose its last clip by a removal.
    is_there = storage.exists(NAME)
    selected = selected_clips(dataset, where, may_be_none=is_there)
    # Before the folder is claimed: an export of nothing must not keep others out of it.
    rows_of_all = (row for shard in dataset.committed() for row in kept_rows(dataset, shard, selected))
    if not is_there and not any(map(takes, rows_of_all)):
        raise SourceError(f"{dataset.storage.address}: no clip to export: {why_left_out}")
    record = ExportRecord.of(dataset, format, where)
    return Claim.make(dataset, storage, record, NAME, storage.names("")), selected


def _write_shards(dataset: Dataset, out: str, where: str | None, format: _Format) -> Exported:
    storage, committed, written = Storage(out), dataset.committed(), 0
    claim, selected = claim_folder(dataset, storage, where, format.name, format.takes, format.why_left_out)
    stems = {manifest.stem_of(shard) for shard in committed}
    for stem in set(claim.record.shards) - stems:
        storage.remove(f"{stem}.{format.extension}")
        del claim.record.shards[stem]
    for shard in committed:
        rows, stem = list(kept_rows(dataset, shard, selected)), manifest.stem_of(shard)
        source = source_of(dataset, shard, [row["clip_id"] for row in rows])
        # The file itself may have been deleted since it was recorded.
        if claim.has(stem, source) and storage.exists(f"{stem}.{format.extension}"):
            continue
        taken = [row for row in rows if format.takes(row)]
        with _whole_file(storage, f"{stem}.{format.extension}") as handle:
            format.write(handle, dataset, taken)
        claim.add(stem, ExportedShard(source=source, clips=len(taken), left_out=len(rows) - len(taken)))
        written += 1
    claim.save()
    if dataset.info.tars is None:
        # The columns of foreign samples are unknown.
        storage.write(card.NAME, format.card(dataset, selected))
    shards = claim.record.shards.values()
    return Exported(
        out=out, clips=sum(shard.clips for shard in shards), left_out=sum(shard.left_out for shard in shards),
        shards_written=written, why_left_out=format.why_left_out,
    )  # fmt: skip


@contextlib.contextmanager
def _whole_file(storage: Storage, name: str) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its final name only when it is complete."""
    # An object is there only when its upload is complete.
    if not storage.is_local:
        with tempfile.NamedTemporaryFile() as file:
            yield file  # type: ignore[misc]
            file.flush()
            storage.upload(Path(file.name), name)
        return
    path = storage.temporary(name)
    try:
        with path.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        storage.rename_temporary(path, name)
    finally:
        path.unlink(missing_ok=True)


def kept_rows(dataset: Dataset, shard: int, selected: Collection[str] | None) -> Iterator[Row]:
    """Yield the kept rows of a shard, or those of them that are selected."""
    for row in dataset.table(shard).to_pylist():
        if row["status"] == "kept" and (selected is None or row["clip_id"] in selected):
            yield row


def _write_tar(
    members: Callable[[Dataset, Row], dict[str, bytes]], handle: BinaryIO, dataset: Dataset, rows: list[Row]
) -> None:
    """Write a tar of samples, of which ``members`` gives the bytes by suffix in the order of the tar."""
    tar = TarWriter(handle, "")
    for row in rows:
        for suffix, data in members(dataset, row).items():
            tar.add(row["clip_id"], suffix, data)
    tar.close()


def _joint_members(dataset: Dataset, row: Row) -> dict[str, bytes]:
    # Every layer has the same json member, of which one is enough.
    names = {suffix_of(member["name"]).lower(): member["name"] for member in row["members"]}
    members = {suffix: dataset.read_member(row, names[suffix]) for suffix in member_order(names)}
    if dataset.number:
        # The json members of earlier revisions may be out of date.
        members["json"] = json_member(from_row(row), dataset.extra_schema)
    return members


def _middle_frame(row: Row) -> tuple[str, str] | None:
    """Return name and file type of the member with a clip's middle frame; None for a clip without frames."""
    names = {suffix_of(member["name"]): member["name"] for member in row["members"] if member["layer"] == "video"}
    frames = list(modalities.get("video").members(list(names)).values())
    if not frames:
        return None
    middle = frames[len(frames) // 2]
    return names[middle], middle.lower().rpartition(".")[2]


def _pair_members(dataset: Dataset, row: Row) -> dict[str, bytes]:
    frame = _middle_frame(row)
    assert frame is not None
    pair = {frame[1]: dataset.read_member(row, frame[0]), "txt": row["caption"].encode()}
    if dataset.number:
        return {**pair, "json": json_member(from_row(row), dataset.extra_schema)}
    # A sample of an indexed dataset may have no json member.
    name = next((m["name"] for m in row["members"] if m["layer"] == "video" and m["name"].endswith(".json")), None)
    return pair if name is None else {**pair, "json": dataset.read_member(row, name)}


_JOINT = _Format(
    name="joint", takes=lambda row: True, write=partial(_write_tar, _joint_members),
    card=lambda dataset, selected: card.card(dataset, "joint", card.member_suffixes(dataset)),
)  # fmt: skip
_PAIRS = _Format(
    name="open-clip", takes=lambda row: bool(row["caption"]) and _middle_frame(row) is not None,
    write=partial(_write_tar, _pair_members),
    card=lambda dataset, selected: card.card(dataset, "open-clip", ["jpg", "txt"]),
    why_left_out="no caption or no frame",
)  # fmt: skip
_HUGGING_FACE = _Format(
    name="huggingface", takes=lambda row: True, write=huggingface.write_shard, card=huggingface.card,
    extension="parquet",
)  # fmt: skip
