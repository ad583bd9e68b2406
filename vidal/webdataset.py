"""Support for stock readers: a lossless decoder of depth, and the types of a dataset's columns.

    import webdataset as wds
    from vidal.webdataset import decode_depth

    wds.WebDataset("data/sample/depth/000000.tar").decode(decode_depth, "pil")

The stock decoders convert a 16-bit PNG to 8 bits, which leaves 255 everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError, ToolError
from vidal.export.card import IMAGES, json_schema, member_suffixes
from vidal.modality.depth import DEPTH

if TYPE_CHECKING:
    import datasets

JOINT = "joint"


def decode_depth(key: str, data: bytes) -> npt.NDArray[np.uint16] | None:
    """Decode a depth member to (h, w) uint16 in millimetres; None for every other member.

    A decoder for `webdataset.WebDataset.decode`: it comes before ``"pil"``. Raises `vidal.errors.ClipError` for a
    damaged image.
    """
    suffix = key.removeprefix(".")
    return depth_from_bytes(data, suffix) if DEPTH.takes(suffix) else None


def depth_from_bytes(data: bytes, name: str = "depth.png") -> npt.NDArray[np.uint16]:
    """Decode the bytes of a depth image to (h, w) uint16 in millimetres; raises `vidal.errors.ClipError`."""
    return np.asarray(DEPTH.decode_image(data, name), np.uint16)


def features(dataset: str | Path, layer: str = JOINT) -> datasets.Features:
    """Return the columns of a layer, or of the joint export, for Hugging Face's ``datasets``.

    ``load_dataset("webdataset", data_files=…, features=features(DIR, "depth"))``

    With it, a column keeps its type where the first samples have null in it, and a missing member, such as the audio
    of a silent clip, is None. Video and audio are bytes, as their decoders are installed separately; where they are,
    use ``cast_column("flac", Audio())``. Raises `ToolError` without ``datasets``, `SourceError` for an unknown layer.
    """
    # An optional package that no extra brings, as only its users need it.
    try:
        import datasets
    except ImportError:
        raise ToolError("vidal.webdataset.features needs Hugging Face's datasets; pip install datasets") from None
    opened = Dataset.open(str(dataset))
    opened.own_tars("whose members are not vidal's; let the reader infer their columns")
    if layer != JOINT and layer not in opened.info.layers:
        raise SourceError(f"{dataset}: no layer {layer}; there is {', '.join([*opened.info.layers, JOINT])}")
    suffixes = member_suffixes(opened, None if layer == JOINT else layer)
    image, binary = datasets.Image(), datasets.Value("binary")
    columns: dict[str, Any] = {name: image if name.rpartition(".")[2] in IMAGES else binary for name in suffixes}
    about = datasets.Features.from_arrow_schema(json_schema(opened))
    return datasets.Features({
        **columns, "json": dict(about), "__key__": datasets.Value("string"), "__url__": datasets.Value("string")
    })  # fmt: skip
