"""`TextCache`: the embeddings of a frozen text tower, in memory-mapped files that every rank and later runs share.

    FOLDER/NAME.texts    n sorted keys of 16 bytes, n rows of d values, the SHA-256 of both

A key is the start of a text's SHA-256; a folder holds the embeddings of one tower. Each rank writes the files of its
share of the keys, under temporary names, and renames each once it is complete and synced: what a killed run completed
is kept. A file that does not match its checksum is deleted and made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidal.dataset.local_disk import sync_folder
from vidal.errors import StorageError, VidalWarning, storage_errors
from vidal.train.distributed import World, from_all

_SUFFIX = ".texts"
_KEY = np.dtype("S16")
_SUM_BYTES = hashlib.sha256().digest_size
_TEXTS_PER_FILE = 1 << 18
"""What a kill costs at most: with 768 values in bfloat16, 400 MB and a minute of a GPU."""
_TEXTS_PER_CALL = 1024
"""Texts from one report of the progress to the next."""
_ABANDONED_S = 3600.0
"""A temporary file that has not grown for so long is a killed run's; a younger one may be another run's."""
# numpy has no bfloat16, so its bits are stored.
_STORED: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype("<f4"), torch.bfloat16: np.dtype("<i2")}

Keys = npt.NDArray[np.bytes_]
Numbers = npt.NDArray[np.int64]
Encode = Callable[[Sequence[str]], Tensor]
"""Returns the embeddings (n, d) of n texts."""
Progress = Callable[[int, int], None]
"""Is called with the number of texts that this rank has encoded, and the number that it has to encode."""


class _File:
    """One complete file of the cache, memory-mapped."""

    def __init__(self, path: Path, dim: int, stored: np.dtype[Any]) -> None:
        n = (path.stat().st_size - _SUM_BYTES) // (_KEY.itemsize + dim * stored.itemsize)
        self.keys: Keys = np.memmap(path, _KEY, "r", shape=(n,))
        self.rows = np.memmap(path, stored, "r", offset=n * _KEY.itemsize, shape=(n, dim))


class TextCache:
    """The embeddings of texts in a folder. `add`, like the constructor, is a collective of all ranks."""

    def __init__(self, folder: Path, dim: int, dtype: torch.dtype, here: World) -> None:
        """Open the folder's embeddings of ``dim`` values; ``dtype`` is float32 or bfloat16."""
        self._folder, self._dim, self._dtype, self._here = folder, dim, dtype, here
        self._row_bytes = _KEY.itemsize + dim * _STORED[dtype].itemsize
        with storage_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            if here.is_main:
                _sweep(folder)
            # Listed by one rank, so that all check the same files, each on one rank.
            names = from_all(sorted(path.name for path in folder.glob(f"*{_SUFFIX}")) if here.is_main else [])
            own = names[here.rank :: here.size]
            damaged = [name for name in own if not self._is_intact(name)]
            self._files = self._open([name for name in own if name not in damaged])
            # On every rank, as only the first one's warnings are printed.
            for name in from_all(damaged):
                message = f"{folder / name}: damaged; its texts are encoded again"
                warnings.warn(message, VidalWarning, stacklevel=2)

    def add(self, texts: Iterable[str], encode: Encode, progress: Progress = lambda done, total: None) -> int:
        """Encode the missing ones of ``texts``, each on one rank; return their number, over all ranks.

        The texts have to be the same on every rank. Raises `StorageError` if the disk is too small for them.
        """
        rank, ranks = self._here.rank, self._here.size
        # By the first bytes, so that the keys of a rank lie together and the files of two ranks do not overlap.
        own = {key: text for text in texts if int.from_bytes((key := _key(text))[:8]) * ranks >> 64 == rank}
        order = sorted(own)
        is_missing = np.ones(len(order), np.bool_)
        for _, _, places in self._find(_array(order)):
            is_missing[places] = False
        missing = [key for key, is_new in zip(order, is_missing.tolist(), strict=True) if is_new]
        total = sum(from_all([len(missing)]))
        done = 0

        def blocks(keys: Sequence[bytes]) -> Iterator[Tensor]:
            nonlocal done
            for start in range(0, len(keys), _TEXTS_PER_CALL):
                block = keys[start : start + _TEXTS_PER_CALL]
                yield encode([own[key] for key in block])
                progress(done := done + len(block), len(missing))

        with storage_errors(str(self._folder)):
            self._check_room(total)
            parts = [missing[start : start + _TEXTS_PER_FILE] for start in range(0, len(missing), _TEXTS_PER_FILE)]
            self._files += self._open([self._write(part, blocks(part)) for part in parts])
        return total

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings (n, d) of n texts, on the CPU; raises `KeyError` for a text that was not added."""
        rows = np.empty((len(texts), self._dim), _STORED[self._dtype])
        is_found = np.zeros(len(texts), np.bool_)
        for file, at, places in self._find(_array([_key(text) for text in texts])):
            rows[places], is_found[places] = file.rows[at], True
        if not is_found.all():
            raise KeyError(f"{self._folder}: has no embedding of {texts[int(np.argmin(is_found))]!r}")
        return torch.from_numpy(rows).view(self._dtype)

    def _find(self, keys: Keys) -> Iterator[tuple[_File, Numbers, Numbers]]:
        """By file, the rows of those keys that it has, and their places in ``keys``."""
        order = np.argsort(keys)
        ordered = keys[order]
        for file in self._files:
            # Only those between the file's first and last key: the files of one `add` do not overlap.
            first, last = np.searchsorted(ordered, file.keys[:1]), np.searchsorted(ordered, file.keys[-1:], "right")
            near = slice(int(first[0]), int(last[0]))
            at = np.searchsorted(file.keys, ordered[near])
            hits = file.keys[at] == ordered[near]
            yield file, at[hits], order[near][hits]

    def _write(self, keys: Sequence[bytes], embeddings: Iterable[Tensor]) -> str:
        """Write one file of sorted keys and return its name; the file is there completely, or not at all."""
        listed = b"".join(keys)
        # Runs that share the folder and write the same texts give them the same name.
        name = hashlib.sha256(listed).hexdigest()[:32] + _SUFFIX
        temporary = self._folder / f".{name}.{os.getpid()}"
        try:
            with temporary.open("wb") as file:
                digest = hashlib.sha256(listed)
                file.write(listed)
                for rows in embeddings:
                    bits = rows.cpu().view(torch.int16) if self._dtype is torch.bfloat16 else rows.cpu()
                    data = bits.numpy().tobytes()
                    digest.update(data)
                    file.write(data)
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self._folder)
        return name

    def _open(self, names: Sequence[str]) -> list[_File]:
        """Map the files that any rank names."""
        found = dict.fromkeys(from_all(list(names)))
        return [_File(self._folder / name, self._dim, _STORED[self._dtype]) for name in found]

    def _is_intact(self, name: str) -> bool:
        """Check a file's checksum; delete it if it is wrong."""
        path = self._folder / name
        size = path.stat().st_size - _SUM_BYTES
        if size > 0:
            content = np.memmap(path, np.uint8, "r")
            if hashlib.sha256(content[:size].data).digest() == content[size:].tobytes():
                return True
        path.unlink()
        return False

    def _check_room(self, texts: int) -> None:
        needed = texts * self._row_bytes
        # The least that any rank sees, so that all stop together.
        free = min(from_all([shutil.disk_usage(self._folder).free]))
        if needed > free:
            raise StorageError(
                f"{self._folder}: the embeddings of {texts:,} texts take {needed / 1e9:.1f} GB, but "
                f"{free / 1e9:.1f} GB are free; set text.cache to another folder, or to false"
            )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[: _KEY.itemsize]


def _array(keys: Sequence[bytes]) -> Keys:
    return np.frombuffer(b"".join(keys), _KEY)


def _sweep(folder: Path) -> None:
    """Delete the temporary files of killed runs."""
    for leftover in folder.glob(f".*{_SUFFIX}.*"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_S:
            leftover.unlink(missing_ok=True)
