"""The control API: what users ask of a cluster (spec/control-api).

Owns: validation of requests and the one transaction each of them is. One module per kind of object; the validators (`validate_*`,
`names`, `image`, `durations`) are pure functions of messages, the checks against stored objects (`references`, `blacklist`) pure functions
of a view of the store.
Never: reacts to what it stored (the control loops do), keeps state of its own, or talks to another process.
Made by the manager, served by `rpc/` on the control socket and the remote port.
"""

from pyswarm.manager.control.control_service import ControlService

__all__ = ["ControlService"]
