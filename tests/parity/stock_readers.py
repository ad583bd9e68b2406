"""Samples as stock webdataset and as `vidal.open` read them, and the comparison of their arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import webdataset

import vidal


def samples(pattern: Path) -> dict[str, dict[str, bytes]]:
    urls = sorted(str(path) for path in pattern.parent.glob(pattern.name))
    return {
        sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")}
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    }


def samples_by_key(folder: Path) -> dict[str, dict[str, Any]]:
    opened = vidal.open(folder)
    return {sample["key"]: sample for sample in (opened[i] for i in range(len(opened)))}


def audio_of(flac: bytes | None) -> np.ndarray | None:
    return None if flac is None else soundfile.read(io.BytesIO(flac), dtype="float32")[0]


def same(ours: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    return (ours is None and theirs is None) or (ours is not None and np.array_equal(ours, np.asarray(theirs)))
