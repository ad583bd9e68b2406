"""The hand-written pages as a reader meets them: blocks of commands with their output, of Python, and of files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

GENERATED = {"reference-stages.md", "reference-commands.md"}
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    if path.name not in GENERATED
}
"""By their paths in the repository."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, by its first line: ``# shorts.yaml``, with a remark behind a colon."""
        match = re.match(r"# ([\w-]+\.(?:yaml|py))(:.*)?\n", self.text)
        return match[1] if match else None

    def commands(self) -> list[tuple[str, str]]:
        """The command lines of a console block, without remarks, each with the output that is printed below it."""
        parts = re.split(r"^\$ (.*)\n", self.text, flags=re.M)[1:]
        return [(re.sub(r"\s+#.*", "", line), below) for line, below in zip(parts[::2], parts[1::2], strict=True)]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*parts) for parts in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)]


def is_said(printed: str, said: str) -> bool:
    """Whether a program's output is what a page prints; ``…`` stands for anything, alone on a line for any lines.

    Runs of spaces count as one, and those at either end of a line as none.
    """
    lines = [" ".join(line.split()) for line in printed.strip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines
    )  # fmt: skip
    text = "".join(" ".join(line.split()) + "\n" for line in said.strip().splitlines())
    return re.fullmatch(pattern, text) is not None
