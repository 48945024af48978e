"""`task why`: an answer as sentences, one to a line, each beginning with what it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.cli import units
from pyswarm.cli.show import parts

S = api.TaskState


class Names(Protocol):
    """IDs to what is shown for them."""

    def node(self, node_id: str) -> str:
        """Of a node."""
        ...

    def service(self, service_id: str) -> str:
        """Of a service."""
        ...


def lines(answer: pb.ExplainResponse, names: Names, now: float) -> Iterator[str]:
    """First the service as a whole, if it was asked for; then its tasks."""
    if answer.HasField("service"):
        yield from _overview(answer.service, names.service(answer.service.service_id), now)
    for told in answer.explanations:
        yield f"{_name(told, names)}: {_Sentence(told, names, now).text()}"


def _name(told: pb.Explanation, names: Names) -> str:
    if not told.service_id:
        return told.task_id
    place = names.node(told.node_id) if told.place_is_node else str(told.slot)
    return f"{told.service_name or told.service_id}.{place}"


# --- a service


def _overview(service: pb.Overview, name: str, now: float) -> Iterator[str]:
    if service.wanted and service.as_wanted >= service.wanted:
        whole = "its only task is as wanted" if service.wanted == 1 else f"all {service.wanted} tasks are as wanted"
    else:
        whole = f"{service.as_wanted} of {_count(service.wanted, 'task')} as wanted"
    if service.missing and service.max_concurrent:
        whole += f", {service.missing} not begun (at most {service.max_concurrent} at the same time)"
    elif service.missing:
        whole += f", {service.missing} still to be made"
    yield f"{name}: {whole}"
    if service.HasField("update"):
        yield f"{name}: {_update(service.update, now)}"
    if service.left_out:
        total = sum(refusal.nodes for refusal in service.left_out)
        yield f"{name}: no place on {_count(total, 'node')}: {', '.join(_also(r, None) for r in service.left_out)}"
    if service.more:
        yield f"{name}: {service.more} more {'is' if service.more == 1 else 'are'} not as wanted"


def _update(update: pb.Update, now: float) -> str:
    text = update.message or api.UpdateStatus.UpdateState.Name(update.state).lower().replace("_", " ")
    if update.state == api.UpdateStatus.COMPLETED or update.state == api.UpdateStatus.ROLLBACK_COMPLETED:
        return f"{text} {parts.age(update.completed_at, now)}" if update.HasField("completed_at") else text
    failures = f", {update.failures} failed" if update.failures else ""
    if update.state in {api.UpdateStatus.PAUSED, api.UpdateStatus.ROLLBACK_PAUSED}:
        return f"{text}; {update.pending} left as they were{failures}"
    return f"{text}; {_turns(update.parallelism, update.busy, update.pending)}{failures}{_next(update, now)}"


def _turns(parallelism: int, busy: int, pending: int) -> str:
    return f"{f'{parallelism} at a time' if parallelism else 'all at once'}, {busy} in progress, {pending} to go"


def _next(of: pb.Update | pb.UpdateWaits, now: float) -> str:
    return f", the next {_ahead(of.delay_until, now)}" if of.HasField("delay_until") else ""


# --- nodes that refuse

_ARE = {"DRAIN": "drained", "PAUSE": "paused", "DOWN": "down", "DISCONNECTED": "disconnected", "UNKNOWN": "not heard from"}


def _refuses(refusal: pb.Refusal, reserved: api.Resources | None) -> tuple[str, str]:
    """What the nodes lack, as predicates of one and of several."""
    lacking = refusal.lacking
    match refusal.filter:
        case "ready":
            state = _ARE.get(lacking, lacking)
            return f"is {state}", f"are {state}"
        case "resources":
            what = f"the {lacking} it reserves{_amount(lacking, reserved)}"
            return f"lacks {what}", f"lack {what}"
        case "plugins":
            return f"lacks the plugin {lacking}", f"lack the plugin {lacking}"
        case "constraints":
            return f"violates {lacking}", f"violate {lacking}"
        case "platform":
            return f"has another platform than {lacking}", f"have another platform than {lacking}"
        case "host ports":
            return f"has port {lacking} in use", f"have port {lacking} in use"
        case "max replicas":
            limit = f"as many of its tasks as allowed ({lacking} per node)"
            return f"has {limit}", f"have {limit}"
        case "volumes":
            return f"cannot mount {lacking}", f"cannot mount {lacking}"
    return f"refuses it ({refusal.sentence})", f"refuse it ({refusal.sentence})"


def _amount(lacking: str, reserved: api.Resources | None) -> str:
    if reserved is None:
        return ""
    if lacking == "memory":
        return f" ({units.format_memory(reserved.memory_bytes)})"
    if lacking == "CPUs":
        return f" ({units.format_cpus(reserved.nano_cpus)})"
    amounts = [value for kind, value in map(parts.generic, reserved.generic) if kind == lacking]
    return f" ({', '.join(amounts)})" if amounts else ""


def _also(refusal: pb.Refusal, reserved: api.Resources | None) -> str:
    one, several = _refuses(refusal, reserved)
    return f"{refusal.nodes} {one if refusal.nodes == 1 else several}"


def _refusals(refused: pb.NoSuitableNode, own_node: str) -> str:
    if not refused.refusals:
        return "there are no nodes" if not own_node else f"{own_node} is not there"
    first, *others = refused.refusals
    one, several = _refuses(first, refused.reservations)
    if own_node:
        return f"{own_node} {one}"
    if first.nodes == refused.nodes:
        return f"the only node {one}" if first.nodes == 1 else f"all {first.nodes} nodes {several}"
    begin = f"{first.nodes} of {refused.nodes} nodes {one if first.nodes == 1 else several}"
    return ", ".join([begin, *(_also(other, refused.reservations) for other in others)])


# --- a task


class _Sentence:
    """What is said of one task; one method for each reason."""

    def __init__(self, told: pb.Explanation, names: Names, now: float) -> None:
        self._told = told
        self._names = names
        self._now = now
        self._state = S.Name(told.state)

    def text(self) -> str:
        """The sentence."""
        reason = self._told.WhichOneof("reason")
        say: Callable[[object], str] | None = getattr(self, f"_{reason}", None) if reason else None
        if say is None:
            # A newer manager may know more reasons than this program.
            return f"{self._state}: {self._told.status_err or self._told.status_message}"
        return say(getattr(self._told, str(reason)))

    def _here(self) -> str:
        return f" on {self._names.node(self._told.node_id)}" if self._told.node_id else ""

    def _as_wanted(self, reason: pb.AsWanted) -> str:
        if self._told.state <= S.RUNNING:
            return f"as wanted: {self._state}{_lasting(reason.since, self._now)}{self._here()}"
        return f"as wanted: {self._state} {parts.age(reason.since, self._now)}{_replaced(reason.replaced_by)}"

    def _awaits_allocation(self, reason: pb.AwaitsAllocation) -> str:
        if reason.lacking:
            return f"new{_lasting(reason.since, self._now)}, waits: {reason.lacking}"
        networks = f" to give it the networks {', '.join(reason.networks)}" if reason.networks else ""
        return f"new{_lasting(reason.since, self._now)}, waits for the allocator{networks}"

    def _no_suitable_node(self, reason: pb.NoSuitableNode) -> str:
        own = f"its node {self._names.node(self._told.node_id)}" if self._told.node_id else ""
        return f"no suitable node: {_refusals(reason, own)}"

    def _awaits_scheduler(self, reason: pb.AwaitsScheduler) -> str:
        return f"about to get a node: {_count(reason.suitable, 'node')} {'suits' if reason.suitable == 1 else 'suit'} it"

    def _awaits_delay(self, reason: pb.AwaitsDelay) -> str:
        text = f"waits for its restart delay, starts {_ahead(reason.until, self._now)}"
        if reason.attempt:
            text += f" (restart {reason.attempt}" + (f" of {reason.max_attempts})" if reason.max_attempts else ")")
        if reason.predecessor:
            text += f"; before it {reason.predecessor} ended{_cause(reason.error, reason.exit_code)}"
        return text

    def _awaits_predecessor(self, reason: pb.AwaitsPredecessor) -> str:
        where = f" on {self._names.node(reason.node_id)}" if reason.node_id else ""
        patience = _ahead(reason.until, self._now)
        return f"ready, waits until {reason.task_id}{where} has stopped ({S.Name(reason.state)}); starts {patience} at the latest"

    def _update_waits(self, reason: pb.UpdateWaits) -> str:
        what = "rollback" if reason.rollback else "update"
        if reason.replaced_by:
            return f"runs an older version until {reason.replaced_by} runs, which takes its place in the {what}"
        turns = _turns(reason.parallelism, reason.busy, reason.pending)
        return f"runs an older version, waits for its turn in the {what}: {turns}{_next(reason, self._now)}"

    def _update_paused(self, reason: pb.UpdatePaused) -> str:
        failures = f" ({_count(reason.failures, 'failure')})" if reason.failures else ""
        return f"runs an older version: {reason.message or 'the update is paused'}{failures}"

    def _image_unavailable(self, reason: pb.ImageUnavailable) -> str:
        text = f"image {reason.image} cannot be had{self._here()}: {reason.error}"
        return text + (self._aftermath(reason.failed) if reason.HasField("failed") else "; it is tried again")

    def _failed(self, reason: pb.Failed) -> str:
        ended = {S.FAILED: "failed", S.REJECTED: "was rejected", S.ORPHANED: "was given up with its node", S.SHUTDOWN: "was stopped"}
        text = f"{ended.get(self._told.state, 'ended')} {parts.age(reason.at, self._now)}{self._here()}"
        if self._told.state != S.ORPHANED:
            text += _cause(reason.error, reason.exit_code)
        if reason.times > 1:
            text += f"; {reason.times} times in a row"
        return text + self._aftermath(reason)

    def _aftermath(self, reason: pb.Failed) -> str:
        if reason.replaced_by:
            return _replaced(reason.replaced_by)
        if reason.gives_up == pb.Failed.CONDITION:
            return "; its restart condition forbids another"
        if reason.gives_up == pb.Failed.MAX_ATTEMPTS:
            return f"; given up: its restart policy allows {_count(reason.max_attempts, 'restart')}"
        if reason.gives_up == pb.Failed.SUCCESS:
            return "; it is done"
        return f"; another starts {_ahead(reason.restart_at, self._now)}" if reason.HasField("restart_at") else ""

    def _node_away(self, reason: pb.NodeAway) -> str:
        node = self._names.node(reason.node_id)
        if not reason.HasField("state"):
            return f"its node {node} was removed{_replaced(reason.replaced_by)}"
        state = api.NodeStatus.State.Name(reason.state)
        text = f"its node {node} is {_ARE.get(state, state)}{_lasting(reason.since, self._now)}"
        if reason.message:
            text += f" ({reason.message})"
        if reason.HasField("given_up_at") and self._told.state >= S.ASSIGNED:
            text += f"; what may still run there is given up {_ahead(reason.given_up_at, self._now)}"
        return text + _replaced(reason.replaced_by)

    def _node_drained(self, reason: pb.NodeDrained) -> str:
        node = self._names.node(reason.node_id)
        return (
            f"its node {node} is drained; it has to leave"
            if self._told.state <= S.RUNNING
            else f"{self._state}; its node {node} is drained"
        )

    def _node_paused(self, reason: pb.NodePaused) -> str:
        return f"{self._state}; its node {self._names.node(reason.node_id)} is paused and gets no new task"

    def _starting(self, reason: pb.Starting) -> str:
        error = f"; last error: {reason.error}" if reason.error else ""
        return f"on its way up: {self._state}{_lasting(reason.since, self._now)}{self._here()}{error}"

    def _stopping(self, reason: pb.Stopping) -> str:
        grace = f"; killed after {parts.duration(reason.grace)}" if times.seconds_of(reason.grace) else ""
        return f"stopping{_lasting(reason.since, self._now)}{self._here()} ({self._state}){grace}{_replaced(reason.replaced_by)}"

    def _dependency_missing(self, reason: pb.DependencyMissing) -> str:
        kinds: Sequence[tuple[str, Sequence[str]]] = (("secret", reason.secrets), ("config", reason.configs))
        wanted = [f"{kind} {one}" for kind, ids in kinds for one in ids]
        return f"{self._state}{self._here()}: needs {', '.join(wanted)}, which cannot be given to it"

    def _service_gone(self, reason: pb.ServiceGone) -> str:
        return f"its service was removed; stopping{_lasting(reason.since, self._now)}{self._here()} ({self._state})"


# --- words


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cause(error: str, exit_code: int) -> str:
    text = error or (f"exit code {exit_code}" if exit_code else "")
    return f": {text}" if text else ""


def _replaced(task_id: str) -> str:
    return f"; replaced by {task_id}" if task_id else ""


def _lasting(since: Timestamp, now: float) -> str:
    """` for 3 minutes`; nothing where no time is known."""
    seconds = times.seconds_of(since)
    return f" for {units.relative_time(min(seconds, now - 1), now).removesuffix(' ago')}" if seconds else ""


def _ahead(moment: Timestamp, now: float) -> str:
    """`in 5 seconds`, or `now` when it is over."""
    seconds = times.seconds_of(moment)
    return f"in {units.relative_time(max(seconds, now + 1), now).removesuffix(' from now')}" if seconds > now else "now"
