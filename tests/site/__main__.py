"""The site as a process: prints its addresses as one JSON line, then serves until stdin closes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.site import Plan, Site
from tests.site.site import HOSTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--faults", type=float, default=0.2, help="share of faulty addresses")
    parser.add_argument("--heal-after", type=int, default=0)
    parser.add_argument("--log", type=Path, help="file to which every request is appended: time, host, path")
    parser.add_argument("--hosts", nargs="+", default=HOSTS, help="addresses to listen on")
    parser.add_argument("--down-s", type=float, default=0.0, help="how long each host is down from its first request")
    given = parser.parse_args()
    plan = Plan(seed=given.seed, count=given.count, share=given.faults, heal_after=given.heal_after)
    with Site(plan, hosts=tuple(given.hosts), port=given.port, log=given.log, down_s=given.down_s) as site:
        urls = site.urls()
        print(json.dumps({"port": site.port, "urls": urls, "truth": [site.truth(url) for url in urls]}), flush=True)
        for line in sys.stdin:
            if line.strip() == "heal":
                site.heal()


if __name__ == "__main__":
    main()
