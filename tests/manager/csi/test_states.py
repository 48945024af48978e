"""What a volume needs next, what results change, what is given back: pure."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.csi import VolumeRelease, requests, states
from pyswarm.manager.csi.states import Action, Step
from pyswarm.manager.csi.volumemanager import touched
from pyswarm.manager.store import Action as Change
from pyswarm.manager.store import Event, Kind, Tx, copy_of
from tests.manager.csi.support import A, P, S, mount, node, task, volume
from tests.manager.csi.support import states as states_of
from tests.support.loops import commit, new_store, settle, write


def test_steps() -> None:
    """It is made first; nodes are given up before others are taken on; it is deleted once no node has it."""
    assert states.steps(volume("v", made=False, n1=P.PENDING_PUBLISH)) == [Step(Action.CREATE)]
    busy = volume("v", n1=P.PENDING_PUBLISH, n2=P.PUBLISHED, n3=P.PENDING_NODE_UNPUBLISH, n4=P.PENDING_UNPUBLISH)
    assert states.steps(busy) == [Step(Action.UNPUBLISH, "n4"), Step(Action.PUBLISH, "n1")]
    busy.pending_delete = True
    assert states.steps(busy) == [Step(Action.UNPUBLISH, "n4"), Step(Action.PUBLISH, "n1")]
    del busy.publish_status[:]
    assert states.steps(busy) == [Step(Action.DELETE)]
    never_made = volume("v", made=False)
    never_made.pending_delete = True
    assert states.steps(never_made) == [Step(Action.CREATE)]


def test_late_results_change_nothing() -> None:
    """What a plugin answered is written only where the store still asks for it: not for a volume forced away, nor in another state."""
    store = new_store(volume("v", n1=P.PENDING_UNPUBLISH, n2=P.PENDING_PUBLISH))
    tx = Tx(store, 1, 0.0)
    states.created(tx, "v-id", api.VolumeInfo(volume_id="other"))
    states.published(tx, "v-id", "n1", {})
    states.unpublished(tx, "v-id", "n2")
    states.failed(tx, "v-id", Step(Action.PUBLISH, "n1"), "late")
    states.failed(tx, "v-id", Step(Action.CREATE), "no place for it")
    states.deleted(tx, "v-id")
    for gone in ("gone-id",):
        states.created(tx, gone, api.VolumeInfo())
        states.published(tx, gone, "n1", {})
        states.unpublished(tx, gone, "n1")
        states.failed(tx, gone, Step(Action.PUBLISH, "n1"), "x")
        states.deleted(tx, gone)
    assert not tx.changes


def test_a_failure_is_written_once() -> None:
    """The same refusal again writes nothing."""
    store = new_store(volume("v", n1=P.PENDING_PUBLISH))
    for expected in (1, 0):
        tx = Tx(store, 1, 0.0)
        states.failed(tx, "v-id", Step(Action.PUBLISH, "n1"), "no")
        assert len(tx.changes) == expected
        store.apply(2 + expected, api.InternalRaftRequest(), tx)
    assert states_of(store, "v") == {"n1": "PENDING_PUBLISH (error publishing volume: no)"}


def test_create_request() -> None:
    """Name, options, one capability, secrets, topology and capacity. [scheduling 137]"""
    wanted = volume("v", scope=A.MULTI_NODE, sharing=A.ONE_WRITER, made=False)
    wanted.spec.capacity_range.MergeFrom(api.CapacityRange(required_bytes=1_000_000_000, limit_bytes=1_000_000_000))
    wanted.spec.AccessibilityRequirements.requisite.add(segments={"region": "R1"})
    wanted.spec.AccessibilityRequirements.preferred.add(segments={"zone": "Z1"})
    made = requests.create(wanted, {"key1": "a", "key2": "b"})
    assert (made.name, dict(made.parameters), dict(made.secrets)) == ("v", {"size": "small"}, {"key1": "a", "key2": "b"})
    [capability] = made.volume_capabilities
    assert capability.access_mode.Mode.Name(capability.access_mode.mode) == "MULTI_NODE_SINGLE_WRITER"
    assert capability.WhichOneof("access_type") == "mount"
    assert (made.capacity_range.required_bytes, made.capacity_range.limit_bytes) == (1_000_000_000, 1_000_000_000)
    assert [dict(t.segments) for t in made.accessibility_requirements.requisite] == [{"region": "R1"}]
    assert [dict(t.segments) for t in made.accessibility_requirements.preferred] == [{"zone": "Z1"}]
    assert not requests.create(volume("v", made=False), {}).HasField("capacity_range")


def test_other_requests() -> None:
    """Publish carries CSI ids, secrets, context and capability; unpublish and delete ids and secrets. [scheduling 138]"""
    kept, secrets = volume("v", sharing=A.READ_ONLY), {"key": "s"}
    publish = requests.publish(kept, "csi-n1", secrets)
    assert (publish.volume_id, publish.node_id, dict(publish.secrets), dict(publish.volume_context)) == (
        "csi-v",
        "csi-n1",
        secrets,
        {"made": "yes"},
    )
    mode = publish.volume_capability.access_mode
    assert mode.Mode.Name(mode.mode) == "MULTI_NODE_READER_ONLY"
    unpublish = requests.unpublish(kept, "csi-n1", secrets)
    assert (unpublish.volume_id, unpublish.node_id, dict(unpublish.secrets)) == ("csi-v", "csi-n1", secrets)
    delete = requests.delete(kept, secrets)
    assert (delete.volume_id, dict(delete.secrets)) == ("csi-v", secrets)


def test_what_calls_for_attention() -> None:
    """A volume whose needs changed, and one that waits for a node whose plugins changed; not a message that was written."""
    before, after = volume("v", n1=P.PUBLISHED), volume("v", n1=P.PENDING_UNPUBLISH)
    told = copy_of(after)
    told.publish_status[0].message = "no"

    def asks(old: api.Volume | api.Node | None, new: api.Volume | api.Node, action: Change = Change.UPDATE) -> list[str]:
        kind = Kind.VOLUME if isinstance(new, api.Volume) else Kind.NODE
        return touched([after, volume("other", n2=P.PENDING_PUBLISH)], Event(kind, action, new, old))

    assert asks(None, volume("v", made=False), Change.CREATE) == ["v-id"]
    assert asks(before, after) == ["v-id"]
    assert asks(after, told) == []
    assert asks(after, after, Change.REMOVE) == []
    assert asks(None, node("n1"), Change.CREATE) == ["v-id"]
    assert asks(node("n1"), node("n1")) == []
    assert asks(node("n1", "else"), node("n1")) == ["v-id"]
    assert asks(node("n3", "else"), node("n3")) == []


def test_node_ids() -> None:
    """A swarm node's id for a plugin is what the node says of it; a node without description or plugin has none. [scheduling 132]"""
    store = new_store(node("n1", "a", "b"), node("n2", "b"), api.Node(id="n3"))
    found = {(n, d): states.csi_node_id(store, n, d) for n in ("n1", "n2", "n3", "n4") for d in ("a", "b")}
    assert {key for key, value in found.items() if value} == {("n1", "a"), ("n1", "b"), ("n2", "b")}
    assert found["n1", "b"] == "csi-n1"
    write(store, node("n2", "a"))
    assert (states.csi_node_id(store, "n2", "a"), states.csi_node_id(store, "n2", "b")) == ("csi-n2", None)


# --- giving back


def test_release() -> None:
    """A volume goes back from nodes where its last task ended, and from no other. [scheduling 128]"""
    nodes = [f"n{i}" for i in range(4)]
    store = new_store(*(node(n) for n in nodes))
    for i, n in enumerate(nodes):
        write(store, volume(f"v{i}", **{n: P.PUBLISHED}))
        write(store, task(f"t{i}", mount(f"v{i}", "/own"), mount("all", "/all"), on=n, state=S.RUNNING, holds=f"v{i} all"))
    write(store, volume("all", **dict.fromkeys(nodes, P.PUBLISHED)))
    loop = VolumeRelease()
    assert settle(loop, store, 0.0) == []
    ended = copy_of(store.tasks.get("t0") or api.Task())
    ended.status.state = S.FAILED
    [event] = commit(store, [Update(ended)])
    assert sorted(loop.on_event(event)) == ["all-id", "v0-id"]
    settle(loop, store, 0.0)
    assert states_of(store, "v0") == {"n0": "PENDING_NODE_UNPUBLISH"}
    assert states_of(store, "all") == {"n0": "PENDING_NODE_UNPUBLISH", "n1": "PUBLISHED", "n2": "PUBLISHED", "n3": "PUBLISHED"}
    assert all(states_of(store, f"v{i}") == {f"n{i}": "PUBLISHED"} for i in (1, 2, 3))


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("state", P.State.values())
def test_release_by_state(state: P.State.ValueType, gone: bool) -> None:
    """What was not published yet is taken back without asking the node, as is what a removed node had; the rest it gives back itself."""
    store = new_store(volume("v", n1=state), *(() if gone else (node("n1"),)))
    settle(VolumeRelease(), store, 0.0)
    expected = {P.PUBLISHED: "PENDING_NODE_UNPUBLISH", P.PENDING_NODE_UNPUBLISH: "PENDING_NODE_UNPUBLISH"}
    assert states_of(store, "v") == {"n1": "PENDING_UNPUBLISH" if gone else expected.get(state, "PENDING_UNPUBLISH")}


def test_release_follows_nodes() -> None:
    """The removal of a node calls up the volumes that it has."""
    store = new_store(volume("v", n1=P.PUBLISHED), volume("other", n2=P.PUBLISHED))
    loop = VolumeRelease()
    assert sorted(loop.everything(store)) == ["other-id", "v-id"]
    assert list(loop.on_event(Event(Kind.NODE, Change.REMOVE, node("n1")))) == ["v-id"]
