"""Captions become candidates: repeats and rewordings are one, a benchmark's are none, and each is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.terms.toys import gather


def test_wordings_that_say_the_same_are_one_candidate_and_the_shortest_stands_for_it(tmp_path: Path) -> None:
    gathered = gather(tmp_path, {"x": ["the kite of kate", "Kate kite", "KATE, KITE!", "a kite"]})
    assert gathered.texts == ["Kate kite", "a kite"]
    assert (gathered.repeats, gathered.near_duplicates) == (1, 1)
    assert [counts.tolist() for counts in gathered.counts] == [[3, 1]]


def test_every_caption_that_is_dropped_has_a_reason(tmp_path: Path) -> None:
    captions = ["", "no word of it", "k " * 11, "k www.x.org", "кот", "k1 k2", "no word of it"]
    gathered = gather(tmp_path, {"x": captions, "y": ["k " * 1001]})
    assert dict(gathered.dropped) == {
        ("x", "blank"): 1,
        ("x", "no_keyword"): 2,
        ("x", "too_long"): 1,
        ("x", "link"): 1,
        ("x", "other_script"): 1,
        ("y", "too_long"): 1,
    }
    assert gathered.captions == [7, 1]


BENCHMARK = ["the ka kb kc runs very fast today indeed", "a ke", "kg b c d e"]
EXCLUDED = [
    ("A KE!", "benchmark"),
    ("ke", None),
    ("so ka kb kc runs very fast he says", "benchmark_overlap"),
    ("ka kb kc runs very slowly", None),
    ("he saw kg b c d e there", "benchmark_overlap"),
    ("e d c b kg", "benchmark_reworded"),
    ("e d c b kh", None),
]


@pytest.mark.parametrize(("caption", "reason"), EXCLUDED)
def test_benchmark_captions_are_kept_out(caption: str, reason: str | None, tmp_path: Path) -> None:
    gathered = gather(tmp_path, {"x": [caption, caption]}, exclude=BENCHMARK)
    assert dict(gathered.dropped) == ({("x", reason): 2} if reason else {})
    assert len(gathered.texts) == (reason is None)
