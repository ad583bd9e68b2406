"""A dataset as a folder for Hugging Face's Hub: a Parquet file a shard, media within, and a card with their types.

A row is a clip: the columns of its ``json`` member, `video` and `audio`, and a list of images for each kind of frame
(`frame`, `depth`, `infrared`). ``datasets.load_dataset(FOLDER)`` takes their types from the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from vidal.clip import schema
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import member_order, suffix_of
from vidal.errors import SourceError
from vidal.export.card import features_of, json_schema, member_suffixes
from vidal.export.facts import NOT_STATED, Facts, ranked
from vidal.export.licences import ledger_table
from vidal.export.markdown import escaped
from vidal.licences import licence_name, licence_version
from vidal.record import from_row, json_member

Row = dict[str, Any]

ROW_GROUP_BYTES = 64_000_000
"""Media of a row group at least, but for the last one: what a reader fetches and holds at once."""

_DTYPES = {"mp4": "video", "flac": "audio", "jpg": "image", "png": "image"}
_MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_NUMBERED = re.compile(r"(.+)\.\d+\.([^.]+)")
_VERSIONS = {
    "cc-by": ("2.0", "2.5", "3.0", "4.0"), "cc-by-sa": ("3.0", "4.0"), "cc-by-nc": ("2.0", "3.0", "4.0"),
    "cc-by-nd": ("4.0",), "cc-by-nc-nd": ("3.0", "4.0"), "cc-by-nc-sa": ("2.0", "3.0", "4.0"),
}  # fmt: skip
"""The licences that the Hub has a name for, by version."""
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_TEXT = """
# {name}

{clips} short clips, {hours:.2f} hours, exported by vidal: a row a clip in Parquet, with media in it.

```python
import datasets

rows = datasets.load_dataset("FOLDER", split="train")
```

`video` and `audio` are decoded by `torchcodec`, or left as bytes: `cast_column("video", datasets.Video(decode=False))`.
{images} are images of the same instants, `frame_times`.
Made by models, not by sensors: {synthetic}. Captions and scores are machine-made, too. A clip without a member has None
there. `export.json` says which dataset, recipe and condition this is of.

## Licences

Each clip keeps its own licence, as its source states it, unchecked; `licence` and `attribution` of its row credit it.

{ledger}"""


def columns_of(dataset: Dataset) -> dict[str, list[str]]:
    """Return the columns of media with their suffixes in order: ``{"video": ["mp4"], "frame": ["frame.0.jpg", …]}``.

    Raises `SourceError` where two kinds of members, or one and a column of the manifest, have the same name.
    """
    columns: dict[str, list[str]] = {}
    for suffix in member_order(member_suffixes(dataset)):
        columns.setdefault(_name_of(suffix), []).append(suffix)
    taken = set(schema(dataset.extra_schema).names)
    for name, suffixes in columns.items():
        if name in taken or (len(suffixes) > 1 and not all(map(_NUMBERED.fullmatch, suffixes))):
            raise SourceError(
                f"{dataset.storage.address}: the members {', '.join(suffixes[:2])} have no column of their own, as "
                f"`{name}` is another's; export it as joint"
            )
    return columns


def write_shard(handle: BinaryIO, dataset: Dataset, rows: Sequence[Row]) -> None:
    """Write the rows of a shard with their media."""
    columns = columns_of(dataset)
    layout = pa.schema([*json_schema(dataset), *(pa.field(n, _arrow(s)) for n, s in columns.items())])
    with pq.ParquetWriter(handle, layout, compression="zstd") as writer:
        for group in _row_groups(_sample(dataset, row, columns) for row in rows):
            writer.write_table(pa.Table.from_pylist(group, layout))


def card(dataset: Dataset, selected: Collection[str] | None) -> bytes:
    """Return the card: types of the columns, licences and languages for the Hub, and the same for people."""
    facts, columns = Facts.of(dataset, selected), columns_of(dataset)
    features = [*features_of(json_schema(dataset)), *(_feature(name, suffixes) for name, suffixes in columns.items())]
    head = {
        "pretty_name": dataset.info.name,
        "license": sorted({hub_licence(label) for label in facts.licences}),
        "language": sorted(language for language in facts.title_languages if language != NOT_STATED),
        "size_categories": [next((name for n, name in _SIZES.items() if facts.all.clips < n), "n>10M")],
        "tags": ["vidal", *facts.layers],
        "configs": [{"config_name": "default", "data_files": "*.parquet"}],
        "dataset_info": {"features": features},
    }
    text = _TEXT.format(
        name=escaped(dataset.info.name), clips=facts.all.clips, hours=facts.all.duration_s / 3600,
        images=", ".join(f"`{name}`" for name, suffixes in columns.items() if is_list(suffixes)) or "None",
        synthetic=", ".join(name for name, _ in ranked(facts.synthetic_layers)) or "none", ledger=ledger_table(facts),
    )  # fmt: skip
    front_matter = yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=False)
    return f"---\n{front_matter}---\n{text}".encode()


def hub_licence(label: str) -> str:
    """Return the Hub's name of a licence; ``other`` for one that it has none for, ``unknown`` for none."""
    name, version = licence_name(label), licence_version(label)
    if name == "cc0":
        return "cc0-1.0"
    if version in _VERSIONS.get(name or "", ()):
        return f"{name}-{version}"
    return "cc" if name in _VERSIONS else "unknown" if label == NOT_STATED else "other"


def _name_of(suffix: str) -> str:
    if match := _NUMBERED.fullmatch(suffix):
        return match[1].replace(".", "_")
    return {"mp4": "video", "flac": "audio"}.get(suffix, suffix.replace(".", "_"))


def is_list(suffixes: Sequence[str]) -> bool:
    """Return whether a column of media is a list, of the members `NAME.0.jpg`, `NAME.1.jpg`, …"""
    return _NUMBERED.fullmatch(suffixes[0]) is not None


def _arrow(suffixes: Sequence[str]) -> pa.DataType:
    kind = _MEDIA if suffixes[0].rpartition(".")[2] in _DTYPES else pa.binary()
    return pa.list_(kind) if is_list(suffixes) else kind


def _feature(name: str, suffixes: Sequence[str]) -> dict[str, Any]:
    kind = _DTYPES.get(suffixes[0].rpartition(".")[2], "binary")
    return {"name": name, "list" if is_list(suffixes) else "dtype": kind}


def _sample(dataset: Dataset, row: Row, columns: dict[str, list[str]]) -> Row:
    names = {suffix_of(member["name"]): member["name"] for member in row["members"]}
    # As the json member has it: types that JSON lacks, such as dates, are text.
    sample: Row = json.loads(json_member(from_row(row), dataset.extra_schema))
    for column, suffixes in columns.items():
        found = [names[suffix] for suffix in suffixes if suffix in names]
        values: list[Any] = [dataset.read_member(row, name) for name in found]
        if suffixes[0].rpartition(".")[2] in _DTYPES:
            values = [{"bytes": data, "path": name} for data, name in zip(values, found, strict=True)]
        sample[column] = (values or None) if is_list(suffixes) else next(iter(values), None)
    return sample


def _row_groups(samples: Iterator[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for sample in samples:
        group.append(sample)
        media = [part for value in sample.values() for part in (value if isinstance(value, list) else [value])]
        size += sum(len(part["bytes"]) for part in media if isinstance(part, dict) and "bytes" in part)
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
