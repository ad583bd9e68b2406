"""Generates the stage table of the README from the classes: ``python -m vidal.stages.table README.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from vidal.stages.describe import Catalogue

START, END = "<!-- stages: made by `make docs` -->", "<!-- /stages -->"


def stage_table() -> str:
    """Return a Markdown table of all steps: name, description, columns read, layers and columns added."""
    lines = ["| stage | what it does | reads | adds |", "|---|---|---|---|"]
    for stage in Catalogue.all():
        kind = " (global decision)" if stage.is_decision else ""
        adds = [f"**{layer}**" for layer in stage.layers] + [f"`{column}`" for column in stage.writes[:4]]
        more = " …" if len(stage.writes) > 4 else ""
        reads = ", ".join(f"`{column}`" for column in stage.reads)
        lines.append(f"| `{stage.name}`{kind} | {stage.summary} | {reads} | {', '.join(adds)}{more} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return ``text`` with an up-to-date table between the markers."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{stage_table()}\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
