"""The house is counted from its source: on a small package every number can be told by hand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.house import Size, count, size_of, table

TOP = '''"""What it is."""

# A comment.
from made.inner.deep import _shared


class Thing:
    """A thing."""

    size: int = 1
    """How large."""

    def grow(self) -> int:
        return self._by(1)  # and a word

    def _by(self, much: int) -> int:
        # Twice.
        return self._by(much - 1) + _shared()
'''
DEEP = """def _shared():
    return _alone()


def _alone():
    return _never


def _unused():
    text = '''one
two'''
    return text


def use():
    return _shared()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "recipe.py").write_text(TOP)
    (tmp_path / "made" / "inner" / "deep.py").write_text(DEEP)
    (tmp_path / "made" / "inner" / "__init__.py").write_text("")
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("text", "code", "comments"),
    [
        ("x = 1\n\n\n", 1, 0),
        ("# one\nx = 1  # two\n", 1, 1),
        ('"""One\n\ntwo."""\nx = 1\n', 1, 0),
        ('x = """one\n# two\n"""\n', 3, 0),
        ("x = [\n    # one\n    1,\n]\n", 3, 1),
    ],
    ids=["blank lines", "comments", "a docstring", "a string that is a value", "a comment inside a list"],
)
def test_code_is_what_is_no_blank_line_comment_or_docstring(text: str, code: int, comments: int) -> None:
    assert size_of(text, ast.parse(text)) == Size(1, len(text.splitlines()), code, comments)


def test_each_folder_and_file_at_the_top_is_a_part(package: Path) -> None:
    house = count(package)
    assert house.parts == {"inner": Size(2, 16, 10, 0), "recipe": Size(1, 18, 7, 2)}
    assert house.core == house.parts["recipe"]
    assert house.whole == Size(3, 34, 17, 2)


def test_a_private_function_has_one_caller_where_one_other_function_names_it(package: Path) -> None:
    figures = count(package).figures
    # `_by` and `_alone` have one each, as `_by` itself is none; `_shared` has two, in two files; `_unused` has none.
    assert figures["private functions"] == 4
    assert figures["of them with exactly one caller"] == 2
    assert figures["median function, lines"] == 2


def test_two_trees_stand_beside_each_other(package: Path) -> None:
    before = count(package)
    (package / "new.py").write_text("x = 1\n")
    lines = table(count(package), before).splitlines()
    assert "| new | – → 1 | – → 1 | – → 1 |" in lines
    assert "| whole | 3 → 4 | 34 → 35 | 17 → 18 |" in lines
