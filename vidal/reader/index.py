"""`write_index`: a manifest over foreign WebDataset tars, so that they are read and trained on like any data set.

The tars stay where they are; each becomes a shard. They are read once, front to back: what is noted is where each
member lies, its hash, and the texts. Names are those of vidal, of LanguageBind's tars, and the common ones.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

import vidal
from vidal import modality as modalities
from vidal.clip import SCHEMA_VERSION, Clip, MemberRecord
from vidal.dataset import manifest
from vidal.dataset import plan as plans
from vidal.dataset.dataset import DatasetInfo, committed, write_info
from vidal.dataset.revisions import INFO_NAME
from vidal.dataset.storage import Storage
from vidal.dataset.tars import KEY_PATTERN, suffix_of
from vidal.errors import ClipError, OutputError, SourceError, StorageError
from vidal.reader import index_texts

STAGE = "index"
_VERSION = 1
_TEXT_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_SHOWN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexResult:
    """What an index is of."""

    out: str
    tars: int
    kept: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    """The failed by reason."""

    def lines(self) -> Iterator[str]:
        told = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        failed = f"{self.failed} failed" + (f" ({told})" if told else "")
        yield f"{self.out}: {self.kept} samples in {self.tars} tars, {failed}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class _Group:
    """The members of one key, as they stand in the tar."""

    key: str
    members: list[MemberRecord] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    problem: tuple[str, str] | None = None
    """Reason and detail of the first thing that is wrong with it."""

    def spoil(self, reason: str, detail: str) -> None:
        self.problem = self.problem or (reason, detail)

    def split(self, again: _Group) -> None:
        """Take in members of the same key from further down: webdataset gives them as a sample of their own."""
        self.names |= again.names
        self.spoil("split_sample", f"members of {self.key[:_SHOWN]!r} are not adjacent; write the tar anew, by name")


def write_index(tars: Sequence[str], out: str) -> IndexResult:
    """Index tars (paths, globs, brace ranges, addresses) at ``out``; raises `SourceError` where nothing is found."""
    storage, places = Storage(out), expand(tars)
    if storage.exists(INFO_NAME):
        raise OutputError(f"{out}: there is a data set already; name another folder")
    for shard in committed(storage):
        # What a killed run left: there is no data set before its dataset.json.
        storage.remove(manifest.name_of(shard))
    told = repr((_VERSION, [(place, Storage(place).size("")) for place in places]))
    print_ = hashlib.sha256(told.encode()).hexdigest()[:16]
    used: set[str] = set()
    plan: list[pa.Table] = []
    layers: set[str] = set()
    counts, reasons, first_failure = {"kept": 0, "failed": 0}, Counter[str](), ""
    for shard, place in enumerate(places):
        clips = list(_clips(place, shard, used))
        for position, clip in enumerate(clips, sum(table.num_rows for table in plan)):
            clip.shard, clip.position, clip.fingerprint = shard, position, print_
            counts[clip.status] += 1
            layers |= set(clip.layers)
            if clip.status == "failed":
                reasons[clip.reason or ""] += 1
                first_failure = first_failure or f"{clip.url}: {clip.reason}: {clip.detail}"
        rows = manifest.to_parquet(clips, pa.schema([]), {"fingerprint": print_, "shard": str(shard)})
        storage.write(manifest.name_of(shard), rows)
        plan.append(plans.undecided(manifest.read(rows)))
    if not counts["kept"]:
        for shard in range(len(places)):
            storage.remove(manifest.name_of(shard))
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise SourceError(f"no sample can be read from {len(places)} tars ({told}); the first failure: {first_failure}")
    plans.write_uneven(storage, plan)
    write_info(storage, DatasetInfo(
        name="index", schema_version=SCHEMA_VERSION, fingerprint=print_, created_by=f"vidal {vidal.__version__}",
        layers=[m.layer for m in modalities.all() if m.layer in layers], modalities=modalities.paths_of(layers),
        candidates=sum(counts.values()), shards=len(places), recipe={"stages": [{"name": STAGE}]}, definition={},
        tars={manifest.stem_of(shard): place for shard, place in enumerate(places)},
    ))  # fmt: skip
    return IndexResult(out=out, tars=len(places), reasons=dict(sorted(reasons.items())), **counts)


def expand(tars: Sequence[str]) -> list[str]:
    """The absolute paths and addresses that are meant, each once, in the order given; a glob's by name."""
    from braceexpand import braceexpand

    found: list[str] = []
    for given in map(str, tars):
        if given.startswith("pipe:"):
            raise SourceError(f"{given[:_SHOWN]}: commands are not run; name the tar itself")
        try:
            names = [given] if os.path.exists(given) else list(braceexpand(given))
        except ValueError as error:
            raise SourceError(f"{given[:_SHOWN]}: {error}") from None
        for name in names:
            found += _found(name)
    return list(dict.fromkeys(found))


def _found(name: str) -> list[str]:
    storage = Storage(name)
    path, is_local = storage.path(), storage.is_local
    try:
        if storage.exists() and not storage.fs.isdir(path):
            return [os.path.abspath(path) if is_local else name]
        places = storage.fs.glob(path) if glob.has_magic(name) else []
    except (OSError, StorageError) as error:
        raise SourceError(f"{name[:_SHOWN]}: {' '.join(str(error).split())[:200]}") from None
    if not places:
        raise SourceError(f"{name[:_SHOWN]}: no such tar")
    return sorted(os.path.abspath(place) if is_local else str(storage.fs.unstrip_protocol(place)) for place in places)


def _clips(place: str, shard: int, used: set[str]) -> Iterator[Clip]:
    """The rows of one tar: one for each sample, and one for the tar itself where it holds none or is damaged."""
    groups, damage = _all_groups(place)
    for number, group in enumerate(groups):
        clip = _clip(group, place)
        clip.clip_id = _id_of(group.key, f"{place}::{group.key}#{number}", shard, used)
        yield clip
    if damage is not None:
        yield _failed_tar(place, "unreadable_tar", " ".join(str(damage).split())[:200] or type(damage).__name__, used)
    elif not groups:
        yield _failed_tar(place, "empty_tar", "it has no member with a key", used)


def _all_groups(place: str) -> tuple[list[_Group], Exception | None]:
    """The samples of one tar, a key's in one, and the damage that the tar ends with."""
    there = Storage(place)
    groups: list[_Group] = []
    first: dict[str, _Group] = {}
    try:
        with there.fs.open(there.path(), "rb") as handle:
            for group in _groups(handle):
                seen = first.setdefault(group.key, group)
                if seen is not group and seen.names.isdisjoint(group.names):
                    seen.split(group)
                    continue
                if seen is not group:
                    group.spoil("duplicate_key", f"{group.key[:_SHOWN]!r} is in the tar already, further up")
                groups.append(group)
    except (OSError, tarfile.TarError, EOFError) as error:
        return groups, error
    return groups, None


def _groups(handle: BinaryIO) -> Iterator[_Group]:
    """The members that stand together under one key. Raises `tarfile.TarError` where the tar ends early."""
    group: _Group | None = None
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        damage: Exception | None = None
        try:
            for info in tar:
                folder, _, base = info.name.removeprefix("./").rpartition("/")
                key, dot, _ = base.partition(".")
                if info.isdir() or not key or not dot:
                    continue
                full = f"{folder}/{key}" if folder else key
                if group is None or group.key != full:
                    if group is not None:
                        yield group
                    group = _Group(key=full)
                _take(group, tar, info)
        except (tarfile.TarError, OSError, EOFError) as error:
            damage = error
        if damage is None and not _ends_well(handle, tar):
            damage = tarfile.ReadError("it ends early, or a header is damaged")
        if group is not None:
            if damage is not None:
                # Members of the last key may be missing: nothing says which.
                group.spoil("truncated", f"the tar is damaged behind {group.key[:_SHOWN]!r}: {damage}")
            yield group
        if damage is not None:
            raise damage


def _ends_well(handle: BinaryIO, tar: tarfile.TarFile) -> bool:
    """Whether a tar's end mark is there: `tarfile` takes any block that is no header for the end."""
    handle.seek(tar.offset)
    return handle.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _take(group: _Group, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Note a member: where it lies, or what it says."""
    said, suffix = ascii(info.name)[:_SHOWN], suffix_of(info.name).lower()
    if ".." in info.name.split("/") or info.name.startswith("/") or not info.name.isprintable():
        return group.spoil("unsafe_name", f"{said} leaves its folder, or is no text")
    if not info.isreg() or info.issparse():
        return group.spoil("not_a_file", f"{said} is a link, a device or sparse")
    if suffix in group.names:
        return group.spoil("duplicate_key", f"{said} is in the tar twice")
    group.names.add(suffix)
    data = tar.extractfile(info)
    assert data is not None
    layer = modalities.layer_of(suffix)
    if layer is None:
        if index_texts.is_text(suffix):
            if info.size > _TEXT_BYTES:
                return group.spoil("too_long", f"{said} is a text of {info.size} bytes")
            group.texts[suffix] = data.read()
        return None
    sha256 = hashlib.sha256()
    while block := data.read(_BLOCK_BYTES):
        sha256.update(block)
    group.members.append(
        MemberRecord(layer=layer, name=info.name, offset=info.offset_data, size=info.size, sha256=sha256.hexdigest())
    )
    return None


def _clip(group: _Group, place: str) -> Clip:
    clip = Clip(url=_storable(f"{place}::{group.key}"), stage=STAGE)
    if not group.members:
        named = ", ".join(ascii(name)[1:-1] for name in sorted(group.names)[:5])
        group.spoil("no_media", f"no picture or sound among {named or 'its members'}")
    if group.problem is None:
        with contextlib.suppress(ClipError):
            index_texts.fill(clip, group.texts)
            clip.status, clip.stage, clip.members = "kept", None, group.members
            clip.layers = list(dict.fromkeys(member.layer for member in clip.members))
            clip.has_audio = "audio" in clip.layers
            return clip
        group.spoil("bad_text", "a text is not UTF-8, or a json member is not an object")
    assert group.problem is not None
    clip.fail(*group.problem)
    return clip


def _failed_tar(place: str, reason: str, detail: str, used: set[str]) -> Clip:
    clip = Clip(url=_storable(place), stage=STAGE, clip_id=_id_of("/", place, 0, used))
    clip.fail(reason, detail)
    return clip


def _id_of(key: str, whole: str, shard: int, used: set[str]) -> str:
    """The key where it is safe and new, then with its shard's number, then a hash; never one that is there."""
    wanted = [key, f"{manifest.stem_of(shard)}-{key}", hashlib.sha256(ascii(whole).encode()).hexdigest()[:16]]
    clip_id = next(name for name in wanted if KEY_PATTERN.fullmatch(name) and name not in used)
    used.add(clip_id)
    return clip_id


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
