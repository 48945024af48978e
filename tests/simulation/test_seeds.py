"""Three hundred small clusters live, each from its own seed, and nothing that must hold is broken. More: `make sim-deep`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.cluster import run
from tests.simulation.scenarios import SCENARIOS

SEEDS = 300
GROUP = 25
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_typical_lives(first: int) -> None:
    """No seed of this group finds a violation; one that does says how to replay it."""
    for seed in range(first, first + GROUP):
        run(seed)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS.keys() - {"typical", "everything"}))
def test_particular_lives(scenario: str) -> None:
    """No seed of a scenario that provokes one kind of trouble finds a violation."""
    for seed in range(3):
        run(seed, scenario)


def test_same_story_every_time() -> None:
    """A seed's trace is the same on every run, in this process and in others that hash differently."""
    seed, scenario = 8, "politics"
    here = run(seed, scenario, keep_lines=True)
    assert here.commits > 20
    assert run(seed, scenario, keep_lines=True).digest == here.digest
    code = f"from tests.simulation.cluster import run; print(run({seed}, {scenario!r}, keep_lines=True).digest)"
    for hashing in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        found = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == here.digest
