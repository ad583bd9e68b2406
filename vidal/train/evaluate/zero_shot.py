"""Zero-shot classification by the nearest class embedding, the mean of a class's prompts (Radford et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidal import modality as modalities
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.data.rows import Indices
from vidal.train.evaluate.clips import embed_all_texts
from vidal.train.evaluate.embeddings import EncodeTexts
from vidal.train.evaluate.metrics import Floats, classification_metrics, normalised


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


def read_class_names(path: Path) -> dict[str, str]:
    """Read classes, one per line: the label, or the label, a tab and the name to use in prompts.

    Returns the name of each label. Raises `SourceError` for a file that cannot be read, and for fewer than two classes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as a list of classes: {error}") from None
    cells = [[cell.strip() for cell in line.split("\t", 1)] for line in lines if line.strip()]
    names = {cell[0]: cell[-1] or cell[0] for cell in cells}
    if len(names) < 2:
        raise SourceError(f"{path}: has {len(names)} classes; at least two are needed")
    return names


def class_embeddings(encode: EncodeTexts, classes: Sequence[str], templates: Sequence[str]) -> Floats:
    """Return (classes, d), the normalised mean of each class's normalised prompt embeddings."""
    # Not str.format, to which any other brace in a template is an error.
    prompts = {c: [template.replace("{c}", c) for template in templates] for c in classes}
    rows = embed_all_texts(encode, [prompt for of_class in prompts.values() for prompt in of_class])
    # Before the mean as well, so that no prompt weighs more for the length of its embedding.
    return normalised(np.stack([normalised(np.stack([rows[p] for p in prompts[c]])).mean(axis=0) for c in classes]))


def labels_of(
    samples: Samples, numbers: Sequence[int], column: str, names: Mapping[str, str] | None
) -> tuple[dict[int, str], dict[str, str]]:
    """Return the label of each of the samples ``numbers`` that has one in ``column``, and the name of each class.

    The classes are those of ``names``, or else the distinct labels. Raises `SourceError` for fewer than two, and for a
    label that ``names`` lacks.
    """
    cells = samples.column(column).to_pylist()
    labels = {n: str(cells[n]) for n in map(int, numbers) if cells[n]}
    if names is not None and (unknown := sorted(set(labels.values()) - set(names))):
        raise SourceError(
            f"{samples.address}: label {unknown[0]!r} of column `{column}` is not in the list of classes"
            + (f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else "")
        )
    classes = dict(names) if names is not None else {label: label for label in sorted(set(labels.values()))}
    if len(classes) < 2 or not labels:
        raise SourceError(
            f"{samples.address}: column `{column}` has {len(classes)} classes here; at least two are needed"
        )
    return labels, classes


def zero_shot(
    sides: Mapping[str, tuple[Indices, Floats]], encode: EncodeTexts, labels: Mapping[int, str],
    classes: Mapping[str, str], *, templates: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return `classification_metrics` by modality; a collective.

    ``sides`` holds the sample indices (n,) and the embeddings (n, d) of each modality, ``labels`` the label of each
    sample, ``classes`` the name of each label. Without ``templates``, the prompts are those of each modality.
    """
    figures = {}
    places = {label: place for place, label in enumerate(classes)}
    for modality, (numbers, rows) in sides.items():
        labelled = np.asarray([n in labels for n in numbers.tolist()], np.bool_)
        if labelled.any():
            targets = np.asarray([places[labels[n]] for n in numbers[labelled].tolist()], np.int64)
            prompts = templates or modalities.get(modality).prompts
            class_rows = class_embeddings(encode, list(classes.values()), prompts)
            figures[modality] = classification_metrics(rows[labelled], class_rows, targets)
    return figures
