"""The command line mirrors the library: what it prints is what is there, for people and for scripts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import vidal
from tests.processes import command
from tests.runs import PAINT, SAME_TITLE, TROUBLE, run, write_recipe
from vidal.commands import app
from vidal.commands.terminal import guarded
from vidal.dataset.dataset import Dataset
from vidal.dataset.find import find
from vidal.engine.local import InProcessEngine
from vidal.errors import MachineError, RecipeError, SourceError, UserError, VidalError
from vidal.recipe import check

TITLES = ["one", "reject", "gone", "raise", "one", "two"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run(write_recipe(folder, [PAINT, TROUBLE, SAME_TITLE], TITLES), folder / "out", InProcessEngine())
    return folder / "out"


def said(*arguments: str | Path) -> str:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_version_is_the_packages() -> None:
    assert said("--version") == f"vidal {vidal.__version__}\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [("vidal refi", ["refilter"]), ("vidal stages dep", ["depth"]), ("vidal init --template own", ["own-videos"])],
)
def test_the_shell_completes_commands_stages_and_templates(words: str, completed: list[str]) -> None:
    asked = {"_VIDAL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner(env=asked).invoke(app, [], prog_name="vidal")
    assert done.stdout.split() == completed


def test_every_command_has_a_line_of_help() -> None:
    listed = said("--help")
    for name, each in get_command(app).commands.items():
        assert each.help
        assert name in listed


def test_status_reconciles(built: Path) -> None:
    told = json.loads(said("status", built, "--json"))
    assert (told["shards"], told["shards_committed"]) == (2, 2)
    assert told["candidates"] == told["kept"] + told["rejected"] + told["failed"] + told["open"] == 6
    assert {(line["stage"], line["status"], line["reason"], line["clips"]) for line in told["dropped"]} == {
        ("trouble", "rejected", "unwanted", 1),
        ("trouble", "failed", "rate_limited", 1),
        ("trouble", "failed", "value_error", 1),
        ("same_title", "rejected", "duplicate", 1),
    }
    assert said("status", built).startswith("toys: 2 of 2 shards committed, layers video\n")


ON_DAMAGE = {
    "status": ["status", "{set}"],
    "why": ["why", "{set}", "{clip}"],
    "report": ["report", "{set}", "--out", "{tmp}/r.html"],
    "report where": ["report", "{set}", "--out", "{tmp}/r.html", "--where", "duration_s > 1"],
    "joint": ["export", "{set}", "--out", "{tmp}/joint"],
    "joint where": ["export", "{set}", "--out", "{tmp}/joint", "--where", "duration_s > 1"],
    "annotations": ["export", "{set}", "--format", "vidal-json", "--out", "{tmp}/v.json"],
}


def with_a_changed_byte_in_every_column(data: bytes) -> bytes:
    """The last byte of each column's last page: nothing but a checksum tells of most."""
    group, changed = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0), bytearray(data)
    for number in range(group.num_columns):
        column = group.column(number)
        first = column.dictionary_page_offset or column.data_page_offset
        changed[first + column.total_compressed_size - 1] ^= 0x01
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "changed pages": with_a_changed_byte_in_every_column,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("words", ON_DAMAGE.values(), ids=ON_DAMAGE)
def test_a_damaged_manifest_is_one_line_that_says_how_to_mend_it(
    words: list[str], damage: Callable[[bytes], bytes], built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "set")
    path = tmp_path / "set" / "manifest" / "000001.parquet"
    path.write_bytes(damage(path.read_bytes()))
    clip = Dataset.open(str(built)).plan.clip_ids(1)[0]
    given = [word.format(set=tmp_path / "set", tmp=tmp_path, clip=clip) for word in words]
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, given)
    assert isinstance(done.exception, SourceError), done.exception
    line = str(done.exception)
    assert line.startswith(f"{path}: the manifest is damaged (") and "\n" not in line
    assert line.endswith("; delete it and run the build again")
    assert not list(tmp_path.glob("r.html")) and not list(tmp_path.glob("v.json"))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write into, root included, where this user may mount one."""
    place = tmp_path / "here"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True).returncode:
        place.chmod(0o555)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write everywhere, and may not mount")
        yield place
        place.chmod(0o755)
        return
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_report_in_a_read_only_folder_is_one_line(built: Path, read_only: Path) -> None:
    done = command("report", built, cwd=read_only)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("vidal: ") and f"{read_only}/report.html: " in done.stderr
    assert "choose another --out" in done.stderr


def test_a_report_says_how_many_clips_it_shows(built: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert said("report", built, "--out", page) == f"wrote {page}\n"
    few = said("report", built, "--out", page, "--max-clips", "1")
    assert few == f"wrote {page}: 1 of 2 clips, evenly chosen; --max-clips shows more\n"
    assert "1 of 2 kept clips are shown, sampled evenly over the dataset; 1 are omitted" in page.read_text()
    said("report", built, "--out", page, "--where", "clip_id = 'c005'")
    assert "1 of 2 kept clips meet the condition <bdi>clip_id = &#39;c005&#39;</bdi>" in page.read_text()
    nothing = CliRunner().invoke(app, ["report", str(built), "--out", str(page), "--where", "duration_s > 100"])
    assert "selects none of 2 samples" in str(nothing.exception)


WHY = [
    ("c001", "c001 is rejected: stage trouble, unwanted (1 > 0)"),
    (
        "c002",
        "c002 is failed: stage trouble, rate_limited (429); a retry may succeed: vidal retry {out} --clip c002",
    ),
    ("c005", "c005 is kept"),
]


@pytest.mark.parametrize(("clip", "sentence"), WHY)
def test_why_says_what_became_of_a_clip(clip: str, sentence: str, built: Path) -> None:
    assert said("why", built, clip).splitlines()[0] == sentence.format(out=built)


@pytest.fixture(scope="module")
def odd_ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of seven clips whose ids begin alike or with a hyphen, in two shards."""
    folder = tmp_path_factory.mktemp("ids")
    ids = ["-abc", "--json2", "ab", "abc1", "abd", "abe", "abf"]
    (folder / "l.csv").write_text("clip_id,url\n" + "".join(f"{name},https://h/{name}\n" for name in ids))
    recipe = check({"source": {"list": str(folder / "l.csv")}, "shards": {"size": 4}, "stages": [PAINT]}, "r")
    run(recipe, folder / "out", InProcessEngine())
    return folder / "out"


FOUND = [
    (["-abc"], "-abc"),
    (["--", "-abc"], "-abc"),
    (["--", "--json2"], "--json2"),
    (["--json2"], "--json2"),
    (["-a"], "-abc"),
    (["abc"], "abc1"),
    (["ab"], "ab"),
    (["https://h/abd"], "abd"),
]


@pytest.mark.parametrize(("given", "clip_id"), FOUND)
def test_why_finds_a_clip_by_its_id_the_beginning_of_it_or_its_url(
    given: list[str], clip_id: str, odd_ids: Path
) -> None:
    assert said("why", odd_ids, *given).splitlines()[0] == f"{clip_id} is kept"


def test_why_names_up_to_five_candidates_or_says_that_there_is_none(odd_ids: Path) -> None:
    dataset = Dataset.open(str(odd_ids))
    with pytest.raises(SourceError, match=rf"^{odd_ids}: no clip nobody in this dataset$"):
        find(dataset, "nobody")
    with pytest.raises(SourceError, match=rf"^{odd_ids}: 2 clips match -: (-abc, --json2|--json2, -abc)$"):
        find(dataset, "-")
    with pytest.raises(SourceError, match=rf"^{odd_ids}: 7 clips match : ([\w-]+, ){{5}}…$"):
        find(dataset, "")


def test_why_says_how_far_a_dataset_is_that_is_not_complete(odd_ids: Path, tmp_path: Path) -> None:
    shutil.copytree(odd_ids, tmp_path / "out")
    dataset = Dataset.open(str(tmp_path / "out"))
    gone = dataset.plan.clip_ids(1)[0]
    (tmp_path / "out/manifest/000001.parquet").unlink()
    with pytest.raises(SourceError, match=rf"clip {gone} is in shard 1, which is not built yet \(1 of 2 shards"):
        find(dataset, gone)
    with pytest.raises(SourceError, match=r"no clip nobody in this dataset \(1 of 2 shards committed\)"):
        find(dataset, "nobody")


USAGE_ERRORS = [
    (["why", "c001", "{out}"], "c001 is no dataset and {out} is one; the dataset comes first: vidal why {out} CLIP"),
    (["why", "{out}", "c00"], "{out}: 6 clips match c00: "),
    (["export", "{out}", "--out", "o", "--format", "encoder"], "--format encoder: a training run is exported by `vidal export-encoder RUN --out DIR`"),
    (["export", "{out}", "--out", "o", "--format", "tar"], "--format tar: choose from joint, open-clip, vidal-json"),
    (["eval", "r", "--data", "a", "b"], "--data a b: takes one dataset; ranks over several are not comparable"),
    (["eval", "r", "--data", "a", "--data", "b"], "--data a b: takes one dataset; ranks over several are not comparable"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "line"), USAGE_ERRORS, ids=[" ".join(words) for words, _ in USAGE_ERRORS])
def test_a_wrong_command_line_is_one_line_that_says_what_is_right(words: list[str], line: str, built: Path) -> None:
    done = CliRunner().invoke(app, [word.format(out=built) for word in words])
    assert isinstance(done.exception, UserError), done.output
    assert str(done.exception).startswith(line.format(out=built)) and "\n" not in str(done.exception)


def test_why_names_the_clip_that_a_duplicate_repeats(built: Path) -> None:
    told = {clip: json.loads(said("why", built, clip, "--json")) for clip in ("c000", "c004")}
    (repeat,) = [row for row in told.values() if row["status"] == "rejected"]
    (first,) = [row for row in told.values() if row["status"] == "kept"]
    sentence = f"{repeat['clip_id']} is rejected: stage same_title, duplicate (None), repeats {first['clip_id']}"
    assert said("why", built, repeat["clip_id"]).splitlines()[0] == sentence


def test_a_build_takes_overrides_and_tells_scripts_in_json(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT], 6)
    given = ["build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0", "--json"]
    told = json.loads(said(*given, "--set", "shards.size=2", "--set", f"{PAINT}.pixels=8"))
    assert (told["kept"], told["did_nothing"]) == (6, False)
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (info["shards"], info["recipe"]["stages"][0]["settings"]["pixels"]) == (3, 8)


CODES: list[tuple[BaseException, int]] = [
    (RecipeError("r.yaml: wrong"), 2),
    (MachineError("the disk is full"), 1),
    (VidalError("odd"), 1),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    assert guarded(fails) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"vidal: {error}\n")


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)


@pytest.mark.parametrize("broken", [MachineError("a worker died"), ValueError("odd")])
def test_what_an_interrupt_breaks_on_the_way_is_the_interrupts_doing(
    broken: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallows_the_interrupt() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        raise broken

    assert guarded(swallows_the_interrupt) == 130
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and err.startswith("vidal: interrupted; committed shards are kept")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
