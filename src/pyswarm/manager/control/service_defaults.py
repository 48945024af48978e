"""What a service spec means where it is silent (spec/control-api, section 19.3). Pure."""

from __future__ import annotations

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job


def insert_defaults(spec: api.ServiceSpec) -> None:
    """Complete a spec that the caller owns. Only absent parts change: a present but empty policy keeps its zeros.

    A job gets no update config: one that has it would be refused when it is sent back.
    """
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
    if not is_job(spec):
        _complete(spec.update, present=spec.HasField("update"))
    _complete(spec.rollback, present=spec.HasField("rollback"))


def _complete(config: api.UpdateConfig, *, present: bool) -> None:
    if not present:
        config.parallelism = 1
    if not config.HasField("monitor"):
        config.monitor.CopyFrom(times.duration(defaults.UPDATE_MONITOR))
