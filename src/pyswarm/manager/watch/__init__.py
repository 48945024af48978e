"""The Watch API: a client names kinds of objects, and what happens to those is streamed to it, commit by commit.

Owns: what a request selects, the replay of past commits from the log, and a bounded queue per client.
Never: writes, waits for a slow client, shows what the control API hides, or asks another manager. Each manager tells what it has applied.
Started by the manager with its other services (`WatchService.run`); leadership makes no difference.

    selection   what a request selects (pure)
    service     the RPC
"""

from pyswarm.manager.watch.service import WatchService

__all__ = ["WatchService"]
