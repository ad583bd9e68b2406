"""Spellings of licences, as platforms, URLs and SPDX have them, and texts that only look like one."""

from __future__ import annotations

import pytest

from vidal.clip import Clip
from vidal.licences import NAMES, licence_name
from vidal.stages.filters.wrong_licence import WrongLicence

SPELLINGS = {
    "cc0": [
        "CC0", "cc-0", "CC0-1.0", "CC0 1.0 Universal", "Creative Commons 0", "Creative Commons Zero v1.0 Universal",
        "Creative Commons CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "Public Domain Dedication (CC0)",
        "Public Domain Dedication", "no-rights-reserved", "http://creativecommons.org/publicdomain/zero/1.0/",
        "https://creativecommons.org/publicdomain/zero/1.0/deed.en", "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    ],
    "public-domain": [
        "Public Domain", "public domain.", "Public Domain Work", "Public Domain Mark 1.0", "PDM 1.0", "PD", "CC-PDDC",
        "CC-PDM-1.0", "https://creativecommons.org/publicdomain/mark/1.0/",
        "http://creativecommons.org/licenses/publicdomain/",
    ],
    "cc-by": [
        "CC BY", "cc-by", "CC-BY-4.0", "CC-BY-3.0", "CC-BY-3.0-US", "CC-BY-3.0-IGO", "CC-BY-3.0-AT", "CC BY 4.0 Deed",
        "CC\N{NON-BREAKING HYPHEN}BY 4.0", "CCBY", "cc_by_4.0", "by", "attribution-cc", "Attribution", "Attribution License",
        "Creative Commons Attribution license (reuse allowed)", "creativeCommon", "Creative Commons Attribution 3.0",
        "Creative Commons Attribution 3.0 United States License", "Creative Commons Attribution 4.0 International (CC BY 4.0)",
        "This work is licensed under a Creative Commons Attribution 4.0 International License.",
        "https://creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/by/3.0/",
        "//creativecommons.org/licenses/by/3.0/us/deed.en", "creativecommons.org/licenses/by/4.0/legalcode",
        "Creative Commons Attribution 4.0 International: https://creativecommons.org/licenses/by/4.0/",
    ],
    "cc-by-sa": [
        "CC BY-SA", "CC BY-SA 4.0", "CC-BY-SA-2.1-JP", "by-sa", "Attribution-ShareAlike", "Attribution - Share Alike",
        "Attribution Share Alike", "Attribution-ShareAlike License", "https://creativecommons.org/licenses/by-sa/3.0/de/",
    ],
    "cc-by-nc": [
        "CC BY-NC", "CC-BY-NC-4.0", "by-nc", "Attribution NonCommercial", "Attribution-NonCommercial License",
        "Attribution - Non Commercial", "Attribution Non-Commercial", "https://creativecommons.org/licenses/by-nc/4.0/",
        "http://creativecommons.org/licenses/by-nc/3.0/",
    ],
    "cc-by-nd": [
        "CC BY-ND 4.0", "by-nd", "Attribution-NoDerivs License", "Attribution No Derivatives",
        "Attribution - No Derivative Works", "https://creativecommons.org/licenses/by-nd/2.0/",
    ],
    "cc-by-nc-sa": [
        "CC BY-NC-SA", "cc-by-nc-sa", "CC-BY-NC-SA-4.0", "CC-BY-NC-SA-2.0-FR", "Attribution-NonCommercial-ShareAlike",
        "Attribution Non-Commercial Share Alike", "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    ],
    "cc-by-nc-nd": [
        "CC BY-NC-ND", "by-nc-nd", "CC-BY-NC-ND-3.0-IGO", "Attribution-NonCommercial-NoDerivs",
        "Attribution-NoDerivs-NonCommercial", "Attribution Non-Commercial No Derivatives",
        "https://creativecommons.org/licenses/by-nc-nd/3.0/",
    ],
    "cc-sampling+": ["Sampling+", "Sampling Plus 1.0", "http://creativecommons.org/licenses/sampling+/1.0/"],
    "no-known-copyright": ["No known copyright restrictions"],
    "us-government-work": ["United States Government Work", "United States government work", "U.S. Government Work"],
    "all-rights-reserved": ["All Rights Reserved", "all-rights-reserved", "\N{COPYRIGHT SIGN} All rights reserved."],
    None: [
        None, "", "-", "None", "Unknown", "cc", "Creative Commons", "youtube", "Standard YouTube License", "PRIVATE",
        "not public domain", "Public domain in some countries", "not CC BY", "non-CC BY", "not licensed under CC BY",
        "CC BY or CC BY-NC", "CC BY / CC BY-SA", "CC BY (CC BY-NC 4.0)", "CC BY. All rights reserved.",
        "CC-BY-4.0 OR MIT", "CC BY-ND-SA", "CC BY 5.0", "CC BY except the music", "CC BY 4.0 no ai", "Attribution required",
        "commercial use on request", "https://creativecommons.org.example.com/licenses/by/4.0/",
        "https://example.com/?creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/nd-nc/1.0/",
        "https://creativecommons.org/licenses/by/4.0/ https://creativecommons.org/licenses/by-nc/4.0/", "CC BY " * 200,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_licence_has_one_name(name: str | None) -> None:
    assert {spelling: licence_name(spelling) for spelling in SPELLINGS[name]} == dict.fromkeys(SPELLINGS[name], name)


def test_every_name_is_a_spelling_of_itself_and_in_the_table() -> None:
    assert {name: licence_name(name) for name in NAMES} == {name: name for name in NAMES}
    assert set(SPELLINGS) == {*NAMES, None}


@pytest.mark.parametrize(("allowed", "licence", "passes"), [
    (["cc-by-nc"], "CC BY-NC-ND", False),
    (["cc-by-nc"], "Attribution NonCommercial", True),
    (["cc0"], "not public domain", False),
    (["cc0"], "Public Domain Mark 1.0", False),
    (["cc-by"], "CC BY-NC 4.0", False),
    (["cc-by-sa"], "CC BY-SA 4.0", True),
    (["CC BY 4.0"], "https://creativecommons.org/licenses/by/3.0/", True),
    (["Standard YouTube License"], " standard  youtube license ", True),
    (["free"], "not free", False),
    (["cc0"], None, False),
])  # fmt: skip
def test_a_licence_is_allowed_by_name_or_by_its_whole_text(
    allowed: list[str], licence: str | None, passes: bool
) -> None:
    clip = Clip(licence=licence)
    WrongLicence(allowed=allowed).process(clip)
    assert clip.is_open == passes


def test_without_a_licence_a_clip_passes_only_where_the_recipe_says_so() -> None:
    for unknown in (False, True):
        clip = Clip(licence=" ")
        WrongLicence(unknown=unknown).process(clip)
        assert clip.is_open == unknown
