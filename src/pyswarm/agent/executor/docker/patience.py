"""How long a failing request counts as passing trouble. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.docker.http import EngineError, EngineUnavailable

REFUSED = 10.0
"""Seconds for which a 5xx is retried: a port may be free again once the task before has gone. Most that last longer never end."""

UNREACHABLE = 60.0
"""Seconds for which an engine that does not answer is waited for, before the task fails and may run elsewhere."""


@dataclass(slots=True)
class Patience:
    """The trouble of one task, per operation: since when it lasts."""

    since: dict[str, float] = field(default_factory=dict)

    def settle(self, operation: str) -> None:
        """The operation went through."""
        self.since.pop(operation, None)

    def judge(self, operation: str, error: ExecutorError, now: float, *, endless: bool = False) -> ExecutorError:
        """The error to raise at `now` (monotonic): temporary while there is hope, final after that. `endless` never gives up on silence."""
        unreachable = isinstance(error, EngineUnavailable)
        refused = isinstance(error, EngineError) and error.status >= 500
        if not unreachable and not refused:
            self.settle(operation)
            return error
        lasted = now - self.since.setdefault(operation, now)
        if lasted < (UNREACHABLE if unreachable else REFUSED) or (unreachable and endless):
            return error if unreachable else TemporaryError(str(error))
        self.settle(operation)
        return ExecutorError(str(error))
