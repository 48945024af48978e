"""From plain async classes to gRPC: services are described by their proto descriptors and know nothing of gRPC (design rule 6).

A service class has one method per RPC, named as in the proto:

* unary answer: `async def GetNode(self, request, caller) -> Response`
* streamed answer: `async def Session(self, request, caller)` written as an async generator (or any function that returns an async iterator)
* streamed request: `request` is an async iterator of messages

A method that is not there answers UNIMPLEMENTED. `SwarmError`s become their statuses; anything else is logged with its traceback and
becomes INTERNAL without a word about the inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from pyswarm.errors import Internal, SwarmError, Unimplemented
from pyswarm.rpc.caller import Caller

log = structlog.get_logger(__name__)

_STATUS = {status.value[0]: status for status in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A described service and the object that implements it (all of it, or some methods)."""

    descriptor: ServiceDescriptor
    implementation: object


class Gate(Protocol):
    """Runs before every method."""

    async def admit(self, method: MethodDescriptor, context: Context) -> Caller:
        """Who is calling. Raises SwarmError to refuse."""
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


def handlers(services: Sequence[Service], gate: Gate) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """What a gRPC server registers so that `services` answer behind `gate`."""
    return [
        grpc.method_handlers_generic_handler(
            service.descriptor.full_name, {method.name: _handler(service, method, gate) for method in service.descriptor.methods}
        )
        for service in services
    ]


def _handler(service: Service, method: MethodDescriptor, gate: Gate) -> grpc.RpcMethodHandler[Any, Any]:
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)
    behaviour = (_streamed if method.server_streaming else _unary)(service, method, gate)
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(method.client_streaming), bool(method.server_streaming)]
    return make(behaviour, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString)


def _unary(service: Service, method: MethodDescriptor, gate: Gate) -> Callable[[Any, Context], Any]:
    function = _function(service, method)

    async def answer(request: Any, context: Context) -> Any:
        try:
            caller = await gate.admit(method, context)
            return await function(request, caller)
        except BaseException as error:  # noqa: BLE001 - the edge: every exception must become a status
            await _fail(error, method, context)

    return answer


def _streamed(service: Service, method: MethodDescriptor, gate: Gate) -> Callable[[Any, Context], Any]:
    function = _function(service, method)

    async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            caller = await gate.admit(method, context)
            stream = function(request, caller)
            # A generator's own clean-up must run when the client leaves, not when the garbage collector comes by.
            async with contextlib.AsyncExitStack() as stack:
                if inspect.isasyncgen(stream):
                    stack.push_async_callback(stream.aclose)
                async for message in stream:
                    yield message
        except BaseException as error:  # noqa: BLE001 - the edge: every exception must become a status
            await _fail(error, method, context)

    return answer


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
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        # Nobody cancelled this call: what it waited for was, because its component stops.
        await context.abort(grpc.StatusCode.CANCELLED, "the component that served the call is stopping")
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, SwarmError):
        await context.abort(_STATUS[int(error.code)], error.message)
    name = f"{method.containing_service.name}.{method.name}"
    log.error("call failed", method=name, exc_info=error)
    await context.abort(_STATUS[int(Internal.code)], f"internal error in {name}; the manager's log says more")
