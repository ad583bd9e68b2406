"""A process that reads a dataset, and forks others that read it too, as a training run does.

Called by `test_damaged_data.py` as ``read_in_forks.py ADDRESS LOCAL FOLDER``. LOCAL is a copy on the disk, by which all
that is read from ADDRESS is checked. A process of its own, as that of the tests has the threads and the locks of all
that other tests used in it: Ray, Arrow, Lance, servers.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from pathlib import Path

import numpy as np

import vidal
from vidal.modality.depth import DepthTransform
from vidal.reader.samples import Samples
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import TextViews


def depth(samples: Samples, i: int) -> np.ndarray:
    return np.asarray(samples[i]["depth"])


def _read_the_same(samples: Samples, local: Samples) -> None:
    assert all(np.array_equal(depth(samples, i), depth(local, i)) for i in range(3))
    assert samples.manifest().equals(local.manifest())


def read_in_a_fork(samples: Samples, local: Samples, cache: Path) -> None:
    """The fork reads from the store what its parent has read from it, and the parent afterwards goes on."""
    _read_the_same(samples, local)
    shutil.rmtree(cache)
    child = multiprocessing.get_context("fork").Process(target=_read_the_same, args=(samples, local))
    child.start()
    child.join(60)
    assert child.exitcode == 0, f"the fork ended with {child.exitcode}"
    assert np.array_equal(depth(samples, 5), depth(local, 5))


def batches(samples: Samples) -> list[np.ndarray]:
    pair = ("text", "depth")
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=4, seed=0, epochs=1)
    transforms = {"depth": DepthTransform(size=32)}
    loading = Loader([samples], {pair: [np.arange(len(samples))]}, plan, transforms, TextViews(), seed=0, workers=2)
    found = list(loading)
    assert all(batch.valid.all() and not batch.broken for batch in found)
    return [batch.inputs["depth"][:].numpy() for batch in found]


if __name__ == "__main__":
    address, at, out = sys.argv[1:]
    local, folder = vidal.open(at), Path(out)
    read_in_a_fork(vidal.open(address, cache=folder / "cache"), local, folder / "cache")
    loaded = batches(vidal.open(address, cache=folder / "loaded"))
    assert len(loaded) == 3 and all(np.array_equal(*both) for both in zip(loaded, batches(local), strict=True))
