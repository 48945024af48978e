"""GetNode, ListNodes, UpdateNode, RemoveNode, and the blacklist."""

from __future__ import annotations

import pytest
from cryptography import x509

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca.root import RootCA
from pyswarm.manager.control import ControlService, blacklist
from pyswarm.manager.store import Store, copy_of
from pyswarm.raft.log import Member
from tests.manager.control.support import FP, IA, INT, ME, NF, UNK, MembersLog, refused
from tests.support.clock import VirtualClock
from tests.support.loops import write

S = api.TaskState
MANAGER, WORKER = api.NodeRole.MANAGER, api.NodeRole.WORKER
DAY = 86_400.0


def node(
    node_id: str,
    role: api.NodeRole.ValueType = WORKER,
    state: api.NodeStatus.State.ValueType = api.NodeStatus.READY,
    membership: api.NodeSpec.Membership.ValueType = api.NodeSpec.ACCEPTED,
) -> api.Node:
    """A node that wants the role it has."""
    spec = api.NodeSpec(desired_role=role, membership=membership)
    return api.Node(id=node_id, role=role, spec=spec, status=api.NodeStatus(state=state))


def members(*reachable: bool) -> list[Member]:
    """The managers n0, n1, ... of which n0 leads."""
    return [Member(number + 1, f"n{number}", f"10.0.0.{number}:4242", number == 0, ok) for number, ok in enumerate(reachable)]


def cluster() -> api.Cluster:
    """The cluster object."""
    made = api.Cluster(id="cluster")
    made.spec.annotations.name = "default"
    return made


async def listed(control: ControlService, **fields: object) -> list[str]:
    """Ids of the nodes that a filter finds."""
    request = api.ListNodesRequest(filters=api.ListNodesRequest.Filters(**fields))  # type: ignore[arg-type]
    return sorted(n.id for n in (await control.ListNodes(request, ME)).nodes)


async def change(control: ControlService, store: Store, node_id: str, **spec: object) -> api.Node:
    """UpdateNode with some fields of the stored spec replaced."""
    stored = store.nodes.get(node_id)
    assert stored is not None
    wanted = copy_of(stored.spec)
    wanted.MergeFrom(api.NodeSpec(**spec))  # type: ignore[arg-type]
    if spec.get("desired_role") == WORKER:
        wanted.desired_role = WORKER
    request = api.UpdateNodeRequest(node_id=node_id, node_version=stored.meta.version, spec=wanted)
    return (await control.UpdateNode(request, ME)).node


async def test_get_and_list(control: ControlService, store: Store) -> None:
    """Get needs an id that exists; lists filter by observed role and membership. [control 77]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.GetNode(api.GetNodeRequest(), ME)
    with refused(NF, "node x not found", exactly=True):
        await control.GetNode(api.GetNodeRequest(node_id="x"), ME)
    write(store, node("a", MANAGER), node("b"), node("c", membership=api.NodeSpec.PENDING))
    assert await listed(control, roles=[MANAGER]) == ["a"]
    assert await listed(control, roles=[WORKER]) == ["b", "c"]
    assert await listed(control, roles=[WORKER, MANAGER]) == ["a", "b", "c"]
    assert await listed(control, memberships=[api.NodeSpec.ACCEPTED]) == ["a", "b"]
    assert await listed(control, memberships=[api.NodeSpec.PENDING]) == ["c"]
    assert await listed(control, roles=[WORKER], memberships=[api.NodeSpec.PENDING]) == ["c"]


async def test_list_by_labels(control: ControlService, store: Store) -> None:
    """Engine labels and node labels are different filters, and both may be given. [control 78]"""
    for number, (engine, own) in enumerate(
        [
            ({"enginelabel1": "x"}, {"nodelabel1": "shouldmatch", "nodelabel2": "unique1"}),
            ({"enginelabel2": "x"}, {"nodelabel1": "shouldmatch", "nodelabel2": "unique2"}),
            ({"enginelabel1": "y"}, {"nodelabel2": "unique1"}),
        ]
    ):
        one = node(f"n{number}")
        one.description.engine.labels.update({"allcommon": "engine", **engine})
        one.spec.annotations.labels.update({"allcommon": "node", **own})
        write(store, one)
    assert await listed(control, labels={"allcommon": "engine"}) == ["n0", "n1", "n2"]
    assert await listed(control, labels={"allcommon": "node"}) == []
    assert await listed(control, node_labels={"allcommon": "node"}) == ["n0", "n1", "n2"]
    assert await listed(control, node_labels={"allcommon": "engine"}) == []
    assert await listed(control, node_labels={"nodelabel1": "shouldmatch"}) == ["n0", "n1"]
    assert await listed(control, labels={"allcommon": "engine", "enginelabel1": "x"}) == ["n0"]
    assert await listed(control, labels={"enginelabel1": ""}, node_labels={"nodelabel2": "unique1"}) == ["n0", "n2"]


async def test_list_by_hostname(control: ControlService, store: Store) -> None:
    """A node without description matches no hostname, not even the empty prefix. [control 78]"""
    named = node("a")
    named.description.hostname = "east-1"
    write(store, named, node("b"))
    assert await listed(control, names=["east-1"]) == await listed(control, name_prefixes=["east"]) == ["a"]
    assert await listed(control, names=["EAST-1"]) == []
    assert await listed(control, name_prefixes=[""]) == ["a"]


async def test_manager_status(control: ControlService, store: Store, log: MembersLog) -> None:
    """Managers carry their place in the membership, as it is now; nothing of it is stored. [control 79 in part]"""
    log.present = members(True, True, False)
    write(store, *(node(f"n{i}", MANAGER) for i in range(3)), node("worker"))
    nodes = {n.id: n for n in (await control.ListNodes(api.ListNodesRequest(), ME)).nodes}
    assert [nodes[f"n{i}"].manager_status.leader for i in range(3)] == [True, False, False]
    reachable, not_reachable = api.RaftMemberStatus.REACHABLE, api.RaftMemberStatus.UNREACHABLE
    assert [nodes[f"n{i}"].manager_status.reachability for i in range(3)] == [reachable, reachable, not_reachable]
    assert not nodes["worker"].HasField("manager_status")
    got = (await control.GetNode(api.GetNodeRequest(node_id="n1"), ME)).node
    assert (got.manager_status.raft_id, got.manager_status.addr) == (2, "10.0.0.1:4242")
    stored = store.nodes.get("n1")
    assert stored is not None
    assert not stored.HasField("manager_status")


async def test_update(control: ControlService, store: Store) -> None:
    """Update needs id, version and spec; a stale version is out of sequence. [control 80; ca 172]"""
    write(store, node("a"))
    for request in (
        api.UpdateNodeRequest(),
        api.UpdateNodeRequest(node_id="a", node_version=api.Version()),
        api.UpdateNodeRequest(node_id="a", spec=api.NodeSpec()),
    ):
        with refused(IA, "invalid argument", exactly=True):
            await control.UpdateNode(request, ME)
    with refused(NF, "node x not found", exactly=True):
        await control.UpdateNode(api.UpdateNodeRequest(node_id="x", node_version=api.Version(), spec=api.NodeSpec()), ME)
    drained = await change(control, store, "a", availability=api.NodeSpec.DRAIN)
    assert drained.spec.availability == api.NodeSpec.DRAIN
    stale = api.UpdateNodeRequest(node_id="a", node_version=api.Version(index=99), spec=drained.spec)
    with refused(UNK, "update out of sequence", exactly=True):
        await control.UpdateNode(stale, ME)


async def test_update_refuses_unknown_values(control: ControlService, store: Store) -> None:
    """An availability or role that does not exist is refused, unlike in the reference. [control 80; ca 172]"""
    write(store, node("a"))
    for field in ("availability", "desired_role", "membership"):
        spec = api.NodeSpec()
        setattr(spec, field, 9)
        with refused(IA, f"NodeSpec.{field}: 9 is unknown"):
            await control.UpdateNode(api.UpdateNodeRequest(node_id="a", node_version=api.Version(), spec=spec), ME)


async def test_demotion_keeps_the_quorum(control: ControlService, store: Store, log: MembersLog) -> None:
    """A manager may go if those that stay can still decide; the refusal has the figures. [control 81; ca 172]"""
    write(store, *(node(f"n{i}", MANAGER) for i in range(3)))
    log.present = members(True, True, False)
    with refused(FP, "can't remove member from the raft: this would result in a loss of quorum (3 managers, 2 reachable; of the 2 that"):
        await change(control, store, "n1", desired_role=WORKER)
    log.present = members(True, True, True)
    assert (await change(control, store, "n1", desired_role=WORKER)).spec.desired_role == WORKER


async def test_demotion_of_the_last_manager(control: ControlService, store: Store, log: MembersLog) -> None:
    """Two managers may become one; the last one stays, but can be drained. [control 81; ca 172]"""
    write(store, node("n0", MANAGER), node("n1", MANAGER))
    log.present = members(True, True)
    await change(control, store, "n1", desired_role=WORKER)
    write(store, node("n1"))
    log.present = members(True)
    with refused(FP, "attempting to demote the last manager of the swarm", exactly=True):
        await change(control, store, "n0", desired_role=WORKER)
    await change(control, store, "n0", availability=api.NodeSpec.DRAIN)


async def test_demotion_of_a_stranger(control: ControlService, store: Store, log: MembersLog) -> None:
    """A manager that the log does not know cannot be demoted. [control 82; ca 172]"""
    write(store, node("n0", MANAGER), node("other", MANAGER))
    log.present = members(True)
    with refused(NF, "can't find manager in raft memberlist", exactly=True):
        await change(control, store, "other", desired_role=WORKER)


async def test_promotion(control: ControlService, store: Store) -> None:
    """Promotion is a word in the spec; the node does the rest. [control 81; ca 172]"""
    write(store, node("a"))
    assert (await change(control, store, "a", desired_role=MANAGER)).spec.desired_role == MANAGER


async def remove(control: ControlService, node_id: str, *, force: bool = False) -> None:
    """RemoveNode."""
    await control.RemoveNode(api.RemoveNodeRequest(node_id=node_id, force=force), ME)


async def test_remove(control: ControlService, store: Store) -> None:
    """A running worker goes by force only, and its certificate is refused afterwards. [control 83; ca 173]"""
    write(store, cluster(), node("a"), *(node(f"s{s}", state=s) for s in (0, 1, 3)))  # type: ignore[arg-type]
    with refused(IA, "invalid argument", exactly=True):
        await remove(control, "")
    with refused(NF, "node x not found", exactly=True):
        await remove(control, "x")
    with refused(FP, "node a is not down and can't be removed", exactly=True):
        await remove(control, "a")
    await remove(control, "a", force=True)
    for other in ("s0", "s1", "s3"):
        await remove(control, other)
    assert len(store.nodes) == 0
    stored = store.clusters.get("cluster")
    assert stored is not None
    assert set(stored.blacklisted_certificates) == {"a", "s0", "s1", "s3"}


async def test_remove_manager(control: ControlService, store: Store, log: MembersLog) -> None:
    """A member of the log must be demoted first; force does not help. [control 84; ca 173]"""
    write(store, cluster(), node("n0", MANAGER, api.NodeStatus.DOWN))
    log.present = members(True)
    for force in (False, True):
        with refused(FP, "It must be demoted to worker before removal"):
            await remove(control, "n0", force=force)


async def test_remove_without_cluster(control: ControlService, store: Store) -> None:
    """Without cluster object there is nowhere to note the certificate. [control 85]"""
    write(store, node("a"))
    with refused(INT, "could not fetch cluster object", exactly=True):
        await remove(control, "a", force=True)
    assert "a" in store.nodes


async def test_remove_orphans_tasks(control: ControlService, store: Store, clock: VirtualClock) -> None:
    """Live tasks of the node are given up with a fresh status; ended ones and those elsewhere stay.

    [control 86; ca 174; orchestration 174]
    """
    running = api.TaskStatus(state=S.RUNNING, err="old", container=api.ContainerStatus(container_id="c"))
    write(
        store,
        cluster(),
        node("a"),
        api.Task(id="t1", node_id="a", status=running, desired_state=S.RUNNING, spec=api.TaskSpec(attachment=api.NetworkAttachmentSpec())),
        api.Task(id="t2", node_id="a", status=running, desired_state=S.RUNNING),
        api.Task(id="t3", node_id="a", status=api.TaskStatus(state=S.COMPLETE)),
        api.Task(id="t4", node_id="b", status=running),
        api.Task(id="t5", node_id="b", status=running),
    )
    await remove(control, "a", force=True)
    states = {t.id: t.status.state for t in store.tasks}
    assert states == {"t1": S.ORPHANED, "t2": S.ORPHANED, "t3": S.COMPLETE, "t4": S.RUNNING, "t5": S.RUNNING}
    orphan = store.tasks.get("t1")
    assert orphan is not None
    assert orphan.desired_state == S.RUNNING
    assert orphan.status == api.TaskStatus(
        state=S.ORPHANED, timestamp=times.timestamp(clock.now()), message="Task belonged to a node that has been deleted"
    )


async def test_remove_node_with_very_many_tasks(control: ControlService, store: Store) -> None:
    """A node whose tasks exceed one log entry can be removed too. [control 86; ca 174]"""
    spec = api.TaskSpec(container=api.ContainerSpec(image="i", env=["x" * 10_000]))
    status = api.TaskStatus(state=S.RUNNING)
    write(store, cluster(), node("a"), *(api.Task(id=f"t{i}", node_id="a", status=status, spec=spec) for i in range(200)))
    await remove(control, "a", force=True)
    assert {t.status.state for t in store.tasks} == {S.ORPHANED}
    assert "a" not in store.nodes


def test_blacklist_pruning() -> None:
    """Entries go a week after their expiry; those without expiry stay. [control 87; ca 175]"""
    now, pruned = 2_000_000_000.0, cluster()
    for name, expiry in {"a": -1000 * DAY, "b": -7 * DAY - 300, "c": -7 * DAY + 300, "d": 3600}.items():
        pruned.blacklisted_certificates[name].expiry.CopyFrom(times.timestamp(now + expiry))
    pruned.blacklisted_certificates["e"].SetInParent()
    blacklist.prune(pruned, now)
    assert set(pruned.blacklisted_certificates) == {"c", "d", "e"}


@pytest.mark.parametrize("garbage", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_blacklist_without_readable_certificate(garbage: bytes) -> None:
    """A node without readable certificate is listed for ever. [control 83; ca 173]"""
    listed_in, removed = cluster(), node("a")
    removed.certificate.certificate = garbage
    blacklist.add(listed_in, removed)
    assert not listed_in.blacklisted_certificates["a"].HasField("expiry")


def test_blacklist_expiry(clock: VirtualClock) -> None:
    """The entry expires with the node's certificate. [control 83; ca 173]"""
    removed, listed_in = node("a"), cluster()
    removed.certificate.certificate = RootCA.create(now=clock.now()).bundle
    blacklist.add(listed_in, removed)
    expected = x509.load_pem_x509_certificate(removed.certificate.certificate).not_valid_after_utc.timestamp()
    assert times.seconds_of(listed_in.blacklisted_certificates["a"].expiry) == expected
