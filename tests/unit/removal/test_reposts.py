"""Clips that show what a removed one shows are listed, and removed where somebody asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import command
from tests.runs import SAME_TITLE, SHADE, run, write_recipe
from tests.toys import frames
from tests.unit.stages.fingerprinted import audio, row_of, table_of
from vidal.dataset.dataset import Dataset
from vidal.engine.local import InProcessEngine
from vidal.stages.duplicates import Duplicates

TITLES = ["a", "b", "c", "b", *"defghi", "j", "k"]
"""Clips 1 and 11 show one film, and so do 0 and 10; a decision rejects clip 3 for its title, that of clip 1."""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    stages = ["tests.engine_toys:Show", "fingerprints", SAME_TITLE, SHADE]
    run(write_recipe(tmp_path, stages, TITLES), tmp_path / "out", InProcessEngine())
    (tmp_path / "asked.txt").write_text("c001\n")
    return tmp_path / "out"


def reasons(address: Path | str) -> dict[str, str | None]:
    return {row["clip_id"]: row["reason"] for row in Dataset.open(str(address)).rows()}


def test_what_shows_the_same_and_what_is_tied_to_it_is_listed_and_kept(built: Path, tmp_path: Path) -> None:
    done = command("remove", built, "--ids", tmp_path / "asked.txt", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["clip_ids"] == ["c001"]
    listed = {(r["clip_id"], r["of"], r["kind"], r["is_kept"], r["is_sure"], r["is_removed"]) for r in told["reposts"]}
    assert listed == {("c011", "c001", "frames", True, True, False), ("c003", "c001", "cluster", True, False, False)}
    assert {clip for clip, reason in reasons(built).items() if reason == "removed"} == {"c001"}


def test_reposts_are_removed_everywhere_where_that_is_asked_for(built: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.json"
    given = ["--ids", tmp_path / "asked.txt", "--reposts", "remove", "--certificate", certificate]
    done = command("remove", built, *given)
    assert done.returncode == 0 and "like c001: c003 (cluster; kept)" in done.stdout
    for address in (built, built / "phases" / "1"):
        assert {clip for clip, reason in reasons(address).items() if reason == "removed"} == {"c001", "c011"}
    clips = {clip["clip_id"]: clip["repost_of"] for clip in json.loads(certificate.read_text())["clips"]}
    assert clips == {"c001": None, "c011": "c001"}
    assert "- c011, a repost of c001" in certificate.with_suffix(".txt").read_text()
    assert not any(b"c011." in tar.read_bytes() for tar in built.rglob("*.tar"))


def test_likenesses_are_those_of_the_decision_and_the_same_audio() -> None:
    one, other = audio(0), audio(1)
    rows = table_of([
        row_of("named", frames(1), audio_fingerprint=one), row_of("same", frames(1), audio_fingerprint=other),
        row_of("heard", frames(2), audio_fingerprint=one), row_of("longer", frames(1), duration_s=20.0),
        row_of("other", frames(3), audio_fingerprint=other),
    ])  # fmt: skip
    found = {other: (clip, kind) for clip, other, kind, _ in Duplicates().likenesses(rows, ["named"])}
    assert found == {"same": ("named", "frames"), "heard": ("named", "audio")}
    silent = {other for _, other, _, _ in Duplicates(audio="off").likenesses(rows, ["named"])}
    assert silent == {"same"}
