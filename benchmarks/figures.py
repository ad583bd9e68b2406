"""What every benchmark shares: its options, medians with their range, and one way to print figures."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with ``--quick`` and ``--json``, which every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="toy sizes and no goals: only shows that it runs")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object and nothing else")
    return parser


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def cpu_s(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """User and system time of a command and its children, in seconds; what it prints is thrown away."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def log(line: str) -> None:
    """Say something that is no figure."""
    print(line, file=sys.stderr, flush=True)


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures, one a line or as JSON, with what they depend on of the machine."""
    figures = {**figures, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:40} {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, dict) and value.keys() == {"median", "min", "max"}:
        low, high = _in_words(value["min"]), _in_words(value["max"])
        return f"{_in_words(value['median'])} ({low} to {high})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)
