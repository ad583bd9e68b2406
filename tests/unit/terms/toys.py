"""Captions without grammar: every word that begins with k is a keyword; a, the and of say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vidal.terms.benchmark import Benchmark
from vidal.terms.captions import Input
from vidal.terms.gather import Gathered
from vidal.terms.tagged import Tagged


class ToyTagger:
    name = "toy"

    def tag(self, words: list[str]) -> Tagged:
        content = {word for word in words if word not in ("a", "the", "of")}
        keywords = {word for word in content if word.startswith("k")}
        return Tagged(keywords=tuple(sorted(keywords)), content=tuple(sorted(content)))


def text_file(path: Path, captions: Iterable[str]) -> Input:
    path.write_text("".join(f"{caption}\n" for caption in captions))
    return Input.parse(str(path))


def gather(folder: Path, sources: dict[str, list[str]], exclude: list[str] | None = None) -> Gathered:
    tagger = ToyTagger()
    excluded = [text_file(folder / "exclude.txt", exclude)] if exclude else []
    gathered = Gathered(tagger, Benchmark(excluded, tagger, overlap_words=6), max_words=10)
    gathered.add([text_file(folder / f"{name}.txt", captions) for name, captions in sources.items()])
    return gathered
