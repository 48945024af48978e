"""A manager whose certificate expired while it was off: the way back into its cluster."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from cryptography import x509

from pyswarm.api import v1 as api
from pyswarm.ca import csr
from pyswarm.ca.root import RootCA
from pyswarm.errors import SwarmError
from pyswarm.rpc.caller import MANAGER
from tests.support.nodes import LiveNode, live_cluster, until

MINUTE = 60.0


def expire(node: LiveNode, cluster: api.Cluster) -> None:
    """Give a stopped node a certificate by the cluster's root that expired two minutes ago, which is within the root's own life."""
    csr_pem, key_pem = csr.generate()
    root = RootCA.from_store(cluster.root_ca, now=time.time())
    keystore = node.state_files
    keystore.read()
    keystore.write(root.sign_csr(csr_pem, node.id, MANAGER, cluster.id, 60 * MINUTE, time.time() - 62 * MINUTE), key_pem)


def valid(node: LiveNode) -> bool:
    """Whether the certificate on the disk has not expired."""
    certificate = x509.load_pem_x509_certificate(node.state_files.read().cert_pem)
    return certificate.not_valid_after_utc.timestamp() > time.time()


async def test_the_way_back() -> None:
    """Without force the start is refused, and nothing changes; with it the manager leads, renews its certificate, and its tasks run on.

    [dispatcher 192]
    """
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        async with live_cluster(Path(directory)) as swarm:
            before = await swarm.run_service("web", 2)
            founder, cluster = swarm.founder, swarm.cluster
            await founder.stop()
            expire(founder, cluster)
            assert not valid(founder)
            with pytest.raises(SwarmError, match="not valid after"):
                await founder.start()
            calls = len(founder.host.calls)
            founder.force_new_cluster = True
            await founder.start()
            assert swarm.cluster.id == cluster.id
            await until(lambda: valid(founder), "the certificate is renewed")
            await until(lambda: swarm.state(founder) == api.NodeStatus.READY, "the node is READY")
            await until(lambda: swarm.running("web") == before, "the tasks run")
            assert not [call for call in founder.host.calls[calls:] if call.startswith(("start", "shutdown", "remove"))]
            assert founder.security.current.cert_pem == founder.state_files.read().cert_pem
