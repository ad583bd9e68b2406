"""The plan: every sample exactly once an epoch, whatever the ranks, and each step known without the ones before."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidal.errors import RecipeError, SourceError, UserError
from vidal.train.data.plan import SamplePlan, SidesPlan, generator, permutation

DEPTH, VIDEO = ("text", "depth"), ("video", "audio")


def plan(*sizes: int, batch: int = 4, epochs: int | None = 2, pair=DEPTH, weights=None, **keys) -> SamplePlan:
    pairs = [SidesPlan(sides=pair, sizes=sizes, weights=weights)]
    return SamplePlan(pairs, batch_size=batch, seed=keys.pop("seed", 0), epochs=epochs, **keys)


def slots(plan: SamplePlan, steps: range | None = None) -> list[tuple[int, int]]:
    return [tuple(slot) for step in steps or range(plan.steps) for slot in plan.at(step).slots.tolist()]


def everything(*sizes: int) -> list[tuple[int, int]]:
    return [(d, i) for d, size in enumerate(sizes) for i in range(size)]


small = st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(lambda sizes: sum(sizes) >= 8)


@settings(deadline=None, max_examples=150)
@given(sizes=small, batch=st.integers(8, 50), ranks=st.integers(1, 8), seed=st.integers(0, 99))
def test_every_sample_is_in_an_epoch_exactly_once_on_any_number_of_ranks(sizes, batch, ranks, seed):
    made = plan(*sizes, batch=batch, seed=seed, ranks=ranks)
    per_epoch = made.steps // 2
    for epoch in (0, 1):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        assert {made.at(step).epoch for step in steps} == {epoch} == {made.epoch_of(step) for step in steps}
        shares = [made.share_of(made.at(step).slots, rank, ranks) for step in steps for rank in range(ranks)]
        assert {len(share) for share in shares} == {made.rows_per_rank(ranks)}
        seen = [tuple(slot) for share in shares for slot in share.tolist() if slot[0] >= 0]
        assert sorted(seen) == everything(*sizes)
        assert seen == slots(made, steps)


@settings(deadline=None, max_examples=100)
@given(sizes=small, batch=st.integers(1, 50))
def test_steps_of_an_epoch_differ_by_at_most_one_sample(sizes, batch):
    made = plan(*sizes, batch=batch, epochs=1)
    lengths = [len(made.at(step).slots) for step in range(made.steps)]
    assert made.steps == -(-sum(sizes) // min(batch, sum(sizes)))
    assert max(lengths) - min(lengths) <= 1 and max(lengths) <= batch


@pytest.mark.parametrize("keys", [{}, {"weights": (3.0, 1.0)}, {"drop_last": True}])
def test_a_step_is_the_same_whatever_was_asked_for_before(keys):
    made = plan(37, 11, batch=7, epochs=3, **keys)
    forward = [made.at(step).slots.tolist() for step in range(made.steps)]
    for order in (reversed(range(made.steps)), np.random.default_rng(0).permutation(made.steps)):
        for step in order:
            assert made.at(int(step)).slots.tolist() == forward[step]
    for start in range(made.steps):
        assert plan(37, 11, batch=7, epochs=3, **keys).at(start).slots.tolist() == forward[start]


def test_epochs_and_seeds_have_orders_of_their_own():
    made = plan(100, batch=100, epochs=3)
    orders = [slots(made, range(k, k + 1)) for k in range(3)] + [slots(plan(100, batch=100, seed=1), range(1))]
    assert len({tuple(order) for order in orders}) == 4


def test_drop_last_gives_whole_batches_and_leaves_others_out_each_epoch():
    made = plan(30, batch=8, epochs=40, drop_last=True)
    assert made.steps == 40 * 3
    assert {len(made.at(step).slots) for step in range(made.steps)} == {8}
    epochs = [slots(made, range(3 * e, 3 * e + 3)) for e in range(40)]
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert {slot for epoch in epochs for slot in epoch} == set(everything(30))


def test_pairs_without_weights_make_their_epochs_mixed():
    pairs = [SidesPlan(sides=DEPTH, sizes=(64,)), SidesPlan(sides=VIDEO, sizes=(32,))]
    made = SamplePlan(pairs, batch_size=8, seed=0, epochs=3)
    steps = [made.at(step) for step in range(made.steps)]
    assert Counter(step.sides for step in steps) == {DEPTH: 24, VIDEO: 12}
    for pair, size in ((DEPTH, 64), (VIDEO, 32)):
        seen = Counter((s.epoch, *slot) for s in steps if s.sides == pair for slot in s.slots.tolist())
        assert set(seen.values()) == {1} and len(seen) == 3 * size
    assert [s.sides for s in steps[:12]] != sorted(s.sides for s in steps[:12])


def test_pairs_with_weights_are_drawn_by_them():
    pairs = [SidesPlan(sides=DEPTH, sizes=(64,)), SidesPlan(sides=VIDEO, sizes=(64,))]
    made = SamplePlan(pairs, batch_size=8, seed=0, steps=4000, shares=(3, 1))
    share = np.mean([made.sides_of(step) == DEPTH for step in range(made.steps)])
    assert made.steps == 4000 and 0.72 < share < 0.78
    longer = SamplePlan(pairs, batch_size=8, seed=0, steps=5000, shares=(3, 1))
    assert [longer.sides_of(s) for s in range(4000)] == [made.sides_of(s) for s in range(4000)]


def test_datasets_with_weights_have_their_share_and_are_gone_through_evenly():
    made = plan(90, 10, batch=20, epochs=10, weights=(1.0, 1.0))
    for epoch in range(10):
        seen = slots(made, range(5 * epoch, 5 * epoch + 5))
        assert Counter(d for d, _ in seen) == {0: 50, 1: 50}
        assert set(Counter(slot for slot in seen if slot[0] == 1).values()) == {5}
    # 500 of the large one are five rounds and a half: nothing is seen seven times before all are seen five.
    times = Counter(slot for slot in slots(made) if slot[0] == 0)
    assert len(times) == 90 and set(times.values()) == {5, 6}


@pytest.mark.parametrize(
    ("made", "kind", "said"),
    [
        (lambda: plan(3, batch=8, ranks=4), SourceError, "pair text-depth: 3 samples are fewer than 4 ranks"),
        (lambda: plan(1, batch=8), SourceError, "a contrastive loss needs at least two"),
        (lambda: plan(90, batch=2, ranks=4), RecipeError, "batch_size 2: some of the 4 ranks would have no rows"),
        (lambda: plan(5, batch=8, drop_last=True), SourceError, "5 samples do not fill a batch of 8"),
        (lambda: plan(9, epochs=None, shares=(1,)), RecipeError, "need `steps`"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_line(made, kind, said):
    with pytest.raises(kind, match=said) as caught:
        made()
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)


def test_a_permutation_holds_each_number_once_and_places_are_even():
    for size in (1, 2, 3, 1000):
        assert sorted(permutation(size, np.random.default_rng(size))) == list(range(size))
    draws = np.random.default_rng(0)
    first = Counter(tuple(permutation(4, draws).tolist()) for _ in range(24_000))
    assert len(first) == 24 and all(850 < count < 1150 for count in first.values())


def test_ten_million_samples_are_ordered_once_an_epoch_in_forty_megabytes(monkeypatch):
    made, orders = plan(9_000_000, 1_000_000, batch=1024), []
    monkeypatch.setattr(
        "vidal.train.data.plan.permutation", lambda *given: orders.append(permutation(*given)) or orders[-1]
    )
    started = time.perf_counter()
    seen = [made.at(step).slots for step in range(100)]
    # Half a second on a machine that does nothing else.
    assert time.perf_counter() - started < 20 and len(orders) == 1
    assert len({tuple(slot) for part in seen for slot in part.tolist()}) == sum(map(len, seen))
    assert len(pickle.dumps(made)) < 45e6


@pytest.mark.parametrize("key", [(0, "epoch", "text-depth", 3), (7, "sample", "text-video", 0, 0, 12)])
def test_a_key_has_the_stream_of_philox_that_it_always_had(key):
    digest = hashlib.sha256(repr(key).encode()).digest()
    expected = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    made = generator(*key)
    assert made.random(5).tolist() == expected.random(5).tolist()
    assert made.integers(1000, size=5).tolist() == expected.integers(1000, size=5).tolist()
