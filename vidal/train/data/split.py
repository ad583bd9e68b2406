"""Which clips are held out: whole near-duplicate clusters, so that no near-duplicate leaks into training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_HASHES = 1 << 64


def held_out(clusters: Sequence[str], share: float, salt: str = "vidal") -> npt.NDArray[np.bool_]:
    """Return (n,) bool, True for the clips to hold out; ``clusters`` are the cluster ids of the n clips.

    A cluster is held out if its hash is in the lowest ``share`` (0 … 1) of all hashes, which does not depend on the
    dataset or its order.
    """
    limit = int(share * _HASHES)
    digests = (hashlib.sha256(f"{salt}\0{cluster}".encode()).digest() for cluster in clusters)
    return np.fromiter((int.from_bytes(digest[:8], "big") < limit for digest in digests), np.bool_, len(clusters))
