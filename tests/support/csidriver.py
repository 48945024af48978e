"""A storage plugin for tests: a real gRPC server on a Unix socket with the three services, a memory, and faults on order.

It is as strict as plugins may be: a volume for one node is refused to a second one, nothing is staged that was not published, nothing
deleted that is in use. What it "mounts" is a link to a directory of its own, so it needs no privileges. In a test it runs on the test's
loop; as `python -m tests.support.csidriver ROOT SOCKET=NODE_ID...` it is a process of its own, with a plugin for each of several nodes.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.api.csi import csi_pb2_grpc as csi_grpc

S = grpc.StatusCode
Mode = csi.VolumeCapability.AccessMode
SINGLE = {Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_READER_ONLY}


@dataclass
class Fault:
    """What goes wrong with one call: refused with `code`, `late` only after it was carried out (its answer is lost); held up by `gate`."""

    code: grpc.StatusCode | None = S.INTERNAL
    text: str = "out of order"
    late: bool = False
    gate: asyncio.Event | None = None


@dataclass
class Kept:
    """A volume of the driver."""

    volume: csi.Volume
    mode: int
    nodes: set[str] = field(default_factory=set)
    staged: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)


class Refused(Exception):
    """Becomes the call's status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Driver:
    """The plugin. Change its fields at any time; `faults` maps a method's name to what happens to its next calls, in order."""

    root: Path
    name: str = "driver"
    node_id: str = "csi-node"
    controller: bool = True
    makes: bool = True
    publishes: bool = True
    stages: bool = True
    serves_nodes: bool = True
    ready: bool = True
    limit: int = 0
    topology: dict[str, str] = field(default_factory=dict)
    everywhere: list[dict[str, str]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    calls: list[Message] = field(default_factory=list)
    volumes: dict[str, Kept] = field(default_factory=dict)

    def asked(self, *kinds: type[Message]) -> list[Any]:
        """The requests of some kinds, in order."""
        return [call for call in self.calls if isinstance(call, kinds)]

    def trace(self) -> list[str]:
        """The methods called, without questions about abilities."""
        names = [type(call).__name__.removesuffix("Request") for call in self.calls]
        return [name for name in names if not name.startswith(("Get", "Probe")) and not name.endswith(("Capabilities", "GetInfo"))]

    # --- identity

    def on_get_plugin_info(self, _: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        """Its name."""
        return csi.GetPluginInfoResponse(name=self.name, vendor_version="1")

    def on_get_plugin_capabilities(self, _: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
        """With a controller or without."""
        kind = csi.PluginCapability.Service.CONTROLLER_SERVICE
        offered = [csi.PluginCapability(service=csi.PluginCapability.Service(type=kind))] if self.controller else []
        return csi.GetPluginCapabilitiesResponse(capabilities=offered)

    def on_probe(self, _: csi.ProbeRequest) -> csi.ProbeResponse:
        """Ready or not."""
        return csi.ProbeResponse(ready=BoolValue(value=self.ready))

    # --- controller

    def on_controller_get_capabilities(self, _: csi.ControllerGetCapabilitiesRequest) -> csi.ControllerGetCapabilitiesResponse:
        """What it can do."""
        rpc = csi.ControllerServiceCapability.RPC
        kinds = [kind for kind, can in ((rpc.CREATE_DELETE_VOLUME, self.makes), (rpc.PUBLISH_UNPUBLISH_VOLUME, self.publishes)) if can]
        return csi.ControllerGetCapabilitiesResponse(capabilities=[csi.ControllerServiceCapability(rpc=rpc(type=k)) for k in kinds])

    def on_create_volume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """A directory; the same one for the same name."""
        volume_id = f"csi-{request.name}"
        if volume_id not in self.volumes:
            (self.root / volume_id).mkdir(parents=True, exist_ok=True)
            made = csi.Volume(volume_id=volume_id, capacity_bytes=request.capacity_range.required_bytes, volume_context={"made": "yes"})
            made.accessible_topology.extend(csi.Topology(segments=segments) for segments in self.everywhere)
            self.volumes[volume_id] = Kept(made, request.volume_capabilities[0].access_mode.mode)
        return csi.CreateVolumeResponse(volume=self.volumes[volume_id].volume)

    def on_delete_volume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """Fine when it is gone."""
        kept = self.volumes.get(request.volume_id)
        if kept is not None and (kept.nodes or kept.targets):
            raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is in use")
        self.volumes.pop(request.volume_id, None)
        shutil.rmtree(self.root / request.volume_id, ignore_errors=True)
        return csi.DeleteVolumeResponse()

    def on_controller_publish_volume(self, request: csi.ControllerPublishVolumeRequest) -> csi.ControllerPublishVolumeResponse:
        """To as many nodes as its mode allows."""
        kept = self._kept(request.volume_id)
        if kept.mode in SINGLE and kept.nodes - {request.node_id}:
            raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is published to {sorted(kept.nodes)}")
        kept.nodes.add(request.node_id)
        return csi.ControllerPublishVolumeResponse(publish_context={"device": f"{request.volume_id}@{request.node_id}"})

    def on_controller_unpublish_volume(self, request: csi.ControllerUnpublishVolumeRequest) -> csi.ControllerUnpublishVolumeResponse:
        """From one node, or all."""
        kept = self.volumes.get(request.volume_id)
        if kept is not None:
            if kept.staged or kept.targets:
                raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is still mounted")
            kept.nodes -= {request.node_id} if request.node_id else set(kept.nodes)
        return csi.ControllerUnpublishVolumeResponse()

    # --- node

    def on_node_get_capabilities(self, _: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        """With staging or without."""
        rpc = csi.NodeServiceCapability.RPC
        kinds = [csi.NodeServiceCapability(rpc=rpc(type=rpc.STAGE_UNSTAGE_VOLUME))] if self.stages else []
        return csi.NodeGetCapabilitiesResponse(capabilities=kinds)

    def on_node_get_info(self, _: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        """Its id, limit and place."""
        if not self.serves_nodes:
            raise Refused(S.UNIMPLEMENTED, "no node service")
        place = csi.Topology(segments=self.topology) if self.topology else None
        return csi.NodeGetInfoResponse(node_id=self.node_id, max_volumes_per_node=self.limit, accessible_topology=place)

    def on_node_stage_volume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        """Needs what the controller said when it published."""
        kept = self._kept(request.volume_id)
        if self.controller and self.publishes and request.publish_context.get("device") != f"{request.volume_id}@{self.node_id}":
            raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is not published to {self.node_id}")
        if not Path(request.staging_target_path).is_dir():
            raise Refused(S.INVALID_ARGUMENT, f"no directory {request.staging_target_path}")
        kept.staged.add(request.staging_target_path)
        return csi.NodeStageVolumeResponse()

    def on_node_unstage_volume(self, request: csi.NodeUnstageVolumeRequest) -> csi.NodeUnstageVolumeResponse:
        """Not while it is mounted."""
        kept = self.volumes.get(request.volume_id)
        if kept is not None:
            if kept.targets:
                raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is mounted")
            kept.staged.discard(request.staging_target_path)
        return csi.NodeUnstageVolumeResponse()

    def on_node_publish_volume(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """A link to the volume's directory."""
        kept = self._kept(request.volume_id)
        if self.stages and request.staging_target_path not in kept.staged:
            raise Refused(S.FAILED_PRECONDITION, f"{request.volume_id} is not staged")
        target = Path(request.target_path)
        if not target.is_symlink():
            target.symlink_to(self.root / request.volume_id)
        kept.targets.add(request.target_path)
        return csi.NodePublishVolumeResponse()

    def on_node_unpublish_volume(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        """The link goes."""
        Path(request.target_path).unlink(missing_ok=True)
        kept = self.volumes.get(request.volume_id)
        if kept is not None:
            kept.targets.discard(request.target_path)
        return csi.NodeUnpublishVolumeResponse()

    def _kept(self, volume_id: str) -> Kept:
        if volume_id not in self.volumes and not self.makes:
            (self.root / volume_id).mkdir(parents=True, exist_ok=True)
            self.volumes[volume_id] = Kept(csi.Volume(volume_id=volume_id), Mode.MULTI_NODE_MULTI_WRITER)
        if volume_id not in self.volumes:
            raise Refused(S.NOT_FOUND, f"no volume {volume_id}")
        return self.volumes[volume_id]

    # --- the server

    async def answer(self, handler: Callable[[Any], Message], request: Message, context: Any) -> Message:
        """Carry a call out, with its fault if one is due."""
        name = type(request).__name__.removesuffix("Request")
        self.calls.append(request)
        waiting = self.faults.get(name)
        fault = waiting.pop(0) if waiting else None
        if fault is not None and fault.gate is not None:
            await fault.gate.wait()
        try:
            if fault is not None and fault.code is not None and not fault.late:
                raise Refused(fault.code, fault.text)
            answer = handler(request)
            if fault is not None and fault.code is not None and fault.late:
                raise Refused(fault.code, fault.text)
        except Refused as error:
            await context.abort(error.code, str(error))
        return answer

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[Driver]:
        """Serve at the socket for the time of the block; a crash is leaving it. State stays."""
        server = grpc.aio.server()
        for file_service, add in (
            ("Identity", csi_grpc.add_IdentityServicer_to_server),
            ("Controller", csi_grpc.add_ControllerServicer_to_server),
            ("Node", csi_grpc.add_NodeServicer_to_server),
        ):
            add(_servicer(self, file_service), server)  # type: ignore[no-untyped-call, unused-ignore]
        socket.unlink(missing_ok=True)  # noqa: ASYNC240 - a test
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)
            socket.unlink(missing_ok=True)  # noqa: ASYNC240 - a test


def _servicer(driver: Driver, service: str) -> object:
    methods: dict[str, Any] = {}
    for method in csi.DESCRIPTOR.services_by_name[service].methods:
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name)
        handler = getattr(driver, f"on{snake}")

        def bound(handler: Callable[[Any], Message]) -> Any:
            async def call(_self: object, request: Message, context: Any) -> Message:
                return await driver.answer(handler, request, context)

            return call

        methods[method.name] = bound(handler)
    return type(service, (), methods)()


async def _main(root: Path, nodes: list[str]) -> None:
    kept: dict[str, Kept] = {}
    async with AsyncExitStack() as stack:
        for socket, _, node_id in (word.partition("=") for word in nodes):
            await stack.enter_async_context(Driver(root, node_id=node_id, volumes=kept).serving(Path(socket)))
        print("serving", flush=True)
        await asyncio.Event().wait()


@contextmanager
def process(root: Path, nodes: Mapping[str, Path]) -> Iterator[None]:
    """A storage system of its own, in a process of its own: a plugin for each node, by its id for the plugin, at its socket."""
    words = [f"{socket}={node_id}" for node_id, socket in nodes.items()]
    command = [sys.executable, "-m", "tests.support.csidriver", str(root), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent.parent) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline() == b"serving\n"
            yield
        finally:
            serving.kill()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2:]))
