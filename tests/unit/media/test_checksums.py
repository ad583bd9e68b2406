"""A Matroska file that is not what its writer summed up is told, whatever its codec; one without sums is not judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.films import film, process
from vidal.media.checksums import elements, failed_checksums

MPEG4 = ("-c:v", "mpeg4", "-an", "-fflags", "+bitexact")
CLUSTER = 0x1F43B675


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "whole.mkv", *MPEG4, "-cluster_time_limit", "500", length_s=2)


def clusters(data: bytes) -> list[tuple[int, int]]:
    """Content and end of each."""
    segment = list(elements(data, 0, len(data)))[1]
    return [(e.content, e.end) for e in elements(data, segment.content, segment.end) if e.id == CLUSTER]


def flip_in_two_clusters(data: bytearray) -> None:
    for content, _ in clusters(data)[:2]:
        data[content + 100] ^= 1


def flip_a_checksum(data: bytearray) -> None:
    data[clusters(data)[0][0] + 2] ^= 1


def cut_in_the_last_cluster(data: bytearray) -> None:
    del data[clusters(data)[-1][1] - 10 :]


def lose_the_size_of_the_segment(data: bytearray) -> None:
    segment = list(elements(data, 0, len(data)))[1]
    data[segment.content - 8 : segment.content] = b"\x01" + b"\xff" * 7


def nothing(data: bytearray) -> None:
    """As it was."""


CHANGES: list[tuple[Callable[[bytearray], None], int]] = [
    (nothing, 0),
    (flip_in_two_clusters, 2),
    (flip_a_checksum, 1),
    (cut_in_the_last_cluster, 0),
    (lose_the_size_of_the_segment, 0),
]


@pytest.mark.parametrize(("change", "failed"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_elements_that_fail_their_checksum_are_counted(
    change: Callable[[bytearray], None], failed: int, whole: Path, tmp_path: Path
) -> None:
    data = bytearray(whole.read_bytes())
    assert len(clusters(data)) >= 3
    change(data)
    path = tmp_path / "film.mkv"
    path.write_bytes(data)
    assert failed_checksums(path) == failed


def test_a_stream_of_unknown_sizes_has_no_checksum(tmp_path: Path) -> None:
    path = film(tmp_path / "live.webm", "-c:v", "libvpx", "-an", "-live", "1", length_s=1)
    assert failed_checksums(path) == 0
    assert "checksum_mismatch" not in process(path, tmp_path).damage


def test_a_mismatch_is_in_the_row(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    flip_in_two_clusters(data)
    path = tmp_path / "film.mkv"
    path.write_bytes(data)
    assert "checksum_mismatch" in process(path, tmp_path).damage
    assert process(whole, tmp_path).damage == []
