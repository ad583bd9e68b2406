"""The certificate of a removal: JSON for whoever checks it, and a page of text for whoever asked.

It names clips by their ids and the SHA-256 of their addresses, and has nothing of their content. It is signed with the
keys that one has: ``ssh-keygen -Y sign -f KEY -n vidal-removal removal.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vidal
from vidal.dataset.storage import Storage
from vidal.errors import UserError

HOW = (
    "every byte of every place was read before and after: members by the headers of tars, rows by the columns of "
    "tables, addresses in all texts; afterwards nothing is found but the row that refuses a clip in a dataset, which "
    "has its id and the SHA-256 of its file"
)


def check_path(path: Path, places: list[str]) -> None:
    """Raise `UserError` for a certificate that would change a place that it speaks of, or is no JSON file."""
    if path.suffix != ".json":
        raise UserError(f"--certificate {path}: its name must end in .json; the text gets the same name with .txt")
    inside = next((place for place in places if path.resolve().is_relative_to(Path(place).resolve())), None)
    if inside is not None:
        raise UserError(f"--certificate {path}: is within {inside}, which it is about; choose another folder")


def write(path: Path, body: dict[str, Any]) -> str:
    """Write both files, the JSON first; return the SHA-256 of the JSON."""
    data = (json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    sha256 = hashlib.sha256(data).hexdigest()
    text = "\n".join([*lines(body), f"SHA-256 of {path.name}: {sha256}"]) + "\n"
    # Each whole or not at all: one of an earlier removal may be there, and is all that proves it.
    folder = Storage(str(path.parent))
    folder.write(path.name, data)
    folder.write(path.with_suffix(".txt").name, text.encode())
    return sha256


def earlier(path: Path, body: dict[str, Any]) -> str | None:
    """Return the SHA-256 of a certificate at ``path`` that proves all that ``body`` is about; None if there is none.

    A removal that is repeated finds nothing any more, and what it could certify says less.
    """
    try:
        data = path.read_bytes()
        before = json.loads(data)
        names = [[clip["clip_id"] for clip in one["clips"]] for one in (before, body)]
        places = [{(place["place"], place["fingerprint"]) for place in one["places"]} for one in (before, body)]
        is_same = before["certificate"] == "removal" and before["dataset"] == body["dataset"]
        is_whole = before["proof"]["proven"] and set(names[1]) <= set(names[0]) and places[1] <= places[0]
        # Written after the JSON.
        is_whole = is_whole and hashlib.sha256(data).hexdigest() in path.with_suffix(".txt").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(data).hexdigest() if is_same and is_whole else None


def body_of(result: dict[str, Any], *, requested_by: str | None, began_at: str, finished_at: str) -> dict[str, Any]:
    """Return the JSON of a removal's result."""
    kept = ("dataset", "clips", "places", "checkpoints", "reposts")
    return {
        "certificate": "removal", "version": 1, "created_by": f"vidal {vidal.__version__}",
        "requested_by": requested_by, "began_at": began_at, "finished_at": finished_at,
        "proof": {"proven": result["proven"], "how": HOW},
        # By their hashes: a list may name people.
        "not_found_sha256": [hashlib.sha256(name.encode()).hexdigest() for name in result["missing"]],
        **{name: result[name] for name in kept},
    }  # fmt: skip


def lines(body: dict[str, Any]) -> Iterator[str]:
    """Yield the text of a certificate."""
    yield f"Certificate of removal from {body['dataset']}"
    yield f"requested by {body['requested_by'] or '(not stated)'}; begun {body['began_at']}, done {body['finished_at']}"
    yield f"by {body['created_by']}"
    yield f"\n{'Proven' if body['proof']['proven'] else 'NOT PROVEN'}: {body['proof']['how']}."
    yield f"\n{len(body['clips'])} clips:"
    for clip in body["clips"]:
        why = f", a repost of {clip['repost_of']}" if clip["repost_of"] else ""
        yield f"- {clip['clip_id']}{why}"
        yield from (f"    address, SHA-256 {digest}" for digest in clip["address_sha256"])
        yield f"    file, SHA-256 {clip['source_sha256'] or 'not known'}"
    yield f"\n{len(body['places'])} places:"
    for place in body["places"]:
        yield f"- {place['place']} ({place['kind']}, fingerprint {place['fingerprint']})"
        yield f"    {place['members']} members and rows taken out, {place['bytes']} bytes"
        yield f"    files, SHA-256 before {place['sha256_before']}"
        yield f"    files, SHA-256 after  {place['sha256_after']}"
        yield from (f"    STILL THERE: {found}" for found in place["remains"])
        yield from (f"    the same bytes in another clip: {same}" for same in place["same_bytes"])
    yield "\nCheckpoints that were trained on data with them, of the runs that were named:"
    for run in body["checkpoints"]:
        steps = ", ".join(map(str, run["checkpoints"])) or "none is there"
        yield f"- {run['run']}: {', '.join(run['clip_ids']) or 'on none of them'}; checkpoints after steps: {steps}"
    if not body["checkpoints"]:
        yield "- no run was named"
    yield f"\n{len(body['reposts'])} other clips like them:"
    for repost in body["reposts"]:
        state = "removed, too" if repost["is_removed"] else "kept" if repost["is_kept"] else "not kept, a row"
        yield f"- {repost['clip_id']}: {repost['kind']} of {repost['of']} ({state})"
    yield ""
