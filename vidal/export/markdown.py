"""Markdown whose cells are a stranger's text: titles, names and hosts stay text, whatever they hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

# The colon and the dot are those of bare addresses, of which renderers make links: https://… and www.….
_MARKUP = re.compile(r"[\\`*_\[\]|~$]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
# References, not backslashes: renderers that know no CommonMark take `\<` for the start of a tag.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escaped(text: str, max_characters: int = 200) -> str:
    """Return text as one line of Markdown that shows it and does nothing: no link, tag, formula or further cell.

    Control and format characters, which can turn the direction of a line, are left out; longer text is cut.
    """
    plain = "".join(c for c in " ".join(text.split()) if not unicodedata.category(c).startswith("C"))
    cut = plain if len(plain) <= max_characters else plain[: max_characters - 1] + "…"
    return _MARKUP.sub(r"\\\g<0>", cut).translate(_ENTITIES)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; `escaped` makes them of anything else."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
