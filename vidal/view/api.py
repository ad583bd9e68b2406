"""The answers of the viewer's server, by name; `docs/viewer.md` describes them."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa

from vidal import modality as modalities
from vidal.clip import columns
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.record import finite
from vidal.report.funnel import Funnel
from vidal.report.summary import as_json, stage_order
from vidal.view import thresholds
from vidal.view.against import Against
from vidal.view.likeness import Likeness
from vidal.view.members import ClipReader, media_type
from vidal.view.queries import ManifestTable, Numbers, Query

_LISTED = (
    "clip_id", "shard", "status", "stage", "reason", "detail", "title", "caption", "duration_s", "layers",
    "decided_value", "decided_limit",
)  # fmt: skip
_MOST_LISTED = 500
_MOST_PEAKS = 10_000
_MOST_GROUPS = 20
_BINARY = ("thumbnail", "members")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request is answered with: bytes of a media type, in blocks; or any part of them, for a range."""

    type: str
    size: int
    blocks: Callable[[int, int], Iterator[bytes]]
    """Gives the bytes from the first to the last of two positions, both included."""

    @classmethod
    def of(cls, data: bytes, kind: str) -> Body:
        """Return an answer of bytes that are in memory."""
        return cls(type=kind, size=len(data), blocks=lambda first, last: iter([data[first : last + 1]]))

    @classmethod
    def json(cls, value: Any) -> Body:
        """Return an answer in JSON; NaN and infinity become null."""
        text = json.dumps(finite(value), ensure_ascii=False, default=str)
        return cls.of(text.encode("utf-8", "backslashreplace"), "application/json; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The query of a request: names with one or several values."""

    values: dict[str, list[str]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """Return a value; of a name that stands several times, the last one."""
        return self.values.get(name, [default])[-1]

    def number(self, name: str, default: int, most: int) -> int:
        """Return a whole number from 0 to ``most``; raises `SourceError` for anything else."""
        text = self.text(name, str(default))
        # Of a text of thousands of digits `int` would raise an error of its own.
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most):
            raise SourceError(f"{name}={text[:40]}: write a whole number from 0 to {most}")
        return int(text)


class Api:
    """All that the server answers about one revision of a dataset."""

    def __init__(self, dataset: Dataset, against: Dataset | None = None, embeddings: Storage | None = None) -> None:
        """Open a dataset, compare it with an earlier one, and its clips by embeddings; raises `SourceError`."""
        self._dataset = dataset
        self._table = ManifestTable(dataset)
        self._against = Against(against, dataset, self._table) if against is not None else None
        self._likeness = Likeness(dataset, self._table, embeddings)
        self._clips = ClipReader(dataset)
        self._flags = flags.FlagWriter(dataset.storage)
        self.answers: dict[str, Callable[[Parameters], Body]] = {
            "summary": self.summary, "columns": self.columns, "histogram": self.histogram, "count": self.count,
            "clips": self.clips, "clip": self.clip, "member": self.member, "preview": self.preview,
            "thumbnail": self.thumbnail, "peaks": self.peaks, "flags": self.flags, "recipe": self.recipe,
            "diff": self.diff, "shifts": self.shifts, "texts": self.texts, "measures": self.measures, "map": self.map,
            "groups": self.groups,
        }  # fmt: skip
        self.writers: dict[str, Callable[[Any], Body]] = {"flags": self.write_flag, "refilter": self.refilter}

    def summary(self, asked: Parameters) -> Body:
        """Return the funnel as the report has it, and what the dataset is."""
        info, funnel = self._dataset.info, Funnel()
        for row in self._table.outcomes():
            funnel.count(row, row["clips"])
        if (left := info.candidates - funnel.candidates) > 0:
            funnel.count({"status": "candidate"}, left)
        order = stage_order(self._dataset)
        return Body.json({
            "name": info.name, "address": self._dataset.address, "revision": self._dataset.number,
            "made_by": info.made_by, "created_by": info.created_by, "layers": info.layers, "rows": len(self._table),
            "stages": order, **as_json(funnel, order),
            "against": self._against.address if self._against else None,
        })  # fmt: skip

    def columns(self, asked: Parameters) -> Body:
        """Return the columns with type, group and meaning, and what each is good for."""
        known = {f.name: (f.metadata["group"], f.metadata["doc"]) for f in columns()}
        known |= {name: (column.group, column.doc) for name, column in self._dataset.info.columns.items()}
        numeric, categories = self._table.numeric(), self._table.categories()
        return Body.json([
            {
                "name": f.name, "type": str(f.type), "group": known.get(f.name, ("source", ""))[0],
                "doc": known.get(f.name, ("", ""))[1], "is_numeric": f.name in numeric,
                "is_sortable": not pa.types.is_nested(f.type), "is_category": f.name in categories,
            }
            for f in self._table.schema
        ])  # fmt: skip

    def groups(self, asked: Parameters) -> Body:
        """Return the largest near-duplicate clusters."""
        groups, rows = self._table.clusters(_MOST_GROUPS)
        return Body.json({"groups": groups, "rows": rows})

    def histogram(self, asked: Parameters) -> Body:
        """Return how the numbers of a ``column`` are spread."""
        return Body.json(thresholds.histogram(self._table, asked.text("column")))

    def count(self, asked: Parameters) -> Body:
        """Return how many of the kept clips of a query pass all ``bound``s."""
        # None stands for all clips, and spares an array of all their numbers.
        is_all = self._query(asked) == Query() and not asked.text("move") and not asked.text("box")
        among = None if is_all else self._selected(asked)
        return Body.json(thresholds.counts(self._table, _bounds(asked), among))

    def clips(self, asked: Parameters) -> Body:
        """Return a page of clips of a query; those most like the clip ``like``, or the ``words``, come first."""
        query, numbers = self._query(asked), self._selected(asked)
        likeness = None
        if like := asked.text("like"):
            numbers, likeness = self._likeness.nearest(self._likeness.measure(asked.text("by")), like, numbers)
        elif words := asked.text("words").strip():
            measure = self._likeness.measure(asked.text("by"))
            numbers, likeness = self._likeness.nearest_to_words(measure, words, numbers)
        offset = asked.number("offset", 0, len(self._table))
        limit = asked.number("limit", 50, _MOST_LISTED)
        shown = numbers[offset : offset + limit].tolist()
        names = {*_LISTED, *([query.sort] if query.sort else []), *asked.values.get("column", [])} - {*_BINARY}
        flagged = flags.current(self._dataset.storage)
        rows = [
            {**row, "flags": _flags_of(row["clip_id"], flagged), "thumbnail": _link("thumbnail", row)}
            for row in self._table.rows(shown, names)
        ]
        if likeness is not None:
            of_page = likeness[offset : offset + limit].tolist()
            rows = [{**row, "likeness": value} for row, value in zip(rows, of_page, strict=True)]
        return Body.json({"clips": len(numbers), "offset": offset, "rows": rows})

    def measures(self, asked: Parameters) -> Body:
        """Return what clips can be compared by, the best first."""
        return Body.json([dataclasses.asdict(measure) for measure in self._likeness.measures()])

    def map(self, asked: Parameters) -> Body:
        """Return the clips as points, with the values of a category column."""
        measure = self._likeness.measure(asked.text("by"))
        drawn = self._likeness.drawn(measure, asked.text("colour", "status"))
        return Body.json({"measure": dataclasses.asdict(measure), "rows": len(self._table), **drawn})

    def clip(self, asked: Parameters) -> Body:
        """Return all about one clip: columns, texts with their models, members down to the byte, flags."""
        row = self._row(asked)
        members = [
            {**member, "url": _link("member", row, layer=member["layer"], name=member["name"])}
            for member in self._clips.provenance(row)
        ]
        return Body.json({
            "row": {name: value for name, value in row.items() if name not in _BINARY},
            "texts": self._clips.texts(row), "members": members,
            "previews": [_link("preview", row, layer=layer) for layer in row["layers"] or [] if modalities.find(layer)],
            "thumbnail": _link("thumbnail", row), "peaks": _link("peaks", row),
            "flags": _flags_of(row["clip_id"], flags.current(self._dataset.storage)),
        })  # fmt: skip

    def member(self, asked: Parameters) -> Body:
        """Return one member's bytes as they are."""
        row = self._row(asked)
        member = self._clips.member(row, asked.text("layer"), asked.text("name"))
        return Body(
            type=media_type(member["name"]), size=member["size"],
            blocks=lambda first, last: self._clips.blocks(row, member, first, last),
        )  # fmt: skip

    def preview(self, asked: Parameters) -> Body:
        """Return frame k of a layer in 8 bits, or without ``frame`` how many there are and what the colours mean."""
        row, layer = self._row(asked), asked.text("layer")
        place = (row["clip_id"], row["shard"], layer)
        if "frame" in asked.values:
            return Body.of(self._clips.preview(*place, asked.number("frame", 0, 10_000)), "image/png")
        shown, times = self._clips.shown(*place), row["frame_times"] or []
        frames = [
            {"time_s": times[k] if k < len(times) else None, "url": _link("preview", row, layer=layer, frame=k)}
            for k in range(len(shown.images))
        ]
        is_synthetic = layer in (row["synthetic_layers"] or [])
        return Body.json({"layer": layer, "note": shown.note, "is_synthetic": is_synthetic, "frames": frames})

    def thumbnail(self, asked: Parameters) -> Body:
        """Return a small JPEG of a clip; raises `SourceError` for one without images."""
        row = self._row(asked)
        image = self._clips.thumbnail(row)
        if image is None:
            raise SourceError(f"clip {row['clip_id']}: no image")
        return Body.of(image, "image/jpeg")

    def peaks(self, asked: Parameters) -> Body:
        """Return the envelope of a clip's audio."""
        row, parts = self._row(asked), max(1, asked.number("parts", 400, _MOST_PEAKS))
        peaks = self._clips.peaks(row["clip_id"], row["shard"], parts)
        return Body.json({"duration_s": row["duration_s"], "peaks": peaks})

    def flags(self, asked: Parameters) -> Body:
        """Return the names of all flags, and the clips that have each, with the notes."""
        return Body.json({"names": flags.NAMES, "clips": flags.current(self._dataset.storage)})

    def write_flag(self, sent: Any) -> Body:
        """Set or clear a flag of a clip; ``sent`` is ``{"clip": …, "flag": …, "is_set": true, "note": ""}``.

        Raises `SourceError` for anything else, and for an unknown clip or flag.
        """
        kinds = {"clip": str, "flag": str, "is_set": bool, "note": str}
        values = {"is_set": True, "note": "", **sent} if isinstance(sent, dict) else {}
        if values.keys() != kinds.keys() or not all(isinstance(values[name], kinds[name]) for name in kinds):
            raise SourceError('a flag is {"clip": ID, "flag": NAME}, and "is_set" and "note" if wanted')
        row = self._clips.row(values["clip"])
        self._flags.write(row["clip_id"], values["flag"], is_set=values["is_set"], note=values["note"])
        return Body.json({"flags": _flags_of(row["clip_id"], flags.current(self._dataset.storage))})

    def recipe(self, asked: Parameters) -> Body:
        """Return what to write into a recipe or a command for the ``bound``s."""
        return Body.json(thresholds.as_recipe(self._dataset, _bounds(asked)))

    def refilter(self, sent: Any) -> Body:
        """Apply thresholds as a revision of the dataset; ``sent`` is ``{"bounds": ["blur<=0.3"]}``.

        Raises `SourceError` for anything else, and for a column that no filter of the recipe decides on.
        """
        # Imported here, as looking needs no recipes.
        from vidal.revisions.refilter import refilter

        bounds = sent.get("bounds") if isinstance(sent, dict) and sent.keys() == {"bounds"} else None
        if not (isinstance(bounds, list) and bounds and all(isinstance(bound, str) for bound in bounds)):
            raise SourceError('thresholds are {"bounds": ["blur<=0.3"]}')
        found, without = thresholds.decided_by(self._dataset, [thresholds.Bound.parse(bound) for bound in bounds])
        if without:
            raise SourceError(f"no filter of the recipe decides on {', '.join(without)}; take its slider away")
        address = self._dataset.storage.address
        lines = refilter(address, thresholds.as_settings(found)).lines()
        words = ["vidal", "view", address, "--against", f"{address}@{self._dataset.number}"]
        return Body.json({"lines": [*lines, f"it is not what is shown here; to see it: {shlex.join(words)}"]})

    def diff(self, asked: Parameters) -> Body:
        """Return the clips that came and went since the other dataset, and the settings that differ."""
        return Body.json(self._compared().summary())

    def shifts(self, asked: Parameters) -> Body:
        """Return how the numbers of the kept clips shifted since the other dataset."""
        return Body.json(self._compared().shifts())

    def texts(self, asked: Parameters) -> Body:
        """Return a page of clips whose texts changed since the other dataset."""
        offset = asked.number("offset", 0, len(self._table))
        return Body.json(self._compared().texts(offset, asked.number("limit", 20, _MOST_LISTED)))

    def _compared(self) -> Against:
        if self._against is None:
            raise SourceError("nothing to compare with; start the viewer as: vidal view DIR --against OTHER")
        return self._against

    def _selected(self, asked: Parameters) -> Numbers:
        """Return the numbers of the clips of a query; of a ``move`` alone, and of a ``box`` of the map, if given."""
        numbers = self._table.select(self._query(asked))
        if asked.text("move"):
            numbers = self._compared().of_move(asked.number("move", 0, 10**6), numbers)
        if box := asked.text("box"):
            chart = self._likeness.chart(self._likeness.measure(asked.text("by")))
            numbers = numbers[chart.inside(box)[numbers]]
        return numbers

    def _query(self, asked: Parameters) -> Query:
        where = asked.text("where")
        flagged = flags.current(self._dataset.storage) if flags.PREFIX in where.lower() else {}
        return Query(
            where=where, search=asked.text("search"), sort=asked.text("sort"),
            is_descending=asked.text("order") == "desc",
            flagged=frozenset((flag, clip_id) for flag, clips in flagged.items() for clip_id in clips),
        )  # fmt: skip

    def _row(self, asked: Parameters) -> dict[str, Any]:
        shard = asked.number("shard", 0, 10**6) if "shard" in asked.values else None
        return self._clips.row(asked.text("clip"), shard)


def _bounds(asked: Parameters) -> list[thresholds.Bound]:
    return [thresholds.Bound.parse(text) for text in asked.values.get("bound", [])]


def _flags_of(clip_id: str, flagged: dict[str, dict[str, str]]) -> dict[str, str]:
    return {flag: clips[clip_id] for flag, clips in flagged.items() if clip_id in clips}


def _link(answer: str, row: dict[str, Any], **parameters: Any) -> str:
    """Return the address of another answer about a clip, relative to the page's."""
    return f"api/{answer}?" + urlencode({"clip": row["clip_id"], "shard": row["shard"], **parameters})
