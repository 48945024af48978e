"""Who is calling: what a service method knows about the other side."""

from __future__ import annotations

from dataclasses import dataclass

WORKER = "swarm-worker"
MANAGER = "swarm-manager"


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity behind one call, established by `rpc/` before the method runs.

    `node_id`, `organization` and `roles` come from the verified certificate (or the forwarded one) and are empty for a caller without
    certificate, which only methods marked insecure ever see. `local` marks the control socket: the call counts as this manager's own.
    """

    node_id: str = ""
    organization: str = ""
    roles: tuple[str, ...] = ()
    remote_addr: str = ""
    local: bool = False
    forwarder: Caller | None = None
