"""Is a cluster spec acceptable? (spec/control-api, sections 10.1 and 10.4). Pure."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, Unimplemented, Unknown
from pyswarm.manager.control.durations import nanoseconds

_HOUR = 3600 * 1_000_000_000


def check_cluster(spec: api.ClusterSpec) -> None:
    """The whole spec. Raises InvalidArgument."""
    if spec.ca_config.HasField("node_cert_expiry") and _span(spec.ca_config.node_cert_expiry) < _HOUR:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    for policy in spec.acceptance_policy.policies:
        if policy.HasField("secret") and policy.secret.alg.lower() != "bcrypt":
            raise InvalidArgument(f"hashing algorithm is not supported: {policy.secret.alg}")
    if _span(spec.dispatcher.heartbeat_period) < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    if spec.annotations.name != defaults.CLUSTER_NAME:
        raise InvalidArgument("modification of cluster name is not allowed")


def check_ca(wanted: api.CAConfig, current: api.RootCA) -> None:
    """Only what leaves the root CA as it is; anything else needs root rotation. Raises InvalidArgument, Unimplemented."""
    if wanted.signing_ca_key and not wanted.signing_ca_cert:
        raise InvalidArgument("if a signing CA key is provided, the signing CA cert must also be provided")
    if wanted.signing_ca_cert or wanted.force_rotate != current.last_forced_rotation:
        raise Unimplemented(
            "CAConfig: rotating the root CA is not supported yet; leave signing certificate, key and force_rotate unchanged"
        )
    if wanted.external_cas:
        raise Unimplemented("CAConfig.external_cas: external CAs are not supported yet; leave the list empty")


def _span(span: Duration) -> int:
    try:
        return nanoseconds(span)
    except Unknown:
        raise InvalidArgument("invalid argument") from None
