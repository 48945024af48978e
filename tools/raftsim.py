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

CHUNK, LIVES = 10, 200
"""Seeds handed out together; seeds after which a process is replaced, since the messages of so many lives fragment its memory."""


def attempt(seed: int) -> tuple[int, float, str]:
    """Seed, seconds of processor time, and what is wrong with its life; empty when nothing is."""
    begun = time.process_time()
    try:
        run_seed(seed)
    except Exception as error:  # noqa: BLE001 - whatever ends a life is a finding
        return seed, time.process_time() - begun, f"{type(error).__name__}: {error}"
    return seed, time.process_time() - begun, ""


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
    begun, found, cpu = time.monotonic(), 0, 0.0
    with multiprocessing.Pool(arguments.jobs, maxtasksperchild=LIVES // CHUNK) as pool:
        for seed, took, wrong in pool.imap_unordered(attempt, range(arguments.first, arguments.first + arguments.count), CHUNK):
            cpu += took
            if wrong:
                found += 1
                print(f"seed {seed}: {wrong[:300]}\n  again: python -m tools.raftsim --seed {seed}", flush=True)
    seconds = time.monotonic() - begun
    rate = f"{60 * arguments.count / seconds:.0f} seeds a minute, {60 * arguments.count / cpu:.0f} a minute and core"
    print(f"{arguments.count} seeds, {found} findings, {seconds:.0f} s, {rate}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
