"""Containers that no task runs join networks."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import Code, SwarmError
from pyswarm.manager.resourceapi import ResourceService
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Store
from pyswarm.rpc.caller import Caller
from tests.support.allocation import Office, S, network
from tests.support.loops import write

ME, OTHER = Caller(node_id="n1"), Caller(node_id="n2")


@pytest.fixture
def service(store: Store) -> ResourceService:
    """With one network that may be joined and one that may not."""
    joinable = network("open-id", attachable=True)
    joinable.spec.annotations.name = "Open"
    write(store, joinable, network("shut"))
    return ResourceService(store)


async def attach(service: ResourceService, target: str, *addresses: str) -> str:
    """AttachNetwork; the attachment's id."""
    config = api.NetworkAttachmentConfig(target=target, addresses=addresses, aliases=["dropped"])
    return (await service.AttachNetwork(api.AttachNetworkRequest(config=config, container_id="c1"), ME)).attachment_id


async def refusal(call: object) -> tuple[Code, str]:
    """Status and message of a refused call."""
    with pytest.raises(SwarmError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("target", ["open-id", "open", "OPEN"])
async def test_attaching(service: ResourceService, store: Store, target: str) -> None:
    """By id or by name a container joins: a new task on the caller's node, for the network, with the addresses asked for. [control 124]"""
    task = store.tasks.get(await attach(service, target, "10.0.0.9"))
    assert task is not None
    assert (task.node_id, task.desired_state, task.status.state, task.status.message) == ("n1", S.RUNNING, S.NEW, "created")
    assert task.spec.attachment.container_id == "c1"
    assert list(task.spec.networks) == [api.NetworkAttachmentConfig(target="open-id", addresses=["10.0.0.9"])]
    assert (task.service_id, task.HasField("spec_version")) == ("", False)


async def test_refusals(service: ResourceService) -> None:
    """Unknown networks, networks that are not attachable and requests without network are refused. [control 124]"""
    assert await refusal(attach(service, "none")) == (Code.NOT_FOUND, "network none not found")
    assert await refusal(attach(service, "shut")) == (Code.PERMISSION_DENIED, "network shut not manually attachable")
    assert (await refusal(service.AttachNetwork(api.AttachNetworkRequest(container_id="c"), ME)))[0] == Code.INVALID_ARGUMENT


async def test_detaching(service: ResourceService, store: Store) -> None:
    """A node takes back its own attachments only, and nothing that is none. [control 124]"""
    found = await attach(service, "open-id")
    write(store, api.Task(id="of-service", node_id="n1", service_id="s"))

    async def detach(attachment_id: str, caller: Caller = ME) -> None:
        await service.DetachNetwork(api.DetachNetworkRequest(attachment_id=attachment_id), caller)

    assert await refusal(detach("")) == (Code.INVALID_ARGUMENT, "invalid argument")
    assert await refusal(detach("none")) == (Code.NOT_FOUND, "attachment none not found")
    assert await refusal(detach("of-service")) == (Code.NOT_FOUND, "attachment of-service not found")
    assert await refusal(detach(found, OTHER)) == (Code.PERMISSION_DENIED, f"attachment {found} doesn't belong to this node")
    await detach(found)
    assert found not in store.tasks


async def test_an_attachment_lives(service: ResourceService, store: Store) -> None:
    """An attachment gets an address, and its node is confirmed; detached it gives the address back. [scheduling 116]"""
    found = await attach(service, "open")
    node = api.Node(id="n1", status=api.NodeStatus(state=api.NodeStatus.READY))
    at = Office(*store.networks, *store.tasks, node)
    at.settle()
    assert at.is_pending(found)
    assert at.addresses(found) == ["10.0.0.2"]
    at.lead(Scheduler())
    at.settle()
    assert (at.task(found).status.state, at.task(found).node_id) == (S.ASSIGNED, "n1")
