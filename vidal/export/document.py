"""Documents about a dataset, such as its ledger of licences: files in a folder that is theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.export.record import NAME, Claim, ExportRecord

# As in a page's script: JSON in HTML must not end its element. The characters are in no place but strings.
_IN_HTML = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The result of an export of documents."""

    out: str
    clips: int
    """Kept clips that they are about."""
    files: list[str]

    def lines(self) -> Iterator[str]:
        yield f"wrote {', '.join(self.files)} on {self.clips} clips to {self.out}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def claimed(dataset: Dataset, out: str, format: str, where: str | None) -> Storage:
    """Return the folder of an export of documents; raises `OutputError` if it is used for anything else."""
    storage = Storage(out)
    Claim.make(dataset, storage, ExportRecord.of(dataset, format, where), NAME, storage.names("")).save()
    return storage


def write_all(storage: Storage, files: Mapping[str, str], clips: int, others: Sequence[str] = ()) -> Documents:
    """Write whole texts by their names; ``others`` are there already."""
    for name, text in files.items():
        storage.write(name, text.encode())
    return Documents(out=storage.address, clips=clips, files=[*files, *others])


def json_text(value: Any) -> str:
    """Return JSON that a page may embed as it is."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    return text.translate(_IN_HTML) + "\n"
