"""Tasks as containers of a Docker Engine on this node (`--executor docker`, the default).

Owns: the connection to the engine, the containers labelled with this node's id, and the networks created for them.
Never: decides a task's state, or touches a container that does not carry this node's id.
Inside: `http` carries requests in threads, `engine` names them, `events` is the one event stream of the node, `making` and `controller`
drive one container, `given` brings secrets and configs into it and `executor` is the door. `containers`, `mounts`, `describe`, `state`,
`frames` and `patience` decide and convert: no I/O, no clock.
The agent makes one `DockerExecutor` and closes it; containers outlive it and are adopted by the next one.
"""

from pyswarm.agent.executor.docker.executor import DEFAULT_ADDRESS, DockerExecutor

__all__ = ["DEFAULT_ADDRESS", "DockerExecutor"]
