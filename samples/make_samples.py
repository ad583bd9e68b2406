"""Remakes samples/clips, manifests/sample.csv and samples/LICENCES.md: python samples/make_samples.py

The footage and the photographs are real and free. The sound is the footage's own, but for one recorded sentence that
says what is drawn on its clip. Every package is fetched by name into a temporary folder (pip, and apt-get on Debian
12), so nothing but the small cut clips is kept in the repository.
origins.py says where media come from, cuts.py has one entry per clip, encode.py turns an entry into a file,
copies.py makes the duplicates and broken files; this file runs them and writes the two tables.
"""

import argparse
import csv
import tempfile
from pathlib import Path

from copies import COPIES, Copy
from cuts import CLIPS, Clip
from encode import cut
from origins import CC_BY_SA_3, PACKAGES, SOURCES, VOICES

ROOT = Path(__file__).resolve().parent.parent
CLIPS_DIR = ROOT / "samples" / "clips"
MANIFEST = ROOT / "manifests" / "sample.csv"
LICENCES = ROOT / "samples" / "LICENCES.md"

COLUMNS = [
    "url",
    "clip_id",
    "title",
    "hashtags",
    "licence",
    "attribution",
    "uploader",
    "source",
    "notes",
    "expected",
    "burnt_in_text",
    "spoken_text",
    "language",
]


def _origin(package: str) -> str:
    return PACKAGES[package][1].replace("==", " ").replace("=", " ", 1)


def _licence(clip: Clip) -> str:
    """The strictest of picture and voice: CC BY-SA covers the whole, public domain adds nothing."""
    voice = VOICES.get(clip.voice)
    return CC_BY_SA_3 if voice and voice.licence == CC_BY_SA_3 else SOURCES[clip.source].licence


def _row(clip: Clip) -> dict[str, str]:
    source, voice = SOURCES[clip.source], VOICES.get(clip.voice)
    return {
        "url": f"../samples/clips/{clip.clip_id}.{clip.suffix}",
        "clip_id": clip.clip_id,
        "title": clip.title,
        "hashtags": clip.hashtags,
        "licence": _licence(clip),
        "attribution": "; ".join([source.attribution, *([voice.attribution] if voice else [])]),
        "uploader": source.uploader,
        "source": "; ".join([_origin(source.package), *([_origin(voice.package)] if voice else [])]),
        "notes": clip.notes,
        "expected": clip.expected,
        "burnt_in_text": clip.title_card or " ".join(clip.caption),
        "spoken_text": clip.dialogue or (voice.words if voice else ""),
        "language": clip.language,
    }


def _copy_row(copy: Copy, original: dict[str, str]) -> dict[str, str]:
    own = {"url": f"../samples/clips/{copy.clip_id}.{copy.suffix}"}
    own |= {name: getattr(copy, name) for name in ("clip_id", "title", "hashtags", "expected", "notes")}
    return original | own


def rows() -> list[dict[str, str]]:
    cut_rows = {clip.clip_id: _row(clip) for clip in CLIPS}
    return [*cut_rows.values(), *(_copy_row(copy, cut_rows[copy.of]) for copy in COPIES)]


def _changes(clip: Clip) -> str:
    source = SOURCES[clip.source]
    place = (
        f"cut at {clip.start_s:g} s for {clip.duration_s:g} s" if not source.still else f"shown {clip.duration_s:g} s"
    )
    changes = [place, f"scaled and cropped to {clip.size}", f"re-encoded to {clip.codec}"]
    changes += ["caption added"] if clip.caption else []
    changes += ["voice added"] if clip.voice else []
    changes += [f"sound: {clip.sound}"] if clip.sound != "own" else []
    changes += [clip.notes] if clip.notes else []
    return ", ".join(changes)


def write_manifest() -> None:
    MANIFEST.parent.mkdir(exist_ok=True)
    with MANIFEST.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows())


def write_licences() -> None:
    changes = {clip.clip_id: _changes(clip) for clip in CLIPS}
    changes |= {copy.clip_id: f"made from {copy.of}: {copy.notes}" for copy in COPIES}
    table = [
        f"| {row['clip_id']} | {row['source']} | {row['licence']} | {row['attribution']} | {changes[row['clip_id']]} |"
        for row in rows()
    ]
    LICENCES.write_text(LICENCES_HEAD + "\n".join(table) + "\n", encoding="utf-8")


LICENCES_HEAD = """# Licences of the sample clips

Written by `samples/make_samples.py`. The clips are not under the licence of the code but under the one in the table.

- **CC-BY-3.0**: <https://creativecommons.org/licenses/by/3.0/>; **CC-BY-4.0**: <https://creativecommons.org/licenses/by/4.0/>;
  **CC-BY-SA-3.0**: <https://creativecommons.org/licenses/by-sa/3.0/>; **CC0-1.0**:
  <https://creativecommons.org/publicdomain/zero/1.0/>.
- *Big Buck Bunny* and *Sintel* are under CC BY 3.0 by the end titles of the films; Sintel's trailer comes in Debian's
  source package of libopenshot (whose own code is under LGPL-3+), the film and the trailer of Big Buck Bunny in
  MoviePy's source distribution.
- The band clip: iscc-samples states CC BY 4.0 for its files.
- The city at night: CC0 by the file's name (cityCC0.mpg); the package that carries it is under the MIT licence.
- The photographs: CC0 or public domain by the documentation of `skimage.data`.
- The sound is the footage's own, except in bunny-weasels: the voice that reads out its drawn caption is a telephone
  prompt by Allison Smith, CC BY-SA 3.0, so this clip is under CC BY-SA 3.0 as a whole.
- `vidal/trial-speech.flac`, which `vidal doctor` times speech with, is four seconds of a LibriVox recording of Sense
  and Sensibility (from Debian's pocketsphinx-testdata 0.8+5prealpha+1-15), which is in the public domain.
- `vidal/models/range-frames.jpg`, on which depth models are measured, is a frame each of city-night, cat-stare,
  coffee-still, astronaut-portrait and rocket-hold, of which the image is CC0 or in the public domain.
- Titles, hashtags and drawn captions were written for this set and are under CC0.

| clip | origin | licence | author | what was changed |
|---|---|---|---|---|
"""


def make(work: Path, wanted: set[str]) -> None:
    CLIPS_DIR.mkdir(parents=True, exist_ok=True)
    suffixes = {clip.clip_id: clip.suffix for clip in CLIPS}
    for clip in CLIPS:
        if not wanted or clip.clip_id in wanted:
            print(cut(clip, work, CLIPS_DIR).name, flush=True)
    for copy in COPIES:
        if not wanted or {copy.clip_id, copy.of} & wanted:
            target = CLIPS_DIR / f"{copy.clip_id}.{copy.suffix}"
            copy.make(CLIPS_DIR / f"{copy.of}.{suffixes[copy.of]}", target)
            print(target.name, flush=True)
    write_manifest()
    write_licences()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip_ids", nargs="*", help="remake these alone; all when none is named")
    parser.add_argument("--work", type=Path, help="keep the fetched packages here for the next run")
    arguments = parser.parse_args()
    if arguments.work:
        make(arguments.work.resolve(), set(arguments.clip_ids))
        return
    with tempfile.TemporaryDirectory() as work:
        make(Path(work), set(arguments.clip_ids))


if __name__ == "__main__":
    main()
