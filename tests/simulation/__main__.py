"""``python -m tests.simulation --seed 7 --schedules 1000``, or ``--only 12`` with everything that happened in it."""

from __future__ import annotations

import argparse
import contextlib
import time

from tests.simulation.planted import FAULTS
from tests.simulation.schedule import play


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--only", type=int)
    parser.add_argument("--fault", choices=FAULTS, help="plant this one")
    given = parser.parse_args()
    began_s, failed = time.process_time(), 0
    for number in range(given.schedules) if given.only is None else [given.only]:
        with FAULTS[given.fault].plant() if given.fault else contextlib.nullcontext():
            played = play(given.seed, number)
        if given.only is not None:
            print("\n".join(played.log))
        if played.faults:
            failed += 1
            print(f"schedule {number} of seed {given.seed}; again: {played.command}")
            print("\n".join(f"  {line}" for line in played.faults))
    count = given.schedules if given.only is None else 1
    print(f"{count} schedules of seed {given.seed}, {failed} with faults, {time.process_time() - began_s:.1f} s of CPU")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
