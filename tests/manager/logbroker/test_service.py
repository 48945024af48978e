"""Readers and nodes through the broker, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.logs import MISSING
from pyswarm.errors import Cancelled, InvalidArgument, NotFound, PermissionDenied, SwarmError, Unknown
from pyswarm.manager.logbroker.broker import DOUBT_SECONDS
from pyswarm.manager.logbroker.feeds import OUTBOX_BYTES
from pyswarm.manager.logbroker.subscription import LINGER, LISTEN_PATIENCE, SILENCE
from pyswarm.manager.store import Store
from tests.manager.dispatcher.support import Reader, S, change, create, report
from tests.manager.dispatcher.support import node as stored_node
from tests.manager.logbroker.support import OPERATOR, Harness, line, node, service, task, texts
from tests.support.clock import VirtualClock, settle

INCOMPLETE = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "


def opened(listener: Reader) -> list[str]:
    """The ids that a node was told, in order."""
    return [message.id for message in listener.messages if not message.close]


def closed(listener: Reader) -> list[str]:
    """The ids that a node was told to forget."""
    return [message.id for message in listener.messages if message.close]


async def remove(store: Store, *objects: object) -> None:
    """Remove objects from the store."""
    await store.update(
        lambda tx: [getattr(tx, type(one).__name__.lower() + "s").delete(one.id) for one in objects]  # type: ignore[attr-defined]
    )
    await settle()


# --- who is asked


async def test_many_publishers(b: Harness) -> None:
    """Followed by node, every message of many calls at once arrives, each once. [dispatcher 150] [control 132]"""
    reader = await b.read(nodes=["n1"], follow=True)
    [told] = opened(await b.listen())
    publishing = [await b.publish(told, line(f"t{i}", f"{i}.0")) for i in range(40)]
    for number in range(1, 5):
        for i, one in enumerate(publishing):
            one.send(told, line(f"t{i}", f"{i}.{number}"))
    await settle(400)
    assert sorted(texts(reader)) == sorted(f"{i}.{number}" for i in range(40) for number in range(5))
    assert not reader.ended


async def test_each_node_is_asked_for_what_it_has(b: Harness) -> None:
    """A node is told the subscriptions that mean it, each with its own id, also when it comes later. [dispatcher 152] [control 133]"""
    first = await b.listen("n1")
    await b.read(nodes=["n1"], follow=True)
    await b.read(nodes=["n1", "n2"], follow=True)
    one, both = opened(first)
    assert one != both
    second = await b.listen("n2")
    assert opened(second) == [both]
    assert closed(first) == closed(second) == []


async def test_following_a_task_that_waits(b: Harness) -> None:
    """A task without node tells nobody; once it has one, that node is told and no other. [dispatcher 153] [control 134]"""
    first, second = await b.listen("n1"), await b.listen("n2")
    await create(b.store, task("t", S.NEW, node_id=""))
    await b.read(tasks=["t"], follow=True)
    assert opened(first) == []
    await change(b.store, api.Task(id="t"), node_id="n1")
    await settle()
    assert len(opened(first)) == 1
    assert opened(second) == []


async def test_following_a_service(b: Harness) -> None:
    """A node is told at the first task of the service that comes to it, once; tasks of other services tell nobody.

    [dispatcher 154] [control 134]
    """
    first, second = await b.listen("n1"), await b.listen("n2")
    await b.read(services=["web"], follow=True)
    await create(b.store, task("other", service="db"))
    await settle()
    assert opened(first) == []
    await create(b.store, task("t1"))
    await create(b.store, task("t2"))
    await settle()
    assert (len(opened(first)), len(opened(second))) == (1, 0)
    await create(b.store, task("t3", S.ASSIGNED, node_id="n2"))
    await settle()
    assert opened(first) == opened(second)


async def test_a_docker_engine_is_not_asked_for_what_never_ran(b: Harness) -> None:
    """Without following, a node with tasks that were never started is asked for the others by id: an engine would wait for ever for the
    start of those. A node with nothing else is not asked at all. [cli 77]
    """
    await create(
        b.store,
        task("ran"),
        task("unstarted", S.FAILED, err="starting container failed: no such program"),
        task("rejected", S.REJECTED, node_id="n2"),
        task("plain", node_id="n3"),
    )
    listeners = {name: await b.listen(name) for name in ("n1", "n2", "n3")}
    await b.read(services=["web"])
    selectors = {name: [message.selector for message in listener.messages] for name, listener in listeners.items()}
    assert selectors == {"n1": [api.LogSelector(task_ids=["ran"])], "n2": [], "n3": [api.LogSelector(service_ids=["web"])]}


# --- to the end of what there is


async def test_two_nodes_to_the_end(b: Harness) -> None:
    """Both nodes are told the same id; the reader gets what both have, then a clean end. [dispatcher 155] [control 135]"""
    await create(b.store, task("t1"), task("t2", node_id="n2"), task("t3", S.SHUTDOWN, node_id="n2"))
    first, second = await b.listen("n1"), await b.listen("n2")
    reader = await b.read(services=["web"])
    [told] = opened(first)
    assert opened(second) == [told]
    one = await b.publish(told, line("t1", "a"))
    one.end()
    await settle()
    assert one.ended
    assert not reader.ended
    two = await b.publish(told, line("t2", "b", node_id="n2"), node_id="n2")
    two.send(told, close=True)
    await settle()
    assert texts(reader) == ["a", "b"]
    assert reader.ended
    assert reader.error is None


@pytest.mark.parametrize(("state", "patience"), [(None, 0.0), (api.NodeStatus.DOWN, 0.0), (api.NodeStatus.READY, LISTEN_PATIENCE)])
async def test_a_node_that_is_away(b: Harness, state: api.NodeStatus.State.ValueType | None, patience: float) -> None:
    """What the others have is read, then an error names the node. One that should be there is waited for a moment.

    [dispatcher 156] [control 136] [cli 77]
    """
    await create(b.store, task("t1"), task("t2", node_id="n2"))
    if state is not None:
        await create(b.store, stored_node("n2", state))
    listener = await b.listen("n1")
    reader = await b.read(services=["web"])
    one = await b.publish(opened(listener)[0], line("t1", "a"))
    one.end()
    await settle()
    assert reader.ended == (patience == 0.0)
    await b.clock.advance(patience)
    assert texts(reader) == ["a"]
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}node n2 is not available"


async def test_nothing_to_read(b: Harness) -> None:
    """Tasks that are not running yet, tasks and services that do not exist: a clean end at once. [dispatcher 157] [control 137]"""
    await create(b.store, task("t", S.NEW, node_id=""))
    for reader in (await b.read(services=["web", "unknown"]), await b.read(tasks=["unknown"])):
        assert (reader.messages, reader.ended, reader.error) == ([], True, None)


async def test_tasks_without_a_node(b: Harness) -> None:
    """A task asked for by id that no node has is an error at the end, unless it is followed. [dispatcher 157]"""
    await create(b.store, task("t2", S.PENDING, node_id=""), task("t1", S.PENDING, node_id=""))
    reader = await b.read(tasks=["t1", "t2"])
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}task t1 has not been scheduled, task t2 has not been scheduled"
    assert not (await b.read(tasks=["t1"], follow=True)).ended


async def test_a_node_that_goes_away(b: Harness) -> None:
    """A node whose streams end before it has sent everything is given a moment, then named at the end. [dispatcher 158] [control 137]"""
    await create(b.store, task("t1"), task("t2", node_id="n2"))
    first, second = await b.listen("n1"), await b.listen("n2")
    reader = await b.read(services=["web"])
    await b.publish(opened(first)[0], line("t1", "a"), close=False)
    one = await b.publish(opened(first)[0], line("t1", "b"))
    one.end()
    await second.close()
    await b.clock.advance(LISTEN_PATIENCE)
    assert texts(reader) == ["a", "b"]
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}node n2 disconnected unexpectedly"


async def test_a_broken_call(b: Harness) -> None:
    """A call that breaks off is not the end of a node's output. [dispatcher 158]"""
    await create(b.store, task("t"))
    listener = await b.listen()
    reader = await b.read(services=["web"])
    one = await b.publish(opened(listener)[0], line("t", "a"))
    await one.cut()
    await b.clock.advance(LISTEN_PATIENCE)
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}node n1 disconnected unexpectedly"


async def test_messages_that_just_end(b: Harness) -> None:
    """The end of a node's messages without a word is the end of its output, unless the news comes that the call was cut.

    [dispatcher 155, 158]
    """
    listener = await b.listen()
    readers = [await b.read(nodes=["n1"]) for _ in range(2)]
    whole, broken = [await b.publish(told, line("t", "a")) for told in opened(listener)]
    whole.stop()
    broken.stop()
    await b.clock.advance(DOUBT_SECONDS / 2)
    assert not any(reader.ended for reader in readers)
    await broken.cut()
    await b.clock.advance(DOUBT_SECONDS / 2)
    assert (whole.ended, whole.error) == (True, None)
    assert (readers[0].ended, readers[0].error) == (True, None)
    await b.clock.advance(LISTEN_PATIENCE)
    assert isinstance(readers[1].error, Unknown)
    assert readers[1].error.message == f"{INCOMPLETE}node n1 disconnected unexpectedly"


async def test_all_of_a_node(b: Harness) -> None:
    """Asked for by node, it is read until that node has finished, like any other. [dispatcher 159] [control 132]"""
    listener = await b.listen()
    reader = await b.read(nodes=["n1"])
    one = await b.publish(opened(listener)[0], line("t", "a"))
    assert not reader.ended
    one.end()
    await settle()
    again = await b.publish(opened(listener)[0], node_id="n1")
    assert (texts(reader), reader.ended, reader.error) == (["a"], True, None)
    assert isinstance(again.error, NotFound)


async def test_a_node_that_is_stuck(b: Harness) -> None:
    """A node that sends neither lines nor the end for a minute is not waited for any longer; one that follows may be silent."""
    listener = await b.listen()
    reader = await b.read(nodes=["n1"])
    follower = await b.read(nodes=["n1"], follow=True)
    await b.clock.advance(SILENCE - 1)
    await b.publish(opened(listener)[0], line("t", "a"))
    await b.clock.advance(SILENCE - 1)
    assert not reader.ended
    await b.clock.advance(1)
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}node n1 has sent nothing for 60 s"
    assert not follower.ended


async def test_closing_with_lines(b: Harness) -> None:
    """The message that closes is the end; lines in it are dropped, and the call is answered well. [dispatcher 161]"""
    listener = await b.listen()
    reader = await b.read(nodes=["n1"])
    one = await b.publish(opened(listener)[0], line("t", "late"), close=True)
    assert one.ended
    assert one.error is None
    assert (reader.messages, reader.ended, reader.error) == ([], True, None)


# --- following


async def test_the_reader_leaves(b: Harness) -> None:
    """Nodes still at work are told to stop, those that have finished are not, and their calls end. [dispatcher 162]"""
    first, second = await b.listen("n1"), await b.listen("n2")
    reader = await b.read(nodes=["n1", "n2"], follow=True)
    [told] = opened(first)
    one = await b.publish(told, line("t", "a"))
    two = await b.publish(told, node_id="n2")
    two.end()
    await settle()
    await reader.close()
    await settle()
    assert closed(first) == [told]
    assert closed(second) == []
    assert one.ended
    assert one.error is None


async def test_messages_do_not_change(b: Harness) -> None:
    """What a node was told stays as it was when the subscription is closed. [dispatcher 164]"""
    listener = await b.listen()
    reader = await b.read(nodes=["n1"], follow=True)
    before = api.SubscriptionMessage()
    before.CopyFrom(listener.messages[0])
    await reader.close()
    await settle()
    assert listener.messages[0] == before
    assert not before.close


async def test_what_a_node_did_not_take(b: Harness) -> None:
    """A subscription that ended before the node heard of it is not mentioned to it."""
    stream = b.service.ListenSubscriptions(api.ListenSubscriptionsRequest(), node("n1"))
    waiting = asyncio.ensure_future(anext(stream))
    await settle()
    await (await b.read(nodes=["n1"], follow=True)).close()
    await settle()
    await waiting  # it was waiting for just this one
    for _ in range(3):
        await (await b.read(nodes=["n1"], follow=True)).close()
    reader = await b.read(nodes=["n1"], follow=True)
    heard = [await anext(stream), await anext(stream)]
    assert [message.close for message in heard] == [True, False]
    await stream.aclose()
    await reader.close()


async def test_a_second_stream(b: Harness) -> None:
    """A node that opens another stream and drops the first is there all the time. [dispatcher 163]"""
    first = await b.listen()
    reader = await b.read(nodes=["n1"], follow=True)
    second = await b.listen()
    await first.close()
    await b.clock.advance(LISTEN_PATIENCE)
    await b.publish(opened(second)[-1], line("t", "a"))
    later = await b.read(nodes=["n1"])
    one = await b.publish(opened(second)[-1])
    one.end()
    await settle()
    assert texts(reader) == ["a"]
    assert (later.ended, later.error) == (True, None)


async def test_the_newer_stream_goes_first(b: Harness) -> None:
    """When of two streams the newer one ends, the other hears of what it had been told."""
    first, second = await b.listen(), await b.listen()
    reader = await b.read(nodes=["n1"], follow=True)
    assert opened(first) == []
    await second.close()
    await settle()
    await b.publish(opened(first)[0], line("t", "a"))
    assert texts(reader) == ["a"]


async def test_a_node_comes_back(b: Harness) -> None:
    """A node that lost its connection is asked again under a new id, sends its logs from the start, and the reader has no line twice
    and none too few, also of lines with the same time.
    """
    await create(b.store, task("t1"), task("t2"))
    for follow in (False, True):
        first = await b.listen()
        reader = await b.read(services=["web"], follow=follow)
        lines = [line("t1", "a", 1.0), line("t1", "b", 2.0), line("t2", "c", 1.5), line("t1", "d", 2.0), line("t1", "e", 2.0)]
        before = await b.publish(opened(first)[0], *lines[:4])
        await first.close()
        await before.cut()
        await b.clock.advance(LISTEN_PATIENCE - 1)
        second = await b.listen()
        assert closed(second) == opened(first)
        [again] = opened(second)
        assert again not in opened(first)
        one = await b.publish(again, *lines, line("t1", "f", 3.0), line("t2", "g", 1.6))
        one.end()
        await settle()
        assert texts(reader) == ["a", "b", "c", "d", "e", "f", "g"]
        assert (reader.ended, reader.error) == (not follow, None)
        await second.close()
        await reader.close()


async def test_a_tail_is_not_counted_anew(b: Harness) -> None:
    """A node that comes back while a tail is followed is asked for what is newer than the last line it sent, however much that is."""
    await create(b.store, task("t"))
    first = await b.listen()
    await b.read(services=["web"], follow=True, tail=-2)
    assert first.messages[0].options.tail == -2
    await b.publish(opened(first)[0], line("t", "a", 1.5))
    await first.close()
    second = await b.listen()
    options = second.messages[-1].options
    assert (options.tail, options.since.seconds, options.since.nanos, options.follow) == (0, 1, 500_000_000, True)


async def test_a_note_of_what_is_missing(b: Harness) -> None:
    """Following goes on without a node that is away; one note says so, once each time it goes. [dispatcher 156 in part]"""
    await create(b.store, task("t1"), task("t2", node_id="n2"))
    first = await b.listen("n1")
    reader = await b.read(services=["web"], follow=True)
    await b.publish(opened(first)[0], line("t1", "a"))
    await b.clock.advance(100)
    [note] = [message for batch in reader.messages for message in batch.messages if message.attrs]
    assert note.attrs == [api.LogAttr(key=MISSING, value="n2")]
    assert note.context == api.LogContext(node_id="n2")
    assert note.data == b"warning: node n2 is not available; what its tasks write is missing\n"
    second = await b.listen("n2")
    await b.publish(opened(second)[0], line("t2", "b", node_id="n2"), node_id="n2")
    await second.close()
    await b.clock.advance(100)
    assert texts(reader) == ["a", note.data.decode(), "b", note.data.decode()]
    assert not reader.ended


async def test_following_ends_with_the_service(b: Harness) -> None:
    """When the service and its tasks are gone, following ends well, a moment after the last line."""
    await create(b.store, service(), task("t1"), task("t2"))
    listener = await b.listen()
    reader = await b.read(services=["web"], follow=True)
    one = await b.publish(opened(listener)[0], line("t1", "a"))
    await remove(b.store, service())
    await b.clock.advance(10 * LINGER)
    assert not reader.ended
    await report(b.store, "t1", S.SHUTDOWN)
    await remove(b.store, task("t2"))
    await b.clock.advance(LINGER - 1)
    one.send(opened(listener)[0], line("t1", "b"))
    await b.clock.advance(LINGER - 1)
    assert not reader.ended
    await b.clock.advance(1)
    assert (texts(reader), reader.ended, reader.error) == (["a", "b"], True, None)
    assert closed(listener) == opened(listener)


async def test_following_ends_with_the_task(b: Harness) -> None:
    """A task that is followed by id has written its last line when it has ended."""
    await create(b.store, task("t"))
    await b.listen()
    reader = await b.read(tasks=["t"], follow=True)
    await b.clock.advance(10 * LINGER)
    assert not reader.ended
    await report(b.store, "t", S.COMPLETE)
    await b.clock.advance(LINGER)
    assert (reader.ended, reader.error) == (True, None)


async def test_one_stream(b: Harness) -> None:
    """A node that sends both streams though only one was asked for is put right."""
    listener = await b.listen()
    selector, options = api.LogSelector(node_ids=["n1"]), api.LogSubscriptionOptions(streams=[api.LogStream.LOG_STREAM_STDERR])
    reader = await b.subscribe(api.SubscribeLogsRequest(selector=selector, options=options))
    err = line("t", "err")
    err.stream = api.LogStream.LOG_STREAM_STDERR
    await b.publish(opened(listener)[0], line("t", "out"), err, line("t", "out"))
    assert texts(reader) == ["err"]


# --- hostile and slow


async def test_what_is_not_a_subscription(b: Harness) -> None:
    """A request must select something. [dispatcher 160] [control 132]"""
    for request, text in (
        (api.SubscribeLogsRequest(), "log selector must be provided"),
        (api.SubscribeLogsRequest(selector=api.LogSelector()), "log selector must not be empty"),
    ):
        reader = await b.subscribe(request)
        assert isinstance(reader.error, InvalidArgument)
        assert reader.error.message == text


async def test_what_is_not_published(b: Harness) -> None:
    """Without id, under an unknown one, for another node: refused, and nothing of it is relayed. [dispatcher 160] [control 138]"""
    await create(b.store, task("t"), task("foreign", node_id="n2"), task("theirs", service="db"))
    listener = await b.listen()
    reader = await b.read(nodes=["n1"], follow=True)
    [told] = opened(listener)
    cases: list[tuple[str, str, type[SwarmError], str]] = [
        ("", "n1", InvalidArgument, "missing subscription ID"),
        ("nope", "n1", NotFound, "unknown subscription ID"),
        (told, "n2", NotFound, "unknown subscription ID"),
    ]
    for subscription_id, node_id, kind, text in cases:
        refused = await b.publish(subscription_id, line("t", "x", node_id=node_id), node_id=node_id)
        assert isinstance(refused.error, kind)
        assert str(refused.error) == text
    for bad, text in (
        (line("t", "x", node_id="n2"), "invalid NodeID: expected=n1;received=n2"),
        (line("foreign", "x"), "task foreign of service web is not on node n1"),
        (line("theirs", "x"), "task theirs of service web is not on node n1"),
    ):
        refused = await b.publish(told, line("t", "good"), bad)
        assert isinstance(refused.error, PermissionDenied)
        assert str(refused.error) == text
    await b.publish(told, line("t", "a"))
    assert texts(reader) == ["a"]


async def test_one_subscription_per_call(b: Harness) -> None:
    """The id cannot change in the middle of a call; the reader learns what the node did wrong. [dispatcher 160] [control 138]"""
    listener = await b.listen()
    reader = await b.read(nodes=["n1"])
    await b.read(nodes=["n1"])
    one_id, other_id = opened(listener)
    one = await b.publish(one_id, line("t", "a"))
    one.send(other_id, line("t", "b"))
    await settle()
    assert isinstance(one.error, InvalidArgument)
    assert str(one.error) == "different subscription IDs in the same session"
    assert texts(reader) == ["a"]
    assert isinstance(reader.error, Unknown)
    assert reader.error.message == f"{INCOMPLETE}different subscription IDs in the same session"


async def test_a_reader_that_stands_still(b: Harness) -> None:
    """With a megabyte waiting for the reader the node waits too, without being blamed for its silence; nothing is dropped."""
    listener = await b.listen()
    request = api.SubscribeLogsRequest(selector=api.LogSelector(node_ids=["n1"]))
    stream = b.service.SubscribeLogs(request, OPERATOR)
    first = asyncio.ensure_future(anext(stream))
    await settle()
    [told] = opened(listener)
    piece = "x" * (OUTBOX_BYTES // 4)
    one = await b.publish(told, line("t", "0" + piece))
    for number in range(1, 9):
        one.send(told, line("t", f"{number}{piece}"))
    one.send(told, close=True)
    await b.clock.advance(2 * SILENCE)
    assert one.taken < 8
    received = [await first] + [message async for message in stream]
    assert [message.messages[0].data[:1] for message in received] == [b"%d" % number for number in range(9)]
    assert one.ended


# --- leadership


async def test_the_term_ends(store: Store, clock: VirtualClock) -> None:
    """Readers and publishers are cancelled, listeners end well, every later call is refused.

    [dispatcher 151 in part] [control 139 in part]
    """
    stray = Harness(store, clock)
    for reader in (await stray.read(nodes=["n1"]), await stray.listen()):
        assert isinstance(reader.error, Unknown)
        assert reader.error.message == "broker is not running"
    running = asyncio.create_task(stray.service.run())
    await settle()
    with pytest.raises(Unknown, match=r"^broker is already running$"):
        await stray.service.run()
    listener = await stray.listen()
    readers = [await stray.read(nodes=["n1"], follow=follow) for follow in (True, False)]
    one = await stray.publish(opened(listener)[0], line("t", "a"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await settle()
    assert [type(reader.error) for reader in readers] == [Cancelled, Cancelled]
    assert isinstance(one.error, Cancelled)
    assert (listener.ended, listener.error) == (True, None)
    late = await stray.publish(opened(listener)[0], line("t", "b"))
    assert isinstance(late.error, Unknown)
    await stray.close()
