"""`unmatched`: what a build's lists of removals name and its dataset has never had."""

from __future__ import annotations

import itertools

import pyarrow as pa

from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import KEYS, REASON, Removals


def unmatched(dataset: Dataset, listed: Removals) -> list[str]:
    """Return the values on a list that match no candidate of a finished build.

    Once a clip was removed, a value of what only the clip's page or its source could tell is left out, since it may be
    what named that clip, of which its row keeps nothing.
    """
    seen: dict[str, set[str]] = {key: set() for key in KEYS}
    unsure: set[str] = set()
    in_plan = [key for key in KEYS if key in dataset.plan.schema.names]
    has_removed = False
    for table in itertools.chain(
        (pa.Table.from_batches([batch]) for batch in dataset.plan.parts(in_plan).to_batches()),
        dataset.tables([*KEYS, "reason"]),
    ):
        is_of_plan = "reason" not in table.column_names
        for key, values in listed.values.items():
            cells = table[key].to_pylist() if key in table.column_names else [None]
            seen[key] |= values.intersection(cells)
            unsure |= {key} if is_of_plan and None in cells else set()
        has_removed |= not is_of_plan and REASON in table["reason"].to_pylist()
    # A removed row keeps the hash of its file.
    unsure = unsure - {"source_sha256"} if has_removed else set()
    return Removals({key: values for key, values in listed.values.items() if key not in unsure}).missing(seen)
