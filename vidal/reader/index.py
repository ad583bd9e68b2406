"""`write_index`: indexes foreign WebDataset tars, so that they can be read and trained on like any dataset.

The tars stay where they are; each becomes a shard. They are read once, sequentially, to record the offset and the hash
of each member, and the texts. Member names of vidal, of LanguageBind's tars and the common ones are recognised.
"""

from __future__ import annotations

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
from vidal.errors import ClipError, OutputError, SourceError, StorageError, one_line
from vidal.reader import index_texts

STAGE = "index"
# Part of the fingerprint, to be raised when the same tars give other rows.
_VERSION = 1
_TEXT_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexResult:
    """The result of an indexing run."""

    out: str
    tars: int
    kept: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Number of failed samples by reason."""

    def lines(self) -> Iterator[str]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        failed = f"{self.failed} failed" + (f" ({reasons})" if reasons else "")
        yield f"{self.out}: {self.kept} samples in {self.tars} tars, {failed}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class _Group:
    """Adjacent members with the same key."""

    key: str
    members: list[MemberRecord] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    problem: tuple[str, str] | None = None
    """Reason and detail of the first problem."""

    def spoil(self, reason: str, detail: str) -> None:
        self.problem = self.problem or (reason, detail)

    def split(self, again: _Group) -> None:
        """Merge members with the same key from further down, which webdataset would yield as a separate sample."""
        self.names |= again.names
        self.spoil(
            "split_sample", f"members of {self.key[:_SHOWN_CHARACTERS]!r} are not adjacent; write the tar anew, by name"
        )


def write_index(tars: Sequence[str], out: str) -> IndexResult:
    """Index tars at ``out``, given as paths, globs, brace ranges or addresses.

    Raises `SourceError` if no tar or no sample is found, and `OutputError` if ``out`` is a dataset already.

    Example: ``write_index(["data/{00..07}.tar"], "index")``.
    """
    storage, places = Storage(out), expand(tars)
    if storage.exists(INFO_NAME):
        raise OutputError(f"{out}: is a dataset already; choose another folder")
    for shard in committed(storage):
        # Left by a killed run, as there is no dataset.json: that file is written last.
        storage.remove(manifest.name_of(shard))
    # Tars are told apart by place and size: hashing them would read everything a second time.
    identity = repr((_VERSION, [(place, Storage(place).size("")) for place in places]))
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]
    used: set[str] = set()
    plan: list[pa.Table] = []
    layers: set[str] = set()
    counts, reasons, first_failure = {"kept": 0, "failed": 0}, Counter[str](), ""
    for shard, place in enumerate(places):
        clips = list(_clips(place, shard, used))
        for position, clip in enumerate(clips, sum(table.num_rows for table in plan)):
            clip.shard, clip.position, clip.fingerprint = shard, position, fingerprint
            counts[clip.status] += 1
            layers |= set(clip.layers)
            if clip.status == "failed":
                reasons[clip.reason or ""] += 1
                first_failure = first_failure or f"{clip.url}: {clip.reason}: {clip.detail}"
        rows = manifest.to_parquet(clips, pa.schema([]), {"fingerprint": fingerprint, "shard": str(shard)})
        storage.write(manifest.name_of(shard), rows)
        plan.append(plans.undecided(manifest.read(rows)))
    if not counts["kept"]:
        for shard in range(len(places)):
            storage.remove(manifest.name_of(shard))
        failed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise SourceError(f"no sample can be read from {len(places)} tars ({failed}); first failure: {first_failure}")
    plans.write_uneven(storage, plan)
    write_info(storage, DatasetInfo(
        name="index", schema_version=SCHEMA_VERSION, fingerprint=fingerprint, created_by=f"vidal {vidal.__version__}",
        layers=[m.layer for m in modalities.all() if m.layer in layers], modalities=modalities.paths_of(layers),
        candidates=sum(counts.values()), shards=len(places), recipe={"stages": [{"name": STAGE}]}, definition={},
        tars={manifest.stem_of(shard): place for shard, place in enumerate(places)},
    ))  # fmt: skip
    return IndexResult(out=out, tars=len(places), reasons=dict(sorted(reasons.items())), **counts)


def expand(tars: Sequence[str]) -> list[str]:
    """Return the absolute paths and addresses of all tars once each, in the given order, those of a glob by name.

    Raises `SourceError` for a command, a broken brace range, and a name or pattern to which no tar belongs.
    """
    from braceexpand import braceexpand

    places: list[str] = []
    for pattern in map(str, tars):
        # webdataset runs what follows in a shell.
        if pattern.startswith("pipe:"):
            raise SourceError(f"{pattern[:_SHOWN_CHARACTERS]}: commands are not run; name the tar itself")
        try:
            # A file whose name has braces in it is that file before it is a pattern.
            names = [pattern] if os.path.exists(pattern) else list(braceexpand(pattern))
        except ValueError as error:
            raise SourceError(f"{pattern[:_SHOWN_CHARACTERS]}: {error}") from None
        for name in names:
            storage = Storage(name)
            path, fs = storage.path(), storage.fs
            try:
                # A file whose name has a * or a [ in it is that file before it is a pattern.
                is_file = storage.exists() and not fs.isdir(path)
                matching = [path] if is_file else fs.glob(path) if glob.has_magic(name) else []
            except (OSError, StorageError) as error:
                raise SourceError(f"{name[:_SHOWN_CHARACTERS]}: {one_line(error, 200)}") from None
            if not matching:
                raise SourceError(f"{name[:_SHOWN_CHARACTERS]}: no such tar")
            if storage.is_local:
                places += sorted(map(os.path.abspath, matching))
            else:
                places += [name] if is_file else sorted(str(fs.unstrip_protocol(place)) for place in matching)
    return list(dict.fromkeys(places))


def _clips(place: str, shard: int, used: set[str]) -> Iterator[Clip]:
    """Yield the rows of one tar: one per sample, and one for the tar itself if it is empty or damaged."""
    groups, damage = _all_groups(place)
    for number, group in enumerate(groups):
        clip_id = _id_of(group.key, f"{place}::{group.key}#{number}", shard, used)
        clip = Clip(url=_with_surrogates_escaped(f"{place}::{group.key}"), stage=STAGE, clip_id=clip_id)
        if not group.members:
            names = ", ".join(ascii(name)[1:-1] for name in sorted(group.names)[:5])
            group.spoil("no_media", f"no picture or sound among {names or 'its members'}")
        if group.problem is None:
            try:
                index_texts.fill(clip, group.texts)
            except ClipError:
                group.spoil("bad_text", "a text is not UTF-8, or a json member is not an object")
        if group.problem is not None:
            clip.fail(*group.problem)
        else:
            clip.status, clip.stage, clip.members = "kept", None, group.members
            clip.layers = list(dict.fromkeys(member.layer for member in clip.members))
            clip.has_audio = "audio" in clip.layers
        yield clip
    if damage is not None or not groups:
        clip = Clip(url=_with_surrogates_escaped(place), stage=STAGE, clip_id=_id_of("/", place, 0, used))
        if damage is not None:
            clip.fail("unreadable_tar", one_line(damage, 200) or type(damage).__name__)
        else:
            clip.fail("empty_tar", "it has no member with a key")
        yield clip


def _all_groups(place: str) -> tuple[list[_Group], Exception | None]:
    """Return the samples of one tar, merged by key, and the error that reading it ended with, if any."""
    storage = Storage(place)
    groups: list[_Group] = []
    first: dict[str, _Group] = {}
    try:
        # s3fs opens what a listing of earlier named, which may have another content by now.
        storage.fs.invalidate_cache(storage.path())
        with storage.fs.open(storage.path(), "rb") as handle:
            for group in _groups(handle):
                seen = first.setdefault(group.key, group)
                # Other members of a key belong to its sample; the same ones again are another sample.
                if seen is not group and seen.names.isdisjoint(group.names):
                    seen.split(group)
                    continue
                if seen is not group:
                    group.spoil("duplicate_key", f"{group.key[:_SHOWN_CHARACTERS]!r} is in the tar already, further up")
                groups.append(group)
    except (OSError, tarfile.TarError, EOFError) as error:
        return groups, error
    return groups, None


def _groups(handle: BinaryIO) -> Iterator[_Group]:
    """Yield groups of adjacent members with the same key. Raises `tarfile.TarError` if the tar is truncated."""
    group: _Group | None = None
    # Uncompressed only: members of a compressed tar have no offset to read at.
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
        if damage is None:
            # `tarfile` takes any block that is no header for the end; a real end mark is zeros.
            handle.seek(tar.offset)
            if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                damage = tarfile.ReadError("it ends early, or a header is damaged")
        if group is not None:
            if damage is not None:
                # Members of the last key may be missing.
                group.spoil("truncated", f"the tar is damaged behind {group.key[:_SHOWN_CHARACTERS]!r}: {damage}")
            yield group
        if damage is not None:
            raise damage


def _take(group: _Group, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Record a member: the place of media, the content of a text."""
    # Names are a stranger's: ascii() lets no control character reach a terminal.
    name, suffix = ascii(info.name)[:_SHOWN_CHARACTERS], suffix_of(info.name).lower()
    if ".." in info.name.split("/") or info.name.startswith("/") or not info.name.isprintable():
        return group.spoil("unsafe_name", f"{name} leaves its folder, or is no text")
    if not info.isreg() or info.issparse():
        return group.spoil("not_a_file", f"{name} is a link, a device or sparse")
    if suffix in group.names:
        return group.spoil("duplicate_key", f"{name} is in the tar twice")
    group.names.add(suffix)
    data = tar.extractfile(info)
    assert data is not None
    layer = modalities.layer_of(suffix)
    if layer is None:
        if index_texts.is_text(suffix):
            if info.size > _TEXT_BYTES:
                return group.spoil("too_long", f"{name} is a text of {info.size} bytes")
            group.texts[suffix] = data.read()
        return None
    # In blocks, as a member of a foreign tar may be larger than the memory.
    sha256 = hashlib.sha256()
    while block := data.read(_BLOCK_BYTES):
        sha256.update(block)
    group.members.append(
        MemberRecord(layer=layer, name=info.name, offset=info.offset_data, size=info.size, sha256=sha256.hexdigest())
    )
    return None


def _id_of(key: str, whole: str, shard: int, used: set[str]) -> str:
    """Return an unused id: the key if it is safe and unused, else with its shard's number, else a hash."""
    # A foreign key may be longer than vidal's, hold other characters, or be in two tars.
    candidates = [key, f"{manifest.stem_of(shard)}-{key}", hashlib.sha256(ascii(whole).encode()).hexdigest()[:16]]
    clip_id = next(name for name in candidates if KEY_PATTERN.fullmatch(name) and name not in used)
    used.add(clip_id)
    return clip_id


def _with_surrogates_escaped(text: str) -> str:
    """Write out lone surrogates, which Parquet cannot store: names that are not UTF-8 still differ from each other."""
    return text.encode("utf-8", "backslashreplace").decode()
