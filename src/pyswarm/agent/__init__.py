"""The agent: every node's side of the dispatcher.

Owns: the session with a manager, the local task database, one task manager per assigned task, the reports of their states.
Never: decides what should run where, imports `manager`, or talks to an engine other than through `executor`.
Started by the node once it has an identity (`agent.Agent.run`); stopped with it.

Deciding modules (pure): `taskstate` (a task's next step and its status after it), `plan` (what an assignment changes), `messages` (what a
session message changes), `dependencies` (which secrets a task may see). Doing: `session` and `sessions` (one session; always having one),
`client` (gRPC), `worker` (all tasks), `taskmanager` (one task), `reporter` (statuses on their way), `logs` (what tasks write, for those who
ask), `database` on a `disk`, and `agent`, which puts them together.
"""
