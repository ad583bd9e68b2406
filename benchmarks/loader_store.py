"""An object store that is slow and flaky: a proxy on loopback in front of moto's S3 server.

All passes through the proxy, a process of its own. It adds to each request a latency (log-normal around its median),
limits each connection's bandwidth, and fails a share of all requests: a third with 503 SlowDown, a third by a reset
connection, a third by a body that is cut in half; of a write that was carried out, all of the answer is cut off.
Whether a request fails depends on the seed, on what is asked for, and on how often it has been asked before, so that no
order of requests is luckier than another. Until something is written, objects are kept in memory once they have been
read from moto, which copies a whole object for each range of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import multiprocessing
import re
import socket
import struct
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

BUCKET = "race"
FAULTS = ("503", "reset", "cut")
_SLICE_BYTES = 256 * 1024
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_KEPT_HEADERS = ("etag", "last-modified", "content-type")
_BYTES = "application/octet-stream"
_PASSED_HEADERS = ("if-match", "if-none-match", "content-md5", "content-type", "x-amz-")
"""What the headers of a write begin with that moto must see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How slow and how flaky the store is."""

    latency_s: float = 0.05
    """Median of the time to the first byte."""
    jitter: float = 0.3
    """Standard deviation of its logarithm."""
    bytes_per_s: float = 20e6
    """Of each connection."""
    errors: float = 0.05
    """Share of the requests that fail."""
    seed: int = 0


@dataclass(slots=True)
class _Proxy:
    upstream: str
    faults: Faults
    objects: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    is_written: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client may leave at any point.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false at the end of the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if target == "/-/faults":
            return await self._control(writer, body)
        is_write = method not in ("GET", "HEAD")
        self.counts["requests"] += 1
        rng = self._rng(f"{method} {target} {headers.get('range', '')}")
        fault = FAULTS[int(rng.integers(3))] if rng.random() < self.faults.errors else None
        await asyncio.sleep(self.faults.latency_s * float(rng.lognormal(0, self.faults.jitter)))
        if fault is not None:
            self.counts[fault] += 1
            self.counts["failed writes"] += is_write
        if fault == "503":
            await self._send(writer, "503 Slow Down", {"content-type": "application/xml"}, _SLOW_DOWN, method)
            return True
        if fault == "reset":
            # Closing a socket that does not linger sends RST.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if is_write:
            status, kept, data = await self._write(method, target, headers, body)
            if fault != "cut":
                await self._send(writer, status, kept, data, method)
            return fault != "cut"
        status, kept, data = await self._object(target)
        size = len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if asked and status == "200 OK":
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
            if first >= size:
                await self._send(writer, "416 Range Not Satisfiable", {}, b"", method)
                return True
            status, kept = "206 Partial Content", {**kept, "content-range": f"bytes {first}-{last}/{size}"}
            data = memoryview(data)[first : last + 1]
        await self._send(writer, status, kept, data, method, cut=fault == "cut")
        return fault != "cut"

    def _rng(self, asked: str) -> np.random.Generator:
        self.asked[asked] += 1
        digest = hashlib.sha256(f"{self.faults.seed} {asked} {self.asked[asked]}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))

    async def _object(self, target: str) -> tuple[str, dict[str, str], bytes]:
        if target not in self.objects:
            status, headers, data = await asyncio.to_thread(self._fetch, target)
            # A list may change.
            if status != "200 OK" or "list-type" in target or self.is_written:
                return status, headers, data
            self.objects[target] = (headers, data)
        return "200 OK", *self.objects[target]

    async def _write(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str], bytes]:
        # First, so that a read under way is not kept either.
        self.is_written = True
        self.objects.clear()
        passed = {name: value for name, value in headers.items() if name.startswith(_PASSED_HEADERS)}
        # urllib would call it a form.
        return await asyncio.to_thread(self._fetch, target, method, {"content-type": _BYTES, **passed}, body)

    def _fetch(
        self, target: str, method: str = "GET", headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
    ) -> tuple[str, dict[str, str], bytes]:  # fmt: skip
        try:
            # moto asks that there be a signature, not whose.
            signed = urllib.request.Request(
                self.upstream + target, body, {**headers, "authorization": _SIGNED}, method=method
            )
            with urllib.request.urlopen(signed) as answer:
                status, given, data = f"{answer.status} {answer.reason}", answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, given, data = f"{error.code} {error.reason}", error.headers, error.read()
        return status, {name: given[name] for name in _KEPT_HEADERS if given[name]}, data

    async def _send(
        self, writer: asyncio.StreamWriter, status: str, headers: dict[str, str], data: bytes | memoryview, method: str,
        *, cut: bool = False,
    ) -> None:  # fmt: skip
        lines = [f"{name}: {value}" for name, value in {**headers, "content-length": len(data)}.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status}", "accept-ranges: bytes", *lines, "\r\n"]).encode())
        loop = asyncio.get_running_loop()
        due, end = loop.time(), 0 if method == "HEAD" else len(data) // 2 if cut else len(data)
        for first in range(0, end, _SLICE_BYTES):
            part = data[first : min(first + _SLICE_BYTES, end)]
            due += len(part) / self.faults.bytes_per_s
            await asyncio.sleep(due - loop.time())
            writer.write(part)
            await writer.drain()
            self.counts["bytes"] += len(part)
        await writer.drain()

    async def _control(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        """Say what has been counted, and begin anew with other faults."""
        counted, self.faults = self.counts, Faults(**json.loads(body))
        self.counts, self.asked = Counter(), Counter()
        await self._send(writer, "200 OK", {}, json.dumps(counted).encode(), "GET")
        return True


def _run(upstream: str, listening: socket.socket) -> None:
    async def run() -> None:
        proxy = _Proxy(upstream, Faults(errors=0))
        server = await asyncio.start_server(proxy.serve, sock=listening)
        await server.serve_forever()

    asyncio.run(run())


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStore:
    """The addresses of a store, and its counts."""

    fast: str
    """Address of moto itself, to write by."""
    address: str
    """Address of the proxy."""

    def counts_then(self, faults: Faults) -> dict[str, int]:
        """Return the requests, bytes, failed writes and faults since the last call, and set the faults from now on."""
        settings = {name: getattr(faults, name) for name in faults.__slots__}
        request = urllib.request.Request(f"{self.address}/-/faults", json.dumps(settings).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            return {name: 0 for name in ("requests", "bytes", "failed writes", *FAULTS)} | json.loads(answer.read())

    def upload(self, folder: Path, prefix: str) -> int:
        """Upload the files of a folder; returns their bytes."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.fast, aws_access_key_id="test", aws_secret_access_key="test",
            region_name="us-east-1",
        )  # fmt: skip
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
        return sum(path.stat().st_size for path in files)


@contextlib.contextmanager
def slow_store() -> Iterator[SlowStore]:
    """A store with one empty bucket."""
    # Here, as its import takes a second.
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    fast = "http://{}:{}".format(*server.get_host_and_port())
    listening = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_run, args=(fast, listening), daemon=True)
    process.start()
    try:
        urllib.request.urlopen(urllib.request.Request(f"{fast}/{BUCKET}", method="PUT")).close()
        yield SlowStore(fast=fast, address=f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        process.terminate()
        process.join()
        server.stop()
