"""Cluster volumes over whole histories: scheduler, enforcer, release, plugin and nodes, one step at a time, with leaders that change."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Delete, Update, apply
from pyswarm.manager.csi import VolumeRelease, states
from pyswarm.manager.csi.states import Action, Step
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.loop import Loop
from pyswarm.manager.orchestrator.volumeenforcer import VolumeEnforcer
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Event, Kind, Store, Tx, by, copy_of
from tests.manager.csi.support import A, P, S, mount, node, task, volume
from tests.support.clock import VirtualClock

NOW = 1_700_000_000.0
MODES = [
    (A.SINGLE_NODE, A.NONE),
    (A.SINGLE_NODE, A.ALL),
    (A.MULTI_NODE, A.ONE_WRITER),
    (A.MULTI_NODE, A.READ_ONLY),
    (A.MULTI_NODE, A.ALL),
]


def writes(user: api.Task, volume_id: str) -> bool:
    """Whether one of its mounts of the volume may write."""
    reading = {(m.source, m.target) for m in user.spec.container.mounts if m.readonly}
    return any((a.source, a.target) not in reading for a in user.volumes if a.id == volume_id)


class Swarm:
    """A store and all that acts on volumes. `fresh`: another leader after every commit. `unlucky` says whether a plugin's call fails."""

    def __init__(self, *, fresh: bool = False, unlucky: Callable[[], bool] = lambda: False) -> None:
        self.store = Store(VirtualClock())
        self.fresh = fresh
        self.unlucky = unlucky
        self.attached: dict[str, set[str]] = {}
        self.mounted: set[tuple[str, str]] = set()
        self.running: set[str] = set()
        self._index = 1
        self.new_leader()

    # --- the leader

    def new_leader(self) -> None:
        """Loops that know nothing but the store."""
        loops: list[Loop[Any]] = [Scheduler(), VolumeEnforcer(), VolumeRelease()]
        self._loops: list[tuple[Loop[Any], dict[Hashable, None]]] = [(loop, dict.fromkeys(loop.everything(self.store))) for loop in loops]

    def commit(self, *changes: Change, write: Callable[[Tx], object] = lambda _: None) -> bool:
        """One transaction; whether it changed anything. What must always hold is checked after it."""
        tx = Tx(self.store, self._index, NOW)
        apply(tx, changes)
        write(tx)
        if not tx.changes:
            return False
        events: list[Event] = []
        undo = self.store.on_commit(lambda commit: events.extend(commit.events))
        self._index += 1
        self.store.apply(self._index, api.InternalRaftRequest(), tx)
        undo()
        for loop, dirty in self._loops:
            for event in events:
                dirty.update(dict.fromkeys(loop.on_event(event)))
        if self.fresh:
            self.new_leader()
        self.check()
        return True

    def decide(self) -> bool:
        """One decision of one loop; False when nothing is to be decided."""
        for loop, dirty in self._loops:
            while dirty:
                key = next(iter(dirty))
                del dirty[key]
                decision = loop.decide(self.store, key, NOW)
                if decision.changes and self.commit(*decision.changes):
                    return True
        return False

    # --- the plugin, as strict as it may be

    def plug(self) -> bool:
        """One call for one volume."""
        for kept in sorted(self.store.volumes, key=lambda v: v.id):
            for step in states.steps(kept):
                if self.unlucky():
                    if self.commit(write=lambda tx, v=kept.id, s=step: states.failed(tx, v, s, "no luck")):
                        return True
                    continue
                return self._carry_out(kept, step)
        return False

    def _carry_out(self, kept: api.Volume, step: Step) -> bool:
        has = self.attached.setdefault(kept.id, set())
        match step.action:
            case Action.CREATE:
                return self.commit(write=lambda tx: states.created(tx, kept.id, api.VolumeInfo(volume_id=f"csi-{kept.id}")))
            case Action.DELETE:
                assert not has, "deleted while a node has it"
                return self.commit(write=lambda tx: states.deleted(tx, kept.id))
            case Action.PUBLISH:
                assert kept.spec.access_mode.scope == A.MULTI_NODE or not has - {step.node_id}, "one node's volume published to two"
                has.add(step.node_id)
                return self.commit(write=lambda tx: states.published(tx, kept.id, step.node_id, {}))
            case Action.UNPUBLISH:
                assert (kept.id, step.node_id) not in self.mounted, "taken from a node that has it mounted"
                has.discard(step.node_id)
                return self.commit(write=lambda tx: states.unpublished(tx, kept.id, step.node_id))

    # --- the nodes

    def live(self) -> bool:
        """One thing that one node does."""
        return any(self._begin_or_end(t) for t in sorted(self.store.tasks, key=lambda t: t.id)) or self._give_back()

    def _begin_or_end(self, known: api.Task) -> bool:
        alive = self.store.nodes.get(known.node_id) is not None
        if known.id in self.running and (not alive or known.desired_state >= S.SHUTDOWN or known.status.state > S.RUNNING):
            self.running.discard(known.id)
            return self._report(known, S.SHUTDOWN) or True
        if known.status.state == S.ASSIGNED and alive:
            if known.desired_state >= S.SHUTDOWN:
                return self._report(known, S.SHUTDOWN)
            here = [self.store.volumes.get(a.id) for a in known.volumes]
            if all(v is not None and (v.id, known.node_id) in self.mounted for v in here):
                self.running.add(known.id)
                return self._report(known, S.RUNNING)
        return False

    def _report(self, known: api.Task, state: api.TaskState.ValueType) -> bool:
        report = statuses.TaskReport(known.id, api.TaskStatus(state=state))
        return self.commit(write=lambda tx: statuses.write(tx, report, "manager", NOW))

    def _give_back(self) -> bool:
        """Mount what is published, unmount what is to go and no process uses, and say so."""
        for kept in sorted(self.store.volumes, key=lambda v: v.id):
            for entry in kept.publish_status:
                place = (kept.id, entry.node_id)
                if self.store.nodes.get(entry.node_id) is None:
                    continue
                if entry.state == P.PUBLISHED and place not in self.mounted:
                    self.mounted.add(place)
                    return True
                users = (self.store.tasks.get(task_id) for task_id in self.running)
                used = any(t is not None and t.node_id == entry.node_id and kept.id in {a.id for a in t.volumes} for t in users)
                if entry.state == P.PENDING_NODE_UNPUBLISH and not used:
                    self.mounted.discard(place)
                    return self.commit(write=lambda tx, p=place: statuses.write(tx, statuses.VolumeReport(*p), "manager", NOW))
        return False

    # --- what always holds

    def check(self) -> None:
        """No task has a volume that its mode does not allow, or that is being taken from its node."""
        for kept in self.store.volumes:
            mode = kept.spec.access_mode
            entries = {entry.node_id: entry.state for entry in kept.publish_status}
            assert len(entries) == len(kept.publish_status)
            assert mode.scope == A.MULTI_NODE or len(entries) <= 1, "one node's volume on two"
            users = [t for t in self.store.tasks.find(by.volume(kept.id)) if t.node_id and S.ASSIGNED <= t.status.state <= S.RUNNING]
            for user in users:
                if self.store.nodes.get(user.node_id) is not None:
                    assert entries.get(user.node_id) in {P.PENDING_PUBLISH, P.PUBLISHED}, "taken from under a task"
            writers = [t for t in users if writes(t, kept.id)]
            assert mode.sharing != A.NONE or len(users) <= 1
            assert mode.sharing != A.ONE_WRITER or len(writers) <= 1
            assert mode.sharing != A.READ_ONLY or not writers

    def settle(self) -> None:
        """Until nothing more happens, and no call is left to be tried again."""
        for _ in range(10_000):
            if not (self.decide() or self.plug() or self.live() or any(map(states.steps, self.store.volumes))):
                return
        raise AssertionError("does not come to rest")

    # --- the user

    def edit(self, object_id: str, kind: Kind, change: Callable[[Any], object]) -> None:
        """Change an object if it is there."""
        table = {Kind.TASK: self.store.tasks, Kind.VOLUME: self.store.volumes}[kind]
        found = table.get(object_id)
        if found is not None:
            edited = copy_of(found)
            change(edited)
            self.commit(Update(edited))

    def shut_down(self, task_id: str) -> None:
        """What an orchestrator does with a task that is not wanted any more."""
        self.edit(task_id, Kind.TASK, lambda t: setattr(t, "desired_state", S.SHUTDOWN))

    def remove_volume(self, volume_id: str) -> None:
        """RemoveVolume, refused while it is published."""
        found = self.store.volumes.get(volume_id)
        if found is not None and not found.publish_status:
            self.edit(volume_id, Kind.VOLUME, lambda v: setattr(v, "pending_delete", True))

    def remove_node(self, node_id: str) -> None:
        """RemoveNode with force: its tasks are orphaned, and what it had mounted is gone with it."""
        changes: list[Change] = []
        for known in self.store.tasks.find(by.node(node_id)):
            self.running.discard(known.id)
            if known.status.state <= S.RUNNING:
                orphan = copy_of(known)
                orphan.status.state = S.ORPHANED
                changes.append(Update(orphan))
        self.mounted = {place for place in self.mounted if place[1] != node_id}
        if self.store.nodes.get(node_id) is not None:
            self.commit(*changes, Delete(Kind.NODE, node_id))


def story(swarm: Swarm) -> list[dict[str, Any]]:
    """Tasks come, hand a volume on, are drained, lose their node; all is given back and deleted. What each chapter ends with."""
    pictures: list[dict[str, Any]] = []

    def settle() -> None:
        swarm.settle()
        pictures.append(
            {
                "tasks": {t.id: (S.Name(t.status.state), t.node_id) for t in swarm.store.tasks},
                "volumes": {v.id: {e.node_id: P.State.Name(e.state) for e in v.publish_status} for v in swarm.store.volumes},
                "mounted": sorted(swarm.mounted),
            }
        )

    swarm.commit(Create(node("n1")), Create(node("n2")))
    swarm.commit(Create(volume("v", made=False, scope=A.SINGLE_NODE, sharing=A.NONE)), Create(volume("w", made=False)))
    swarm.commit(Create(task("t1", mount("v", "/v"), mount("w", "/w"))))
    settle()
    swarm.commit(Create(task("t2", mount("v", "/v"))), Create(task("t3", mount("w", "/w"))))
    settle()
    swarm.shut_down("t1")
    settle()
    swarm.edit("w-id", Kind.VOLUME, lambda v: setattr(v.spec, "availability", api.VolumeSpec.DRAIN))
    settle()
    on = (swarm.store.tasks.get("t2") or api.Task()).node_id
    swarm.remove_node(on)
    swarm.commit(Create(task("t4", mount("v", "/v"))))
    settle()
    swarm.commit(Delete(Kind.TASK, "t4"))
    swarm.running.discard("t4")
    settle()
    for volume_id in ("v-id", "w-id"):
        swarm.remove_volume(volume_id)
    settle()
    return pictures


def test_the_story() -> None:
    """What the chapters come to under one leader."""
    chapters = story(Swarm())
    assert [c["tasks"]["t1"][0] for c in chapters[:3]] == ["RUNNING", "RUNNING", "SHUTDOWN"]
    assert [c["tasks"].get("t2", ("",))[0] for c in chapters[1:5]] == ["PENDING", "RUNNING", "RUNNING", "ORPHANED"]
    assert chapters[3]["volumes"]["w-id"] == {}
    assert chapters[3]["tasks"]["t3"][0] == "REJECTED"
    assert chapters[4]["tasks"]["t4"][0] == "RUNNING"
    assert chapters[5]["volumes"] == {"v-id": {}, "w-id": {}}
    assert (chapters[6]["volumes"], chapters[6]["mounted"]) == ({}, [])


def test_another_leader_after_every_commit() -> None:
    """Leaders that each make a single step come to the same as one that stays."""
    assert story(Swarm(fresh=True)) == story(Swarm())


@pytest.mark.parametrize("fresh", [False, True])
def test_a_plugin_that_mostly_fails(fresh: bool) -> None:
    """Calls that fail again and again change nothing about where it ends."""
    draw = random.Random(7)
    assert story(Swarm(fresh=fresh, unlucky=lambda: draw.random() < 0.7))[-1] == story(Swarm())[-1]


@given(st.integers(0, 2**32))
def test_random_histories(seed: int) -> None:
    """Whatever users, plugins and leaders do, in whatever order: modes are kept, nothing is taken from under a task, all ends free."""
    draw = random.Random(seed)
    swarm = Swarm(unlucky=lambda: draw.random() < 0.1)
    names = [f"v{n}" for n in range(4)]
    nodes = [f"n{n}" for n in range(3)]

    def new_task() -> None:
        wanted = draw.sample([*names, "group:g"], draw.randint(1, 2))
        mounts = [mount(source, f"/{number}", readonly=draw.random() < 0.4) for number, source in enumerate(wanted)]
        on = draw.choice(nodes) if draw.random() < 0.2 else ""
        swarm.commit(Create(task(f"t{len(swarm.store.tasks)}-{draw.random()}", *mounts, on=on)))

    def new_volume() -> None:
        name, (scope, sharing) = draw.choice(names), draw.choice(MODES)
        if not swarm.store.volumes.find(by.name(name)) and not swarm.attached.get(f"{name}-id"):
            swarm.commit(Create(volume(name, made=False, scope=scope, sharing=sharing, group=draw.choice(["", "g"]))))

    def some_task() -> str:
        return draw.choice(sorted(t.id for t in swarm.store.tasks) or ["none"])

    def delete_task() -> None:
        task_id = some_task()
        found = swarm.store.tasks.get(task_id)
        if found is not None and task_id not in swarm.running:
            swarm.commit(Delete(Kind.TASK, task_id))

    def availability() -> None:
        value = draw.choice([api.VolumeSpec.ACTIVE, api.VolumeSpec.ACTIVE, api.VolumeSpec.PAUSE, api.VolumeSpec.DRAIN])
        swarm.edit(f"{draw.choice(names)}-id", Kind.VOLUME, lambda v: setattr(v.spec, "availability", value))

    def some_node() -> None:
        name = draw.choice(nodes)
        if swarm.store.nodes.get(name) is None:
            swarm.commit(Create(node(name)))
        elif draw.random() < 0.2:
            swarm.remove_node(name)

    users = [new_task, new_task, new_volume, delete_task, availability, some_node, swarm.new_leader]
    users += [lambda: swarm.shut_down(some_task()), lambda: swarm.remove_volume(f"{draw.choice(names)}-id")]
    for _ in range(draw.randint(10, 120)):
        if draw.random() < 0.35:
            draw.choice(users)()
        else:
            draw.choice([swarm.decide, swarm.plug, swarm.live])()
    swarm.unlucky = lambda: False
    for known in list(swarm.store.tasks):
        swarm.shut_down(known.id)
    swarm.settle()
    assert all(not kept.publish_status for kept in swarm.store.volumes)
    assert not swarm.mounted
    for name in names:
        swarm.remove_volume(f"{name}-id")
    swarm.settle()
    assert not list(swarm.store.volumes)
    assert not any(swarm.attached.values())
