"""Run many lives of the raft simulation (tests/simulation/raft), or one again.

python -m tools.raftsim 5000              seeds 0 … 4999
python -m tools.raftsim 5000 --first 7000
python -m tools.raftsim --seed 4711       one life, with the whole traceback of what is wrong
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.simulation.raft.lives import run_seed


def attempt(seed: int) -> tuple[int, str]:
    """Seed, and what is wrong with its life; empty when nothing is."""
    try:
        run_seed(seed)
    except Exception as error:  # noqa: BLE001 - whatever ends a life is a finding
        return seed, f"{type(error).__name__}: {error}"
    return seed, ""


def main() -> int:
    """Status 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        run_seed(arguments.seed)
        print(f"seed {arguments.seed}: nothing found")
        return 0
    begun, found = time.monotonic(), 0
    with multiprocessing.Pool(arguments.jobs) as pool:
        for seed, wrong in pool.imap_unordered(attempt, range(arguments.first, arguments.first + arguments.count), 10):
            if wrong:
                found += 1
                print(f"seed {seed}: {wrong[:300]}\n  again: python -m tools.raftsim --seed {seed}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{arguments.count} seeds, {found} findings, {seconds:.0f} s, {60 * arguments.count / seconds:.0f} seeds a minute")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
