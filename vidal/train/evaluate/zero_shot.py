"""Zero-shot classification: the class whose prompts, averaged, are nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal import modality as modalities
from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.evaluate.embeddings import embed_samples, embed_texts
from vidal.train.evaluate.metrics import classification_metrics, normalised
from vidal.train.towers.encoder import Encoder

Floats = npt.NDArray[np.float32]


def read_templates(path: Path) -> list[str]:
    """One template a line, each with ``{c}``; raises `SourceError`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as a list of templates: {error}") from None
    bad = next((line for line in lines if "{c}" not in line), None)
    if bad is not None or not lines:
        raise SourceError(f"{path}: {bad!r} has no {{c}} in it" if bad else f"{path}: no template in it")
    return lines


def class_embeddings(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> Floats:
    """(classes, d): the normalised mean of each class's normalised prompts."""
    texts = {c: [template.replace("{c}", c) for template in templates] for c in classes}
    known = embed_texts(encoder, [text for many in texts.values() for text in many])
    return normalised(np.stack([normalised(np.stack([known[t] for t in texts[c]])).mean(axis=0) for c in classes]))


def zero_shot(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: Mapping[str, Transform], column: str, *,
    templates: Sequence[str] | None = None, workers: int = 0,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Figures by modality; the classes are the distinct values of a manifest column over the samples."""
    labels = samples.column(column).to_pylist()
    named = [n for n in map(int, numbers) if labels[n]]
    classes = sorted({str(labels[n]) for n in named})
    if len(classes) < 2:
        raise SourceError(f"{samples.address}: column `{column}` has {len(classes)} classes here; two are the least")
    figures = {}
    for modality, transform in transforms.items():
        made = embed_samples(encoder, samples, named, modality, transform, workers=workers)
        if len(made.numbers):
            wanted = np.asarray([classes.index(str(labels[int(n)])) for n in made.numbers], np.int64)
            vectors = class_embeddings(encoder, classes, templates or modalities.get(modality).prompts)
            figures[modality] = classification_metrics(made.rows, vectors, wanted)
    return figures
