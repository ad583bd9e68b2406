"""The stage table of the README, made from the classes: ``python -m vidal.stages.table README.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from vidal.stage import Decision, Stage
from vidal.stages import CATALOGUE, step_class

START, END = "<!-- stages: made by `make docs` -->", "<!-- /stages -->"


def stage_table() -> str:
    """A Markdown table: name, what it does, what it needs and what it adds."""
    lines = ["| stage | what it does | reads | adds |", "|---|---|---|---|"]
    for name in CATALOGUE:
        step = step_class(name)
        what = " ".join((step.__doc__ or "").strip().split("\n\n")[0].split())
        kind = " (global decision)" if issubclass(step, Decision) else ""
        layers = step.layers if issubclass(step, Stage) else ()
        adds = [f"**{layer}**" for layer in layers]
        adds += [f"`{column}`" for column in step.writes if column not in layers][:4]
        more = " …" if len(step.writes) > len(layers) + 4 else ""
        reads = ", ".join(f"`{column}`" for column in step.reads)
        lines.append(f"| `{name}`{kind} | {what} | {reads} | {', '.join(adds)}{more} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The page with the table between its markers brought up to date."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{stage_table()}\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
