"""Certificates of removed nodes: refused until they have been expired for a week (spec/control-api, section 8.3). Pure."""

from __future__ import annotations

from cryptography import x509

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import pem

GRACE = 7 * 24 * 3600.0


def add(cluster: api.Cluster, node: api.Node) -> None:
    """Put a node's certificate on the list of a cluster (a copy that the caller owns)."""
    entry = api.BlacklistedCertificate()
    expiry = _not_after(node.certificate.certificate)
    if expiry is not None:
        entry.expiry.CopyFrom(times.timestamp(expiry))
    cluster.blacklisted_certificates[node.id].CopyFrom(entry)


def prune(cluster: api.Cluster, now: float) -> None:
    """Drop the entries of a cluster (a copy that the caller owns) that expired more than a week before `now` (seconds since the epoch)."""
    entries = cluster.blacklisted_certificates
    for node_id in [i for i, e in entries.items() if e.HasField("expiry") and times.seconds_of(e.expiry) + GRACE < now]:
        del entries[node_id]


def _not_after(certificate: bytes) -> float | None:
    """When the first certificate of a bundle expires, in seconds; None when there is none to be read."""
    blocks = pem.scan(certificate)
    if not blocks:
        return None
    try:
        return x509.load_der_x509_certificate(blocks[0].data).not_valid_after_utc.timestamp()
    except ValueError:
        return None
