from __future__ import annotations

import re

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage

_NAMES = {
    "cc0": r"\bcc.?0\b|publicdomain|public domain",
    "cc-by": r"\bcc.?by\b|licenses/by/|creative commons attribution|^attribution\b",
    "cc-by-sa": r"\bcc.?by.?sa\b|licenses/by-sa/|attribution.?share.?alike",
    "cc-by-nc": r"\bcc.?by.?nc\b|licenses/by-nc/|attribution.?non.?commercial",
}
_STRICTER = re.compile(r"\bnc\b|non.?commercial|\bnd\b|no.?deriv|\bsa\b|share.?alike", re.I)


class WrongLicence(Stage):
    """Rejects clips whose licence is none of the ``allowed`` (``cc0``, ``cc-by``, ``cc-by-sa``, ``cc-by-nc``, or text).

    Platforms write licences in many ways: the known names stand for all of them, any other is looked for as it is. A
    clip without a licence passes only if ``unknown`` says so.
    """

    reads = ("licence",)
    allowed: list[str] = Field(["cc0", "cc-by"], min_length=1)
    unknown: bool = False

    def process(self, clip: Clip) -> None:
        licence = (clip.licence or "").strip()
        if not licence and self.unknown:
            return
        if not any(_is(licence, name) for name in self.allowed):
            clip.reject("wrong_licence", f"{licence or 'none stated'} is not one of {', '.join(self.allowed)}")


def _is(licence: str, name: str) -> bool:
    if name not in _NAMES:
        return name.casefold() in licence.casefold()
    if not re.search(_NAMES[name], licence, re.I):
        return False
    # "CC BY-NC" also reads as "CC BY": a name without conditions stands for licences without.
    return name not in ("cc-by",) or _STRICTER.search(licence) is None
