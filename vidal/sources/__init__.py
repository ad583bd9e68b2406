"""Sources of candidates: the kinds that a recipe can name, one line each."""

from vidal.sources.dataset import DatasetSource, DatasetsSource
from vidal.sources.folder import FolderSource
from vidal.sources.freesound import FreesoundSource
from vidal.sources.list import ListSource
from vidal.sources.search import ChannelSource, PlaylistSource, SearchSource
from vidal.sources.segments import SegmentsSource
from vidal.sources.source import Source
from vidal.sources.urls import UrlsSource
from vidal.sources.vidal_json import VidalJsonSource

SOURCES: dict[str, type[Source]] = {
    "list": ListSource,
    "folder": FolderSource,
    "dataset": DatasetSource,
    "datasets": DatasetsSource,
    "segments": SegmentsSource,
    "vidal_json": VidalJsonSource,
    "urls": UrlsSource,
    "search": SearchSource,
    "channel": ChannelSource,
    "playlist": PlaylistSource,
    "freesound": FreesoundSource,
}
