"""`kill -9` of every command that writes, at seeded moments, then the same command: the bytes of one never killed.

A command is a fork of a process that has imported what it needs, since a start of an interpreter takes seconds of CPU;
`PROCESSES` start one. The driver alone is killed, not its group: its workers must notice by themselves.
`VIDAL_KILL_SEED` is another seed than 17; moments are CPU times of the driver, which a busy machine does not move much.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from tests import crawls
from tests.forks import Fork
from tests.learned import RECIPE, small_run, small_set
from tests.processes import command, descendants, still_alive
from tests.runs import (
    CAPTION,
    FEW_LETTERS,
    LETTERS,
    PAINT,
    ROOT,
    SAME_TITLE,
    SHADE,
    TROUBLE,
    run,
    write_list,
    write_recipe,
)
from tests.site import Site
from vidal.dataset import lock, usage
from vidal.engine.local import InProcessEngine
from vidal.export.formats import WRITERS

SEED = int(os.environ.get("VIDAL_KILL_SEED", "17"))
ENV = {"VIDAL_ALLOW_MODULES": "tests", "COLUMNS": "300"}
ALONE, POOL = ("--engine", "local", "--workers", "0"), ("--engine", "local", "--workers", "3")

FORMATS = [name for name in WRITERS if name != "lance" or find_spec("lance")]

# {made} is the folder that all have in common and that none writes to, {here} a copy of {made}/base.
COMMANDS: dict[str, tuple[str, ...]] = {
    "build": ("build", "{made}/toys.yaml", "--out", "{here}/new", *ALONE),
    "build by three workers": ("build", "{made}/toys.yaml", "--out", "{here}/new", *POOL),
    "retry": ("retry", "{here}/out", *ALONE),
    "add": ("add", "{made}/more.yaml", "{here}/out", *ALONE),
    "add by three workers": ("add", "{made}/more.yaml", "{here}/out", *POOL),
    "refilter": ("refilter", "{here}/out", "--set", f"{FEW_LETTERS}.min=4"),
    "grow": ("grow", "{here}/out", "--source", "list={made}/longer.csv", *ALONE),
    "remove": (
        "remove", "{here}/out", "--ids", "{made}/asked.txt", "--also", "{here}/joint", "--certificate",
        "{here}/certificate.json",
    ),
    "crawl": ("crawl", "{made}/crawl.yaml", "--out", "{here}/crawl", "--engine", "local", "--workers", "1"),
    **{f"export {name}": ("export", "{here}/out", "--format", name, "--out", "{here}/exported") for name in FORMATS},
    "embed": ("embed", "{made}/clips", "--checkpoint", "{made}/run", "--out", "{here}/embeddings"),
    "reinforce": (
        "reinforce", "{here}/clips", "--checkpoint", "{made}/run", "--name", "small", "--views", "caption,raw",
    ),
    "train": ("train", "{made}/small.yaml", "--data", "{made}/clips", "--out", "{here}/run"),
    "ablate": (
        "ablate", "{made}/small.yaml", "--data", "{made}/clips", "--arms", "{made}/arms.yaml", "--out", "{here}/arms",
        "--seeds", "1", "--steps", "3",
    ),
    "terms": (
        "terms", str(ROOT / "manifests" / "terms" / "kinetics-400.txt"), "--number", "200", "--out",
        "{here}/terms.parquet",
    ),
    "index": ("index", "{made}/base/joint/*.tar", "--out", "{here}/indexed"),
}  # fmt: skip
UNFINISHED = "finish `vidal build` before a retry"
"""What a retry says to shards that are missing, as one that was killed may have left; it is done, then."""
BUILD_OF_RETRY = ("build", "{made}/longer/toys.yaml", "--out", "{here}/out", *ALONE)
KILLS = {name: 100 // len(COMMANDS) + (number < 100 % len(COMMANDS)) for number, name in enumerate(COMMANDS)}
FEW = ("build by three workers", "refilter", "remove", "export joint", "index", "terms")
"""One kill of each in the short tests."""
PROCESSES = ("build by three workers", "train", "grow")
"""In the long tests the first kill of each is of `python -m vidal`."""
AGAIN = {"train": ("--resume",)}
"""What a user adds after a death."""
LEFT_FOR_AN_HOUR = re.compile(r"\..+\.texts\.\d+")
"""Of the cache of texts: another host's run may be writing it."""
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\+00:00|Z)")
_HASH_OF_TIMED = re.compile(rb"SHA-256 of certificate.json: \w+")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with something to retry, to add, to grow, to remove and to export."""
    folder = tmp_path_factory.mktemp("made")
    stages = [LETTERS, {FEW_LETTERS: {"min": 2}}, {PAINT: {"cost_s": 0.01}}, SAME_TITLE, CAPTION]
    titles = [f"{'abcdefgh'[: n % 9]} {n % 20}" for n in range(24)]
    write_recipe(folder, stages, titles, shards={"size": 3})
    write_list(folder, [*titles, *(f"more of it {n}" for n in range(12))], "longer.csv")
    for name in ("longer", "marks"):
        (folder / name).mkdir()
    gone = [*titles[:-1], "once gone"]
    trouble = write_recipe(
        folder / "longer", [*stages, {TROUBLE: {"marks": str(folder / "marks")}}], gone, shards={"size": 3}
    )
    run(trouble, folder / "base" / "out", InProcessEngine())
    (folder / "more.yaml").write_text(yaml.safe_dump({"stages": [SHADE]}))
    (folder / "asked.txt").write_text("c005\nc011\n")
    done = command("export", folder / "base" / "out", "--out", folder / "base" / "joint", env=ENV)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def all_made(made: Path) -> Iterator[Path]:
    """The same, with clips, a run, and recipes of a crawl, a training and an ablation."""
    small_run(small_set(made / "clips"), made / "run")
    shutil.copytree(made / "clips", made / "base" / "clips")
    small = RECIPE | {"steps": 12, "checkpoints": {"every_steps": 2}, "towers": {"audio": RECIPE["towers"]["audio"]}}
    small |= {"data": {"workers": 0, "heldout": 0.3}}
    (made / "small.yaml").write_text(yaml.safe_dump(small))
    (made / "arms.yaml").write_text(yaml.safe_dump({"arms": {"one": {}, "two": {"set": {"optimiser.lr": 1e-4}}}}))
    with Site() as site:
        urls = [site.url(f"/{path}") for path in ("clip/bunny-wake.mp4", "fault/gone/a.mp4", "disallowed/a.mp4")]
        (made / "crawl").mkdir()
        recipe = crawls.write_recipe(made / "crawl", {"urls": urls})
        recipe.rename(made / "crawl.yaml")
        yield made


class Process(subprocess.Popen[str]):
    """A command by an interpreter of its own, in the words of a `Fork`."""

    def __init__(self, *words: str, cwd: Path, env: dict[str, str]) -> None:
        super().__init__(
            [sys.executable, *words], cwd=cwd, env={**os.environ, **env}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def ended(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        out, err = self.communicate(timeout=timeout)
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


class Trial:
    """One command in a folder of its own, which is made anew as often as needed."""

    def __init__(self, name: str, made: Path, folder: Path) -> None:
        self.name, self._made, self._here = name, made, folder / "here"
        self._moments = random.Random(f"{SEED} {name}")

    def anew(self) -> None:
        """As it was before the command."""
        shutil.rmtree(self._here, ignore_errors=True)
        shutil.copytree(self._made / "base", self._here)
        # The budgets of hosts.
        shutil.rmtree(Path(os.environ["VIDAL_CACHE"]) / "crawl", ignore_errors=True)

    def start(self, kind: Any = Fork, more: tuple[str, ...] = (), of: tuple[str, ...] = ()) -> Any:
        words = [word.format(made=self._made, here=self._here) for word in of or COMMANDS[self.name]]
        return kind("-m", "vidal", *words, *more, cwd=ROOT, env=ENV)

    def undisturbed(self) -> dict[str, str]:
        """Run it to the end; keeps at which CPU times it wrote first and ended, and gives what it left."""
        process, first_s = self._written_first(Fork, ())
        last_s = first_s
        while process.poll() is None:
            last_s = max(last_s, cpu_s(process.pid))
            time.sleep(0.002)
        self._first_s, self._writes_s = first_s, last_s - first_s
        done = process.ended()
        assert done.returncode == 0, done.stderr
        return self.left()

    def killed(self, kind: Any, more: tuple[str, ...]) -> bool:
        """Start it and kill it at the next moment; false if it had ended by then."""
        # A third at any moment, the others from the first write on, when most is at stake.
        is_any, share, wait_s = self._moments.random() < 1 / 3, self._moments.random(), self._moments.uniform(0, 0.02)
        if is_any:
            process, due_s = self.start(kind, more), share * (self._first_s + self._writes_s)
        else:
            process, first_s = self._written_first(kind, more)
            due_s = first_s + share * self._writes_s
        while process.poll() is None and cpu_s(process.pid) < due_s:
            time.sleep(0.001)
        # The clock of processes ticks a hundred times a second.
        time.sleep(wait_s)
        children = descendants(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        done = process.ended()
        is_killed = done.returncode == -signal.SIGKILL
        assert is_killed or done.returncode == 0 or UNFINISHED in done.stderr, f"seed {SEED}: {done.stderr}"
        assert still_alive(children) == [], f"seed {SEED}"
        return is_killed

    def _written_first(self, kind: Any, more: tuple[str, ...]) -> tuple[Any, float]:
        """Start it, and give it back when it has written something, with the CPU time that it had taken by then."""
        before = self._stamps()
        process = self.start(kind, more)
        while process.poll() is None and self._stamps() == before:
            time.sleep(0.002)
        return process, cpu_s(process.pid)

    def finished(self, more: tuple[str, ...]) -> dict[str, str]:
        done = self.start(more=more).ended()
        if UNFINISHED in done.stderr:
            done = self.start(of=BUILD_OF_RETRY).ended()
        assert done.returncode == 0, f"seed {SEED}: {done.stderr}"
        return self.left()

    def left(self) -> dict[str, str]:
        """SHA-256 of all files but locks and what was used; without times where they are what a file is for."""
        files = [path for path in sorted(self._here.rglob("*")) if path.is_file()]
        if tables := [path for path in self._here.rglob("*.lance") if path.is_dir()]:
            # Its files have random names, and name each other: how many there are of each folder, and all rows.
            files = [path for path in files if tables[0] not in path.parents]
            folders = Counter(path.parent.name for path in tables[0].rglob("*") if path.is_file())
            return {"folders": repr(sorted(folders.items())), "rows": rows_of(tables[0]), **self._digests(files)}
        return self._digests(files)

    def _digests(self, files: list[Path]) -> dict[str, str]:
        return {
            str(path.relative_to(self._here)): hashlib.sha256(timeless(path)).hexdigest() for path in files
            if path.parent.name not in (lock.FOLDER, usage.FOLDER) and not LEFT_FOR_AN_HOUR.fullmatch(path.name)
        }  # fmt: skip

    def _stamps(self) -> dict[str, int]:
        stamps = {}
        for path in self._here.rglob("*"):
            try:
                stamps[str(path)] = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
        return stamps


def rows_of(table: Path) -> str:
    """All rows of a Lance table; a process of its own, as Lance's threads bear no fork."""
    script = "import lance, sys; print(lance.dataset(sys.argv[1]).to_table().to_pylist())"
    return subprocess.run([sys.executable, "-c", script, table], check=True, capture_output=True, text=True).stdout


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, its threads' included."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def timeless(path: Path) -> bytes:
    """The bytes of a file; without the times that a crawl, a certificate and a training log are to tell."""
    if path.parent.parent.name == "arms" and path.suffix == ".json":
        # What a training took, which is not known of one that was resumed.
        return json.dumps({k: v for k, v in json.loads(path.read_bytes()).items() if k != "cpu_s"}).encode()
    if path.name == "log.jsonl":
        # A resumed run logs the steps from its last checkpoint on once more, and that it was resumed.
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        steps = {(line["event"], line["step"]): line.get("loss") for line in lines if "step" in line}
        return repr(sorted(steps.items(), key=str)).encode()
    data = path.read_bytes()
    if path.suffix == ".parquet" and path.parent.parent.name == "crawl":
        rows = pq.read_table(path).to_pylist()
        # Of members that have the time in them.
        for member in (member for row in rows for member in row["members"] if member["name"].endswith(".json")):
            del member["sha256"]
        data = repr([{k: v for k, v in row.items() if k != "crawled_at"} for row in rows]).encode()
    is_timed = path.parent.parent.name == "crawl" or path.stem == "certificate"
    return _HASH_OF_TIMED.sub(b"", _TIME.sub(b"", data)) if is_timed else data


def kill(name: str, kills: int, made: Path, folder: Path, first: Any = Fork) -> None:
    """Kill a command so many times, three at most on its way to one end, and hold each end against the first."""
    trial = Trial(name, made, folder)
    trial.anew()
    wanted, done, starts = trial.undisturbed(), 0, 0
    while done < kills:
        trial.anew()
        more: tuple[str, ...] = ()
        for _ in range(min(3, kills - done)):
            starts += 1
            assert starts <= 4 * kills + 4, "it ends before its moments"
            if not trial.killed(Fork if done else first, more):
                break
            done, more = done + 1, AGAIN.get(name, ())
        there = trial.finished(more)
        assert there == wanted, f"seed {SEED}, kill {done}: {sorted(set(there.items()) ^ set(wanted.items()))}"


@pytest.mark.parametrize("name", FEW)
def test_a_command_killed_once_leaves_the_same_bytes(name: str, made: Path, tmp_path: Path) -> None:
    kill(name, 1, made, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_killed_a_hundred_times_leave_the_same_bytes(name: str, all_made: Path, tmp_path: Path) -> None:
    kill(name, KILLS[name], all_made, tmp_path, Process if name in PROCESSES else Fork)
