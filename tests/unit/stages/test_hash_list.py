"""A clip is rejected for its file's hash or a frame's on a list, and its row says where on the list, without an image."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest

from tests.processes import command
from tests.runs import rows, run, write_recipe
from tests.toys import frames
from vidal import recipe as recipes
from vidal.clip import Clip
from vidal.engine.local import InProcessEngine
from vidal.errors import RecipeError, SourceError
from vidal.stages.fingerprints import NO_INFORMATION, frame_hash
from vidal.stages.hash_list import HashList, HashLists, safe_bits

SHA256, OTHER_SHA256 = "ab" * 32, "ab" * 31 + "ac"
FRAME = "9989b230b73f61c9"
SHOW = "tests.engine_toys:Show"


def flipped(frame: str, bits: int) -> str:
    return f"{int(frame, 16) ^ ((1 << bits) - 1):016x}"


def listed(folder: Path, *lines: str, name: str = "known.txt") -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("lines", "sha256", "frame_hashes", "detail", "bits"),
    [
        ([SHA256], SHA256, None, "file: known.txt, line 1", None),
        (["# ours", "", OTHER_SHA256, SHA256.upper()], SHA256, None, "file: known.txt, line 4", None),
        ([OTHER_SHA256], SHA256, None, None, None),
        ([FRAME], SHA256, [FRAME], "frame 0: 0 bits from known.txt, line 1", 0),
        (["0123456789abcdef", FRAME], None, [NO_INFORMATION, flipped(FRAME, 10)],
         "frame 1: 10 bits from known.txt, line 2", 10),
        ([FRAME], None, [flipped(FRAME, 11)], None, None),
        ([flipped(FRAME, 3), flipped(FRAME, 2)], None, [FRAME], "frame 0: 2 bits from known.txt, line 2", 2),
        ([NO_INFORMATION, FRAME], None, [NO_INFORMATION], None, None),
        ([FRAME, SHA256], SHA256, [FRAME], "file: known.txt, line 2", None),
        ([FRAME], None, None, None, None),
    ],
)  # fmt: skip
def test_a_listed_file_or_frame_is_rejected(
    tmp_path: Path, lines: list[str], sha256: str | None, frame_hashes: list[str] | None, detail: str | None,
    bits: int | None,
) -> None:  # fmt: skip
    stage = HashList(files=[listed(tmp_path, *lines)])
    stage.setup()
    clip = Clip(source_sha256=sha256, frame_hash="".join(frame_hashes) if frame_hashes else None)
    stage.process(clip)
    assert (clip.reason, clip.detail) == (detail and "listed", detail)
    assert (clip.decided_value, clip.decided_limit) == ((bits, 10) if bits is not None else (None, None))


@pytest.mark.parametrize(
    ("hashes", "bits"),
    [(0, 10), (5_400, 10), (5_600, 8), (173_000, 8), (175_000, 6), (9_200_000, 6), (9_300_000, 4), (10**18, 0)],
)
def test_a_longer_list_allows_fewer_bits(hashes: int, bits: int) -> None:
    assert safe_bits(hashes) == bits


def test_chance_matches_are_as_rare_as_the_limit_says() -> None:
    rng = np.random.default_rng(0)
    # Half of their bits set, as pHash has them.
    own, others = (
        np.packbits(rng.permuted(np.tile([0, 1], (n, 32)), axis=1), axis=1).view(np.uint64) for n in (400, 50_000)
    )
    near = sum(int((np.bitwise_count(one ^ others) <= 14).sum()) for one in own)
    chance = sum(comb(32, n) ** 2 for n in range(8)) / comb(64, 32)
    assert near == pytest.approx(400 * 50_000 * chance, rel=0.2)


def test_a_row_has_the_limit_that_the_length_of_the_list_sets(tmp_path: Path) -> None:
    # The first is the nearest; the others are 32 bits away from each of the frames.
    lines = [flipped(FRAME, 9), *[f"{int(FRAME, 16) ^ 0xFFFFFFFF00000000:016x}"] * 5_600]
    for given, decided in ((None, (None, None)), (10, (9, 10))):
        stage = HashList(files=[listed(tmp_path, *lines)], max_bits=given)
        stage.setup()
        clip = Clip(frame_hash=FRAME)
        stage.process(clip)
        assert (clip.decided_value, clip.decided_limit) == decided


def test_every_hash_of_a_long_list_is_found_where_it_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    digests = [generator.bytes(32).hex() for _ in range(40_000)]
    hashes = [generator.bytes(8).hex() for _ in range(40_000)]
    lists = HashLists([listed(tmp_path, *hashes, name="frames.txt"), listed(tmp_path, *digests, name="files.txt")])
    for number in (0, 16_383, 16_384, 39_999):
        assert lists.place_of_file(digests[number]) == f"files.txt, line {number + 1}"
        assert lists.nearest(flipped(hashes[number], 1)) == (1, 0, f"frames.txt, line {number + 1}")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([FRAME, "d41d8cd98f00b204e9800998ecf8427e"], "known.txt: line 2 is no hash; write the 64 hex digits"),
        ([f"{SHA256}  film.mp4"], "known.txt: line 1 is no hash"),
        (["# nothing yet"], "known.txt: no line of it is a hash"),
    ],
)
def test_a_bad_list_is_one_line_that_says_where_and_quotes_nothing(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(SourceError) as caught:
        HashLists([listed(tmp_path, *lines)])
    assert says in str(caught.value)
    assert lines[-1] not in str(caught.value) and "\n" not in str(caught.value)


def test_lists_count_by_name_and_content_not_by_folder(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    here, there = listed(tmp_path, FRAME), listed(tmp_path / "moved", FRAME)
    before = HashList(files=[here]).identity()
    assert HashList(files=[there]).identity() == before
    listed(tmp_path, FRAME, SHA256)
    assert HashList(files=[here]).identity() != before
    with pytest.raises(ValueError, match="the same name"):
        HashList(files=[here, there])
    with pytest.raises(SourceError, match=r"gone\.txt: cannot be read as a list of hashes: No such file"):
        HashList(files=[str(tmp_path / "gone.txt")]).identity()


def test_a_list_of_frames_needs_fingerprints_before_it_and_one_of_files_does_not(tmp_path: Path) -> None:
    files, both = listed(tmp_path, SHA256, name="files.txt"), listed(tmp_path, SHA256, FRAME, name="both.txt")
    recipes.load(write_recipe(tmp_path, ["fetch", {"hash_list": {"files": [files]}}, SHOW]))
    with pytest.raises(RecipeError, match=r"reads `frame_hash`, .* put `fingerprints` before it"):
        recipes.load(write_recipe(tmp_path, ["fetch", SHOW, {"hash_list": {"files": [both]}}, "fingerprints"]))


def test_a_built_dataset_has_no_image_of_a_listed_clip(tmp_path: Path) -> None:
    """Ten films, of which each other rejected one keeps its thumbnail."""
    known = listed(tmp_path, flipped(frame_hash(frames(3)[5]), 4))
    stages = [SHOW, "fingerprints", {"hash_list": {"files": [known]}}, {"too_long": {"max_s": 1}}]
    out = tmp_path / "out"
    run(write_recipe(tmp_path, stages, 10), out, InProcessEngine())
    row = rows(out)["c003"]
    assert (row["stage"], row["reason"], row["thumbnail"], row["members"]) == ("hash_list", "listed", None, [])
    assert row["detail"].endswith("bits from known.txt, line 1")
    others = [other for clip_id, other in rows(out).items() if clip_id != "c003"]
    assert all(other["stage"] == "too_long" and other["thumbnail"] for other in others)


def test_a_bad_line_ends_a_build_before_it_begins(tmp_path: Path) -> None:
    stages = ["fetch", {"hash_list": {"files": [listed(tmp_path, SHA256, "no hash")]}}, SHOW]
    done = command("build", write_recipe(tmp_path, stages), "--out", tmp_path / "out")
    assert (done.returncode, "known.txt: line 2 is no hash" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()
