"""The rule of `vidal.terms.balance`, on toys."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.terms.toys import gather
from vidal.terms.balance import choose, frequencies
from vidal.terms.gather import Gathered
from vidal.terms.settings import TermSettings

# kbig is in 40 captions, kmid in 8, ksmall in 2, kone in 1.
SKEWED = [f"kbig {n}" for n in range(40)] + [f"kmid {n}" for n in range(8)] + ["ksmall a1", "ksmall a2", "kone"]


def settings(**given: Any) -> TermSettings:
    return TermSettings.model_validate({"min_count": 1, "max_share": 1.0, "number": 1000, **given})


def terms(gathered: Gathered, **given: Any) -> list[tuple[str, str, int]]:
    set_up = settings(**given)
    chosen = choose(gathered, frequencies(gathered, set_up), set_up)
    texts = [gathered.texts[candidate] for candidate in chosen.candidates]
    return list(zip(texts, [gathered.sources[s] for s in chosen.sources], chosen.quotas, strict=True))


def by_keyword(chosen: list[tuple[str, str, int]]) -> Counter[str]:
    return Counter(text.split()[0] for text, _, _ in chosen)


ROUNDS = [
    (4, {"kbig": 1, "kmid": 1, "ksmall": 1, "kone": 1}),
    (7, {"kbig": 2, "kmid": 2, "ksmall": 2, "kone": 1}),
    (13, {"kbig": 5, "kmid": 5, "ksmall": 2, "kone": 1}),
    (51, {"kbig": 40, "kmid": 8, "ksmall": 2, "kone": 1}),
]


@pytest.mark.parametrize(("number", "expected"), ROUNDS)
def test_every_keyword_gets_the_same_number_of_terms_while_it_has_any(
    number: int, expected: dict[str, int], tmp_path: Path
) -> None:
    assert by_keyword(terms(gather(tmp_path, {"x": SKEWED}), number=number)) == expected


def test_a_beginning_of_the_terms_is_what_a_smaller_number_gives(tmp_path: Path) -> None:
    gathered = gather(tmp_path, {"x": SKEWED})
    assert [term[0] for term in terms(gathered, number=9)] == [term[0] for term in terms(gathered, number=20)][:9]


BOUNDS = [(2, 1.0, {"kbig", "kmid", "ksmall"}), (1, 0.2, {"kmid", "ksmall", "kone"}), (3, 0.2, {"kmid"})]


@pytest.mark.parametrize(("min_count", "max_share", "expected"), BOUNDS)
def test_keywords_out_of_bounds_count_for_nothing(
    min_count: int, max_share: float, expected: set[str], tmp_path: Path
) -> None:
    chosen = terms(gather(tmp_path, {"x": SKEWED}), min_count=min_count, max_share=max_share)
    assert set(by_keyword(chosen)) == expected


def test_sources_of_any_size_give_the_same_number_of_terms_while_they_have_any(tmp_path: Path) -> None:
    sources = {"large": [f"kone {n}" for n in range(50)], "small": [f"kone {n}" for n in range(100, 104)]}
    given = Counter(source for _, source, _ in terms(gather(tmp_path, sources), number=20))
    assert given == {"small": 4, "large": 16}


def test_of_several_candidates_the_one_that_burdens_no_full_keyword_is_taken(tmp_path: Path) -> None:
    captions = [f"kbig {n}" for n in range(10)] + ["krare kbig", "krare alone"]
    chosen = terms(gather(tmp_path, {"x": captions}), number=2)
    assert {text.split()[0] for text, _, _ in chosen} <= {"kbig", "krare"}
    assert "krare kbig" not in [text for text, _, _ in chosen]


def test_the_order_of_lines_and_inputs_changes_nothing_and_the_seed_does(tmp_path: Path) -> None:
    one = terms(gather(tmp_path, {"x": SKEWED, "y": ["kmid z", "the ksmall a1"]}), number=12)
    other = terms(gather(tmp_path, {"y": ["the ksmall a1", "kmid z"], "x": SKEWED[::-1]}), number=12)
    assert one == other
    assert one != terms(gather(tmp_path, {"x": SKEWED, "y": ["kmid z", "the ksmall a1"]}), number=12, seed=1)


def test_a_keyword_with_few_terms_brings_as_many_clips_as_one_with_many(tmp_path: Path) -> None:
    chosen = terms(gather(tmp_path, {"x": [*SKEWED[:4], "kone"]}), clips_per_term=20)
    clips = Counter[str]()
    for text, _, quota in chosen:
        clips[text.split()[0]] += quota
    # Four terms share 50 clips, by 12.5 rounded to even.
    assert clips == {"kbig": 48, "kone": 50}


def test_quotas_stay_within_their_bounds(tmp_path: Path) -> None:
    chosen = terms(gather(tmp_path, {"x": SKEWED}), clips_per_term=20, max_clips_per_term=30)
    quotas = [quota for _, _, quota in chosen]
    assert (min(quotas), max(quotas)) == (6, 30)
