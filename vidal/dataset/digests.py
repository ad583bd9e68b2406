"""Digests of strings, by which equal ones among millions are found in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
"""(strings, 2): 128 bits each, so that different strings never share one."""


def digests_of(strings: Iterable[str]) -> Digests:
    """Return the digest of each string, (strings, 2) uint64."""
    joined = b"".join(hashlib.blake2b(string.encode(), digest_size=16).digest() for string in strings)
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)


def first_of_equal(digests: Digests) -> npt.NDArray[np.int64]:
    """Return for each digest the number of the first one that equals it."""
    # Stable, so that equal digests stay in their order.
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    is_first = np.zeros(len(order), np.bool_)
    is_first[:1] = True
    for column in digests.T:
        ordered = column[order]
        is_first[1:] |= ordered[1:] != ordered[:-1]
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[np.flatnonzero(is_first)][np.cumsum(is_first) - 1]
    return firsts
