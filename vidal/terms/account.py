"""An account of every caption: whatever is dropped is counted under a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidal.terms.balance import Chosen, Frequencies
from vidal.terms.gather import Gathered

_EXAMPLES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Counts that reconcile: captions = dropped + repeats + near_duplicates + out_of_bounds + not_chosen + terms."""

    sources: dict[str, int]
    """Captions of each source."""
    dropped: dict[str, dict[str, int]]
    """Captions dropped, by reason and source."""
    repeats: int
    near_duplicates: int
    out_of_bounds: int
    """Candidates without any keyword within the bounds."""
    not_chosen: int
    """Candidates that the balancing did not choose."""
    terms: int
    terms_of: dict[str, int]
    """Terms chosen from each source."""
    clips: int
    """Sum of the quotas of all terms."""
    benchmark_captions: int
    keywords: int
    """Keywords within the bounds."""
    too_rare: int
    too_common: int
    too_common_examples: list[str]
    unserved: int
    """Keywords within the bounds that no term contains."""

    @classmethod
    def of(cls, gathered: Gathered, frequency: Frequencies, chosen: Chosen, benchmark_captions: int) -> Account:
        """Count the outcomes of one run."""
        dropped: dict[str, dict[str, int]] = {}
        for (source, reason), count in sorted(gathered.dropped.items()):
            dropped.setdefault(reason, {})[source] = count
        candidates = len(np.unique(frequency.candidate))
        served = np.unique(frequency.keyword[np.isin(frequency.candidate, chosen.candidates)])
        common = sorted(np.flatnonzero(frequency.is_common).tolist(), key=lambda k: (-frequency.captions[k], k))
        # Sources by name: an account must not depend on the order in which inputs are given.
        terms_of = Counter(chosen.sources)
        return cls(
            sources={name: gathered.captions[n] for n, name in sorted(enumerate(gathered.sources), key=lambda s: s[1])},
            dropped=dict(sorted(dropped.items())),
            repeats=gathered.repeats,
            near_duplicates=gathered.near_duplicates,
            out_of_bounds=len(gathered.texts) - candidates,
            not_chosen=candidates - len(chosen.candidates),
            terms=len(chosen.candidates),
            terms_of={name: terms_of[n] for n, name in sorted(enumerate(gathered.sources), key=lambda s: s[1])},
            clips=sum(chosen.quotas),
            benchmark_captions=benchmark_captions,
            keywords=int(frequency.is_within.sum()),
            too_rare=int(frequency.is_rare.sum()),
            too_common=len(common),
            too_common_examples=[frequency.names[k] for k in common[:_EXAMPLES]],
            unserved=int(frequency.is_within.sum()) - len(served),
        )

    @property
    def captions(self) -> int:
        return sum(self.sources.values())

    def losses(self) -> list[tuple[str, int]]:
        """Return every reason for which captions became no term of their own, the largest count first."""
        ways = {reason: sum(counts.values()) for reason, counts in self.dropped.items()}
        for name in ("repeats", "near_duplicates", "out_of_bounds", "not_chosen"):
            ways[name] = getattr(self, name)
        return sorted(((name, count) for name, count in ways.items() if count), key=lambda way: (-way[1], way[0]))

    def as_json(self) -> dict[str, Any]:
        """Return all counts as the metadata of the terms file stores them."""
        return {"captions": self.captions, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the account as lines for the terminal."""

        def counts(pairs: Iterable[tuple[str, int]]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in pairs)

        losses = []
        for name, count in self.losses():
            by_source = self.dropped.get(name, {}) if len(self.sources) > 1 else {}
            losses.append(f"  - {count:>11,}  {name}" + (f" ({counts(by_source.items())})" if by_source else ""))
        common = f": {', '.join(self.too_common_examples)}" if self.too_common else ""
        return [
            f"captions  {self.captions:,}: {counts(self.sources.items())}",
            *losses,
            f"terms     {self.terms:,}: {counts(self.terms_of.items())}; clips to crawl {self.clips:,}",
            f"keywords  {self.keywords:,} within the bounds, {self.unserved:,} of them in no term; "
            f"{self.too_rare:,} too rare, {self.too_common:,} too common{common}",
            *([f"benchmark {self.benchmark_captions:,} captions to keep out"] if self.benchmark_captions else []),
        ]
