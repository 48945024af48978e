"""Nodes: get, list, update, remove (spec/control-api, section 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, Internal, InvalidArgument, NotFound
from pyswarm.manager.control import blacklist, filters
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import Tx, View, by, copy_of
from pyswarm.raft.log import Member, shortage
from pyswarm.rpc.caller import Caller

S = api.TaskState
ORPHANED_MESSAGE = "Task belonged to a node that has been deleted"

log = structlog.get_logger(__name__)


class Nodes(Part):
    """The RPCs about nodes."""

    async def GetNode(self, request: api.GetNodeRequest, _caller: Caller) -> api.GetNodeResponse:  # noqa: N802
        """One node, for a manager with its place in the log's membership. Raises NotFound."""
        require(request.node_id)
        response = api.GetNodeResponse(node=_existing(await self._reading(), request.node_id))
        _add_manager_status((response.node,), self._env.log.members())
        return response

    async def ListNodes(self, request: api.ListNodesRequest, _caller: Caller) -> api.ListNodesResponse:  # noqa: N802
        """The nodes that every given filter field matches."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.nodes,
            narrow=(
                (wanted.names, by.name),
                (wanted.name_prefixes, by.name_prefix),
                (wanted.id_prefixes, by.id_prefix),
                (wanted.roles, by.role),
                (wanted.memberships, by.membership),
            ),
            tests=(
                filters.among(wanted.names, _hostname),
                filters.prefixed(wanted.name_prefixes, _hostname),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, lambda node: node.description.engine.labels),
                filters.labelled(wanted.node_labels, filters.spec_labels),
                filters.among(wanted.roles, lambda node: node.role),
                filters.among(wanted.memberships, lambda node: node.spec.membership),
            ),
        )
        response = api.ListNodesResponse(nodes=found)
        _add_manager_status(response.nodes, self._env.log.members())
        return response

    async def UpdateNode(self, request: api.UpdateNodeRequest, _caller: Caller) -> api.UpdateNodeResponse:  # noqa: N802
        """Replace the spec: availability, labels, wanted role. Raises NotFound, FailedPrecondition, SequenceConflict."""
        require(request.node_id and request.HasField("node_version") and request.HasField("spec"))
        check_spec(request.spec)

        def update(tx: Tx) -> api.Node:
            old = _existing(tx, request.node_id)
            if old.spec.desired_role == api.NodeRole.MANAGER and request.spec.desired_role == api.NodeRole.WORKER:
                check_demotion(tx, old, self._env.log.members())
            node = copy_of(old)
            node.spec.CopyFrom(request.spec)
            node.meta.version.index = request.node_version.index
            return tx.nodes.update(node)

        return api.UpdateNodeResponse(node=await self._env.store.update(update))

    async def RemoveNode(self, request: api.RemoveNodeRequest, caller: Caller) -> api.RemoveNodeResponse:  # noqa: N802
        """Forget a node, refuse its certificate from now on, and give up its tasks. Raises NotFound, FailedPrecondition, Internal."""
        require(request.node_id)

        def check(view: View) -> api.Node:
            node = _existing(view, request.node_id)
            check_removal(node, self._env.log.members(), force=request.force)
            return node

        def remove(tx: Tx) -> None:
            node = check(tx)
            cluster = copy_of(_cluster(tx))
            blacklist.add(cluster, node)
            blacklist.prune(cluster, times.seconds_of(tx.now))
            tx.clusters.update(cluster)
            for task in _live_tasks(tx, node.id):
                orphan(tx, task.id)
            tx.nodes.delete(node.id)

        store = await self._reading()
        check(store)
        _cluster(store)
        await self._orphan_most(request.node_id)
        await self._env.store.update(remove)
        log.info("node removed", node=request.node_id, force=request.force, by=caller.node_id)
        return api.RemoveNodeResponse()

    async def _orphan_most(self, node_id: str) -> None:
        """Give up the tasks of a node with too many for one log entry; the rest is left to the entry that removes it."""
        tasks = _live_tasks(self._env.store, node_id)
        if sum(task.ByteSize() for task in tasks) < defaults.BATCH_BYTES:
            return
        for error in await self._env.store.batch([task.id for task in tasks], orphan):
            if error is not None:
                raise error


def check_spec(spec: api.NodeSpec) -> None:
    """Only values that this version knows; the reference stores any number. Raises InvalidArgument."""
    for field, enum in (
        ("desired_role", api.NodeRole),
        ("membership", api.NodeSpec.Membership),
        ("availability", api.NodeSpec.Availability),
    ):
        value: int = getattr(spec, field)
        if value not in enum.values():
            raise InvalidArgument(f"NodeSpec.{field}: {value} is unknown; use one of {', '.join(enum.keys())}")


def check_demotion(view: View, node: api.Node, members: Sequence[Member]) -> None:
    """Whether the cluster can do without this manager. Raises FailedPrecondition, NotFound."""
    staying = [n for n in view.nodes.find(by.role(api.NodeRole.MANAGER)) if n.spec.desired_role == api.NodeRole.MANAGER]
    if [manager.id for manager in staying] == [node.id]:
        # Those whose demotion was granted before and is not finished do not count: else all could be demoted in one breath.
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    if all(member.node_id != node.id for member in members):
        raise NotFound("can't find manager in raft memberlist")
    if missing := shortage(members, node.id):
        raise FailedPrecondition(
            f"can't remove member from the raft: this would result in a loss of quorum ({missing}): bring back the managers that cannot be "
            "reached, or demote those first"
        )


def check_removal(node: api.Node, members: Sequence[Member], *, force: bool) -> None:
    """Whether a node may go: no member of the log ever, a running node only by force. Raises FailedPrecondition."""
    if node.spec.desired_role == api.NodeRole.MANAGER and any(member.node_id == node.id for member in members):
        raise FailedPrecondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )
    if not force and node.status.state == api.NodeStatus.READY:
        raise FailedPrecondition(f"node {node.id} is not down and can't be removed")


def orphan(tx: Tx, task_id: str) -> None:
    """Give up a task whose node will never report again; nothing when it has ended or gone meanwhile."""
    old = tx.tasks.get(task_id)
    if old is None or old.status.state >= S.COMPLETE:
        return
    task = copy_of(old)
    task.status.CopyFrom(api.TaskStatus(state=S.ORPHANED, timestamp=tx.now, message=ORPHANED_MESSAGE))
    tx.tasks.update(task)


def _existing(view: View, node_id: str) -> api.Node:
    node = view.nodes.get(node_id)
    if node is None:
        raise NotFound(f"node {node_id} not found")
    return node


def _cluster(view: View) -> api.Cluster:
    clusters = view.clusters.find(by.name(defaults.CLUSTER_NAME))
    if len(clusters) != 1:
        raise Internal("could not fetch cluster object")
    return clusters[0]


def _live_tasks(view: View, node_id: str) -> list[api.Task]:
    return [task for task in view.tasks.find(by.node(node_id)) if task.status.state < S.COMPLETE]


def _hostname(node: api.Node) -> str | None:
    return node.description.hostname if node.HasField("description") else None


def _add_manager_status(nodes: Iterable[api.Node], members: Sequence[Member]) -> None:
    """Fill in, on the response's own copies, what the membership says."""
    by_node = {member.node_id: member for member in members}
    for node in nodes:
        member = by_node.get(node.id)
        if member is not None:
            reachable = api.RaftMemberStatus.REACHABLE if member.reachable else api.RaftMemberStatus.UNREACHABLE
            status = api.ManagerStatus(raft_id=member.raft_id, addr=member.addr, leader=member.leader, reachability=reachable)
            node.manager_status.CopyFrom(status)
