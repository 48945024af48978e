"""What a node is told to run: decisions first, then the streams' timing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.manager.dispatcher.assignments import Assignments
from pyswarm.manager.store import Action, Event, Kind, Store, copy_of
from tests.manager.dispatcher.support import Harness, S, change, create, report, task
from tests.support.clock import settle
from tests.support.loops import new_store, write

V = api.VolumePublishStatus
ALL = [s for s in S.values() if s <= S.REJECTED]
SENT = [s for s in ALL if s >= S.ASSIGNED]
ALIVE = [s for s in SENT if s <= S.RUNNING]
SHARED = "shared"

Change = tuple[str, str, str]


def changes(message: api.AssignmentsMessage) -> list[Change]:
    """A message as sorted (action, kind, id)."""
    found = []
    for item in message.changes:
        kind = item.assignment.WhichOneof("item") or ""
        found.append((api.AssignmentChange.AssignmentAction.Name(item.action), kind, getattr(item.assignment, kind).id))
    return sorted(found)


class Node:
    """One stream's decisions over a store that is written directly."""

    def __init__(self, *objects: Any) -> None:
        self.store: Store = new_store(*objects)
        self.feed = Assignments("n1")
        self.feed.start(self.store)
        self.modified = False

    def put(self, obj: Any) -> Node:
        """Create or update, as one commit."""
        kind = Kind(type(obj).__name__.lower())
        old = self.store.table(kind).get(obj.id)
        write(self.store, obj)
        self.modified = self.feed.on_event(self.store, Event(kind, Action.UPDATE if old else Action.CREATE, obj, old))
        return self

    def drop(self, obj: Any) -> Node:
        """Delete."""
        kind = Kind(type(obj).__name__.lower())
        old = self.store.table(kind).drop(obj.id)
        assert old is not None
        self.modified = self.feed.on_event(self.store, Event(kind, Action.REMOVE, old))
        return self

    def take(self) -> list[Change]:
        """The next message."""
        return changes(self.feed.take())


def secret(secret_id: str, *, driver: bool = False) -> api.Secret:
    """A secret with a value, or with a driver."""
    made = api.Secret(id=secret_id)
    made.spec.data = secret_id.encode()
    if driver:
        made.spec.driver.name = "vault"
    return made


def config(config_id: str) -> api.Config:
    """A config with a value."""
    made = api.Config(id=config_id)
    made.spec.data = config_id.encode()
    return made


def use(made: api.Task, *ids: str, how: str = "container") -> api.Task:
    """Let a task use secret `s<id>` and config `c<id>` for each id."""
    for dependency in ids:
        if how in ("container", "both"):
            made.spec.container.secrets.add(secret_id=f"s{dependency}")
            made.spec.container.configs.add(config_id=f"c{dependency}")
        if how in ("references", "both"):
            made.spec.resource_references.add(resource_id=f"s{dependency}", resource_type=api.ResourceType.SECRET)
            made.spec.resource_references.add(resource_id=f"c{dependency}", resource_type=api.ResourceType.CONFIG)
    return made


def at(made: api.Task, state: S.ValueType, desired: S.ValueType | None = None) -> api.Task:
    """A copy in another state."""
    twin = copy_of(made)
    twin.status.state = state
    if desired is not None:
        twin.desired_state = desired
    return twin


def every_state(how: str) -> tuple[list[api.Task], list[Any]]:
    """One task per state, each with its own dependencies and a shared pair; and all the dependencies."""
    tasks = [use(task(f"t{s}", s), str(s), SHARED, how=how) for s in ALL]
    names = [*map(str, ALL), SHARED]
    return tasks, [*(secret(f"s{n}") for n in names), *(config(f"c{n}") for n in names)]


def pairs(action: str, names: list[str]) -> list[Change]:
    """A secret and a config for each name."""
    return [(action, kind, f"{kind[0]}{n}") for kind in ("secret", "config") for n in names]


@pytest.mark.parametrize("how", ["container", "references", "both"])
def test_complete_and_what_follows(how: str) -> None:
    """Tasks from ASSIGNED on, dependencies of those that may still run; then only what changes. [dispatcher 62, 63, 64, 65]"""
    tasks, dependencies = every_state(how)
    n = Node(*tasks, *dependencies)
    alive = [str(s) for s in ALIVE]
    assert n.take() == sorted([*(("UPDATE", "task", f"t{s}") for s in SENT), *pairs("UPDATE", [*alive, SHARED])])
    for one in tasks:
        n.put(copy_of(one))
    assert n.take() == [("UPDATE", "task", f"t{S.ASSIGNED}")]
    for one in tasks:
        n.drop(one)
    assert n.take() == sorted([*(("REMOVE", "task", f"t{s}") for s in SENT), *pairs("REMOVE", [*alive, SHARED])])


def test_numbering() -> None:
    """The first message is COMPLETE from nothing to 1, the next INCREMENTAL from 1 to 2. [dispatcher 61]"""
    n = Node()
    first = n.feed.take()
    assert (first.type, first.applies_to, first.results_in) == (api.AssignmentsMessage.COMPLETE, "", "1")
    second = n.put(task("t", S.PENDING)).put(task("t", S.ASSIGNED)).feed.take()
    assert (second.type, second.applies_to, second.results_in) == (api.AssignmentsMessage.INCREMENTAL, "1", "2")


def test_dependencies_come_before_tasks() -> None:
    """In a message secrets and configs stand before the tasks that need them."""
    n = Node(use(task("t", S.ASSIGNED), "1"), secret("s1"), config("c1"))
    assert [c.assignment.WhichOneof("item") for c in n.feed.take().changes] == ["secret", "config", "task"]


def test_created_tasks_wait_for_their_first_update() -> None:
    """Creation says nothing; with the update the task is sent, and what it needs and does not exist is left out. [dispatcher 66]"""
    n = Node(secret("s1"))
    n.take()
    assert not n.put(use(task("t", S.ASSIGNED), "1")).modified
    assert n.put(use(task("t", S.ASSIGNED), "1")).modified
    assert n.take() == [("UPDATE", "secret", "s1"), ("UPDATE", "task", "t")]


def test_values_are_sent_and_removals_name_only_ids() -> None:
    """A secret comes whole and goes by its id alone."""
    one = use(task("t", S.RUNNING), "1")
    n = Node(one, secret("s1"), config("c1"))
    assert {c.assignment.secret.spec.data for c in n.feed.take().changes} == {b"s1", b""}
    removed = n.drop(one).feed.take().changes
    assert {c.assignment.SerializeToString() for c in removed} == {
        api.Assignment(task=api.Task(id="t")).SerializeToString(),
        api.Assignment(secret=api.Secret(id="s1")).SerializeToString(),
        api.Assignment(config=api.Config(id="c1")).SerializeToString(),
    }


def test_dependencies_are_not_watched() -> None:
    """Changing or deleting a secret or config says nothing to those who have it. [dispatcher 67]"""
    n = Node(use(task("t", S.RUNNING), "1"), secret("s1"), config("c1"))
    n.take()
    assert not n.put(secret("s1")).modified
    assert not n.drop(secret("s1")).modified
    assert not n.put(config("c1")).modified


def test_own_reports_are_not_echoed() -> None:
    """A change of nothing but the status is no news, unless the task is still ASSIGNED. [dispatcher 68, trap 6]"""
    n = Node(task("t", S.ASSIGNED))
    n.take()
    assert n.put(task("t", S.ASSIGNED)).modified
    for state in (S.ACCEPTED, S.RUNNING, S.FAILED):
        assert not n.put(task("t", state)).modified


def test_desired_state_is_sent() -> None:
    """A new desired state goes out with the task. [dispatcher 69]"""
    n = Node(task("t", S.RUNNING))
    n.take()
    assert n.put(task("t", S.RUNNING, desired=S.SHUTDOWN)).modified
    (sent,) = n.feed.take().changes
    assert sent.assignment.task.desired_state == S.SHUTDOWN


def test_created_updated_deleted_is_one_removal() -> None:
    """A task that came and went between two messages is a REMOVE with its id. [dispatcher 70]"""
    n = Node()
    n.take()
    for i in "ab":
        n.put(task(i, S.ASSIGNED)).put(task(i, S.ASSIGNED)).drop(task(i, S.ASSIGNED))
    assert n.take() == [("REMOVE", "task", "a"), ("REMOVE", "task", "b")]


def test_shared_dependencies_stay_until_the_last_user_ends() -> None:
    """One of two users ends: nothing is removed; the other ends: both are. [dispatcher 75]"""
    a, b = use(task("a", S.RUNNING), "1"), use(task("b", S.RUNNING), "1")
    n = Node(a, b, secret("s1"), config("c1"))
    n.take()
    assert not n.put(at(a, S.FAILED)).modified
    assert n.put(at(b, S.FAILED)).modified
    assert n.take() == [("REMOVE", "config", "c1"), ("REMOVE", "secret", "s1")]


def test_dependencies_are_released_once_and_at_once() -> None:
    """Also when the task ends together with another change; a further update does not repeat it. [dispatcher trap 21]"""
    one = use(task("t", S.RUNNING), "1")
    n = Node(one, secret("s1"), config("c1"))
    n.take()
    ended = at(one, S.SHUTDOWN, S.SHUTDOWN)
    assert n.put(ended).modified
    assert n.take() == [("REMOVE", "config", "c1"), ("REMOVE", "secret", "s1"), ("UPDATE", "task", "t")]
    assert not n.put(copy_of(ended)).modified


def test_secret_is_repeated_for_a_new_user() -> None:
    """A container that newly uses a secret gets it again, a config not. [dispatcher 76]"""
    n = Node(use(task("a", S.RUNNING), "1"), secret("s1"), config("c1"))
    n.take()
    write(n.store, use(task("b", S.PENDING), "1"))
    n.put(use(task("b", S.ASSIGNED), "1"))
    assert n.take() == [("UPDATE", "secret", "s1"), ("UPDATE", "task", "b")]


def test_driver_secret_is_left_out() -> None:
    """Without a driver to ask, its secret is missing and the task is sent. [dispatcher 77 in part]"""
    n = Node(use(task("t", S.ASSIGNED), "1"), secret("s1", driver=True), config("c1"))
    assert n.take() == [("UPDATE", "config", "c1"), ("UPDATE", "task", "t")]


def test_templates_are_sent_as_they_are() -> None:
    """Secrets and configs that are templates reach the node unexpanded, and as templates: only it knows what goes into them."""
    templating = api.Driver(name="golang")
    hidden = api.Secret(id="s1", spec=api.SecretSpec(data=b"\xff{{.Task.ID}}", templating=templating))
    shown = api.Config(id="c1", spec=api.ConfigSpec(data=b'{{secret "x"}}', templating=templating))
    n = Node(use(task("t", S.ASSIGNED), "1"), hidden, shown)
    sent = {change.assignment.WhichOneof("item"): change.assignment for change in n.feed.take().changes}
    assert (sent["secret"].secret, sent["config"].config) == (hidden, shown)


def test_other_references_are_ignored() -> None:
    """A reference to a task means nothing here. [dispatcher 78]"""
    one = task("t", S.ASSIGNED)
    one.spec.resource_references.add(resource_id="x", resource_type=api.ResourceType.TASK)
    assert Node(one).take() == [("UPDATE", "task", "t")]


def volume(state: V.State.ValueType | None, node_id: str = "n1") -> api.Volume:
    """Volume v with two secrets, published somewhere."""
    made = api.Volume(id="v", volume_info=api.VolumeInfo(volume_id="csi-v", volume_context={"a": "b"}))
    made.spec.driver.name = "csi"
    made.spec.secrets.add(key="k", secret="s0")
    made.spec.secrets.add(key="k2", secret="s2")
    if state is not None:
        made.publish_status.add(node_id=node_id, state=state, publish_context={"p": node_id})
    return made


VOLUME_SECRETS = [secret("s0"), secret("s2")]


def test_volume_life() -> None:
    """Pending: nothing; published: volume, secrets; unpublish: first the volume, then the secrets. [dispatcher 79, 81; scheduling 142]"""
    n = Node(*VOLUME_SECRETS, volume(V.PENDING_PUBLISH))
    assert n.take() == []
    n.put(volume(V.PUBLISHED))
    message = n.feed.take()
    assert changes(message) == [("UPDATE", "secret", "s0"), ("UPDATE", "secret", "s2"), ("UPDATE", "volume", "v")]
    sent = message.changes[-1].assignment.volume
    assert (sent.volume_id, dict(sent.publish_context), dict(sent.volume_context)) == ("csi-v", {"p": "n1"}, {"a": "b"})
    assert not n.put(volume(V.PUBLISHED)).modified
    n.put(volume(V.PENDING_NODE_UNPUBLISH))
    (removal,) = n.feed.take().changes
    assert (removal.action, removal.assignment.volume.volume_id) == (api.AssignmentChange.REMOVE, "csi-v")
    n.put(volume(V.PENDING_UNPUBLISH))
    assert n.take() == [("REMOVE", "secret", "s0"), ("REMOVE", "secret", "s2")]


def test_volume_of_another_node() -> None:
    """Published elsewhere it is none of this node's business. [dispatcher 80]"""
    n = Node(*VOLUME_SECRETS)
    n.take()
    assert not n.put(volume(V.PUBLISHED, "n2")).modified


def test_volume_to_unpublish_is_in_the_first_message() -> None:
    """The node may have restarted: it is told to unpublish what this stream never published. [dispatcher 82]"""
    assert Node(*VOLUME_SECRETS, volume(V.PENDING_NODE_UNPUBLISH)).take() == [("REMOVE", "volume", "v")]


@pytest.mark.parametrize("vanish", ["entry", "object"])
def test_volume_that_vanishes(vanish: str) -> None:
    """A publish entry or volume object that goes away is taken back with its secrets. [dispatcher trap 21]"""
    n = Node(*VOLUME_SECRETS, volume(V.PUBLISHED))
    n.take()
    n.put(volume(None)) if vanish == "entry" else n.drop(volume(None))
    assert n.take() == [("REMOVE", "secret", "s0"), ("REMOVE", "secret", "s2"), ("REMOVE", "volume", "v")]


def test_secret_of_volume_and_task() -> None:
    """It stays as long as one of them uses it. [dispatcher 83, 84]"""
    one = task("t", S.RUNNING)
    one.spec.container.secrets.add(secret_id="s0")
    n = Node(*VOLUME_SECRETS, one, volume(V.PUBLISHED))
    assert len(n.take()) == 4
    n.put(volume(V.PENDING_NODE_UNPUBLISH)).put(volume(V.PENDING_UNPUBLISH))
    assert n.take() == [("REMOVE", "secret", "s2"), ("REMOVE", "volume", "v")]


# --- the streams


async def test_session_is_checked(d: Harness) -> None:
    """Without a session there is no stream. [dispatcher 60, 85]"""
    await d.register()
    for reader in (d.assignments(""), d.tasks("")):
        await settle()
        assert isinstance(reader.error, InvalidArgument)


async def test_changes_wait_for_quiet(d: Harness) -> None:
    """A message goes out 100 ms after the last change; what changes nothing does not prolong that. [dispatcher 71, 73]"""
    await create(d.store, task("t", S.PENDING), task("u", S.RUNNING))
    _, session = await d.register()
    reader = d.assignments(session)
    await settle()
    assert len(reader.messages) == 1
    await report(d.store, "t", S.ASSIGNED)
    await d.clock.advance(0.06)
    await report(d.store, "u", S.FAILED)
    assert len(reader.messages) == 1
    await d.clock.advance(0.05)
    assert changes(reader.messages[1]) == [("UPDATE", "task", "t")]
    await d.clock.advance(10.0)
    assert len(reader.messages) == 2


async def test_many_changes_do_not_wait(d: Harness) -> None:
    """A hundred changes are sent at once. [dispatcher 71]"""
    _, session = await d.register()
    reader = d.assignments(session)
    await create(d.store, *(task(f"t{n}", S.PENDING) for n in range(100)))

    def assign(tx: Any) -> None:
        for one in list(tx.tasks):
            tx.tasks.update(at(one, S.ASSIGNED))

    await d.store.update(assign)
    await settle()
    assert len(reader.messages[1].changes) == 100


async def test_steady_drip_does_not_wait_for_ever(d: Harness) -> None:
    """Changes every 90 ms are sent about once a second. [dispatcher 72, better]"""
    await create(d.store, *(task(f"t{n}", S.PENDING) for n in range(30)))
    _, session = await d.register()
    reader = d.assignments(session)
    await settle()
    for number in range(30):
        await report(d.store, f"t{number}", S.ASSIGNED)
        await d.clock.advance(0.09)
    assert 3 <= len(reader.messages) <= 4


async def test_other_nodes_and_dependencies_are_silent(d: Harness) -> None:
    """Neither another node's task nor a changed secret sends anything. [dispatcher 67]"""
    await create(d.store, task("x", S.PENDING, "n2"), secret("s"))
    _, session = await d.register()
    reader = d.assignments(session)
    await report(d.store, "x", S.ASSIGNED)
    await change(d.store, secret("s"), edit=lambda s: setattr(s.spec, "data", b"new"))
    await d.clock.advance(1.0)
    assert len(reader.messages) == 1


async def test_unread_stream_keeps_one_entry_per_object(d: Harness) -> None:
    """A client that does not read makes nothing grow: later versions replace earlier ones."""
    await create(d.store, task("t", S.PENDING))
    _, session = await d.register()
    stream = d.service.Assignments(api.AssignmentsRequest(session_id=session), d.caller())
    await anext(stream)
    for _ in range(50):
        await report(d.store, "t", S.ASSIGNED)
    await d.clock.advance(1.0)
    pending = asyncio.ensure_future(anext(stream))
    await d.clock.advance(1.0)
    assert changes(pending.result()) == [("UPDATE", "task", "t")]
    await stream.aclose()


async def test_tasks_stream(d: Harness) -> None:
    """Agents of old get full lists; their own reports bring none. [dispatcher 85]"""
    _, session = await d.register()
    reader = d.tasks(session)
    await settle()
    assert [list(m.tasks) for m in reader.messages] == [[]]
    await create(d.store, task("a", S.ASSIGNED), task("b", S.PENDING))
    await d.clock.advance(0.2)
    assert [t.id for t in reader.messages[-1].tasks] == ["a"]
    await report(d.store, "b", S.ASSIGNED)
    await d.clock.advance(0.2)
    assert [t.id for t in reader.messages[-1].tasks] == ["a", "b"]
    await report(d.store, "a", S.RUNNING)
    await d.clock.advance(0.25)
    assert len(reader.messages) == 3
    await d.store.update(lambda tx: tx.tasks.delete("a"))
    await d.clock.advance(0.2)
    assert [t.id for t in reader.messages[-1].tasks] == ["b"]
