"""`task why`: what is asked for, and every sentence."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.message import Message

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb

from . import builders as b
from .conftest import Run
from .fake import Manager, object_id

S = api.TaskState
N = api.NodeStatus
WEB, AGENT = object_id(86), object_id(87)
TASK, OTHER = object_id(101), object_id(102)


def at(seconds: float) -> object:
    """A moment so far from now; before it when negative."""
    return times.timestamp(b.NOW + seconds)


def span(seconds: float) -> object:
    """A duration."""
    return times.duration(seconds)


@pytest.fixture(autouse=True)
def cluster(manager: Manager) -> None:
    """web with two tasks on node-1 and node-2, and the global agent."""
    for number in (1, 2):
        manager.add(b.node(number))
    web, agent = b.service(86, "web", 2), b.service(87, "agent", None)
    manager.add(web)
    manager.add(agent)
    manager.add(b.task(101, web, 1, 1, 9))
    manager.add(b.task(102, web, 2, 2, 9))


def asked(manager: Manager, run: Run, *words: str) -> pb.ExplainRequest:
    """What the command asks for."""
    result = run("task", "why", *words)
    assert result.exit_code == 0, result.stderr
    (request,) = manager.requests("Explain")
    manager.calls.clear()
    return request  # type: ignore[return-value]


def test_what_is_meant(manager: Manager, run: Run) -> None:
    """A task by ID, prefix or full name; a service by ID, name or prefix; a place by its number or its node."""
    for words in (TASK, object_id(101)[:6], f"web.1.{TASK}"):
        assert asked(manager, run, words) == pb.ExplainRequest(task_id=TASK)
    for words in (WEB, "web", WEB[:6]):
        assert asked(manager, run, words) == pb.ExplainRequest(service_id=WEB)
    assert asked(manager, run, "web.2") == pb.ExplainRequest(service_id=WEB, slot=2)
    assert asked(manager, run, "web.0") == pb.ExplainRequest(service_id=WEB, slot=0)
    assert asked(manager, run, "agent.node-2") == pb.ExplainRequest(service_id=AGENT, node_id=b.node_id(2))


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("nosuch",), 1, "no task or service nosuch found; 'pyswarmctl task ls -a' and 'pyswarmctl service ls' show what there is"),
        (("nosuch.1",), 1, "no task or service nosuch.1 found"),
        (("web.first",), 1, "task web.first not found"),
        (("agent.node-9",), 1, "node node-9 not found"),
        (("id01",), 1, "task id01 is ambiguous (2 matches found)"),
        ((), 2, "task or service missing"),
        (("web", "agent"), 2, "why command takes exactly 1 argument"),
        (("web", "-o", "yaml"), 2, "--output is text or json, not yaml"),
    ],
)
def test_errors(run: Run, words: tuple[str, ...], status: int, text: str) -> None:
    """What is not found or not understood is said in one line."""
    result = run("task", "why", *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(f"Error: {text}")


def test_another_kind_of_manager(manager: Manager, run: Run) -> None:
    """A manager that is not pyswarm says that it has no such service: the user learns what to do instead."""
    manager.failures["Explain"] = (grpc.StatusCode.UNIMPLEMENTED, "unknown service pyswarm.v1.Why")
    result = run("task", "why", "web.1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        "explains no tasks: it is not pyswarm, or an older one; 'pyswarmctl task inspect web.1' shows a task's last error" in result.stderr
    )


def test_json(manager: Manager, run: Run) -> None:
    """-o json is the message itself, with the names of its fields."""
    manager.explanations = pb.ExplainResponse(explanations=[told(pb.AwaitsDelay(attempt=2, until=at(5)))])
    data = json.loads(run("task", "why", "web.1", "-o", "json").stdout)
    (explanation,) = data["explanations"]
    assert (explanation["task_id"], explanation["state"]) == (TASK, "READY")
    assert explanation["awaits_delay"]["attempt"] == "2"


REASONS = {type(getattr(pb.Explanation(), f.name)): f.name for f in pb.Explanation.DESCRIPTOR.oneofs_by_name["reason"].fields}


def told(reason: Message, state: api.TaskState.ValueType = S.READY, node: int = 0, *, of_node: bool = False) -> pb.Explanation:
    """web.1 with a reason; `of_node` makes it the agent of its node."""
    made = pb.Explanation(
        task_id=TASK,
        service_id=AGENT if of_node else WEB,
        service_name="agent" if of_node else "web",
        slot=0 if of_node else 1,
        node_id=b.node_id(node) if node else "",
        state=state,
        place_is_node=of_node,
    )
    getattr(made, REASONS[type(reason)]).CopyFrom(reason)
    return made


def refusal(filter_name: str, lacking: str, nodes: int) -> pb.Refusal:
    """Some nodes refuse."""
    return pb.Refusal(filter=filter_name, lacking=lacking, nodes=nodes, sentence="their sentence")


def none_of(nodes: int, *refusals: pb.Refusal) -> pb.NoSuitableNode:
    """No node suits a task that reserves all sorts of things."""
    reserved = api.Resources(memory_bytes=2 << 30, nano_cpus=1_500_000_000)
    reserved.generic.add().discrete_resource_spec.CopyFrom(api.DiscreteGenericResource(kind="gpu", value=2))
    return pb.NoSuitableNode(nodes=nodes, refusals=refusals, reservations=reserved)


ONES = (
    ("resources", "CPUs"),
    ("resources", "gpu"),
    ("plugins", "Volume x"),
    ("constraints", "node.id==a"),
    ("platform", "linux/arm64"),
    ("host ports", "80/tcp"),
    ("max replicas", "2"),
)
SENTENCES: list[tuple[pb.Explanation, str]] = [
    (told(pb.AsWanted(since=at(-180)), S.RUNNING, 1), "web.1: as wanted: RUNNING for 3 minutes on node-1"),
    (told(pb.AsWanted(since=at(-180), replaced_by=OTHER), S.SHUTDOWN, 1), f"web.1: as wanted: SHUTDOWN 3 minutes ago; replaced by {OTHER}"),
    (told(pb.AwaitsAllocation(since=at(-5), networks=["a"], lacking="no x"), S.NEW), "web.1: new for 5 seconds, waits: no x"),
    (told(pb.AwaitsAllocation(since=at(-5)), S.NEW), "web.1: new for 5 seconds, waits for the allocator"),
    (
        told(pb.AwaitsAllocation(since=at(-5), networks=["a", "b"]), S.NEW),
        "web.1: new for 5 seconds, waits for the allocator to give it the networks a, b",
    ),
    (
        told(none_of(5, refusal("ready", "DRAIN", 3), refusal("resources", "memory", 2)), S.PENDING),
        "web.1: no suitable node: 3 of 5 nodes are drained, 2 lack the memory it reserves (2.0 GiB)",
    ),
    (
        told(none_of(7, *(refusal(*one, 1) for one in ONES)), S.PENDING),
        "web.1: no suitable node: 1 of 7 nodes lacks the CPUs it reserves (1.5), 1 lacks the gpu it reserves (2), "
        "1 lacks the plugin Volume x, "
        "1 violates node.id==a, 1 has another platform than linux/arm64, 1 has port 80/tcp in use, "
        "1 has as many of its tasks as allowed (2 per node)",
    ),
    (
        told(none_of(4, refusal("volumes", "cluster volumes", 4)), S.PENDING),
        "web.1: no suitable node: all 4 nodes cannot mount cluster volumes",
    ),
    (told(none_of(1, refusal("ready", "DOWN", 1)), S.PENDING), "web.1: no suitable node: the only node is down"),
    (told(none_of(2, refusal("quota", "luck", 2)), S.PENDING), "web.1: no suitable node: all 2 nodes refuse it (their sentence)"),
    (told(none_of(0), S.PENDING), "web.1: no suitable node: there are no nodes"),
    (
        told(none_of(1, refusal("ready", "UNKNOWN", 1)), S.PENDING, 2, of_node=True),
        "agent.node-2: no suitable node: its node node-2 is not heard from",
    ),
    (told(pb.AwaitsScheduler(suitable=1), S.PENDING), "web.1: about to get a node: 1 node suits it"),
    (
        told(pb.AwaitsDelay(until=at(5), attempt=2, max_attempts=3, predecessor=OTHER, error="task: non-zero exit (3)", exit_code=3)),
        f"web.1: waits for its restart delay, starts in 5 seconds (restart 2 of 3); before it {OTHER} ended: task: non-zero exit (3)",
    ),
    (
        told(pb.AwaitsDelay(until=at(-1), attempt=1, predecessor=OTHER, exit_code=3)),
        f"web.1: waits for its restart delay, starts now (restart 1); before it {OTHER} ended: exit code 3",
    ),
    (
        told(pb.AwaitsPredecessor(task_id=OTHER, state=S.RUNNING, node_id=b.node_id(1), until=at(50))),
        f"web.1: ready, waits until {OTHER} on node-1 has stopped (RUNNING); starts in 50 seconds at the latest",
    ),
    (
        told(pb.UpdateWaits(parallelism=2, pending=3, busy=2, delay_until=at(8)), S.RUNNING),
        "web.1: runs an older version, waits for its turn in the update: 2 at a time, 2 in progress, 3 to go, the next in 8 seconds",
    ),
    (
        told(pb.UpdateWaits(rollback=True, pending=1), S.RUNNING),
        "web.1: runs an older version, waits for its turn in the rollback: all at once, 0 in progress, 1 to go",
    ),
    (
        told(pb.UpdateWaits(replaced_by=OTHER), S.RUNNING),
        f"web.1: runs an older version until {OTHER} runs, which takes its place in the update",
    ),
    (
        told(pb.UpdatePaused(message="update paused due to x", failures=2), S.RUNNING),
        "web.1: runs an older version: update paused due to x (2 failures)",
    ),
    (
        told(pb.ImageUnavailable(image="a:1", error="No such image: a:1"), S.PREPARING, 1),
        "web.1: image a:1 cannot be had on node-1: No such image: a:1; it is tried again",
    ),
    (
        told(pb.ImageUnavailable(image="a:1", error="No such image: a:1", failed=pb.Failed(gives_up=pb.Failed.CONDITION)), S.REJECTED, 1),
        "web.1: image a:1 cannot be had on node-1: No such image: a:1; its restart condition forbids another",
    ),
    (
        told(
            pb.Failed(error="task: non-zero exit (1)", exit_code=1, at=at(-60), times=3, gives_up=pb.Failed.MAX_ATTEMPTS, max_attempts=2),
            S.FAILED,
            1,
        ),
        "web.1: failed 1 minute ago on node-1: task: non-zero exit (1); 3 times in a row; given up: its restart policy allows 2 restarts",
    ),
    (
        told(pb.Failed(error="bad spec", at=at(-60), times=1, restart_at=at(9)), S.REJECTED),
        "web.1: was rejected 1 minute ago: bad spec; another starts in 9 seconds",
    ),
    (
        told(pb.Failed(at=at(-60), gives_up=pb.Failed.CONDITION), S.SHUTDOWN),
        "web.1: was stopped 1 minute ago; its restart condition forbids another",
    ),
    (told(pb.Failed(at=at(-60), replaced_by=OTHER), S.ORPHANED), f"web.1: was given up with its node 1 minute ago; replaced by {OTHER}"),
    (told(pb.Failed(at=at(-60), gives_up=pb.Failed.SUCCESS), S.COMPLETE), "web.1: ended 1 minute ago; it is done"),
    (
        told(
            pb.NodeAway(
                node_id=b.node_id(1), state=N.DOWN, since=at(-7200), message="heartbeat failure", given_up_at=at(79200), replaced_by=OTHER
            ),
            S.RUNNING,
            1,
        ),
        "web.1: its node node-1 is down for 2 hours (heartbeat failure); what may still run there is given up in 22 hours; "
        f"replaced by {OTHER}",
    ),
    (told(pb.NodeAway(node_id="gone"), S.RUNNING), "web.1: its node gone was removed"),
    (told(pb.NodeAway(node_id=b.node_id(1), state=N.UNKNOWN), S.STARTING, 1), "web.1: its node node-1 is not heard from"),
    (told(pb.NodeDrained(node_id=b.node_id(1)), S.RUNNING, 1), "web.1: its node node-1 is drained; it has to leave"),
    (
        told(pb.NodePaused(node_id=b.node_id(2)), S.FAILED, 2, of_node=True),
        "agent.node-2: FAILED; its node node-2 is paused and gets no new task",
    ),
    (
        told(pb.Starting(since=at(-10), error="engine restarting"), S.PREPARING, 1),
        "web.1: on its way up: PREPARING for 10 seconds on node-1; last error: engine restarting",
    ),
    (
        told(pb.Stopping(since=at(-3), grace=span(10), replaced_by=OTHER), S.RUNNING, 1),
        f"web.1: stopping for 3 seconds on node-1 (RUNNING); killed after 10s; replaced by {OTHER}",
    ),
    (
        told(pb.DependencyMissing(secrets=["a"], configs=["b"]), S.PREPARING, 1),
        "web.1: PREPARING on node-1: needs secret a, config b, which cannot be given to it",
    ),
    (
        told(pb.ServiceGone(since=at(-3), grace=span(10)), S.RUNNING, 1),
        "web.1: its service was removed; stopping for 3 seconds on node-1 (RUNNING)",
    ),
]


@pytest.mark.parametrize(("explanation", "sentence"), SENTENCES)
def test_sentences(manager: Manager, run: Run, explanation: pb.Explanation, sentence: str) -> None:
    """Each reason is one line, plain and exact."""
    manager.explanations = pb.ExplainResponse(explanations=[explanation])
    assert run("task", "why", "web.1").stdout == sentence + "\n"


def test_every_reason_has_a_sentence(manager: Manager, run: Run) -> None:
    """None is forgotten above; one that only a newer manager knows shows the status instead."""
    assert {explanation.WhichOneof("reason") for explanation, _ in SENTENCES} == set(REASONS.values())
    newer = pb.Explanation(task_id=TASK, service_id=WEB, service_name="web", slot=1, state=S.PENDING, status_err="no luck")
    manager.explanations = pb.ExplainResponse(explanations=[newer])
    assert run("task", "why", "web.1").stdout == "web.1: PENDING: no luck\n"


U = api.UpdateStatus


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (pb.Overview(wanted=3, as_wanted=3), ["all 3 tasks are as wanted"]),
        (pb.Overview(wanted=1, as_wanted=1), ["its only task is as wanted"]),
        (pb.Overview(wanted=5, as_wanted=1, missing=2, more=1), ["1 of 5 tasks as wanted, 2 still to be made", "1 more is not as wanted"]),
        (pb.Overview(wanted=0), ["0 of 0 tasks as wanted"]),
        (
            pb.Overview(wanted=9, as_wanted=4, missing=5, max_concurrent=2),
            ["4 of 9 tasks as wanted, 5 not begun (at most 2 at the same time)"],
        ),
        (
            pb.Overview(wanted=1, as_wanted=1, left_out=[refusal("ready", "DRAIN", 2), refusal("constraints", "node.id!=a", 1)]),
            ["its only task is as wanted", "no place on 3 nodes: 2 are drained, 1 violates node.id!=a"],
        ),
        (
            pb.Overview(
                wanted=2,
                as_wanted=2,
                update=pb.Update(
                    state=U.UPDATING, message="update in progress", parallelism=1, busy=1, pending=1, failures=1, delay_until=at(5)
                ),
            ),
            [
                "all 2 tasks are as wanted",
                "update in progress; 1 at a time, 1 in progress, 1 to go, 1 failed, the next in 5 seconds",
            ],
        ),
        (
            pb.Overview(
                wanted=2, as_wanted=2, update=pb.Update(state=U.ROLLBACK_COMPLETED, message="rollback completed", completed_at=at(-60))
            ),
            ["all 2 tasks are as wanted", "rollback completed 1 minute ago"],
        ),
    ],
)
def test_services(manager: Manager, run: Run, service: pb.Overview, expected: list[str]) -> None:
    """A service comes first, then its update, then where it has no place."""
    service.service_id = WEB
    manager.explanations = pb.ExplainResponse(service=service)
    assert run("task", "why", "web").stdout.splitlines() == [f"web: {line}" for line in expected]
