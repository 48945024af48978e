"""Services, tasks and nodes: virtual addresses, ports, addresses (spec/scheduling-and-allocation, sections 12.3, 14.5 and 14.6).

Each function gives an edited copy, or the object itself when it has all it needs, and notes in the books what it took. Raises Refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pyswarm.api import v1 as api
from pyswarm.manager.allocator import ports
from pyswarm.manager.allocator.books import Books
from pyswarm.manager.allocator.claims import Holding, Ports, holding, is_allocated, is_swarm_wide
from pyswarm.manager.allocator.pools import blocks_of, next_address, take_address
from pyswarm.manager.allocator.refusal import Refusal
from pyswarm.manager.allocator.subnets import Subnet
from pyswarm.manager.store import Kind, View, copy_of

S = api.TaskState


def configs_of(service: api.Service) -> Sequence[api.NetworkAttachmentConfig]:
    """The networks that a service's tasks are on: the task spec's, else the deprecated list."""
    return service.spec.task.networks or service.spec.networks


# --- services


def allocated_service(books: Books, service: api.Service, networks: Sequence[api.Network]) -> api.Service:
    """The service with its endpoint in line with its spec. `networks` are all that it is on, the ingress network included."""
    wanted, spec = api.Endpoint(), service.spec
    key = (Kind.SERVICE, service.id)
    if spec.HasField("endpoint"):
        wanted.spec.CopyFrom(spec.endpoint)
        wanted.ports.extend(_ports(books, service))
    else:
        _release_ports(books, service)
    if spec.endpoint.mode == api.EndpointSpec.ResolutionMode.VIP:
        wanted.virtual_ips.extend(_virtual_ips(books, service, networks))
    edited = copy_of(service)
    if spec.HasField("endpoint") or wanted.virtual_ips:
        edited.endpoint.CopyFrom(wanted)
    else:
        edited.ClearField("endpoint")
    books.note(key, holding(edited))
    return service if edited == service else edited


def _release_ports(books: Books, service: api.Service) -> None:
    key = (Kind.SERVICE, service.id)
    held = books.of(key)
    books.note(key, Holding(tuple(c for c in held.claims if not _is_port(c)), held.asked))


def _is_port(claim: object) -> bool:
    return isinstance(claim, tuple) and isinstance(claim[0], Ports)


def _ports(books: Books, service: api.Service) -> list[api.PortConfig]:
    """Its own may be taken again; what it cannot have leaves all as it is, since the caller then forgets what was noted."""
    wanted = ports.wanted(service.spec.endpoint.ports, service.endpoint.ports)
    _release_ports(books, service)
    return ports.choose(books, (Kind.SERVICE, service.id), wanted)


def _virtual_ips(books: Books, service: api.Service, networks: Sequence[api.Network]) -> list[api.Endpoint.VirtualIP]:
    """What it has on networks that are still wanted, then one on each of the others; none has an address where nodes see to that."""
    wanted = {network.id: network for network in networks}
    kept = [vip for vip in service.endpoint.virtual_ips if vip.network_id in wanted]
    for vip in kept:
        del wanted[vip.network_id]
    for network in wanted.values():
        vip = api.Endpoint.VirtualIP(network_id=network.id)
        if is_swarm_wide(network):
            subnet, number = next_address(books, blocks_of(network))
            books.add((Kind.SERVICE, service.id), (subnet, number))
            vip.addr = subnet.interface(number)
        kept.append(vip)
    return kept


# --- tasks


def attach(books: Books, task: api.Task, networks: Sequence[api.Network], configs: Sequence[api.NetworkAttachmentConfig]) -> None:
    """Give a task (a copy to edit) one attachment per network, with an address where addresses are given out here."""
    asked = {config.target: config for config in configs}
    had = {attachment.network.id: attachment for attachment in task.networks}
    made = []
    for network in networks:
        attachment = api.NetworkAttachment(network=network)
        config = asked.get(network.id)
        if config is not None:
            attachment.aliases.extend(config.aliases)
            for option, value in config.driver_attachment_opts.items():
                attachment.driver_attachment_opts[option] = value
        if network.id in had and had[network.id].addresses:
            attachment.addresses.extend(had[network.id].addresses)
        elif is_swarm_wide(network):
            attachment.addresses.extend(_addresses(books, task, network, () if config is None else config.addresses))
        made.append(attachment)
    del task.networks[:]
    task.networks.extend(made)


def _addresses(books: Books, task: api.Task, network: api.Network, asked: Collection[str]) -> list[str]:
    blocks = blocks_of(network)
    given: list[tuple[Subnet, int]] = []
    try:
        for text in asked:
            given.append(take_address(books, blocks, text))
            books.add((Kind.TASK, task.id), given[-1])
        if not asked:
            given.append(next_address(books, blocks))
            books.add((Kind.TASK, task.id), given[-1])
    except Refusal as refusal:
        raise Refusal(f"network {network.spec.annotations.name}: {refusal.reason}") from None
    return [subnet.interface(number) for subnet, number in given]


# --- nodes


def networks_of_node(view: View, tasks: Collection[api.Task], ingress: api.Network | None) -> list[api.Network]:
    """The networks that a node needs an address of its own on: the ingress network, and those of the tasks that are on it, by id."""
    found = {a.network.id for task in tasks if task.status.state <= S.RUNNING for a in task.networks if is_swarm_wide(a.network)}
    networks = [network for network_id in sorted(found) if (network := view.networks.get(network_id)) is not None]
    if ingress is not None and ingress.id not in found:
        networks.insert(0, ingress)
    return [network for network in networks if is_allocated(network) and is_swarm_wide(network)]


def allocated_node(books: Books, node: api.Node, networks: Sequence[api.Network]) -> tuple[api.Node, list[str]]:
    """The node with its load balancer's addresses, and why it lacks some: what can be had is given nevertheless."""
    wanted = {network.id for network in networks}
    made = [attachment for attachment in node.attachments if attachment.addresses and attachment.network.id in wanted]
    had = {attachment.network.id for attachment in made}
    refused: list[str] = []
    key = (Kind.NODE, node.id)
    books.note(key, holding(api.Node(attachments=made)))
    for network in networks:
        if network.id in had:
            continue
        try:
            subnet, number = next_address(books, blocks_of(network))
        except Refusal as refusal:
            refused.append(f"network {network.spec.annotations.name}: {refusal.reason}")
            continue
        books.add(key, (subnet, number))
        made.append(api.NetworkAttachment(network=network, addresses=[subnet.interface(number)]))
    if made == list(node.attachments):
        return node, refused
    edited = copy_of(node)
    del edited.attachments[:]
    edited.attachments.extend(made)
    return edited, refused
