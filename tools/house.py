"""Count the house: how large the package is, how finely it is cut, how heavy it is to start.

    python -m tools.house                       a Markdown table of this tree
    python -m tools.house --against c596405     before and after: that commit beside this tree
    python -m tools.house --trace               also build one clip of the sample recipe and count the files it passes

Lines of code are lines without blank ones, comments and docstrings.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import cpu_s

ROOT = Path(__file__).resolve().parents[1]
CORE = (
    "clip", "work", "stage", "recipe", "overrides", "record", "flow", "settings", "errors",
    "modality", "dataset", "reader", "engine",
)  # fmt: skip
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Size:
    """Of a folder or a file at the top of the package."""

    files: int = 0
    lines: int = 0
    code: int = 0
    comments: int = 0
    """Lines with nothing but a comment."""

    def __add__(self, other: Size) -> Size:
        return Size(*(mine + its for mine, its in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(slots=True, kw_only=True)
class House:
    """What is counted; ``figures`` by what they say, in the order of the table."""

    parts: dict[str, Size]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def core(self) -> Size:
        return sum((size for name, size in self.parts.items() if name in CORE), Size())

    @property
    def whole(self) -> Size:
        return sum(self.parts.values(), Size())


def count(package: Path) -> House:
    """The size of each part of a package and how it is cut, from its source alone."""
    parts: defaultdict[str, Size] = defaultdict(Size)
    trees: list[ast.Module] = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text()
        trees.append(tree := ast.parse(text))
        parts[path.relative_to(package).parts[0].removesuffix(".py")] += size_of(text, tree)
    house = House(parts=dict(sorted(parts.items())))
    private = callers_of_private(trees)
    lengths = [_length(node) for tree in trees for node in ast.walk(tree) if isinstance(node, _Function)]
    house.figures = {
        "comment lines, % of all": 100 * house.whole.comments / max(1, house.whole.lines),
        "private functions": len(private),
        "of them with exactly one caller": sum(callers == 1 for callers in private.values()),
        "median function, lines": statistics.median(lengths or [0]),
    }
    return house


def size_of(text: str, tree: ast.Module) -> Size:
    """The lines of one file; a string that stands alone is a docstring, wherever it stands."""
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
        elif token.type == tokenize.COMMENT:
            comments.add(token.start[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return Size(files=1, lines=len(text.splitlines()), code=len(code), comments=len(comments - code))


def callers_of_private(trees: list[ast.Module]) -> dict[tuple[int, str], int]:
    """By module and name, how many functions (or module bodies) name a private function; itself is none of them.

    A function is looked for by its name in its own module, and, where another module imports it, there.
    """
    private = {
        (number, node.name)
        for number, tree in enumerate(trees)
        for node in ast.walk(tree)
        if isinstance(node, _Function) and node.name.startswith("_") and not node.name.endswith("__")
    }
    callers: dict[tuple[int, str], set[tuple[int, str]]] = {key: set() for key in private}
    by_name: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for key in private:
        by_name[key[1]].append(key)
    for number, tree in enumerate(trees):
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
        for place, name in _named(tree):
            for key in by_name.get(name, ()):
                if (key[0] == number or name in imported) and place != name:
                    callers[key].add((number, place))
    return {key: len(found) for key, found in callers.items()}


def _named(node: ast.AST, place: str = "") -> Iterator[tuple[str, str]]:
    """Every name that is used, with the function in which it is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
            yield place, child.id
        elif isinstance(child, ast.Attribute):
            yield place, child.attr
        yield from _named(child, child.name if isinstance(child, _Function) else place)


def _length(node: _Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def weigh(root: Path, house: House) -> None:
    """What has to be installed, and the CPU of starting, in processes of their own on the tree at ``root``."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    house.figures["mandatory dependencies"] = len(project["dependencies"])
    for module in ("vidal", "vidal.build"):
        command = [sys.executable, "-c", f"import {module}"]
        house.figures[f"CPU of import {module}, s"] = statistics.median(cpu_s(command, _on(root)) for _ in range(3))


_TRACE = """
import os, runpy, sys, threading
from pathlib import Path
import vidal
passed, driver, end = set(), os.getpid(), os._exit
def see(frame, event, argument):
    # Bodies of modules and classes, which run at import, are not optimised code.
    if event == "call" and frame.f_code.co_flags & 1:
        passed.add(frame.f_code.co_filename)
def leave(code):
    if os.getpid() == driver:
        sys.setprofile(None)
        root = Path(vidal.__file__).parent
        names = sorted(str(Path(name).relative_to(root)) for name in list(passed) if name.startswith(str(root)))
        Path(sys.argv[-1]).with_name("passed.txt").write_text("\\n".join(names))
    end(code)
# The command line ends its process itself, without a word to anybody.
os._exit = leave
threading.setprofile(see)
sys.setprofile(see)
runpy.run_module("vidal", run_name="__main__")
"""


def files_of_a_clip(root: Path) -> list[str]:
    """The files of the package in which a function runs when the sample recipe builds its first clip in one process.

    The children that run FFmpeg are processes of their own, and not followed.
    """
    sample = root / "manifests" / "sample.csv"
    header, first = sample.read_text(encoding="utf-8").splitlines()[:2]
    with tempfile.TemporaryDirectory() as folder:
        list_path = Path(folder) / "one.csv"
        list_path.write_text(f"{header}\n{first.replace('../samples', str(root / 'samples'))}\n", encoding="utf-8")
        recipe = [root / "pipelines" / "sample.yaml", "--set", f"source.list={list_path}"]
        arguments = ["build", *recipe, "--engine", "local", "--workers", "0", "--out", Path(folder) / "out"]
        command = [sys.executable, "-c", _TRACE, *map(str, arguments)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=_on(root), cwd=folder)
        return (Path(folder) / "passed.txt").read_text().splitlines()


def _on(root: Path) -> dict[str, str]:
    """The environment in which ``vidal`` is that of ``root``, wherever the command is called from."""
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}


@contextmanager
def tree_of(reference: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, reference], check=True, cwd=ROOT)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], check=True, cwd=ROOT)


def measure(root: Path, *, trace: bool) -> House:
    """All that there is to know of the tree at ``root``."""
    house = count(root / "vidal")
    weigh(root, house)
    if trace:
        house.figures["files that the build of one clip passes"] = len(files_of_a_clip(root))
    return house


def table(now: House, before: House | None = None) -> str:
    """Markdown; with ``before`` each cell is `before → after`."""
    columns = ["files", "lines", "code"]
    rows = _rows(now)
    earlier = _rows(before) if before else {}
    lines = ["| part | files | lines | lines of code |", "|---|---|---|---|"]
    for name in dict.fromkeys([*sorted({*rows, *earlier} - {"core", "whole"}), "core", "whole"]):
        cells = [_cell(rows.get(name), earlier.get(name), column, compared=before is not None) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| what | figure |", "|---|---|"]
    for name in dict.fromkeys([*(before.figures if before else ()), *now.figures]):
        cell = _cell(now.figures, before.figures if before else None, name, compared=before is not None)
        lines.append(f"| {name} | {cell} |")
    return "\n".join(lines)


def _rows(house: House) -> dict[str, Mapping[str, float]]:
    sizes = {**house.parts, "core": house.core, "whole": house.whole}
    return {name: asdict(size) for name, size in sizes.items()}


def _cell(now: Mapping[str, float] | None, before: Mapping[str, float] | None, name: str, *, compared: bool) -> str:
    after = _number((now or {}).get(name))
    return f"{_number((before or {}).get(name))} → {after}" if compared else after


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) and value != int(value) else f"{value:,.0f}"


def as_json(house: House) -> dict[str, Any]:
    return {"parts": _rows(house), "figures": house.figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--against", metavar="REF", help="a commit to compare this tree with")
    parser.add_argument("--trace", action="store_true", help="build one clip and count the files it passes (a minute)")
    args = parser.parse_args()
    before = None
    if args.against:
        with tree_of(args.against) as tree:
            before = measure(tree, trace=args.trace)
    now = measure(ROOT, trace=args.trace)
    if args.json:
        print(json.dumps({"after": as_json(now)} | ({"before": as_json(before)} if before else {})))
    else:
        print(table(now, before))


if __name__ == "__main__":
    main()
