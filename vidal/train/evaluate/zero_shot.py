"""Zero-shot classification by the nearest class embedding, the mean of a class's prompts (Radford et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidal import modality as modalities
from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.evaluate.embeddings import embed_samples, embed_texts
from vidal.train.evaluate.metrics import Floats, classification_metrics, normalised
from vidal.train.towers.encoder import Encoder


def read_templates(path: Path) -> list[str]:
    """Read prompt templates, one per line, each with the placeholder ``{c}``; raises `SourceError` if one has none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as a list of templates: {error}") from None
    invalid = next((line for line in lines if "{c}" not in line), None)
    if invalid is not None:
        raise SourceError(f"{path}: {invalid!r} lacks the placeholder {{c}}")
    if not lines:
        raise SourceError(f"{path}: has no templates")
    return lines


def class_embeddings(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> Floats:
    """Return (classes, d), the normalised mean of each class's normalised prompt embeddings."""
    # Not str.format, to which any other brace in a template is an error.
    prompts = {c: [template.replace("{c}", c) for template in templates] for c in classes}
    rows = embed_texts(encoder, [prompt for of_class in prompts.values() for prompt in of_class])
    # Before the mean as well, so that no prompt weighs more for the length of its embedding.
    return normalised(np.stack([normalised(np.stack([rows[p] for p in prompts[c]])).mean(axis=0) for c in classes]))


def zero_shot(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: Mapping[str, Transform], column: str, *,
    templates: Sequence[str] | None = None, workers: int = 0,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return `classification_metrics` by modality; the classes are the distinct values of a manifest column.

    Without ``templates``, the prompts are those of each modality. Raises `SourceError` for fewer than two classes.
    """
    labels = samples.column(column).to_pylist()
    labelled = [n for n in map(int, numbers) if labels[n]]
    classes = sorted({str(labels[n]) for n in labelled})
    if len(classes) < 2:
        raise SourceError(
            f"{samples.address}: column `{column}` has {len(classes)} classes here; at least two are needed"
        )
    figures = {}
    for modality, transform in transforms.items():
        embedded = embed_samples(encoder, samples, labelled, modality, transform, workers=workers)
        if len(embedded.numbers):
            targets = np.asarray([classes.index(str(labels[int(n)])) for n in embedded.numbers], np.int64)
            rows = class_embeddings(encoder, classes, templates or modalities.get(modality).prompts)
            figures[modality] = classification_metrics(embedded.rows, rows, targets)
    return figures
