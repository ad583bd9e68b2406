"""Error rates of recognised text against the truth."""

from __future__ import annotations

import re
from collections.abc import Sequence


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """The least number of insertions, deletions and replacements that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def word_error_rate(truth: str, heard: str) -> float:
    return edits(words(truth), words(heard)) / len(words(truth))


def character_error_rate(truth: str, read: str) -> float:
    """Blind to case, line breaks and punctuation; the best match of the truth within what was read is not sought."""
    one, other = " ".join(words(truth)), " ".join(words(read))
    return edits(one, other) / len(one)
