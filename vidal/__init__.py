"""Short online videos in, aligned video-infrared-depth-audio-language datasets out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from vidal.reader.samples import Samples

__version__ = "0.1.0"


def open(address: str | Path, where: str | None = None, cache: str | Path | None = None, **options: Any) -> Samples:
    """Open a dataset to read its manifest and any of its samples. See `vidal.reader.samples.Samples.open`."""
    # Imported here, so that `import vidal` loads neither pyarrow nor OpenCV.
    from vidal.reader.samples import Samples

    return Samples.open(address, where=where, cache=cache, **options)
