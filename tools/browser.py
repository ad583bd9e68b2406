"""A headless Chromium that a script drives over the DevTools protocol, through two pipes and without a driver."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_WAIT_S = 30.0
_POLL_S = 0.02
_KEYS = {"Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " "), "Escape": ("Escape", 27, ""),
         "ArrowRight": ("ArrowRight", 39, ""), "ArrowLeft": ("ArrowLeft", 37, ""), "Tab": ("Tab", 9, "")}  # fmt: skip


def chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One tab of a headless browser.

    ``problems`` has what went wrong on its pages: exceptions, errors in the log, dialogs.
    """

    def __init__(self, executable: str, profile: Path) -> None:
        self.problems: list[str] = []
        self._number = 0
        self._buffer = b""
        self._process = self._started(executable, profile)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    @classmethod
    @contextlib.contextmanager
    def started(cls, executable: str) -> Iterator[Self]:
        """Start a browser with a profile of its own, which is deleted at the end."""
        # Chromium's last processes may still write into the profile.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = cls(executable, Path(profile))
            try:
                yield browser
            finally:
                browser.close()

    def _started(self, executable: str, profile: Path) -> subprocess.Popen[bytes]:
        theirs_in, self._out = (_above(fd) for fd in os.pipe())
        self._in, theirs_out = (_above(fd) for fd in os.pipe())
        options = [
            "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--disable-sync",
            "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb",
            # Chromium has no sandbox for root.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        # It reads from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", executable, *options, "about:blank"], pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        return process

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol for the tab; raises `RuntimeError` if it fails."""
        return self._send(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go to an address as from another page, so that one that differs behind `#` alone is loaded anew, too."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; raises `TimeoutError`."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                if self.evaluate(f"Boolean({expression})"):
                    return
            time.sleep(_POLL_S)
        raise TimeoutError(f"not true within {_WAIT_S:.0f} s: {expression}; {self.problems}")

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a person at a keyboard does."""
        for key in keys:
            code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()[0]), key))
            event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the window's size in pixels, and which colours the person prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, **parameters: Any) -> bytes:
        """Return an image of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", **parameters)["data"])

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self._send("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._in, 1 << 16)
            if not block:
                raise RuntimeError("the browser has ended")
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        name, details = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.problems.append(str(details["exceptionDetails"]))
        elif name == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(f"{details['entry']['text']} {details['entry'].get('url')}")
        elif name == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {details['message']}")


def _above(descriptor: int) -> int:
    """Return a descriptor of the same pipe beyond those that the browser expects its own at."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
