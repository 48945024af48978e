"""What happened in a simulation: one line per event with time, who, and what. Cheap to keep, formatted only when somebody reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Event

S = api.TaskState
N = api.NodeStatus.State
_KEEP = 50_000


class Trace:
    """The events of one run. `now` gives virtual seconds. With `echo` every line is printed at once."""

    def __init__(self, now: Callable[[], float], *, echo: bool = False) -> None:
        self._now = now
        self._echo = echo
        self._events: list[tuple[float, str, str, tuple[Any, ...]]] = []
        self._dropped = 0

    def __call__(self, who: str, what: str, *args: Any) -> None:
        """Note an event; `what` has a `%s` for each of `args`, which must not change afterwards."""
        self._events.append((self._now(), who, what, args))
        if self._echo:
            print(_line(*self._events[-1]), flush=True)
        if len(self._events) > 2 * _KEEP:
            self._dropped += _KEEP
            del self._events[:_KEEP]

    def lines(self) -> list[str]:
        """Everything kept, oldest first."""
        head = [f"({self._dropped} earlier events are not kept)"] if self._dropped else []
        return head + [_line(*event) for event in self._events]

    def digest(self) -> str:
        """Equal for runs in which the same happened."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


def _line(at: float, who: str, what: str, args: tuple[Any, ...]) -> str:
    return f"{at:11.4f}  {who:<8} " + (what % tuple(map(_text, args)) if args else what)


def _text(value: Any) -> Any:
    match value:
        case Event():
            return describe(value)
        case list():
            return "; ".join(str(_text(item)) for item in value)
        case Exception():
            return f"{type(value).__name__}: {value}"
    return value


def short(object_id: str) -> str:
    """An id as people read it."""
    return object_id[:6] or "-"


def describe(event: Event) -> str:
    """A change in the store, in a few words."""
    obj, old = event.obj, event.old
    match obj:
        case api.Task() as task:
            place = f"{task.service_annotations.name or short(task.service_id)}.{task.slot or '*'}"
            head = f"task {short(task.id)} ({place})"
            if event.action is Action.REMOVE:
                return f"{head} deleted"
            before = old if isinstance(old, api.Task) else None
            return f"{head} {_task(before, task)}"
        case api.Node() as node:
            before_node = old if isinstance(old, api.Node) else None
            return f"node {short(node.id)} {_node(event.action, before_node, node)}"
        case api.Service() as service:
            replicas = service.spec.replicated.replicas if service.spec.WhichOneof("mode") == "replicated" else "global"
            update = api.UpdateStatus.UpdateState.Name(service.update_status.state) if service.HasField("update_status") else ""
            note = service.spec.task.container.image
            return f"service {service.spec.annotations.name} {event.action.name.lower()}d: {note} x {replicas} {update}".rstrip()
    return f"{event.kind} {short(obj.id)} {event.action.name.lower()}d"


def _task(old: api.Task | None, new: api.Task) -> str:
    facts = []
    if old is None or old.status.state != new.status.state:
        facts.append((f"{S.Name(old.status.state)} -> " if old is not None else "") + S.Name(new.status.state))
    if old is None or old.desired_state != new.desired_state:
        facts.append(f"wanted {S.Name(new.desired_state)}")
    if old is None or old.node_id != new.node_id:
        facts.append(f"on {short(new.node_id)}")
    if new.status.err and (old is None or old.status.err != new.status.err):
        facts.append(f"({new.status.err})")
    return ", ".join(facts) or "touched"


def _node(action: Action, old: api.Node | None, new: api.Node) -> str:
    if action is not Action.UPDATE or old is None:
        return f"{action.name.lower()}d"
    facts = []
    if old.status.state != new.status.state:
        facts.append(f"{N.Name(old.status.state)} -> {N.Name(new.status.state)} ({new.status.message})")
    if old.spec.availability != new.spec.availability:
        facts.append(f"now {api.NodeSpec.Availability.Name(new.spec.availability)}")
    if old.spec.desired_role != new.spec.desired_role or old.role != new.role:
        facts.append(f"role {api.NodeRole.Name(new.role)}, wanted {api.NodeRole.Name(new.spec.desired_role)}")
    return ", ".join(facts) or "touched"


def tail(lines: Iterable[str], count: int) -> str:
    """The end of a trace."""
    kept = list(lines)
    return "\n".join(kept[-count:])
