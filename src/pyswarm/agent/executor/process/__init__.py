"""Tasks as plain processes of this machine (`--executor process`): for trying pyswarm out, and where there is no container engine.

Owns: one directory per task under `<state>/worker/tasks/`, and the processes started from there.
Never: isolates. A process sees the machine as its user does: image, health check, tty, limits, DNS and capabilities have no effect; what a
program would break without (mounts, networks, files at absolute paths) is refused.
Inside: `shim` is the little program that supervises one task's process, so that it outlives the daemon and its exit code is never lost;
`recipe` says what to run, `given` which secrets and configs it finds where, `links` its cluster volumes, `supervised` talks to the shim
through the directory, `output` reads the log, `controller` and `executor` are the door.
The agent makes one `ProcessExecutor`; processes outlive it and are adopted by the next one.
"""

from pyswarm.agent.executor.process.executor import ProcessExecutor

__all__ = ["ProcessExecutor"]
