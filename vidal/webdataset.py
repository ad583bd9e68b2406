"""What stock readers need to give a dataset's values as they are: a decoder of depth, and the types of its columns.

    import webdataset as wds
    from vidal.webdataset import decode_depth

    wds.WebDataset("data/sample/depth/000000.tar").decode(decode_depth, "pil")

The stock decoders make eight bits of a 16-bit PNG, which leaves 255 everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal import clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import BEFORE_SUFFIX
from vidal.errors import SourceError, ToolError

if TYPE_CHECKING:
    import datasets

JOINT = "joint"
_IMAGES = ("jpg", "png")


def decode_depth(key: str, data: bytes) -> npt.NDArray[np.uint16] | None:
    """Decode a depth member to (h, w) uint16 in millimetres; None for every other member.

    A decoder for `webdataset.WebDataset.decode`: it comes before ``"pil"``. Raises `vidal.errors.ClipError` for a
    damaged image.
    """
    from vidal.train.data.decode import layer_of

    suffix = key.removeprefix(".")
    return depth_from_bytes(data, suffix) if layer_of(suffix) == "depth" else None


def depth_from_bytes(data: bytes, name: str = "depth.png") -> npt.NDArray[np.uint16]:
    """Decode the bytes of a depth image to (h, w) uint16 in millimetres; raises `vidal.errors.ClipError`."""
    from vidal.train.data.decode import decode_picture

    return np.asarray(decode_picture("depth", data, name), np.uint16)


def features(dataset: str | Path, layer: str = JOINT) -> datasets.Features:
    """The columns of a layer, or of the joint export, as Hugging Face's ``datasets`` wants them told.

    Told so, a column keeps its type where the first samples have null in it, and a clip without audio, or without
    any other member, has None there: ``load_dataset("webdataset", data_files=…, features=features(DIR, "depth"))``.
    Video and audio are bytes, as their decoders are installed separately: ``cast_column("flac", Audio())`` where
    they are.
    """
    try:
        import datasets
    except ImportError:
        raise ToolError("vidal.webdataset.features needs Hugging Face's datasets; pip install datasets") from None
    opened = Dataset.open(str(dataset))
    opened.own_tars("whose members are not vidal's; let the reader find their columns")
    if layer != JOINT and layer not in opened.info.layers:
        raise SourceError(f"{dataset}: no layer {layer}; there is {', '.join([*opened.info.layers, JOINT])}")
    columns: dict[str, Any] = {suffix: _feature(suffix) for suffix in _suffixes(opened, layer)}
    about = datasets.Features.from_arrow_schema(_json_schema(opened))
    return datasets.Features({
        **columns, "json": dict(about), "__key__": datasets.Value("string"), "__url__": datasets.Value("string")
    })  # fmt: skip


def _feature(suffix: str) -> Any:
    import datasets

    return datasets.Image() if suffix.rpartition(".")[2] in _IMAGES else datasets.Value("binary")


def _suffixes(dataset: Dataset, layer: str) -> list[str]:
    """The suffixes of a layer's members over all committed shards, ``json`` left out."""
    found: set[str] = set()
    for table in dataset.tables(["members"]):
        members = pc.list_flatten(table.column("members")).combine_chunks()
        if layer != JOINT:
            members = members.filter(pc.equal(pc.struct_field(members, "layer"), layer))
        names = pc.replace_substring_regex(pc.struct_field(members, "name"), BEFORE_SUFFIX, "")
        found |= set(pc.unique(names).to_pylist())
    return sorted(found - {"json"})


def _json_schema(dataset: Dataset) -> pa.Schema:
    """The types of what the ``json`` member holds, the source's own columns included."""
    # What JSON has no kind for, dates and the like, is text in it.
    extra = pa.schema([
        field if _is_in_json(field.type) else pa.field(field.name, pa.string()) for field in dataset.plan.extra_schema()
    ])  # fmt: skip
    schema = clip.schema(extra)
    names = clip.to_json(clip.Clip(extra=dict.fromkeys(extra.names)))
    return pa.schema([pa.field(name, schema.field(name).type) for name in names])


def _is_in_json(kind: pa.DataType) -> bool:
    return not (pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind))
