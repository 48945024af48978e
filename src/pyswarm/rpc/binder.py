"""From plain async classes to gRPC: services are described by their proto descriptors and know nothing of gRPC (design rule 6).

A service class has one method per RPC, named as in the proto:

* unary answer: `async def GetNode(self, request, caller) -> Response`
* streamed answer: `async def Session(self, request, caller)` written as an async generator (or any function that returns an async iterator)
* streamed request: `request` is an async iterator of messages

A method that is not there answers UNIMPLEMENTED. `SwarmError`s become their statuses; anything else is logged with its traceback and
becomes INTERNAL without a word about the inside.

Messages are decoded here and not by gRPC, because a call that the gate sends to another manager is passed on as the bytes it came in.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from pyswarm.cancellation import told_to_stop
from pyswarm.errors import Internal, InvalidArgument, SwarmError, Unavailable, Unimplemented
from pyswarm.rpc import relay
from pyswarm.rpc.authorize import REDIRECT
from pyswarm.rpc.caller import Caller
from pyswarm.rpc.forward import HERE
from pyswarm.rpc.relay import Passage
from pyswarm.telemetry import Calls

log = structlog.get_logger(__name__)

_KINDS = {(False, False): "unary", (False, True): "server_stream", (True, False): "client_stream", (True, True): "bidi_stream"}
_SPELT = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}
_STATUS = {status.value[0]: status for status in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A described service and the object that implements it (all of it, or some methods)."""

    descriptor: ServiceDescriptor
    implementation: object


class Gate(Protocol):
    """Runs before every method."""

    async def admit(self, method: MethodDescriptor, context: Context, refused_by: str | None = None) -> Caller | Passage:
        """Who is calling, or, for a call that another manager must answer, leave to pass it on. Raises SwarmError to refuse.

        `refused_by`: who refused the call since it was last admitted, because it does not lead (`forward.HERE` for this manager).
        """
        ...


def bind(descriptor: ServiceDescriptor, implementation: object) -> Service:
    """Pair a service with its implementation. Raises TypeError when a method is of the wrong kind (streamed or not)."""
    for method in descriptor.methods:
        function = getattr(implementation, method.name, None)
        if function is None:
            continue
        streamed = not inspect.iscoroutinefunction(function)
        if streamed != bool(method.server_streaming):
            wanted = "an async generator" if method.server_streaming else "a coroutine function"
            raise TypeError(f"{type(implementation).__name__}.{method.name} must be {wanted}")
    return Service(descriptor, implementation)


class Streams:
    """The streams a server is sending on. A stop that waited for their natural end would wait for ever."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.ended = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the current task sends one."""
        task = asyncio.current_task()
        if task is None or self.ended:
            raise Unavailable(_STOPPING)
        self._running.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._running:
                task.uncancel()
                raise Unavailable(_STOPPING) from None
            raise
        finally:
            self._running.discard(task)

    async def end(self, patience: float) -> None:
        """Let them end by themselves for `patience` seconds (their components may have a last word), then end them."""
        self.ended = True
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=patience)
        while self._running:
            self._running.pop().cancel()


_STOPPING = "this manager is stopping"


def handlers(services: Sequence[Service], gate: Gate, streams: Streams | None = None) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """What a gRPC server registers so that `services` answer behind `gate`; `streams` is how it ends streams when it stops."""
    running = streams or Streams()
    return [
        grpc.method_handlers_generic_handler(service.descriptor.full_name, method_handlers(service, gate, running)) for service in services
    ]


def method_handlers(service: Service, gate: Gate, streams: Streams) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """The handler of each method, by name."""
    return {method.name: _handler(service, method, gate, streams) for method in service.descriptor.methods}


def _handler(service: Service, method: MethodDescriptor, gate: Gate, streams: Streams) -> grpc.RpcMethodHandler[Any, Any]:
    calls = Calls(_KINDS[bool(method.client_streaming), bool(method.server_streaming)], service.descriptor.full_name, method.name)
    if method.server_streaming:
        behaviour = _counted_stream(_streamed(service, method, gate, streams), calls)
    else:
        behaviour = _counted(_unary(service, method, gate), calls)
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(method.client_streaming), bool(method.server_streaming)]
    return make(behaviour)


def _counted(answer: Callable[[Any, Context], Any], calls: Calls) -> Callable[[Any, Context], Any]:
    async def counted(received: Any, context: Context) -> Any:
        with calls.one(lambda: _code(context)):
            return await answer(received, context)

    return counted


def _counted_stream(answer: Callable[[Any, Context], Any], calls: Calls) -> Callable[[Any, Context], Any]:
    async def counted(received: Any, context: Context) -> AsyncIterator[Any]:
        with calls.one(lambda: _code(context)):
            async with contextlib.aclosing(answer(received, context)) as messages:
                async for message in messages:
                    yield message

    return counted


def _code(context: Context) -> str:
    """A call's status as the reference's metrics spell it."""
    code = context.code()  # a number as long as nobody has set one
    return _spelt(code if isinstance(code, grpc.StatusCode) else _STATUS[code or 0])


@functools.cache
def _spelt(status: grpc.StatusCode) -> str:
    return _SPELT.get(status, status.name.title().replace("_", ""))


def _unary(service: Service, method: MethodDescriptor, gate: Gate) -> Callable[[Any, Context], Any]:
    function, decode = _function(service, method), _decoder(method)
    pass_on: Callable[..., Any] = relay.stream_unary if method.client_streaming else relay.unary_unary
    repeatable = not method.client_streaming

    async def run(received: Any, context: Context, admitted: Caller | Passage) -> bytes:
        if isinstance(admitted, Caller):
            response = await function(decode(received), admitted)
            return bytes(response.SerializeToString())
        return bytes(await pass_on(admitted, method, received, context.time_remaining()))

    async def answer(received: Any, context: Context) -> Any:
        try:
            admitted = await gate.admit(method, context)
            try:
                return await run(received, context, admitted)
            except (SwarmError, relay.NotExecuted) as error:
                if not repeatable or not _elsewhere(method, context, error):
                    raise
                refused_by = error.refused_by if isinstance(error, relay.NotExecuted) else HERE
            # Once more, and only because it certainly did not run: somebody else leads by now, or this manager.
            return await run(received, context, await gate.admit(method, context, refused_by))
        except BaseException as error:  # noqa: BLE001 - the edge: every exception must become a status
            await _fail(error, method, context)

    return answer


def _streamed(service: Service, method: MethodDescriptor, gate: Gate, streams: Streams) -> Callable[[Any, Context], Any]:
    function, decode = _function(service, method), _decoder(method)
    pass_on: Callable[..., Any] = relay.stream_stream if method.client_streaming else relay.unary_stream

    async def answer(received: Any, context: Context) -> AsyncIterator[Any]:
        try:
            admitted = await gate.admit(method, context)
            # A generator's own clean-up must run when the client leaves, not when the garbage collector comes by.
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(streams.running())
                if isinstance(admitted, Passage):
                    relayed = pass_on(admitted, method, received, context.time_remaining())
                    stack.push_async_callback(relayed.aclose)
                    async for data in relayed:
                        yield data
                    return
                stream = function(decode(received), admitted)
                if inspect.isasyncgen(stream):
                    stack.push_async_callback(stream.aclose)
                async for message in stream:
                    yield message.SerializeToString()
        except BaseException as error:  # noqa: BLE001 - the edge: every exception must become a status
            await _fail(error, method, context)

    return answer


class _Messages:
    """A streamed request, decoded message by message."""

    def __init__(self, received: AsyncIterable[bytes], parse: Callable[[bytes], Any]) -> None:
        self._received = received
        self._iterator: AsyncIterator[bytes] | None = None
        self._parse = parse

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            # Not before: a method that never reads would leave behind an iterator that was never started.
            self._iterator = aiter(self._received)
        return self._parse(await anext(self._iterator))


def _decoder(method: MethodDescriptor) -> Callable[[Any], Any]:
    """From what gRPC hands over (bytes, or an iterator of them) to what a service method takes. Raises InvalidArgument."""
    parse: Callable[[bytes], Any] = message_factory.GetMessageClass(method.input_type).FromString
    name = method.input_type.full_name

    def decode(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise InvalidArgument(f"the request is not a {name}: {error}") from error

    return (lambda received: _Messages(received, decode)) if method.client_streaming else decode


def _elsewhere(method: MethodDescriptor, context: Context, error: Exception) -> bool:
    """Whether a failed call may be tried once more. One that was passed on before is its sender's to repeat."""
    certain = isinstance(error, relay.NotExecuted) or relay.certainly_not_executed(method, error)
    return certain and not passed_on(context)


def passed_on(context: Context) -> bool:
    """Another manager sent this call."""
    return any(key == REDIRECT for key, _ in context.invocation_metadata() or ())


def _function(service: Service, method: MethodDescriptor) -> Callable[[Any, Caller], Any]:
    function: Callable[[Any, Caller], Any] | None = getattr(service.implementation, method.name, None)
    if function is not None:
        return function

    def missing(request: Any, caller: Caller) -> NoReturn:  # noqa: ARG001 - the shape of a method
        raise Unimplemented(f"{service.descriptor.name}.{method.name} is not implemented yet")

    return missing


async def _fail(error: BaseException, method: MethodDescriptor, context: Context) -> NoReturn:
    """End the call with the status that belongs to the error."""
    if isinstance(error, grpc.aio.AbortError | GeneratorExit):
        raise error
    if isinstance(error, asyncio.CancelledError):
        if told_to_stop():
            raise error
        # Nobody cancelled this call: what it waited for was, because its component stops.
        await context.abort(grpc.StatusCode.CANCELLED, "the component that served the call is stopping")
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, SwarmError):
        await context.abort(_STATUS[int(error.code)], error.message, relay.outcome(method, error) if passed_on(context) else ())
    if isinstance(error, relay.Answered):
        await context.abort(error.status, error.details)
    name = f"{method.containing_service.name}.{method.name}"
    log.error("call failed", method=name, exc_info=error)
    await context.abort(_STATUS[int(Internal.code)], f"internal error in {name}; the manager's log says more")
