"""Describes stages by their classes, for `vidal stages` and `docs/reference-stages.md`."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from vidal.stage import Decision, Stage
from vidal.stages import CATALOGUE, named_step

_BOUNDS = {
    "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <=",
    "pattern": "matches",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a stage, as a recipe writes it."""

    name: str
    type: str
    default: Any
    """The default in JSON types; None for a required setting."""
    is_required: bool
    bounds: str
    """Such as ``> 0, <= 1``; empty if there are none."""
    meaning: str
    """Empty if the class has no string below the field; no stage of the catalogue lacks one."""

    def lines(self) -> Iterator[str]:
        default = "required" if self.is_required else f"default {json.dumps(self.default)}"
        yield f"  {self.name}: {self.type}, {default}" + (f", {self.bounds}" if self.bounds else "")
        if self.meaning:
            yield f"      {self.meaning}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A stage: what it does, reads and writes, and its settings."""

    name: str
    is_decision: bool
    """Whether the step is a decision over all shards."""
    summary: str
    doc: str
    reads: list[str]
    writes: list[str]
    """Columns of the record and objects passed on within a worker, without layers and declared columns."""
    layers: list[str]
    columns: dict[str, dict[str, str]]
    """Type, group and meaning of each declared column."""
    settings: list[Setting]

    @classmethod
    def of(cls, name: str) -> Description:
        """Describe a stage of the catalogue or ``package.module:Class``; raises `RecipeError` if it does not exist."""
        step = named_step(name)
        doc = inspect.getdoc(step) or ""
        layers = step.layers if issubclass(step, Stage) else ()
        return cls(
            name=name, is_decision=issubclass(step, Decision), summary=" ".join(doc.split("\n\n")[0].split()), doc=doc,
            reads=list(step.reads), writes=[column for column in step.writes if column not in layers],
            layers=list(layers),
            columns={column: {**c.kind, "meaning": c.doc} for column, c in step.columns.items()},
            settings=list(settings_of(step)),
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        yield self.name + (" (a global decision, made once over all shards)" if self.is_decision else "")
        yield f"\n{self.doc}\n"
        yield from self.flow()
        for name, column in self.columns.items():
            yield f"  declares {name}: {column['type']}, in the group {column['group']}: {column['meaning']}"
        yield "settings" if self.settings else "no settings"
        for setting in self.settings:
            yield from setting.lines()

    def flow(self) -> Iterator[str]:
        yield f"  reads   {', '.join(self.reads) or '-'}"
        yield f"  writes  {', '.join([*self.layers, *self.writes, *self.columns]) or '-'}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Catalogue(list[Description]):
    """Descriptions of vidal's own stages."""

    @classmethod
    def all(cls) -> Catalogue:
        return cls(Description.of(name) for name in CATALOGUE)

    def lines(self) -> Iterator[str]:
        for stage in self:
            yield f"{stage.name}: {stage.summary}"
            yield from stage.flow()

    def as_json(self) -> dict[str, Any]:
        return {"stages": [description.as_json() for description in self]}


def settings_of(kind: type[BaseModel], given: BaseModel | None = None, prefix: str = "") -> Iterator[Setting]:
    """Yield the settings of a class, including those of nested settings; ``resources`` come last."""
    # model_construct, as a class with a required setting has no instance of defaults alone.
    defaults = (given or kind.model_construct()).model_dump(mode="json", warnings=False)
    meanings = meanings_of(kind)
    for name in sorted(kind.model_fields, key="resources".__eq__):
        field = kind.model_fields[name]
        bounds = [
            f"{sign} {value}"
            for constraint in field.metadata
            for key, sign in _BOUNDS.items()
            if (value := getattr(constraint, key, None)) is not None
        ]
        default = defaults.get(name)
        if name not in defaults and not field.is_required():
            # Of a field that is left out of a dump while it has its default.
            default = TypeAdapter(Any).dump_python(field.get_default(call_default_factory=True), mode="json")
        yield Setting(
            name=f"{prefix}{field.alias or name}", type=_type(field.annotation), default=default,
            is_required=field.is_required(), bounds=", ".join(bounds),
            meaning=" ".join((field.description or meanings.get(name, "")).split()),
        )  # fmt: skip
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                own = kind.default_resources if name == "resources" and issubclass(kind, Stage) else None
                # Of a mapping to settings, each entry has them.
                entry = "NAME." if get_origin(field.annotation) is dict else ""
                yield from settings_of(inner, own, f"{prefix}{name}.{entry}")


def meanings_of(kind: type) -> dict[str, str]:
    """Return the string below each field of a class that has one, those of its bases included.

    Read from the source, where they are shown: pydantic's ``use_attribute_docstrings`` searches all modules for each
    class when it is made, which was a tenth of the CPU time of starting a command.
    """
    meanings = {}
    for each in reversed(kind.__mro__[: kind.__mro__.index(BaseModel)]):
        # Of a class that was made at run time there is no source.
        with suppress(OSError, TypeError):
            body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]).body
            for pair in pairwise(body):
                match pair:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(meaning))):
                        meanings[name] = meaning
    return meanings


def _type(annotation: Any) -> str:
    """Return a type such as ``float | null`` or ``"and" | "or"``, without module names."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(map(_type, inner))
    if origin is Annotated:
        return _type(inner[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join('…' if one is Ellipsis else _type(one) for one in inner)}]"
    return "null" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))
