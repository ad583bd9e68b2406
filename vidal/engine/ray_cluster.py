"""Starts a private Ray or joins a cluster, and leaves no process behind."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import vidal
from vidal.errors import MachineError, StorageError, UserError, one_line
from vidal.process import sweep_folders

_HOME = Path(tempfile.gettempdir()) / f"vidal-ray-{os.getuid()}"
_STOP_S = 3.0
_CONNECT_S = 10.0
_RAYLET_DIED = (
    "Ray's node process or its agent died, and with it every worker; is memory short? What is committed stays; "
    "run the same command again, with fewer --workers or with --engine local"
)
_WATCH = """read line && exit
sleep 0.2
case "$(cut -d ' ' -f 3 "/proc/$1/stat" 2>/dev/null)" in '' | Z | X) echo "$2" >&2 ;; esac"""
"""Waits for a line from the driver or for its death; where Ray's node process is dead by then, that was the cause."""


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """The Ray of one run: a private one with token authentication, or a cluster that it joins."""

    address: str | None
    """Of the cluster to join, whose nodes are sent vidal; None for a private one, which the other settings are for."""
    workers: int | None
    dashboard: bool
    object_store_bytes: int
    gpus: int | None = None
    _home: Path | None = field(default=None, init=False)
    _raylet: psutil.Process | None = field(default=None, init=False)
    """Ray's node process, of a private Ray."""
    _watcher: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _is_up: bool = field(default=False, init=False)

    def start(self) -> None:
        """Start or join Ray, once. Raises `MachineError`, or `UserError` for an address without a cluster."""
        if self._is_up:
            return
        # Ray reads these when it is first imported.
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # A thread of Ray Data's that outlives an interrupted run would start another Ray, with none of these options.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        if self.address is None:
            options = self._private_options()
        else:
            # Nodes may have another version of vidal, or none, and fetch that of this process once each.
            package = {"py_modules": [str(Path(vidal.__file__).parent)], "excludes": ["__pycache__"]}
            options = {"address": self.address, "runtime_env": package}
        import ray

        try:
            host, colon, port = (self.address or "").removeprefix("ray://").rpartition(":")
            if colon and port.isdigit():
                # Ray itself would wait for minutes for a cluster that is not there.
                # An IPv6 address is in brackets.
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
            with _silenced():
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            self.stop()
            line = one_line(error, 300)
            if self.address is not None:
                raise UserError(f"--ray-address {self.address}: no Ray cluster can be joined there: {line}") from error
            raise MachineError(f"Ray could not be started: {line}; `--engine local` runs without it") from error
        _configure()
        self._is_up = True
        for process in _processes_of(self._home) if self._home is not None else []:
            with contextlib.suppress(psutil.Error):
                if process.name() == "raylet":
                    self._raylet = process
                    break
        if self._raylet is not None:
            # Where it dies, Ray ends the driver at once, from native code: only another process can say why.
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "vidal-watch", str(self._raylet.pid), f"vidal: {_RAYLET_DIED}"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _private_options(self) -> dict[str, Any]:
        """Make the folder and the token of a private Ray; returns how it is to be started."""
        sweep_leftovers()
        me = psutil.Process()
        # The time as well as the id, which a later process may get.
        home = _HOME / f"{me.pid}-{int(me.create_time() * 100)}"
        token = home / "token"
        try:
            _HOME.mkdir(mode=0o700, exist_ok=True)
            if _HOME.lstat().st_uid != os.getuid():
                raise StorageError(
                    f"{_HOME}: is another user's, who could replace what Ray runs; set TMPDIR to your own"
                )
            # Ray opens the folder within to everybody. An earlier version's may be open, too.
            _HOME.chmod(0o700)
            home.mkdir(mode=0o700, exist_ok=True)
            self._home = home
            # Its mode is set before there is anything to read.
            token.touch(mode=0o600)
            token.write_text(secrets.token_urlsafe(32))
        except OSError as error:
            raise StorageError(
                f"{home}: Ray's folder cannot be made ({error.strerror}); free some space, set TMPDIR to a folder with "
                f"room, or use `--engine local`"
            ) from error
        # Whoever reaches Ray's ports can run code, also another user of this machine.
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
        return {
            # Without it, Ray would attach to any cluster that runs on this machine.
            "address": "local",
            "num_cpus": max(self.workers or 0, os.cpu_count() or 1),
            "num_gpus": self.gpus,
            "include_dashboard": self.dashboard,
            "object_store_memory": self.object_store_bytes,
            "_temp_dir": str(home),
        }

    def error(self, error: Exception) -> MachineError:
        """An error of Ray's as a `MachineError` of one line."""
        try:
            has_raylet_died = self._raylet is not None and self._raylet.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            has_raylet_died = True
        line = f"Ray failed: {type(error).__name__}: {one_line(error, 500)}"
        return MachineError(_RAYLET_DIED if has_raylet_died else line)

    def stop(self) -> None:
        """Leave the cluster; of a private one, every process is killed."""
        if "ray" in sys.modules:
            import ray

            with contextlib.suppress(Exception):
                ray.shutdown()
        self._is_up = False
        if self._watcher is not None:
            # Not before: without its node process, Ray ends the driver within the shutdown, too.
            self._watcher.communicate(b"done\n")
            self._watcher = self._raylet = None
        if self._home is not None:
            kill_processes_of(self._home)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
            sweep_folders()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Redirect standard error to /dev/null: native code prints its log level there, and has no setting against it."""
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def _configure() -> None:
    import ray._private.worker
    import ray.data

    # A worker's death is reported in its clip's row; this is the only switch for the raylet's own message.
    ray._private.worker._worker_logs_enabled = False

    # Neither max_task_retries nor options of one worker of a pool have a named parameter in the Ray that is pinned.
    warnings.filterwarnings("ignore", message="`ray_remote_args(_fn)?` is deprecated")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A lost row is a shard without a manifest, which the next pass makes; it must not end the run.
    context.max_errored_blocks = -1
    # A pool grows where all of its workers are busy, not only where each has a second shard queued.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def sweep_leftovers() -> None:
    """Kill the processes that earlier, killed runs have left, and remove their folders."""
    for home in _HOME.glob("*-*"):
        pid, _, started = home.name.partition("-")
        if not pid.isdigit():
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            if str(int(psutil.Process(int(pid)).create_time() * 100)) == started:
                continue
        # Two of Ray's processes stay for more than 40 s after their driver was killed.
        kill_processes_of(home)
        shutil.rmtree(home, ignore_errors=True)


def kill_processes_of(home: Path) -> None:
    """Kill every process of this user whose command line or environment names the private folder."""
    deadline = time.monotonic() + _STOP_S
    while (alive := _processes_of(home)) and time.monotonic() < deadline:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=0.5)


def _processes_of(home: Path) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(str(home) in part for part in process.cmdline()) or process.environ().get(
                "RAY_AUTH_TOKEN_PATH", ""
            ).startswith(f"{home}/"):
                processes.append(process)
    return processes
