"""An S3 server on this machine, for tests of what lies in an object store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import fsspec
import pytest


@contextlib.contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Address of a server with one empty bucket; it stands in the environment, for worker processes too."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        # Of an earlier server in this process, fsspec would hand out its connections again.
        type(fsspec.filesystem("s3")).clear_instance_cache()
        yield f"http://127.0.0.1:{port}"
    server.stop()
