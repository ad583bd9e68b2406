"""The recipes that ship, as templates of a recipe of one's own: `write` is behind `vidal init`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vidal.errors import OutputError, UserError, machine_error

# A symbolic link to the folder at the top of the repository; the wheel has the files themselves.
_RECIPES = Path(__file__).parent / "pipelines"
_OF_THE_REPOSITORY = {"sample", "train/sample", "train/learning"}
"""Recipes over data that is in the repository and not in the wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A recipe that was written, and the template that it is of."""

    out: str
    template: str

    def lines(self) -> Iterator[str]:
        yield f"wrote {self.out}, from the template {self.template}"

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def names() -> list[str]:
    """The templates, such as ``own-videos`` and ``train/depth``."""
    found = sorted(path.relative_to(_RECIPES).with_suffix("").as_posix() for path in _RECIPES.rglob("*.yaml"))
    return [name for name in found if name not in _OF_THE_REPOSITORY]


def write(out: Path, template: str) -> Written:
    """Write a template to a file of its own, comments included; example: ``write(Path("mine.yaml"), "own-videos")``.

    Raises `UserError` for a template that does not ship, `OutputError` where the file is there already.
    """
    if template not in names():
        raise UserError(f"--template {template}: choose from {', '.join(names())}")
    text = (_RECIPES / f"{template}.yaml").read_text(encoding="utf-8")
    try:
        with out.open("x", encoding="utf-8") as file:
            # The commands in a recipe's comments name its file.
            file.write(text.replace(f"pipelines/{template}.yaml", str(out)))
    except FileExistsError:
        raise OutputError(f"{out}: is there already; name another file") from None
    except OSError as error:
        raise machine_error(error, str(out)) or OutputError(f"{out}: cannot be written: {error}") from error
    return Written(out=str(out), template=template)
