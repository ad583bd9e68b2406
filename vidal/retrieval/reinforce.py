"""`vidal reinforce`: `embed` into the dataset itself, for training to distil from."""

from __future__ import annotations

from pathlib import Path

from vidal.dataset.dataset import Dataset
from vidal.dataset.embeddings import TEACHER_NAME, TEACHERS
from vidal.dataset.lock import Lock
from vidal.dataset.storage import Storage
from vidal.errors import UserError
from vidal.retrieval.embed import EmbedResult, embed
from vidal.train.data.text_views import TextViews


def reinforce(
    address: str, checkpoint: str, name: str | None = None, *, views: TextViews, workers: int = 0, device: str = "auto"
) -> EmbedResult:
    """Embed a dataset, and all texts of ``views``, into ``teachers/NAME`` of its folder, in float16.

    ``name`` is by default the last part of ``checkpoint``. Raises `UserError` for a name that is none,
    `OutputError` if the dataset has another teacher by that name or another run writes it, and what `embed` raises.
    """
    name = Path(checkpoint).name.partition("@")[0] if name is None else name
    if not TEACHER_NAME.fullmatch(name):
        raise UserError(f"--name {name}: must be letters, digits, `-`, `_` and `.`, and begin with a letter or digit")
    root = Dataset.open(address).storage
    # No clip is removed, and no revision becomes current, between the reading and the writing.
    with Lock(root, note=lambda: f"embedding as teacher {name}"):
        folder = Dataset.open(address).own_storage.address
        out = Storage(f"{folder}/{TEACHERS}/{name}", root.fence)
        return embed(address, checkpoint, out, views=views, half=True, workers=workers, device=device)
