"""A real site on loopback addresses, with media, pages, an API and scripted faults whose truth is known.

    with Site() as site:
        site.url("/clip/bunny-wake.mp4")             # http://127.0.0.1:PORT/clip/bunny-wake.mp4
        site.url("/fault/truncated/bunny-wake.mp4", host=2)
        site.truth(url)                              # "truncated", or "ok"
        site.hits                                    # every request, with its host and time

`python -m tests.site --help` runs it as a process of its own, for benchmarks.
"""

from tests.site.honey import Honey
from tests.site.plan import Plan
from tests.site.server import Hit
from tests.site.site import Site

__all__ = ["Hit", "Honey", "Plan", "Site"]
