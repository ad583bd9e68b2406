"""Starting a private Ray, joining a cluster, and leaving no process behind."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil

from vidal.errors import MachineError, StorageError, UserError
from vidal.process import sweep_folders

_HOME = Path(tempfile.gettempdir()) / f"vidal-ray-{os.getuid()}"
_STOP_S = 3.0
_KNOCK_S = 10.0
_RAYLET_DIED = (
    "vidal: Ray's node process or its agent died, and with it every worker; is memory short? What is committed stays; "
    "run the same command again, with fewer --workers or with --engine local"
)
_WATCH = """read line && exit
sleep 0.2
case "$(cut -d ' ' -f 3 "/proc/$1/stat" 2>/dev/null)" in '' | Z | X) echo "$2" >&2 ;; esac"""
"""Waits for the driver's word or death; at its death, a process that is gone or a zombie is the cause."""


class RayCluster:
    """The Ray of one run: private, without dashboard, with token authentication; or one that it joins."""

    def __init__(
        self,
        *,
        address: str | None,
        workers: int | None,
        dashboard: bool,
        object_store_bytes: int,
        gpus: int | None = None,
    ) -> None:
        self._address = address
        self._workers = workers
        self._gpus = gpus
        self._dashboard = dashboard
        self._object_store_bytes = object_store_bytes
        self._home: Path | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._is_up = False

    def start(self) -> None:
        """Bring Ray up once; joins where an address was given."""
        if self._is_up:
            return
        # Ray reads these when it is first imported.
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if self._address is None:
            self._start_private()
        else:
            self._join(self._address)
        _quieten()
        self._is_up = True
        if self._home is not None:
            self._watch(self._home)

    def _start_private(self) -> None:
        sweep_leftovers()
        me = psutil.Process()
        home = _HOME / f"{me.pid}-{int(me.create_time() * 100)}"
        token = home / "token"
        try:
            home.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._home = home
            token.touch(mode=0o600)
            token.write_text(secrets.token_urlsafe(32))
        except OSError as error:
            raise StorageError(
                f"{home}: Ray's folder cannot be made ({error.strerror}); free some space, set TMPDIR to a folder with "
                f"room, or use `--engine local`"
            ) from error
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
        import ray

        try:
            with _hushed():
                ray.init(
                    address="local",
                    num_cpus=max(self._workers or 0, os.cpu_count() or 1),
                    num_gpus=self._gpus,
                    include_dashboard=self._dashboard,
                    object_store_memory=self._object_store_bytes,
                    _temp_dir=str(self._home),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            self.stop()
            line = " ".join(str(error).split())[:300]
            raise MachineError(f"Ray could not be started: {line}; `--engine local` runs without it") from error

    def _join(self, address: str) -> None:
        _knock(address)
        import ray

        try:
            with _hushed():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            raise UserError(f"--ray-address {address}: no Ray cluster can be joined there: {line}") from error

    def _watch(self, home: Path) -> None:
        """Have a shell say why the run ended, should Ray's node process die.

        Ray then ends the driver at once, from native code: only another process can still say a word.
        """
        raylet = next((process for process in _processes_of(home) if process.name() == "raylet"), None)
        if raylet is not None:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "vidal-watch", str(raylet.pid), _RAYLET_DIED],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def error(self, error: Exception) -> MachineError:
        """Ray's own failure as one line."""
        return MachineError(f"Ray failed: {type(error).__name__}: {' '.join(str(error).split())[:500]}")

    def stop(self) -> None:
        """Leave the cluster; a private one is ended, to the last process."""
        if self._watcher is not None:
            self._watcher.communicate(b"done\n")
            self._watcher = None
        if "ray" in sys.modules:
            import ray

            with contextlib.suppress(Exception):
                ray.shutdown()
        self._is_up = False
        if self._home is not None:
            kill_processes_of(self._home)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
            sweep_folders()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Native code that announces its own log level on standard error has no switch for that line."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _knock(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise UserError(f"--ray-address {address}: no Ray cluster can be joined there: {error}") from error


def _quieten() -> None:
    import ray._private.worker
    import ray.data

    # A worker's death is told by the row it ends in; the raylet's own paragraph about it has no other switch.
    ray._private.worker._worker_logs_enabled = False

    # max_task_retries has no named parameter in the Ray that is pinned here.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A row that is lost is a shard without a manifest, which the next pass makes: it must not end the run.
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def sweep_leftovers() -> None:
    """End what earlier runs that were killed left running, and remove their folders."""
    for home in _HOME.glob("*-*"):
        pid, _, started = home.name.partition("-")
        if pid.isdigit() and not _is_alive(int(pid), started):
            kill_processes_of(home)
            shutil.rmtree(home, ignore_errors=True)


def _is_alive(pid: int, started: str) -> bool:
    try:
        return str(int(psutil.Process(pid).create_time() * 100)) == started
    except psutil.NoSuchProcess:
        return False


def kill_processes_of(home: Path) -> None:
    """Kill every process of this user whose command line or environment names the private folder."""
    deadline = time.monotonic() + _STOP_S
    while (alive := _processes_of(home)) and time.monotonic() < deadline:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=0.5)


def _processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(str(home) in part for part in process.cmdline()) or _inherits(process, home):
                found.append(process)
    return found


def _inherits(process: psutil.Process, home: Path) -> bool:
    return process.environ().get("RAY_AUTH_TOKEN_PATH", "").startswith(f"{home}/")
