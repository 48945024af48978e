"""Managers of their own for a benchmark: real processes on loopback, in a temporary directory that is gone afterwards."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from tools.cluster import Cluster


def names(count: int) -> tuple[str, ...]:
    """What they are called; the first founds, and leads as long as nothing happens."""
    return tuple(f"node-{i}" for i in range(1, count + 1))


@contextlib.contextmanager
def managers(count: int) -> Iterator[Cluster]:
    """So many, with their flags' defaults and the process executor, all READY."""
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        cluster = Cluster(pathlib.Path(directory), ("--executor", "process"))
        try:
            cluster.found()
            if count > 1:
                token = cluster.token("Manager")
                for name in names(count)[1:]:
                    cluster.join(name, token, control=True)
                cluster.await_ready(count)
            yield cluster
        finally:
            cluster.stop()
