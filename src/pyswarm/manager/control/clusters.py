"""The cluster object: get, list, update (spec/control-api, section 10). There is one, made at the first start."""

from __future__ import annotations

import structlog

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import unlock
from pyswarm.ca.root import RootCA
from pyswarm.ca.validate import CertificateError
from pyswarm.errors import Internal, NotFound
from pyswarm.manager.control import blacklist, filters, validate_cluster
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import Tx, View, by, copy_of
from pyswarm.rpc.caller import Caller

DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_VXLAN_PORT = 4789

log = structlog.get_logger(__name__)


class Clusters(Part):
    """The RPCs about the cluster object. Every answer passes through `redacted`."""

    async def GetCluster(self, request: api.GetClusterRequest, _caller: Caller) -> api.GetClusterResponse:  # noqa: N802
        """The cluster without its secrets. Raises NotFound."""
        require(request.cluster_id)
        return api.GetClusterResponse(cluster=redacted(_existing(await self._reading(), request.cluster_id)))

    async def ListClusters(self, request: api.ListClustersRequest, _caller: Caller) -> api.ListClustersResponse:  # noqa: N802
        """The clusters that every given filter field matches, without their secrets."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.clusters,
            narrow=((wanted.names, by.name), (wanted.name_prefixes, by.name_prefix), (wanted.id_prefixes, by.id_prefix)),
            tests=(
                filters.among(wanted.names, filters.spec_name),
                filters.prefixed(wanted.name_prefixes, filters.spec_name),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, filters.spec_labels),
            ),
        )
        return api.ListClustersResponse(clusters=map(redacted, found))

    async def UpdateCluster(self, request: api.UpdateClusterRequest, caller: Caller) -> api.UpdateClusterResponse:  # noqa: N802
        """Replace the spec; renew join tokens and unlock key on request. Raises NotFound, Internal, SequenceConflict."""
        require(request.cluster_id and request.HasField("cluster_version"))
        require(request.HasField("spec"))
        validate_cluster.check_cluster(request.spec)

        def update(tx: Tx) -> api.Cluster:
            cluster = copy_of(_existing(tx, request.cluster_id))
            now = times.seconds_of(tx.now)
            root = _root(cluster, now)
            cluster.spec.CopyFrom(request.spec)
            cluster.meta.version.index = request.cluster_version.index
            blacklist.prune(cluster, now)
            join_tokens = cluster.root_ca.join_tokens
            if request.rotation.worker_join_token:
                join_tokens.worker = self._env.new_token(root.bundle, fips=cluster.fips)
            if request.rotation.manager_join_token:
                join_tokens.manager = self._env.new_token(root.bundle, fips=cluster.fips)
            validate_cluster.check_ca(request.spec.ca_config, cluster.root_ca)
            unlock.update_keys(cluster, rotate=request.rotation.manager_unlock_key, new_key=self._env.new_unlock_key)
            return tx.clusters.update(cluster)

        stored = await self._env.store.update(update)
        rotated = [field.name for field, value in request.rotation.ListFields() if value]
        log.info("cluster updated", cluster=stored.id, rotated=rotated, by=caller.node_id)
        return api.UpdateClusterResponse(cluster=redacted(stored))


def redacted(cluster: api.Cluster) -> api.Cluster:
    """A copy that holds only what users may see: a list of what is allowed, so that a new secret field is hidden until it is added."""
    shown = api.Cluster(
        id=cluster.id,
        meta=cluster.meta,
        spec=cluster.spec,
        root_ca=cluster.root_ca,
        defaultAddressPool=cluster.defaultAddressPool or [DEFAULT_POOL],
        subnetSize=cluster.subnetSize if cluster.defaultAddressPool else DEFAULT_SUBNET_SIZE,
        VXLANUDPPort=cluster.VXLANUDPPort or DEFAULT_VXLAN_PORT,
    )
    shown.blacklisted_certificates.MergeFrom(cluster.blacklisted_certificates)
    # The certificate is no secret, but sent back without its key it would ask for an external CA.
    if shown.spec.HasField("ca_config"):
        shown.spec.ca_config.ClearField("signing_ca_key")
        shown.spec.ca_config.ClearField("signing_ca_cert")
    shown.root_ca.ClearField("ca_key")
    if shown.root_ca.HasField("root_rotation"):
        shown.root_ca.root_rotation.ClearField("ca_key")
    return shown


def _root(cluster: api.Cluster, now: float) -> RootCA:
    try:
        return RootCA.from_store(cluster.root_ca, now=now)
    except CertificateError as error:
        log.error("stored root CA cannot be used", cluster=cluster.id, error=str(error))
        raise Internal("error loading cluster rootCA for update") from error


def _existing(view: View, cluster_id: str) -> api.Cluster:
    cluster = view.clusters.get(cluster_id)
    if cluster is None:
        raise NotFound(f"cluster {cluster_id} not found")
    return cluster
