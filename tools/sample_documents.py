"""Writes the documents of the sample into docs/sample-documents: ``python -m tools.sample_documents DIR``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vidal.dataset.dataset import Dataset
from vidal.export import huggingface
from vidal.export.croissant import write_croissant
from vidal.export.licences import write_licences
from vidal.export.summary import write_summary

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "sample-documents"
NAMES = (
    "croissant.json", "licences.json", "licences.md", "attribution.csv", "training-summary.json", "training-summary.md",
    "huggingface.md",
)  # fmt: skip


def documents(address: str) -> dict[str, bytes]:
    """The documents of a dataset, by name; those of bytes that only machines read are left out."""
    dataset = Dataset.open(address)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_croissant(dataset, str(folder / "croissant.json"), None)
        write_licences(dataset, str(folder / "licences"), None, None)
        write_summary(dataset, str(folder / "summary"), None, None)
        (folder / "huggingface.md").write_bytes(huggingface.card(dataset, None))
        found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: found[name] for name in NAMES}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="the sample dataset, as `make build-shards` builds it")
    FOLDER.mkdir(exist_ok=True)
    for name, data in documents(parser.parse_args().dataset).items():
        (FOLDER / name).write_bytes(data)
