"""A stage declares the columns that it adds to the record, and the dataset has them as it has its own."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.letter_toys import Letters
from tests.runs import FEW_LETTERS, LETTERS, PAINT, RANK, outcomes, rows, run, write_recipe
from vidal.clip import Clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import ClipError, OutputError, RecipeError
from vidal.flow import check_flow
from vidal.recipe import check, fingerprint
from vidal.record import Column
from vidal.removal.remove import remove
from vidal.sources.list import ListSource
from vidal.stage import Decision, Stage, Step
from vidal.stages.filters.too_long import TooLong

TYPES = {
    "letters": pa.int64(), "letter_share": pa.float64(), "letter_words": pa.list_(pa.string()),
    "letter_rule": pa.string(), "is_shouted": pa.bool_(),
}  # fmt: skip


def built(folder: Path, stages: list[Any], titles: list[str], **keys: Any) -> Path:
    """A dataset of toy stages, its list beside it."""
    run(write_recipe(folder, stages, titles, **keys), folder / "out", InProcessEngine())
    return folder / "out"


def jsons(out: Path) -> dict[str, dict[str, Any]]:
    """The json members of the video layer by clip."""
    found = {}
    for path in sorted((out / "video").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    data = tar.extractfile(member)
                    assert data is not None
                    found[member.name.removesuffix(".json")] = json.load(data)
    return found


def step(name: str, kind: type[Step] = Stage, **declared: Any) -> Step:
    made: Step = type(kind)(name, (kind,), {"__module__": __name__, **declared})()
    return made


def test_declared_columns_are_in_the_manifest_with_their_types_and_in_the_json_by_their_groups(tmp_path: Path) -> None:
    out = built(tmp_path, [PAINT, LETTERS, FEW_LETTERS], ["half", "a b", "c 3po"])
    schema = pq.read_schema(out / "manifest" / "000000.parquet")
    assert {name: schema.field(name).type for name in TYPES} == TYPES
    assert schema.field("letter_words").metadata == {b"group": b"texts"}
    row = rows(out)["c000"]
    assert [row[name] for name in TYPES] == [4, 0.5, ["half"], "isalpha", None]
    few = rows(out)["c001"]
    assert [few[name] for name in ("reason", "letters", "decided_value", "decided_limit")] == ["few_letters", 2, 2, 3]
    members = jsons(out)
    assert members.keys() == {"c000", "c002"}
    assert [members["c000"].get(name, "absent") for name in TYPES] == [4, 0.5, ["half"], "absent", None]
    assert not list(verify(Dataset.open(str(out))))
    told = json.loads((out / "dataset.json").read_text())["columns"]
    assert told["letter_words"] == {"type": "list[str]", "doc": "words of the title", "group": "texts"}
    assert Dataset.open(str(out)).info.columns == Letters.columns


def test_a_dataset_without_declared_columns_does_not_speak_of_them(tmp_path: Path) -> None:
    info = json.loads((built(tmp_path, [PAINT], ["a"]) / "dataset.json").read_text())
    assert "columns" not in info and "columns" not in info["recipe"]["stages"][0]


@pytest.mark.parametrize(
    ("title", "stage", "reason", "detail"),
    [
        ("undeclared", "letters", "undeclared_column", 'no column `vowels`; the stage that writes it declares it: columns = {"vowels": Column(TYPE, "MEANING")}'),
        ("unread", "letters", "undeclared_column", "no column `vowels`"),
        ("behind its back", "pack", "undeclared_column", "no column `vowels`"),
        ("unstorable", "pack", "unstorable", "letters: "),
        ("raises", "letters", "value_error", "no such letter"),
    ],
)  # fmt: skip
def test_a_value_that_has_no_column_costs_its_clip_alone(
    title: str, stage: str, reason: str, detail: str, tmp_path: Path
) -> None:
    out = built(tmp_path, [PAINT, LETTERS], ["fine", title, "half"])
    row = rows(out)["c001"]
    assert (row["status"], row["stage"], row["reason"]) == ("failed", stage, reason)
    assert row["detail"].startswith(detail)
    assert outcomes(out)["c000"] == outcomes(out)["c002"] == ("kept", None)
    assert [rows(out)[clip_id]["letters"] for clip_id in ("c000", "c002")] == [4, 4]
    assert not list(verify(Dataset.open(str(out))))


@pytest.mark.parametrize("name", ["blur", "letters"])
def test_a_clip_is_read_and_written_by_the_names_of_its_columns(name: str) -> None:
    clip = Clip(blur=0.5, extra={"letters": None})
    clip[name] = 2
    assert clip[name] == 2 and {"blur": clip.blur, **clip.extra}[name] == 2


def test_a_clip_without_the_column_says_who_should_declare_it() -> None:
    with pytest.raises(ClipError, match="undeclared_column: no column `blurr`; the stage that writes it declares it"):
        Clip()["blurr"] = 0.5


def test_a_global_decision_writes_a_column_that_later_stages_read(tmp_path: Path) -> None:
    out = built(tmp_path, [PAINT, LETTERS, RANK, FEW_LETTERS], ["three", "a", "four four", "fine"])
    assert {c: (r["status"], r["letters"], r["rank"]) for c, r in rows(out).items()} == {
        "c000": ("kept", 5, 1), "c001": ("rejected", 1, 3), "c002": ("kept", 8, 0), "c003": ("kept", 4, 2),
    }  # fmt: skip
    assert jsons(out)["c003"]["rank"] == 2
    first = Dataset.open(f"{out}/phases/1")
    assert first.info.columns.keys() == Letters.columns.keys()
    assert Dataset.open(str(out)).info.columns.keys() == {*Letters.columns, "rank"}
    assert not [*verify(first), *verify(Dataset.open(str(out)))]


def test_a_global_decision_sets_no_column_that_it_does_not_declare(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="rank sets `luck`, which no global decision can set; declare it"):
        built(tmp_path, [PAINT, LETTERS, {RANK: {"also": "luck"}}], ["three", "a"])


def test_columns_travel_to_a_dataset_that_is_built_from_this_one(tmp_path: Path) -> None:
    out = built(tmp_path, [PAINT, LETTERS], ["half", "a", "third"])
    raw = {"source": {"dataset": str(out)}, "stages": [{FEW_LETTERS: {"min": 2}}], "shards": {"size": 2}}
    run(check(raw, "again.yaml"), tmp_path / "again", InProcessEngine())
    again = Dataset.open(str(tmp_path / "again"))
    assert again.info.columns == Letters.columns
    assert outcomes(tmp_path / "again")["c001"] == ("rejected", "few_letters")
    for clip_id in ("c000", "c002"):
        before, after = rows(out)[clip_id], rows(tmp_path / "again")[clip_id]
        assert {name: after[name] for name in TYPES} == {name: before[name] for name in TYPES}
        assert jsons(tmp_path / "again")[clip_id] == jsons(out)[clip_id]
    assert not list(verify(again))
    raw["stages"] = [LETTERS, FEW_LETTERS]
    run(check(raw, "measured-again.yaml"), tmp_path / "measured", InProcessEngine())
    assert rows(tmp_path / "measured")["c000"]["letters"] == 4


def test_a_stage_reads_a_column_of_the_source_s_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,letters\na.mp4,7\nb.mp4,1\n")
    raw = {"source": {"list": str(tmp_path / "a.csv")}, "stages": [PAINT, FEW_LETTERS]}
    run(check(raw, "own.yaml"), tmp_path / "out", InProcessEngine())
    assert sorted(outcomes(tmp_path / "out").values()) == [("kept", None), ("rejected", "few_letters")]


@pytest.mark.parametrize(
    ("header", "cell", "message"),
    [
        ("letters", "7", None),
        ("letters", "many", "the source has a column `letters` of type string, and a stage declares `letters` as int"),
        ("Letters", "7", "the source has a column `Letters` of type int64, and a stage declares `letters` as int"),
    ],
)
def test_a_column_of_the_source_is_the_stage_s_where_both_say_the_same(
    header: str, cell: str, message: str | None, tmp_path: Path
) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["url", "title", header], ["a.mp4", "half", cell]])
    raw = {"name": "own", "source": {"list": str(tmp_path / "a.csv")}, "stages": [PAINT, LETTERS, RANK]}
    if message:
        with pytest.raises(RecipeError) as caught:
            run(check(raw, "own.yaml"), tmp_path / "out", InProcessEngine())
        assert str(caught.value) == f"own: {message}; rename that of the source"
    else:
        run(check(raw, "own.yaml"), tmp_path / "out", InProcessEngine())
        assert [row["letters"] for row in rows(tmp_path / "out").values()] == [4]
        assert not list(verify(Dataset.open(str(tmp_path / "out"))))


FLOAT = Column(float, "a number")
REJECTED: list[tuple[list[Step], str]] = [
    ([step("Bare", writes=("gloss",))], 'stages[0].bare writes `gloss`, which no step declares; declare a new column with columns = {"gloss": Column(TYPE, "MEANING")} in the step\'s class'),
    ([step("Same", columns={"blur": FLOAT})], "stages[0].same declares `blur`, which is already a column of the record; name it in `writes`"),
    ([step("Layer", layers=("normals",), columns={"normals": FLOAT})], "stages[0].layer declares a column `normals`, which is a layer or working state; rename it"),
    ([step("State", columns={"source_file": FLOAT})], "stages[0].state declares a column `source_file`, which is a layer"),
    ([step("A", columns={"gloss": FLOAT}), step("B", columns={"gloss": Column(int, "a number")})], "stages[1].b declares `gloss` as int (scores), `a` as float (scores); rename one of them"),
    ([step("A", columns={"gloss": FLOAT}), step("B", Decision, columns={"gloss": Column(float, "", "texts")})], "stages[1].b declares `gloss` as float (texts), `a` as float (scores)"),
    ([step("Capital", columns={"Gloss": FLOAT})], "stages[0].capital declares a column 'Gloss'; names consist of lower-case letters, digits and _"),
    ([step("Hidden", columns={"_gloss": FLOAT})], "stages[0].hidden declares a column '_gloss'; names consist of"),
    ([step("Kind", columns={"gloss": Column(dict, "a mapping")})], "stages[0].kind declares `gloss` with a type that cannot be stored: <class 'dict'> is none of str, int, float, bool and no list of one"),
    ([step("Bare", columns={"gloss": Column(list, "a list of what?")})], "stages[0].bare declares `gloss` with a type that cannot be stored"),
    ([step("Plain", columns={"gloss": float})], "stages[0].plain declares `gloss` as <class 'float'>; write Column(TYPE, MEANING)"),
    ([step("Group", columns={"gloss": Column(float, "", "score")})], "stages[0].group declares `gloss` in group `score`; groups are media, texts, scores"),
    ([step("Reads", reads=("gloss",))], "stages[0].reads reads `gloss`, which nothing before it writes; no stage writes it"),
    ([step("Reads", reads=("gloss",)), step("Gloss", columns={"gloss": FLOAT})], "stages[0].reads reads `gloss`, which nothing before it writes; put `gloss` before it"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "message"), REJECTED)
def test_a_declaration_that_does_not_hold_is_rejected_before_anything_runs(
    steps: list[Step], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("url,likes\na.mp4,7\n")
    with pytest.raises(RecipeError) as caught:
        check_flow(ListSource(list=str(tmp_path / "a.csv")), steps, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "steps",
    [
        [step("A", columns={"gloss": FLOAT}), step("B", columns={"gloss": Column(float, "the same number")})],
        [step("A", columns={"gloss": FLOAT}), step("B", reads=("gloss",), writes=("gloss", "blur"))],
        [step("A", columns={"gloss": FLOAT}, writes=("gloss",))],
        [step("Likes", reads=("likes",))],
    ],
)
def test_steps_that_agree_are_taken(steps: list[Step], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,likes\na.mp4,7\n")
    check_flow(ListSource(list=str(tmp_path / "a.csv")), steps, "r.yaml")


@pytest.mark.parametrize(
    ("columns", "is_same"),
    [
        ({"gloss": FLOAT}, True),
        ({"gloss": Column(float, "said otherwise")}, True),
        ({"gloss": Column(int, "a number")}, False),
        ({"gloss": Column(float, "a number", "media")}, False),
        ({"glow": FLOAT}, False),
        ({}, False),
    ],
)
def test_what_is_declared_is_part_of_the_fingerprint(columns: Mapping[str, Column], is_same: bool) -> None:
    before, after = (
        fingerprint({"stages": [step("A", columns=declared).identity()]}) for declared in ({"gloss": FLOAT}, columns)
    )
    assert (before == after) is is_same


def test_a_step_that_declares_nothing_has_the_identity_that_it_always_had() -> None:
    assert TooLong().identity().keys() == {"name", "version", "settings", "models"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table.drop_columns(["letters"]), "its columns do not match the schema"),
        (lambda table: table.set_column(
            table.column_names.index("letters"), "letters", table.column("letters").cast(pa.float64())
        ), "its columns do not match the schema"),
        (lambda table: table.set_column(
            table.column_names.index("letters"), table.schema.field("letters"), pa.array([5])
        ), "c000.json in video does not match its row (letters)"),
    ],
    ids=["left out", "of another type", "of another value"],
)  # fmt: skip
def test_verify_misses_a_declared_column(change: Any, what: str, tmp_path: Path) -> None:
    out = built(tmp_path, [PAINT, LETTERS], ["half"])
    path = out / "manifest" / "000000.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
    assert [problem.what for problem in verify(Dataset.open(str(out)))] == [what]


def test_a_clip_that_is_removed_leaves_no_declared_value(tmp_path: Path) -> None:
    out = built(tmp_path, [PAINT, LETTERS, RANK], ["half", "third"])
    assert remove(str(out), Removals({"clip_id": frozenset(["c000"])})).is_proven
    left = rows(out)["c000"]
    assert [left[name] for name in ("reason", *TYPES, "rank")] == ["removed"] + [None] * 6
    assert rows(out)["c001"]["letters"] == 5
    assert not list(verify(Dataset.open(str(out))))


def test_another_declaration_is_another_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = built(tmp_path, [PAINT, LETTERS], ["half"])
    monkeypatch.setattr(Letters, "columns", {**Letters.columns, "letters": Column(float, "letters of the title")})
    with pytest.raises(OutputError, match=r"differences: stages\.letters\.columns\.letters\.type: int → float"):
        run(tmp_path / "toys.yaml", out, InProcessEngine())
