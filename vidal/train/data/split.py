"""What is kept from training: whole near-duplicate clusters, so that no clip's twin leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SCALE = 1 << 64


def held_out(clusters: Sequence[str], share: float, salt: str = "vidal") -> npt.NDArray[np.bool_]:
    """Which clips are kept, by the hash of their cluster: the same in any data set and order."""
    limit = int(share * _SCALE)
    return np.fromiter((_number(salt, cluster) < limit for cluster in clusters), np.bool_, len(clusters))


def _number(salt: str, cluster: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{cluster}".encode()).digest()[:8], "big")
