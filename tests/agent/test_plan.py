"""What assignment messages, session messages and dependencies mean: pure functions."""

from __future__ import annotations

import pytest

from pyswarm.agent.dependencies import Dependencies, DependencyNotFound, NotAuthorized
from pyswarm.agent.messages import Known, NodeChange, read
from pyswarm.agent.plan import from_task_list, plan
from pyswarm.agent.timing import next_session_bound
from pyswarm.api import v1 as api
from pyswarm.rpc.remotes import RemotePeer
from tests.agent.fakes import message, task


def test_complete_message() -> None:
    """It brings what it lists, takes away every known task it does not, and its own removals mean nothing. [dispatcher 121]"""
    made = plan(message(task("a"), api.Secret(id="s"), api.Config(id="c"), remove=[task("b"), api.Secret(id="s2")]), ["a", "b", "old"])
    assert [t.id for t in made.tasks] == ["a"]
    assert made.tasks_gone == ["b", "old"]
    assert ([s.id for s in made.secrets], made.secrets_gone) == (["s"], [])
    assert ([c.id for c in made.configs], made.configs_gone) == (["c"], [])


def test_incremental_message() -> None:
    """It brings and takes exactly what it lists; unknown tasks cannot be taken. [dispatcher 122]"""
    made = plan(
        message(task("a"), remove=[task("b"), task("never"), api.Secret(id="s"), api.VolumeAssignment(id="v")], complete=False), ["b", "c"]
    )
    assert [t.id for t in made.tasks] == ["a"]
    assert made.tasks_gone == ["b"]
    assert made.secrets_gone == ["s"]
    assert [v.id for v in made.volumes_gone] == ["v"]


def test_task_list() -> None:
    """An old manager's list is a complete assignment of its tasks. [dispatcher 108]"""
    made = plan(from_task_list(api.TasksMessage(tasks=[task("a")])), ["b"])
    assert made.complete
    assert ([t.id for t in made.tasks], made.tasks_gone) == (["a"], ["b"])


def session(**fields: object) -> api.SessionMessage:
    """A session message."""
    return api.SessionMessage(**fields)  # type: ignore[arg-type]


def peer(node_id: str, addr: str) -> api.WeightedPeer:
    """A manager with the usual weight."""
    return api.WeightedPeer(peer=api.Peer(node_id=node_id, addr=addr), weight=10)


def test_managers() -> None:
    """Reachable managers are observed, others forgotten; without any reachable one nobody is. [dispatcher 96, 99]"""
    known = [RemotePeer("m1", "a:1"), RemotePeer("m2", "b:1"), RemotePeer("", "a:1")]
    news = read(session(managers=[peer("m1", "a:1"), peer("m3", "")]), Known(), b"", known)
    assert news.managers == [(RemotePeer("m1", "a:1"), 10)]
    assert news.gone == [RemotePeer("m2", "b:1"), RemotePeer("", "a:1")]
    for managers in ([], [peer("m3", "")]):
        assert read(session(managers=managers), Known(), b"", known).gone == []
    assert not read(session(managers=[peer("", "a:1")]), Known(), b"", known).change


def test_node_changes() -> None:
    """The first node object is news, one that differs in more than status and meta too. [dispatcher 97, 98]"""
    node = api.Node(id="n")
    first = read(session(node=node), Known(), b"", [])
    assert first.change == NodeChange(node, b"")
    same = api.Node(id="n", status=api.NodeStatus(state=api.NodeStatus.READY), meta=api.Meta(version=api.Version(index=5)))
    assert not read(session(node=same), first.known, b"", []).change
    other = api.Node(id="n", spec=api.NodeSpec(desired_role=api.NodeRole.MANAGER))
    second = read(session(node=other), first.known, b"", [])
    assert second.change.node == other
    assert not read(session(), second.known, b"", []).change


def test_root_changes() -> None:
    """A root other than the trusted one is news, together with the node's; the trusted one is not. [dispatcher 97]"""
    assert not read(session(RootCA=b"old"), Known(), b"old", []).change
    assert read(session(RootCA=b"new"), Known(), b"old", []).change == NodeChange(None, b"new")
    assert read(session(RootCA=b"new", node=api.Node(id="n")), Known(), b"old", []).change == NodeChange(api.Node(id="n"), b"new")


def test_keys() -> None:
    """A key of a new time brings the whole set, once; none leaves the present ones; a withdrawn one counts too. [dispatcher 111]"""
    keys = [api.EncryptionKey(subsystem="s", lamport_time=n) for n in (1, 2)]
    first = read(session(network_bootstrap_keys=keys), Known(), b"", [])
    assert first.keys == tuple(keys)
    assert read(session(network_bootstrap_keys=keys), first.known, b"", []).keys is None
    assert read(session(), first.known, b"", []).keys is None
    assert read(session(network_bootstrap_keys=keys[:1]), first.known, b"", []).keys == (keys[0],)


def test_secrets_of_a_task() -> None:
    """A task sees what it names, its own value first, under the plain id, and the shared object stays as it was. [dispatcher 145]"""
    everything = Dependencies()
    one = task("t")
    for name in ("plain", "own", "missing"):
        one.spec.container.secrets.add(secret_id=name)
    one.spec.container.configs.add(config_id="c")
    own = api.Secret(id="own.t", spec=api.SecretSpec(data=b"for t"))
    everything.secrets.add(api.Secret(id="plain"), own, api.Secret(id="own"), api.Secret(id="hidden"))
    everything.configs.add(api.Config(id="c"), api.Config(id="hidden"))
    view = everything.of(one)
    assert view.secret("plain").id == "plain"
    assert (view.secret("own").id, view.secret("own").spec.data) == ("own", b"for t")
    assert own.id == "own.t"
    assert view.config("c").id == "c"
    for refused in ("hidden", "own.t"):
        with pytest.raises(NotAuthorized, match=f"^task not authorized to access secret {refused}$"):
            view.secret(refused)
    with pytest.raises(NotAuthorized, match=r"^task not authorized to access config hidden$"):
        view.config("hidden")
    with pytest.raises(DependencyNotFound, match=r"^secret missing not found$"):
        view.secret("missing")


def test_backoff_bounds() -> None:
    """The bounds of a failing session's delays grow to 8 s. [dispatcher 106]"""
    bounds = [0.0]
    for _ in range(8):
        bounds.append(next_session_bound(bounds[-1]))
    assert bounds[1:] == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8.0, 8.0])
