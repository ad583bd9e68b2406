"""How fast the viewer finds the clips like a clip, and computes its map.

    python benchmarks/likeness.py [--clips 100000] [--dimensions 512]

The dataset is manifests only (`benchmarks/view.py`), with hashes of eight frames a clip drawn at random, and so are the
embeddings, in a folder as `vidal embed` writes it. Each search is for another clip; then the rows of the 48 nearest are
asked for, which lie in as many shards.

Target: 0.2 s for 100,000 clips of 512 numbers on two cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from figures import options, show, spread
from view import SHARD_SIZE, write

REPEATS = 9


def write_embeddings(out: Path, clips: int, dimensions: int) -> None:
    from vidal.dataset import embeddings
    from vidal.dataset.storage import Storage

    out.mkdir()
    storage, random = Storage(str(out)), np.random.default_rng(0)
    info = embeddings.EmbeddingsInfo(
        checkpoint="random", identity="", data="", where=None, fingerprint="", modalities=["video"],
        transforms={"video": {}}, preprocessing="",
    )  # fmt: skip
    storage.write(embeddings.NAME, info.model_dump_json().encode())
    for shard, first in enumerate(range(0, clips, SHARD_SIZE)):
        ids = [f"yt-{n:011d}" for n in range(first, min(first + SHARD_SIZE, clips))]
        flat = pa.array(random.standard_normal(len(ids) * dimensions, dtype=np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float32(), dimensions))
        table = pa.table({"clip_id": ids, "modality": ["video"] * len(ids), "embedding": vectors})
        embeddings.write(storage, f"{shard:06d}.parquet", table)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    arguments = parser.parse_args()
    clips = 500 if arguments.quick else arguments.clips

    from vidal.dataset.dataset import Dataset
    from vidal.dataset.storage import Storage
    from vidal.view.api import Api, Parameters

    with tempfile.TemporaryDirectory() as folder:
        data, vectors = Path(folder) / "data", Path(folder) / "embeddings"
        write(data, clips)
        write_embeddings(vectors, clips, arguments.dimensions)
        api = Api(Dataset.open(str(data)), embeddings=Storage(str(vectors)))

        def timed(answer: str, **asked: str) -> float:
            start = time.perf_counter()
            api.answers[answer](Parameters({name: [value] for name, value in asked.items()}))
            return time.perf_counter() - start

        figures: dict[str, object] = {"clips": clips, "dimensions": arguments.dimensions}
        for by in ("folder.video", "frame_hash"):
            # The first answer reads what the others compare.
            figures[f"{by}: first, s"] = timed("clips", like=f"yt-{0:011d}", by=by, limit="0")
            examples = [f"yt-{n:011d}" for n in range(1, clips, clips // REPEATS)]
            figures[f"{by}: another, s"] = spread([timed("clips", like=n, by=by, limit="0") for n in examples])
            figures[f"{by}: its 48 nearest, s"] = spread(
                [timed("clips", like=n, by=by, limit="48") for n in examples[-3:]]
            )
            figures |= {f"{by}: map, s": timed("map", by=by), f"{by}: map again, s": timed("map", by=by)}
        show(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
