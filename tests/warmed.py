"""Commands in copies of a process of any Python that has imported modules beforehand: one after the other.

Unlike those of `tests.forks`, what has been imported is the test's choice: in an environment of few packages, or all but
what reads its settings at its import. It runs as a script with the standard library alone.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


class Warmed:
    """A process of ``python`` that has imported ``modules``; the end of the context is its end and that of its copies."""

    def __init__(self, python: str | Path, *modules: str) -> None:
        self._process = subprocess.Popen(
            [python, "-P", __file__, *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_of_a_user(), process_group=0,
        )  # fmt: skip

    def __enter__(self) -> Warmed:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def run(
        self, *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``["-m", module, …]`` or ``["-c", code]`` to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        words = [str(word) for word in command]
        with tempfile.TemporaryDirectory() as said:
            job = {"words": words, "cwd": str(cwd), "env": _of_a_user() | dict(env or {}), "said": said}
            print(json.dumps(job), file=self._process.stdin, flush=True)
            code = self._process.stdout.readline()
            assert code, "the process lives, so all modules could be imported"
            out, err = ((Path(said) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(words, int(code), out, err)


def _of_a_user() -> dict[str, str]:
    """The environment's variables, but for those by which the tests find their own modules."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _next_job() -> list[str]:
    """In the process: copy it for each line read; gives a copy's command once it stands where its job says."""
    for line in sys.stdin:
        job = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{job['said']}/{name}", os.O_WRONLY | os.O_CREAT), number)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        sys.path.insert(0, job["cwd"])
        return job["words"]
    sys.exit()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        importlib.import_module(each)
    how, what, *rest = _next_job()
    sys.argv = [how, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
