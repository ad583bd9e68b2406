"""`WRITERS`: the function that writes each format of `vidal export`, to an output folder or file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.export import export
from vidal.export.croissant import write_croissant
from vidal.export.document import Documents
from vidal.export.export import Exported, selected_clips
from vidal.export.lance import write_lance
from vidal.export.licences import write_licences
from vidal.export.record import NAME
from vidal.export.summary import write_summary


def _selected(dataset: Dataset, out: str, where: str | None) -> frozenset[str] | None:
    return selected_clips(dataset, where, may_be_none=Storage(out).exists(NAME))


Writer: TypeAlias = Callable[[Dataset, str, str | None], Exported | Documents]

WRITERS: dict[str, Writer] = {
    "joint": export.write_joint,
    "open-clip": export.write_open_clip,
    "vidal-json": lambda dataset, out, where: export.write_vidal_json(dataset, Path(out), where),
    "huggingface": export.write_hugging_face,
    "lance": write_lance,
    "croissant": write_croissant,
    "licences": lambda dataset, out, where: write_licences(dataset, out, where, _selected(dataset, out, where)),
    "training-summary": lambda dataset, out, where: write_summary(dataset, out, where, _selected(dataset, out, where)),
}
"""By the name that ``--format`` and ``export.json`` have for it."""
