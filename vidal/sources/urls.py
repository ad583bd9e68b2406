"""Candidates from a list of addresses in the recipe, or from a text file with one address per line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from vidal.addresses import WEB_SCHEMES
from vidal.dataset.removals import hashed_address
from vidal.errors import SourceError
from vidal.rows import TableLike
from vidal.sources.normalise import normalise
from vidal.sources.source import Source
from vidal.stage import digest


class UrlsSource(Source):
    """``{urls: FILE}`` or ``{urls: [ADDRESS, …]}``."""

    urls: str | list[str] = Field()

    def candidates(self) -> TableLike:
        return normalise(pa.table({"url": pa.array(self._urls(), pa.string())}), "urls")

    def identity(self) -> dict[str, Any]:
        # By their hashes, as a dataset keeps no more of an address that was removed from it.
        return {"urls": digest([hashed_address(url) for url in self._urls()])}

    def schemes(self) -> tuple[str, ...]:
        return WEB_SCHEMES

    def base(self) -> str:
        return str(Path(self.urls).expanduser().resolve().parent) if isinstance(self.urls, str) else ""

    def _urls(self) -> list[str]:
        if isinstance(self.urls, list):
            return self.urls
        path = Path(self.urls).expanduser()
        try:
            # Windows' editors begin UTF-8 with a byte order mark, which would become part of the first address.
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read as a list of addresses: {error}") from error
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
