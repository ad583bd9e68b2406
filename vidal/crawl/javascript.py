"""Solves the JavaScript challenges of YouTube's players for yt-dlp, by deno, in a process without any permission.

The program that deno runs is yt-dlp-ejs's, whose hash yt-dlp knows; the player's code, a stranger's, is a string in it
and is evaluated there. deno grants it no network, file, variable or program, and its process gets an environment
without proxy or cookies, and limits of its own.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidal.errors import ToolError
from vidal.media.limits import MIB
from vidal.process import Child

if TYPE_CHECKING:
    from vidal.crawl.settings import WebSettings

_NOTHING_GRANTED = tuple(f"--deny-{what}" for what in ("net", "read", "write", "env", "run", "ffi", "sys", "import"))
_OPTIONS = (
    "--ext=js", "--no-code-cache", "--no-prompt", "--no-remote", "--no-npm", "--cached-only", "--no-lock",
    "--no-config", "--node-modules-dir=none", "--v8-flags=--max-old-space-size=1024",
)  # fmt: skip
_CPU_S = 30
_WALL_S = 60.0
_LIMITS = {
    # V8 reserves some 40 GiB of addresses at its start, of which it uses as much as its flag allows.
    resource.RLIMIT_AS: (64 * 1024 * MIB, 64 * 1024 * MIB),
    resource.RLIMIT_CPU: (_CPU_S, _CPU_S),
    resource.RLIMIT_FSIZE: (16 * MIB, 16 * MIB),
}
_OUTPUT_BYTES = 64 * MIB


def deno_path() -> str | None:
    """Return the path of the deno that the package `deno` brings; None if it or yt-dlp-ejs is not installed."""
    if importlib.util.find_spec("deno") is None or importlib.util.find_spec("yt_dlp_ejs") is None:
        return None
    from deno import find_deno_bin

    try:
        return os.path.realpath(str(find_deno_bin()))
    except FileNotFoundError:
        return None


def run(program: str, folder: Path) -> str:
    """Return what a program prints under deno; raises `ToolError` if it fails, or does not end in time.

    ``folder`` is where deno keeps its cache.
    """
    command = [str(deno_path()), "run", *_OPTIONS, *_NOTHING_GRANTED, "-"]
    environment = {
        "HOME": str(folder), "DENO_DIR": str(folder / "deno"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1",
        "TZ": "UTC",
    }  # fmt: skip
    output, deadline = b"", time.monotonic() + _WALL_S
    with Child(command, folder, environment, _LIMITS, output="stdout", has_input=True) as child:
        try:
            child.write(program.encode("utf-8", "replace"))
            child.end_input()
        # A broken pipe: deno had ended, and how it ended says more than that.
        except OSError:
            raise ToolError(f"deno ended before it had read the program: {child.close()}") from None
        while data := child.read(deadline):
            output += data
            if len(output) > _OUTPUT_BYTES:
                raise ToolError(f"deno printed more than {_OUTPUT_BYTES} bytes")
        end = child.wait(deadline)
    if end.returncode != 0:
        raise ToolError(f"deno: {end}")
    return output.decode("utf-8", "replace")


def register() -> None:
    """Make `run` a solver of yt-dlp's in this process, for downloaders whose settings ask for it."""
    from yt_dlp.extractor.youtube.jsc._builtin.deno import DenoJCP
    from yt_dlp.extractor.youtube.jsc.provider import JsChallengeProviderError, register_provider
    from yt_dlp.utils._jsruntime import JsRuntimeInfo

    class WithoutPermissionsJCP(DenoJCP):  # type: ignore[misc]
        """yt-dlp's own would pass the proxy to deno, and start it with our environment."""

        @property
        def runtime_info(self) -> Any:
            settings: WebSettings = self.ie._downloader.ask.settings
            path = deno_path()
            if settings.javascript != "deno" or path is None:
                return None
            version = metadata.version("deno")
            return JsRuntimeInfo("deno", path, version, tuple(map(int, version.split(".")[:3])))

        def _run_deno(self, stdin: str, options: list[str]) -> str:
            try:
                return run(stdin, Path(os.environ["HOME"]))
            except ToolError as error:
                raise JsChallengeProviderError(str(error)) from None

    register_provider(WithoutPermissionsJCP)
