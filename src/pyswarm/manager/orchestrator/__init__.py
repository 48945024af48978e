"""The orchestrators: how many tasks there are, and what is wanted of each (spec/orchestration).

Owns: creating tasks, their desired state, the update status of services, deleting the records of tasks that are over, and the rejection of
running tasks whose node no longer suits them. Never: places a task on a node (the scheduler does), or touches an observed state other than
that rejection.
Each loop here is a pure `manager.loop.Loop` that the manager starts with a `Driver` when it wins leadership and stops when it loses it.
Nothing is remembered outside the store: restart delays, restart history and the progress of an update are read off the tasks' records, so a
new leader goes on where the old one stopped (`release`, `restart` and `update` say how each fact is derived).

    slots, tasks, nodes, dirty    what the records mean
    restart, release, settle      one slot: replace what died, let go what waits, end what is double
    rolling, update               one service: the next step of a rolling update
    jobslots                      one place of a job: how far it has come, and what it needs
    replicated, global_, jobs     the loops over services
    reaper, constraintenforcer    the loops over records and over nodes
    tasklife                      who may write which transition
"""
