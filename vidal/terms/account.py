"""What became of every caption: nothing is dropped without a reason and a number."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidal.terms.balance import Chosen, Frequencies
from vidal.terms.gather import Gathered

_EXAMPLES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``captions`` = all of ``dropped`` + repeats + near_duplicates + out_of_bounds + not_chosen + terms."""

    sources: dict[str, int]
    """Captions of each source."""
    dropped: dict[str, dict[str, int]]
    """For each reason, the captions of each source that it dropped."""
    repeats: int
    near_duplicates: int
    out_of_bounds: int
    """Candidates without a keyword within the bounds."""
    not_chosen: int
    """Candidates that the balance left over."""
    terms: int
    terms_of: dict[str, int]
    """Terms chosen from each source."""
    clips: int
    """Sum of the quotas."""
    benchmark_captions: int
    keywords: int
    """Keywords within the bounds."""
    too_rare: int
    too_common: int
    too_common_examples: list[str]
    unserved: int
    """Keywords within the bounds that no term holds."""

    @classmethod
    def of(cls, gathered: Gathered, found: Frequencies, chosen: Chosen, benchmark_captions: int) -> Account:
        dropped: dict[str, dict[str, int]] = {}
        for (source, reason), count in sorted(gathered.dropped.items()):
            dropped.setdefault(reason, {})[source] = count
        candidates = len(np.unique(found.candidate))
        served = np.unique(found.keyword[np.isin(found.candidate, chosen.candidates)])
        common = sorted(np.flatnonzero(found.is_common).tolist(), key=lambda k: (-found.captions[k], k))
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
            keywords=int(found.is_within.sum()),
            too_rare=int(found.is_rare.sum()),
            too_common=len(common),
            too_common_examples=[found.names[k] for k in common[:_EXAMPLES]],
            unserved=int(found.is_within.sum()) - len(served),
        )

    @property
    def captions(self) -> int:
        return sum(self.sources.values())

    def losses(self) -> list[tuple[str, int]]:
        """Every way in which a caption became no term of its own, the largest first."""
        ways = {reason: sum(counts.values()) for reason, counts in self.dropped.items()}
        for name in ("repeats", "near_duplicates", "out_of_bounds", "not_chosen"):
            ways[name] = getattr(self, name)
        return sorted(((name, count) for name, count in ways.items() if count), key=lambda way: (-way[1], way[0]))

    def as_json(self) -> dict[str, Any]:
        return {"captions": self.captions, **asdict(self)}

    def lines(self) -> list[str]:
        """One screen."""
        common = f": {', '.join(self.too_common_examples)}" if self.too_common else ""
        return [
            f"captions  {self.captions:,}: {_counts(self.sources.items())}",
            *(f"  - {count:>11,}  {name}{self._by_source(name)}" for name, count in self.losses()),
            f"terms     {self.terms:,}: {_counts(self.terms_of.items())}; clips to crawl {self.clips:,}",
            f"keywords  {self.keywords:,} within the bounds, {self.unserved:,} of them in no term; "
            f"{self.too_rare:,} too rare, {self.too_common:,} too common{common}",
            *([f"benchmark {self.benchmark_captions:,} captions to keep out"] if self.benchmark_captions else []),
        ]

    def _by_source(self, reason: str) -> str:
        counts = self.dropped.get(reason, {})
        return f" ({_counts(counts.items())})" if len(self.sources) > 1 and counts else ""


def _counts(pairs: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in pairs)
