"""Lays verdicts on corrupted films out as the page ``docs/media-faults.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tools.media_faults.films import CONTAINERS, ROOT
from tools.media_faults.measure import BLIND, COPIES, KINDS, SEED, Verdict
from vidal.media.ffmpeg import ffmpeg_identity

PAGE = ROOT / "docs" / "media-faults.md"
_OUTCOMES = ("failed", "rejected", "flagged", "silent", "noted", "whole")
_TITLES = {"h264": "H.264", "hevc": "HEVC", "vp9": "VP9", "av1": "AV1", "mpeg4": "MPEG-4 Part 2"}
_NOTES = {
    "h264": "The decoder conceals what it cannot read and says so. A few zeroed runs pass unsaid.",
    "hevc": "In MP4 and MOV, nothing tells: FFmpeg's decoder does not check where the code of a slice ends, and has "
    "only the checksum of a frame to compare, which few encoders store. In Matroska, the file's CRC-32 tells.",
    "vp9": "libvpx refuses a frame whose code does not end with its packet.",
    "av1": "dav1d, with `-strict strict`, refuses a frame whose code does not end with its packet.",
    "mpeg4": "Most damage leads to a code that does not exist, which the decoder reports. A bit within a block whose "
    "code does exist decodes, and nothing tells but the CRC-32 of a Matroska file.",
}


def share_flagged(verdicts: Sequence[Verdict]) -> float:
    """Return the share of the damaged clips kept that have a flag."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    return outcomes["flagged"] / max(1, outcomes["flagged"] + outcomes["silent"])


def page(verdicts: Sequence[Verdict]) -> str:
    """Return the page, in Markdown."""
    return "\n".join(_lines(verdicts)) + "\n"


def _lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    seen, unseen = (
        share_flagged([v for v in verdicts if ((v.codec, v.container) in BLIND) is is_blind])
        for is_blind in (False, True)
    )
    yield "# Faults of media\n"
    yield (
        f"What becomes of {COPIES:,} corrupted clips, {ffmpeg_identity()}, seed {SEED}; written by "
        "`python -m tools.media_faults`, held by `tests/fault/test_media_faults.py`. Small clips: two seconds of 96x72 "
        "from one film, with audio, in each codec and container; a corruption of each kind about six times.\n"
    )
    yield (
        "A clip that is kept is damaged if one block of 8x8 of one frame is off by 12 levels of 255 on average, a "
        "frame is missing, or the length is off by more than a frame. **flagged**: damaged, and `damage` is not empty; "
        "**silent**: damaged without a flag; **noted**: a flag, but the frames are those of the undamaged clip "
        "(audio, index, tags, a stated duration); **whole**: no flag and no damage. **failed** and **rejected** "
        "have a reason.\n"
    )
    blind = " and ".join(f"{_TITLES[codec]} in {container.upper()}" for codec, container in BLIND)
    yield (
        f"Of the damaged clips that are kept, {seen:.0%} are flagged, without "
        f"{blind}, where the decoder cannot know; there {unseen:.0%} are.\n"
    )
    for codec, containers in CONTAINERS.items():
        yield f"## {_TITLES[codec]}\n\n{_NOTES[codec]}\n"
        yield f"| corruption | {' | '.join(containers)} |"
        yield "|---" * (len(containers) + 1) + "|"
        for kind in KINDS:
            cells = [[v for v in verdicts if (v.codec, v.container, v.kind) == (codec, c, kind)] for c in containers]
            yield f"| {kind} | {' | '.join(map(_cell, cells))} |"
        kept = [[v for v in verdicts if (v.codec, v.container) == (codec, container)] for container in containers]
        yield f"| damaged clips kept: flagged | {' | '.join(f'{share_flagged(each):.0%}' for each in kept)} |\n"


def _cell(verdicts: Sequence[Verdict]) -> str:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in _OUTCOMES if outcomes[outcome])
