"""A supervised process sees, takes and leaves behind only what it may."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from vidal.process import Cause, Child, die_with, private_folder, sweep_folders

MIB = 1024 * 1024
INFINITY = resource.RLIM_INFINITY


def shell(script: str, folder: Path, limits: Mapping[int, tuple[int, int]] | None = None) -> Child:
    command = ["/bin/sh", "-c", script]
    return Child(command, folder, {"PATH": "/usr/bin:/bin"}, limits or {}, output="stdout", has_input=True)


ENDS: list[tuple[str, Cause, str]] = [
    ("exit 0", "exit", "exit code 0"),
    ("exit 3", "exit", "exit code 3"),
    ("kill -SEGV $$", "signal", "SIGSEGV"),
    ("kill -KILL $$", "signal", "SIGKILL"),
    ("while :; do :; done", "cpu", "SIGXCPU"),
    ("trap '' XCPU; while :; do :; done", "cpu", "SIGKILL"),
    ("exec head -c 3000000 /dev/zero > big", "file_size", "SIGXFSZ"),
    ("exec sleep 60", "deadline", "SIGKILL"),
    ("exec >&-; sleep 60", "deadline", "SIGKILL"),
]


@pytest.mark.parametrize(("script", "cause", "text"), ENDS, ids=[end[0] for end in ENDS])
def test_the_cause_of_an_end_is_named(script: str, cause: Cause, text: str, tmp_path: Path) -> None:
    with shell(script, tmp_path, {resource.RLIMIT_CPU: (1, 2), resource.RLIMIT_FSIZE: (MIB, MIB)}) as child:
        end = child.wait(time.monotonic() + (1 if cause == "deadline" else 60))
    assert (end.cause, str(end)) == (cause, text)
    assert child.wait(0.0) == child.close() == end


@pytest.mark.parametrize("has_tools", [True, False])
def test_limits_hold_and_core_files_are_off(has_tools: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_tools:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with shell("read line; cat /proc/self/limits", tmp_path, {resource.RLIMIT_AS: (512 * MIB, 512 * MIB)}) as child:
        child.limit(resource.RLIMIT_FSIZE, MIB, INFINITY)
        child.write(b"go\n")
        text = b""
        while data := child.read(time.monotonic() + 20):
            text += data
    limits = {line[:25].strip(): line[25:].split()[:2] for line in text.decode().splitlines()}
    assert limits["Max address space"] == [str(512 * MIB)] * 2
    assert limits["Max file size"] == [str(MIB), "unlimited"]
    assert limits["Max core file size"] == ["0", "0"]


def test_a_child_has_the_environment_the_folder_and_the_streams_that_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    inherited = os.open(tmp_path, os.O_RDONLY)
    script = "env; pwd; ls -l /proc/self/fd; cut -d' ' -f 6 /proc/self/stat; echo $$"
    with Child(["/bin/sh", "-c", script], tmp_path, {"ONLY": "this"}, output="stdout") as child:
        text = ""
        while data := child.read(time.monotonic() + 20):
            text += data.decode()
        session, pid = text.split()[-2:]
    os.close(inherited)
    assert "SECRET" not in text and "ONLY=this" in text and str(tmp_path) in text
    assert "0 -> /dev/null" in text and "2 -> /dev/null" in text and "1 -> pipe" in text
    assert f"{tmp_path}\n" not in text.partition("->")[2]
    assert session == pid == str(child.pid)


def test_nothing_is_read_before_it_is_there(tmp_path: Path) -> None:
    with shell("read line; echo $line", tmp_path) as child:
        assert child.read(time.monotonic() + 0.05) is None and child.poll() is None
        child.write(b"hello\n")
        assert child.read(time.monotonic() + 20) == b"hello\n"
        assert child.read(time.monotonic() + 20) == b""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_is_killed_with_its_group(tmp_path: Path) -> None:
    with shell("sleep 60 & echo $!; wait", tmp_path) as child:
        grandchild = int(child.read(time.monotonic() + 20) or b"")
    wait_for_the_end_of(grandchild)
    assert not Path(f"/proc/{child.pid}").exists()


@pytest.mark.parametrize("has_setpriv", [True, False])
def test_a_child_does_not_outlive_its_parent(has_setpriv: bool, tmp_path: Path) -> None:
    program = (
        "import shutil, time; from pathlib import Path; from vidal.process import Child\n"
        f"{'' if has_setpriv else 'shutil.which = lambda *_, **__: None'}\n"
        "child = Child(['/bin/sh', '-c', 'echo $$; exec sleep 60'], Path('/'), {}, output='stdout')\n"
        "child.read(time.monotonic() + 20)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_for_the_end_of(pid)


def test_a_process_whose_parent_is_dead_already_ends_at_once() -> None:
    if (pid := os.fork()) == 0:
        die_with(os.getppid() + 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_folders_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    ours, others = private_folder("test", tmp_path), tmp_path / "vidal-private-notes"
    left = tmp_path / f"vidal-private-{gone.pid}-test-x"
    for folder in (others, left):
        folder.mkdir()
    sweep_folders(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours, others])
    assert ours.stat().st_mode & 0o777 == 0o700
