"""`texts_of_plan`: the texts that the steps of a run encode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vidal.reader.samples import Samples
from vidal.train.data.plan import SamplePlan, Sides, modalities_of
from vidal.train.data.rows import Indices, sample_generator
from vidal.train.data.text_views import TextViews


def texts_of_plan(
    samples: Sequence[Samples], index: Mapping[Sides, Sequence[Indices]], plan: SamplePlan, views: TextViews, seed: int,
    start_step: int,
) -> Iterator[str]:  # fmt: skip
    """Yield the texts of the steps from ``start_step`` on, some of them repeatedly.

    They are those that the steps draw, or all texts of the samples where the steps draw more often than there are
    texts. Nothing is yielded if no step has a text.
    """
    with_text = [sides for sides in index if "text" in modalities_of(sides)]
    steps = [step for step in range(start_step, plan.steps) if plan.sides_of(step) in with_text]
    if not steps:
        return
    # The text of padding and of broken samples.
    yield ""
    trained = [
        [int(i) for i in np.unique(np.concatenate([index[sides][dataset] for sides in with_text]))]
        for dataset in range(len(samples))
    ]

    def every() -> Iterator[str]:
        for part, numbers in zip(samples, trained, strict=True):
            for i in numbers:
                yield from views.every(part.part(i, views.columns))

    if sum(1 for _ in every()) <= len(steps) * plan.batch_size:
        yield from every()
        return
    for step in steps:
        planned = plan.at(step)
        for dataset, place in planned.slots.tolist():
            i = int(index[planned.sides][dataset][place])
            row = samples[dataset].part(i, views.columns)
            # A clip without a text, where that is part of a fused side.
            if "text" in planned.sides or views.every(row):
                rng = sample_generator(seed, planned.sides, planned.epoch, dataset, i)
                yield views.choose(row, rng).text
