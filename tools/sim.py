"""Run the cluster simulation (tests/simulation) by hand.

    python -m tools.sim --seeds 300               seeds 0 to 299, on all cores
    python -m tools.sim --seed 17                 one life again, with its whole trace
    python -m tools.sim --seeds 50 --scenario partitions

Ends with one line of JSON, and with status 1 when something was found. Every finding names the command that replays it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.cluster import Violation, run
from tests.simulation.scenarios import SCENARIOS

CHUNK = 5
PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Result:
    """What became of one seed. `finding` is empty when nothing was found."""

    seed: int
    cpu_seconds: float
    virtual_seconds: float
    commits: int
    calls: int
    finding: str


def try_seed(task: tuple[int, str]) -> Result:
    """One life."""
    seed, scenario = task
    begun = time.process_time()
    try:
        outcome = run(seed, scenario)
    except Violation as violation:
        return Result(seed, time.process_time() - begun, 0.0, 0, 0, violation.what)
    except Exception as error:  # noqa: BLE001 - a harness that fails is a finding, too
        return Result(seed, time.process_time() - begun, 0.0, 0, 0, f"the simulation itself failed: {error!r}")
    return Result(seed, time.process_time() - begun, outcome.seconds, outcome.commits, outcome.calls, "")


def results(seeds: range, scenario: str, jobs: int) -> Iterator[Result]:
    """Of all seeds, as they come."""
    tasks = ((seed, scenario) for seed in seeds)
    if jobs <= 1:
        yield from map(try_seed, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(try_seed, tasks, CHUNK)


def replay_command(seed: int, scenario: str) -> str:
    """What shows it again."""
    return f"make sim SEED={seed}" + (f" SCENARIO={scenario}" if scenario else "")


def sweep(seeds: range, scenario: str, jobs: int) -> int:
    """Run many, tell how it goes, and sum up. The exit status."""
    begun = told = time.monotonic()
    done: list[Result] = []
    for result in results(seeds, scenario, jobs):
        done.append(result)
        if result.finding:
            print(f"seed {result.seed}: {result.finding}\n  replay: {replay_command(result.seed, scenario)}", flush=True)
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            rate = len(done) / (told - begun) * 60
            print(f"{len(done)} of {len(seeds)} seeds, {rate:.0f} a minute, {sum(bool(r.finding) for r in done)} findings", flush=True)
    seconds, cpu = time.monotonic() - begun, sum(r.cpu_seconds for r in done)
    found = [r for r in done if r.finding]
    summary = {
        "seeds": len(done),
        "first_seed": seeds.start,
        "scenario": scenario or "typical",
        "seconds": round(seconds, 1),
        "jobs": jobs,
        "seeds_per_minute": round(len(done) / seconds * 60),
        "seeds_per_minute_and_core": round(len(done) / cpu * 60),
        "virtual_hours": round(sum(r.virtual_seconds for r in done) / 3600, 1),
        "entries": sum(r.commits for r in done),
        "user_calls": sum(r.calls for r in done),
        "violations": [{"seed": r.seed, "what": r.finding.splitlines()[0], "replay": replay_command(r.seed, scenario)} for r in found],
    }
    print(json.dumps(summary), flush=True)
    return 1 if found else 0


def replay(seed: int, scenario: str) -> int:
    """One life with its trace. The exit status."""
    try:
        outcome = run(seed, scenario, echo=True, keep_lines=True)
    except Violation as violation:
        print(f"\nseed {seed}: {violation.what}")
        return 1
    print(f"\nseed {seed}: nothing found in {outcome.seconds:.1f} virtual seconds, {outcome.commits} entries, {outcome.calls} calls")
    print(f"digest {outcome.digest}")
    return 0


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="tools.sim", description="Run the cluster simulation.")
    parser.add_argument("--seed", type=int, help="replay this one with its trace")
    parser.add_argument("--seeds", type=int, default=100, help="how many to run (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--scenario", default="", choices=("", *SCENARIOS), help="a particular kind of life instead of a typical one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes (default: one per core)")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, options.scenario)
    return sweep(range(options.first, options.first + options.seeds), options.scenario, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
