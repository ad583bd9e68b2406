"""A thousand corruptions over five codecs and four containers: a row each, in time, and damage does not pass unseen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.media_faults.measure import BLIND, COPIES, Verdict, measure, spread
from tools.media_faults.page import PAGE, page, share_flagged
from vidal.media.ffmpeg import ffmpeg_identity

FEW = 32
REASONS = {
    "undecodable", "truncated", "no_video", "unsupported_codec", "unsupported_container", "over_duration",
    "too_many_frames", "too_many_pixels", "too_small", "broken_clock", "still_image", "out_of_memory",
}  # fmt: skip


@pytest.fixture(scope="module")
def all_verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    return measure(tmp_path_factory.mktemp("faults"), range(COPIES), workers=2)


def is_seen(verdict: Verdict) -> bool:
    return (verdict.codec, verdict.container) not in BLIND


def check(verdicts: list[Verdict], count: int) -> None:
    """A row each, with a reason that names a fault of the file: a hang would be `timeout`, a crash `worker_died`."""
    assert len(verdicts) == count
    print(*verdicts, sep="\n")
    assert {verdict.reason for verdict in verdicts} <= {None, *REASONS}
    assert all((verdict.status == "kept") == (verdict.reason is None) for verdict in verdicts)


def test_a_sample_of_corruptions_gives_a_row_each_and_its_damage_is_flagged(tmp_path: Path) -> None:
    verdicts = measure(tmp_path, spread(FEW), workers=0)
    check(verdicts, FEW)
    assert len({(verdict.codec, verdict.container) for verdict in verdicts}) >= 12
    seen = [verdict for verdict in verdicts if is_seen(verdict)]
    assert sum(verdict.is_damaged for verdict in seen) >= 10
    assert share_flagged(seen) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_corruptions_give_a_row_each(all_verdicts: list[Verdict]) -> None:
    check(all_verdicts, COPIES)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_damage_is_flagged_where_anything_can_tell(all_verdicts: list[Verdict]) -> None:
    seen = [verdict for verdict in all_verdicts if is_seen(verdict)]
    assert sum(verdict.is_damaged for verdict in seen) >= 300
    assert share_flagged(seen) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_page_says_what_is_measured(all_verdicts: list[Verdict]) -> None:
    written = PAGE.read_text(encoding="utf-8")
    named = re.search(r"clips, (ffmpeg \S+), seed", written)
    assert named is not None
    if named[1] != ffmpeg_identity():
        pytest.skip(f"the page is of {named[1]}")
    assert page(all_verdicts) == written
