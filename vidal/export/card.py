"""The card of an export: ``README.md`` with the types of its columns, which Hugging Face's ``datasets`` reads.

Without it ``datasets`` guesses the columns from the first five samples, and fails where a later one differs.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from vidal.clip import Clip, schema
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import BEFORE_SUFFIX
from vidal.record import to_json

NAME = "README.md"
IMAGES = ("jpg", "png")
"""File types that ``datasets`` decodes without further packages."""

_TEXT = """
# {name}

Exported by vidal as {format}: WebDataset tars, one sample a clip. `datasets.load_dataset` of this folder gives every
column its type; a clip without a member has None there. `export.json` says which dataset, recipe and condition this is
of. The clips keep their own licences: `json.licence` and `json.attribution` of each sample.
"""


def card(dataset: Dataset, format: str, suffixes: list[str]) -> bytes:
    """Return the card of an export whose samples have members with these suffixes besides ``json``."""
    dtypes = dict.fromkeys(IMAGES, "image") | {"txt": "string"}
    features: list[dict[str, Any]] = [
        {"name": name, "dtype": dtypes.get(name.rpartition(".")[2], "binary")} for name in suffixes
    ]
    # `datasets` takes a column's type from the first samples, which may have null in it.
    features.append({"name": "json", "struct": features_of(json_schema(dataset))})
    features += [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    head = {
        "configs": [{"config_name": "default", "data_files": "*.tar"}],
        "dataset_info": {"features": features},
        "pretty_name": dataset.info.name,
    }
    front_matter = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front_matter}---\n{_TEXT.format(name=dataset.info.name, format=format)}".encode()


def member_suffixes(dataset: Dataset, layer: str | None = None) -> list[str]:
    """Return the suffixes of a layer's members (by default of all layers) in all committed shards, without ``json``."""
    suffixes: set[str] = set()
    for table in dataset.tables(["members"]):
        members = pc.list_flatten(table.column("members")).combine_chunks()
        if layer is not None:
            members = members.filter(pc.equal(pc.struct_field(members, "layer"), layer))
        names = pc.replace_substring_regex(pc.struct_field(members, "name"), BEFORE_SUFFIX, "")
        suffixes |= set(pc.unique(names).to_pylist())
    return sorted(suffixes - {"json"})


def json_schema(dataset: Dataset) -> pa.Schema:
    """Return the schema of the ``json`` member, columns without a field in `Clip` included."""
    # Types that JSON lacks, such as dates, are stored as text.
    extra = dataset.extra_schema
    for k, field in enumerate(extra):
        if any(test(field.type) for test in (pa.types.is_temporal, pa.types.is_decimal, pa.types.is_binary)):
            extra = extra.set(k, field.with_type(pa.string()))
    kinds = schema(extra)
    return pa.schema([pa.field(name, kinds.field(name).type) for name in to_json(Clip(), extra)])


def features_of(columns: pa.Schema) -> list[dict[str, Any]]:
    """Return columns as the ``features`` of a card."""
    return [_column(field.name, field.type) for field in columns]


def _column(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        part = _column("", kind.value_type)
        return {"name": name, "list": part.get("dtype") or part.get("struct") or {"list": part["list"]}}
    if pa.types.is_struct(kind):
        return {"name": name, "struct": [_column(field.name, field.type) for field in kind]}
    return {"name": name, "dtype": _NAMES.get(str(kind), str(kind))}


_NAMES = {"double": "float64", "float": "float32"}
"""Arrow type names with a different name in ``datasets``."""
