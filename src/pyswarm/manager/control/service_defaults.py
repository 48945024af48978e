"""What a service spec means where it is silent (spec/control-api, section 19.3). Pure."""

from __future__ import annotations

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api


def insert_defaults(spec: api.ServiceSpec) -> None:
    """Complete a spec that the caller owns. Only absent parts change: a present but empty policy keeps its zeros."""
    task = spec.task
    if task.WhichOneof("runtime") == "container":
        container = task.container
        if not container.HasField("stop_grace_period"):
            container.stop_grace_period.CopyFrom(times.duration(defaults.STOP_GRACE_PERIOD))
        container.pull_options.SetInParent()
        container.dns_config.SetInParent()
    task.resources.SetInParent()
    task.placement.SetInParent()
    if not task.HasField("restart"):
        task.restart.condition = api.RestartPolicy.ANY
    if not task.restart.HasField("delay"):
        task.restart.delay.CopyFrom(times.duration(defaults.RESTART_DELAY))
    for field in ("update", "rollback"):
        present = spec.HasField(field)
        config: api.UpdateConfig = getattr(spec, field)
        if not present:
            config.parallelism = 1
        if not config.HasField("monitor"):
            config.monitor.CopyFrom(times.duration(defaults.UPDATE_MONITOR))
