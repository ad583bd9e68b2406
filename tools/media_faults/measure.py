"""Builds a dataset of corrupted films and classifies what became of each."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.media_faults import corruptions
from tools.media_faults.corruptions import Corruption
from tools.media_faults.films import CONTAINERS, FPS, LENGTH_S, Decoded, decode, drop_packets, make_films
from vidal.build import How, build
from vidal.dataset.dataset import Dataset
from vidal.recipe import check

SEED = 20261127
COPIES = 1000
FILMS = [(codec, container) for codec, containers in CONTAINERS.items() for container in containers]
KINDS: dict[str, Corruption | None] = {
    "bits flipped": corruptions.flip,
    "bits of packets flipped": corruptions.flip_payload,
    "run zeroed": corruptions.zero,
    "blocks swapped": corruptions.swap,
    "head lost": corruptions.cut_head,
    "middle lost": corruptions.cut_middle,
    "tail lost": corruptions.cut_tail,
    # Not a change of bytes: the container stays consistent.
    "packets dropped": None,
    "header or index overwritten": corruptions.break_index,
    "other duration stated": corruptions.state_other_duration,
    "box resized": corruptions.resize,
}
BLIND = (("hevc", "mp4"), ("hevc", "mov"))
"""Where neither the decoder nor the container has anything to tell a wrong bit by."""
LIMITS = {"cpu_s": 10, "wall_s": 60, "max_duration_s": 60}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one corrupted film."""

    number: int
    codec: str
    container: str
    kind: str
    status: str
    """``kept``, ``rejected`` or ``failed``."""
    reason: str | None
    flags: tuple[str, ...]
    """The column ``damage``."""
    is_damaged: bool
    """Whether a kept clip shows other frames than the undamaged film, or lasts longer or shorter."""

    @property
    def outcome(self) -> str:
        """The column of the table that counts this film."""
        if self.status != "kept":
            return self.status
        return ("flagged" if self.flags else "silent") if self.is_damaged else ("noted" if self.flags else "whole")


def spread(count: int) -> list[int]:
    """Return ``count`` of the numbers of corrupted films, spread over codecs, containers and kinds."""
    return sorted(random.Random(SEED).sample(range(COPIES), count))


def corrupt(number: int, films: dict[tuple[str, str], Path], folder: Path) -> tuple[str, str, str, Path]:
    """Write the corrupted film ``number`` and return its codec, container, kind and path."""
    codec, container = FILMS[number % len(FILMS)]
    kind = list(KINDS)[number // len(FILMS) % len(KINDS)]
    dice, film, path = random.Random(f"{SEED} {number}"), films[codec, container], folder / f"{number:04d}.{container}"
    change = KINDS[kind]
    if change is None:
        drop_packets(film, path, dice.sample(range(1, LENGTH_S * FPS), dice.choice((1, 3))))
    else:
        data = bytearray(film.read_bytes())
        change(data, dice)
        path.write_bytes(data)
    return codec, container, kind, path


def measure(folder: Path, numbers: Iterable[int], workers: int) -> list[Verdict]:
    """Corrupt films, build a dataset of them in ``folder`` and return a verdict on each; raises `VidalError`."""
    (folder / "films").mkdir()
    films = make_films(folder)
    made = [(number, *corrupt(number, films, folder / "films")) for number in numbers]
    for (codec, container), film in films.items():
        (folder / "films" / f"whole-{codec}.{container}").write_bytes(film.read_bytes())
    rows = {row["url"]: row for row in build_dataset(folder, workers)}
    whole = {film: decode(path) for film, path in films.items()}
    lengths = {film: rows[f"whole-{film[0]}.{film[1]}"]["duration_s"] for film in FILMS}
    return [
        Verdict(
            number,
            codec,
            container,
            kind,
            *fate(rows[path.name], path, whole[codec, container], lengths[codec, container]),
        )
        for number, codec, container, kind, path in made
    ]


def build_dataset(folder: Path, workers: int) -> list[dict[str, Any]]:
    """Build a dataset of the files in ``folder``/films and return the rows of its manifest."""
    media = {"limits": LIMITS, "short_side": 64, "frames": 4, "preset": "ultrafast"}
    definition = {
        "name": "media-faults",
        "source": {"folder": str(folder / "films")},
        "shards": {"size": 50},
        "stages": ["fetch", {"probe": {"limits": LIMITS}}, {"media": media}],
    }
    out = str(folder / "dataset")
    build(check(definition, "media-faults"), out, How(engine="local", workers=workers), Console(quiet=True), quiet=True)
    return list(Dataset.open(out).rows())


def fate(
    row: dict[str, Any], path: Path, whole: Decoded, length_s: float
) -> tuple[str, str | None, tuple[str, ...], bool]:
    """Return status, reason and flags of a row, and whether a kept clip is damaged."""
    flags = tuple(row["damage"] or ())
    if row["status"] != "kept":
        return row["status"], row["reason"], flags, False
    is_damaged = abs(row["duration_s"] - length_s) > 1.5 / FPS or decode(path).shows(whole)
    return "kept", None, flags, is_damaged
