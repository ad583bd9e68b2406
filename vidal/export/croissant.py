"""Croissant metadata: a dataset's files with their SHA-256, its columns and members as record sets, and RAI fields.

The addresses of files are relative to the dataset's folder, where the document belongs: ``DIR/croissant.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidal.clip import columns
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, UserError
from vidal.export.card import member_suffixes
from vidal.export.document import Documents, json_text
from vidal.export.facts import NOT_STATED, Facts, ranked
from vidal.export.rai import responsible_ai
from vidal.licences import licence_url

VERSION = "http://mlcommons.org/croissant/1.1"
CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "arrayShape": "cr:arrayShape", "citeAs": "cr:citeAs",
    "column": "cr:column", "conformsTo": "dct:conformsTo", "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "name": {"@container": "@language"}, "parentField": "cr:parentField", "path": "cr:path",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
    "prov": "http://www.w3.org/ns/prov#",
}  # fmt: skip
"""The context that the specification recommends, and PROV-O."""

_MEDIA = {
    "mp4": ("video/mp4", "sc:VideoObject"), "flac": ("audio/flac", "sc:AudioObject"),
    "jpg": ("image/jpeg", "sc:ImageObject"), "png": ("image/png", "sc:ImageObject"),
}  # fmt: skip
_CHUNK_BYTES = 1 << 24


def write_croissant(dataset: Dataset, out: str, where: str | None) -> Documents:
    """Write the Croissant metadata of a whole dataset into a file; raises `UserError` for a condition."""
    if where is not None:
        raise UserError("--where: Croissant describes a dataset's files as they are; export the clips as joint first")
    dataset.own_tars("whose addresses are no part of it; export it as joint first")
    folder, _, name = (out if "://" in out else str(Path(out).absolute())).rpartition("/")
    storage = Storage(folder)
    if storage.exists(name) and not _is_croissant(storage, name):
        raise OutputError(f"{out}: exists and is no Croissant file; choose another --out")
    facts = Facts.of(dataset)
    storage.write(name, json_text(metadata(dataset, facts)).encode())
    return Documents(out=storage.address, clips=facts.all.clips, files=[name])


def metadata(dataset: Dataset, facts: Facts) -> dict[str, Any]:
    """Return the JSON-LD; reads every tar once, for its SHA-256."""
    info, layers = dataset.info, {layer: _groups(dataset, layer) for layer in dataset.info.layers}
    urls = [licence_url(label) or label for label, _ in ranked(facts.licences)]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [VERSION, "http://mlcommons.org/croissant/RAI/1.0"],
        "name": info.name,
        "description": f"{facts.all.clips} short clips with the layers {', '.join(info.layers)} and texts: "
        "a row each in the manifests, and members in the tars of each layer.",
        "version": f"{dataset.number}.0.0",
        "license": urls,
        "inLanguage": sorted(name for name in facts.title_languages if name != NOT_STATED),
        "isLiveDataset": False,
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": info.made_by or "vidal build",
            "prov:value": f"recipe {info.fingerprint}",
            "prov:wasAssociatedWith": {"@type": "prov:SoftwareAgent", "prov:label": info.created_by},
        },
        **responsible_ai(dataset, facts),
        "distribution": [*_manifests(dataset), *_tars(dataset, layers)],
        "recordSet": [_clips(dataset), *_members(layers)],
    }


def fingerprint_in(storage: Storage, name: str) -> str | None:
    """Return the fingerprint of the dataset that a file of metadata describes; None for any other file."""
    if not _is_croissant(storage, name):
        return None
    try:
        made_by = json.loads(storage.read(name))["prov:wasGeneratedBy"]["prov:value"]
    except (KeyError, TypeError):
        return None
    return str(made_by).removeprefix("recipe ")


def _is_croissant(storage: Storage, name: str) -> bool:
    try:
        # Whatever its version: the file of an earlier vidal is written anew.
        return VERSION.rpartition("/")[0] in json.dumps(json.loads(storage.read(name))["conformsTo"])
    except (ValueError, KeyError, TypeError):
        return False


def _file(storage: Storage, name: str, kind: str) -> dict[str, Any]:
    sha256, size = hashlib.sha256(), storage.size(name)
    for offset in range(0, size, _CHUNK_BYTES):
        sha256.update(storage.read_range(name, offset, min(_CHUNK_BYTES, size - offset)))
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": f"{size} B",
        "encodingFormat": kind, "sha256": sha256.hexdigest(),
    }  # fmt: skip


def _manifests(dataset: Dataset) -> Iterator[dict[str, Any]]:
    names = [dataset.manifest_name(shard) for shard in dataset.committed()]
    yield from (_file(dataset.storage, name, "application/x-parquet") for name in names)
    yield {
        "@type": "cr:FileSet", "@id": "manifests", "name": "manifests", "description": "A manifest per shard.",
        "encodingFormat": "application/x-parquet", "includes": f"{os.path.dirname(names[0])}/*.parquet",
    }  # fmt: skip


def _groups(dataset: Dataset, layer: str) -> list[str]:
    """The suffixes of a layer's media with ``*`` for the number of a frame: ``mp4``, ``frame.*.jpg``."""
    suffixes = (re.sub(r"\.\d+\.", ".*.", suffix) for suffix in member_suffixes(dataset, layer))
    return list(dict.fromkeys(suffix for suffix in suffixes if suffix.rpartition(".")[2] in _MEDIA))


def _tars(dataset: Dataset, layers: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    for layer, groups in layers.items():
        tars = [dataset.tar(layer, shard) for shard in dataset.committed()]
        tars = [tar for tar in tars if dataset.storage.exists(tar)]
        yield from (_file(dataset.storage, tar, "application/x-tar") for tar in tars)
        for group in groups:
            yield {
                "@type": "cr:FileSet", "@id": f"{layer}/{group}", "name": f"{layer}/{group}",
                "containedIn": [{"@id": tar} for tar in tars], "encodingFormat": _MEDIA[group.rpartition(".")[2]][0],
                "includes": f"*.{group}",
            }  # fmt: skip


def _clips(dataset: Dataset) -> dict[str, Any]:
    meanings = {field.name: field.metadata["doc"] for field in columns()}
    meanings |= {name: column.doc for name, column in dataset.info.columns.items()}
    schema = dataset.table(dataset.committed()[0]).schema
    fields = [_column(field, meanings.get(field.name, "of the source")) for field in schema]
    return {
        "@type": "cr:RecordSet", "@id": "clips", "name": "clips", "key": {"@id": "clips/clip_id"},
        "description": "A row a candidate, kept or not, with its outcome. Columns of structures are left out.",
        "field": [field for field in fields if field is not None],
    }  # fmt: skip


def _column(field: pa.Field, meaning: str) -> dict[str, Any] | None:
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    kind = _kind(field.type.value_type if is_list else field.type)
    if kind is None:
        return None
    source = {"fileSet": {"@id": "manifests"}, "extract": {"column": field.name}}
    shape = {"isArray": True, "arrayShape": "-1"} if is_list else {}
    return {
        "@type": "cr:Field", "@id": f"clips/{field.name}", "name": field.name, "description": meaning,
        "dataType": kind, **shape, "source": source,
    }  # fmt: skip


def _kind(kind: pa.DataType) -> str | None:
    """The type of a column's values; None for structures and whatever else Croissant has no type for."""
    tests = {
        "sc:Text": pa.types.is_string, "sc:Integer": pa.types.is_integer, "sc:Float": pa.types.is_floating,
        "sc:Boolean": pa.types.is_boolean,
    }  # fmt: skip
    return next((name for name, test in tests.items() if test(kind)), None)


def _members(layers: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    for name, group in ((f"{layer}/{group}", group) for layer, groups in layers.items() for group in groups):
        media_kind = _MEDIA[group.rpartition(".")[2]][1]
        # A member's name is its clip's id up to the first dot, as in every WebDataset.
        # No `references` to clips/clip_id: mlcroissant 1.1 joins by it and puts the joined key in the path's place.
        fields = [_member_field(name, "clip_id", "sc:Text", "fullpath", r"([^.]+)\.")]
        if "*" in group:
            regex = r"[^.]+\." + re.escape(group).replace(r"\*", r"(\d+)")
            fields.append(_member_field(name, "number", "sc:Integer", "fullpath", regex))
        yield {
            "@type": "cr:RecordSet", "@id": f"members/{name}", "name": f"members/{name}",
            "description": f"The members *.{group} of the layer {name.partition('/')[0]}, by clip_id of clips.",
            "field": [*fields, _member_field(name, "content", media_kind, "content", None)],
        }  # fmt: skip


def _member_field(group: str, name: str, kind: str, file_property: str, regex: str | None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": group}, "extract": {"fileProperty": file_property}}
    if regex:
        source["transform"] = {"regex": regex}
    return {"@type": "cr:Field", "@id": f"members/{group}/{name}", "name": name, "dataType": kind, "source": source}
