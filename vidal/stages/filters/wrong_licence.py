from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vidal.clip import Clip
from vidal.licences import licence_name
from vidal.stage import Stage


class WrongLicence(Stage):
    """Rejects clips whose licence is not ``allowed``, however its source spells it.

    Canonical names are ``cc0``, ``public-domain``, ``cc-by``, ``cc-by-sa``, ``cc-by-nc``, ``cc-by-nd``,
    ``cc-by-nc-sa``, ``cc-by-nc-nd``, ``cc-sampling+``, ``no-known-copyright``, ``us-government-work`` and
    ``all-rights-reserved``. Each stands for all its spellings: URLs, SPDX ids, platforms' own words. ``cc-by`` does not
    allow ``cc-by-nc``. Any other text must equal the licence, apart from case and spaces. Clips without a licence pass
    only if ``unknown`` is true.
    """

    version: ClassVar[int] = 2
    reads = ("licence",)
    allowed: list[str] = Field(["cc0", "public-domain", "cc-by"], min_length=1)
    """Licences that pass, by canonical name or in any spelling."""
    unknown: bool = False
    """Whether clips without a licence pass."""

    def process(self, clip: Clip) -> None:
        licence = (clip.licence or "").strip()
        if not licence and self.unknown:
            return
        if _comparable(licence) not in {_comparable(name) for name in self.allowed}:
            clip.reject("wrong_licence", f"{licence or 'none stated'} is not one of {', '.join(self.allowed)}")


def _comparable(text: str) -> str:
    return licence_name(text) or " ".join(text.casefold().split())
