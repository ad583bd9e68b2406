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
    """Rejects clips whose licence is not ``allowed`` (``cc0``, ``cc-by``, ``cc-by-sa``, ``cc-by-nc``, or other text).

    The four names match all spellings that platforms use; other text must occur literally in the licence. Clips
    without a licence pass only if ``unknown`` is true.
    """

    reads = ("licence",)
    allowed: list[str] = Field(["cc0", "cc-by"], min_length=1)
    """Names of licences, or text that occurs in them."""
    unknown: bool = False
    """Whether clips without a licence pass."""

    def process(self, clip: Clip) -> None:
        licence = (clip.licence or "").strip()
        if not licence and self.unknown:
            return
        if not any(_matches(licence, name) for name in self.allowed):
            clip.reject("wrong_licence", f"{licence or 'none stated'} is not one of {', '.join(self.allowed)}")


def _matches(licence: str, name: str) -> bool:
    if name not in _NAMES:
        return name.casefold() in licence.casefold()
    if not re.search(_NAMES[name], licence, re.I):
        return False
    # The pattern of "CC BY" also matches "CC BY-NC", which has a further condition.
    return name != "cc-by" or _STRICTER.search(licence) is None
