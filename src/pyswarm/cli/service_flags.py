"""The flags of `service create` and `service update`."""

from __future__ import annotations

from pyswarm.cli.flagset import BOOL, INT, STRING, STRINGS, UINT, Flag

_COMMON = [
    Flag("args", STRINGS, "arguments of the command"),
    Flag("bind", STRINGS, "mount a path of the node (source:target)"),
    Flag("cluster-volume", STRINGS, "mount a cluster volume (volume:target[:ro]; volume is a name or group:name)"),
    Flag("command", STRINGS, "command to run instead of the image's own"),
    Flag("constraint", STRINGS, "condition a node must meet (e.g. node.labels.key==value)"),
    Flag("cpu-limit", STRING, "CPUs a task may use (e.g. 0.5)"),
    Flag("cpu-reservation", STRING, "CPUs set aside for a task (e.g. 0.5)"),
    Flag(
        "endpoint-mode",
        STRING,
        "its name stands for one virtual address, or for each task's (vip, dnsrr)",
        default='"vip"',
    ),
    Flag("env", STRINGS, "environment variable (NAME=value)"),
    Flag("generic-resources", STRING, "other resources set aside for a task (e.g. gpu=3,fpga=1)"),
    Flag("hostname", STRING, "host name inside the container"),
    Flag("image", STRING, "image to run"),
    Flag("init", BOOL, "run an init process that forwards signals and reaps children"),
    Flag("label", STRINGS, "label of the service (key=value)"),
    Flag("log-driver", STRING, "log driver of the tasks; '' removes it"),
    Flag("log-opt", STRINGS, "option of --log-driver (key=value)"),
    Flag("max-concurrent", UINT, "most tasks at a time, in mode replicated-job", default="as many as --replicas"),
    Flag("memory-limit", STRING, "memory a task may use (e.g. 512m)"),
    Flag("memory-reservation", STRING, "memory set aside for a task (e.g. 512m)"),
    Flag("name", STRING, "name of the service"),
    Flag("network", STRING, "network to attach the tasks to"),
    Flag("npipe", STRINGS, "mount a Windows named pipe (source:target)"),
    Flag("oom-score-adj", INT, "how eagerly the kernel kills it when memory runs out (-1000 to 1000)"),
    Flag("open-stdin", BOOL, "keep standard input open"),
    Flag("ports", STRINGS, "port to publish on the task's node (name:port[/proto][:published[/proto]])"),
    Flag("publish", STRINGS, "port to publish on all nodes ([published:]port[/proto]); left to choose it is one from 30000 to 32767"),
    Flag("replicas", UINT, "tasks to run, in mode replicated; tasks to complete, in mode replicated-job", default="1"),
    Flag("replicas-max-per-node", UINT, "most tasks on one node, in modes replicated and replicated-job", default="0 = unlimited"),
    Flag("restart-condition", STRING, "when to restart a task that ended (any, failure, none)", default='"any"'),
    Flag("restart-delay", STRING, "pause before a restart", default='"5s"'),
    Flag("restart-max-attempts", UINT, "most restarts within the window (0 = unlimited)"),
    Flag("restart-window", STRING, "time within which restarts are counted (0s = all time)", default='"0s"'),
    Flag("rollback-delay", STRING, "pause between groups of tasks while rolling back", default='"0s"'),
    Flag("rollback-on-failure", STRING, "what to do when rolling back fails (pause, continue)", default='"pause"'),
    Flag("rollback-order", STRING, "which comes first while rolling back (stop-first, start-first)", default='"stop-first"'),
    Flag("rollback-parallelism", UINT, "tasks rolled back at a time (0 = all at once)", default="1"),
    Flag("tmpfs", STRINGS, "mount memory (path[:options]; several options need quotes around the value)"),
    Flag("tty", BOOL, "give the task a terminal"),
    Flag("ulimit", STRINGS, "resource limit (name=soft[:hard])"),
    Flag("update-delay", STRING, "pause between groups of tasks while updating", default='"0s"'),
    Flag("update-on-failure", STRING, "what to do when updating fails (pause, continue, rollback)", default='"pause"'),
    Flag("update-order", STRING, "which comes first while updating (stop-first, start-first)", default='"stop-first"'),
    Flag("update-parallelism", UINT, "tasks updated at a time (0 = all at once)"),
    Flag("volume", STRINGS, "mount a volume of the task's own (target)"),
]

CREATE = [
    *_COMMON,
    Flag(
        "mode",
        STRING,
        "one task per node (global, global-job), or as many as --replicas says (replicated, replicated-job); those of jobs are to end",
        default='"replicated"',
    ),
    Flag("secret", STRINGS, "secret to hand in as a file (name[:target])"),
]

UPDATE = [
    *_COMMON,
    Flag("add-capability", STRINGS, "kernel capability to add"),
    Flag("add-config", STRINGS, "config to hand in as a file (name[:target])"),
    Flag("add-secret", STRINGS, "secret to hand in as a file (name[:target])"),
    Flag("force", BOOL, "replace all tasks even if nothing else changes"),
    Flag("rm-capability", STRINGS, "kernel capability to take away"),
    Flag("rm-config", STRINGS, "config to take away"),
    Flag("rm-secret", STRINGS, "secret to take away"),
]
