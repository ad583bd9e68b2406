"""Where vidal has left Ray, or could not join it, a late call of Ray's starts no other one with none of its settings."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

# Of a fresh process, as Ray reads the variable when it is first imported.
_LATE = """
from vidal.engine.ray_cluster import RayCluster
from vidal.errors import UserError

try:
    RayCluster(address="127.0.0.1:9", workers=1, dashboard=False, object_store_bytes=10**8).start()
except UserError:
    import ray

    try:
        ray.put(1)
    except ray.exceptions.RaySystemError as error:
        print(error)
"""


def test_a_late_call_starts_no_ray() -> None:
    done = subprocess.run([sys.executable, "-c", _LATE], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, "Ray has not been started" in done.stdout) == (0, True), done.stderr
