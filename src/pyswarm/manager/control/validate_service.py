"""Is a service spec one that the cluster can carry out? (spec/control-api, sections 6.1, 6.6 to 6.8). Pure; the order is observable."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.errors import InvalidArgument
from pyswarm.manager.control.durations import nanoseconds
from pyswarm.manager.control.names import check_service_name
from pyswarm.manager.control.validate_task import check_task

_NEGATIVE = 2**63
"""Counts are unsigned on the wire; a negative number sent as one arrives at or above this."""
_MAX_PORT = 65535


def check_service(spec: api.ServiceSpec) -> None:
    """The whole spec. Raises InvalidArgument, Unimplemented, and Unknown for constraints and durations."""
    check_service_name(spec.annotations.name)
    check_task(spec.task)
    check_mode(spec)
    if is_job(spec):
        if spec.HasField("update"):
            raise InvalidArgument("Jobs may not have an update config")
    else:
        check_update(spec.update)
    check_endpoint(spec.endpoint)


def check_mode(spec: api.ServiceSpec) -> None:
    """Raises InvalidArgument for a missing mode and for counts that were negative."""
    if spec.WhichOneof("mode") is None:
        raise InvalidArgument("Unrecognized service mode")
    if spec.replicated.replicas >= _NEGATIVE:
        raise InvalidArgument("Number of replicas must be non-negative")
    if spec.replicated_job.max_concurrent >= _NEGATIVE:
        raise InvalidArgument("Maximum concurrent jobs must not be negative")
    if spec.replicated_job.total_completions >= _NEGATIVE:
        raise InvalidArgument("Total completed jobs must not be negative")


def check_update(update: api.UpdateConfig) -> None:
    """Raises InvalidArgument for negative times and a ratio that is none."""
    if nanoseconds(update.delay) < 0:
        raise InvalidArgument("TaskSpec: update-delay cannot be negative")
    if nanoseconds(update.monitor) < 0:
        raise InvalidArgument("TaskSpec: update-monitor cannot be negative")
    if not 0 <= update.max_failure_ratio <= 1:
        raise InvalidArgument("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")


def check_endpoint(endpoint: api.EndpointSpec) -> None:
    """Ports fit the resolution mode and each other. Raises InvalidArgument.

    Unlike the reference this refuses port numbers that no transport has.
    """
    seen: set[tuple[int, int]] = set()
    for port in endpoint.ports:
        if endpoint.mode == api.EndpointSpec.DNSRR and port.publish_mode == api.PortConfig.INGRESS:
            raise InvalidArgument("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        for number in (port.published_port, port.target_port):
            if number > _MAX_PORT:
                raise InvalidArgument(f"EndpointSpec: port {number} is out of range; use at most {_MAX_PORT}")
        if not port.published_port:
            continue
        key = (port.published_port, port.protocol)
        if key in seen:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        seen.add(key)
