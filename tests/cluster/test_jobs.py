"""Jobs with real processes."""

from __future__ import annotations

import pathlib
import shlex

import pytest
from tools.cluster import Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(90)]


def states(cluster: Cluster, service: str) -> list[tuple[str, str]]:
    """Task and last state of all tasks of a service, in order of their slots."""
    rows = cluster.rows("task", "ls", "--all")
    return sorted((row[1], row[3].split()[0]) for row in rows if row[1].startswith(f"{service}."))


def test_jobs_run_to_completion(small: Cluster, tmp_path: pathlib.Path) -> None:
    """A job completes as often as asked, a global one once on each node; the attempt that fails is tried again in its slot; a change
    runs it all again, and what is removed leaves nothing."""
    marks = shlex.quote(str(tmp_path))
    # Each attempt leaves a file; the very first one fails.
    script = f"mkdir {marks}/first 2>/dev/null && exit 3; mktemp {marks}/done.XXXXXX"
    create = ("service", "create", "--image", "none")
    sums = ("--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2", "--restart-delay", "100ms")
    before = small.rows("task", "ls", "--all")
    small.ask(*create, "--name", "sums", *sums, "--command", "sh", "--args", f'"-c","{script}"')
    small.ask(*create, "--name", "each", "--mode", "global-job", "--command", "true")
    until("three are complete", lambda: small.replicas("sums") == "0/2 (3/3 completed)")
    ended = states(small, "sums")
    assert sorted(state for _, state in ended) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAILED"]
    assert {name for name, state in ended if state == "COMPLETE"} == {"sums.0", "sums.1", "sums.2"}
    assert len(list(tmp_path.glob("done.*"))) == 3
    small.ask("service", "update", "sums", "--label", "again=yes")
    until("three are complete again", lambda: len(list(tmp_path.glob("done.*"))) == 6 and "(3/3 " in small.replicas("sums"))
    assert small.replicas("each") == "0/0 (1/1 completed)"
    small.ask("service", "rm", "sums")
    small.ask("service", "rm", "each")
    until("nothing is left", lambda: len(small.rows("task", "ls", "--all")) == len(before))
