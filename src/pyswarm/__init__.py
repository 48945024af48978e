"""pyswarm: the orchestrator of Docker's swarm mode, in Python.

`pyswarmd` is a node: always an agent, and a manager if its certificate says so. `pyswarmctl` talks to a manager's socket.
ARCHITECTURE.md is the map; each package says in its first lines what it owns, what it must never do and who starts it.
"""

__version__ = "0.1.0"
