"""The mean over channels is NumPy's own, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidal.stages.frame_change import mean_of_channels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 3), (64, 51, 3)])
def test_the_mean_of_channels_is_numpy_s(dtype: Any, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    image[0, 0] = 255
    assert mean_of_channels(image, dtype).tobytes() == image.mean(axis=2, dtype=dtype).tobytes()
