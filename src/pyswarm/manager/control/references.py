"""What a service spec points to, and what it collides with (spec/control-api, section 6.9).

Pure functions of a view. They run inside the write transaction, so two racing requests cannot both pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, InvalidArgument
from pyswarm.manager.allocator import is_ingress, uses_ingress
from pyswarm.manager.control.names import quote
from pyswarm.manager.control.validate_task import Use, config_uses, secret_uses
from pyswarm.manager.store import View, by
from pyswarm.manager.store.transaction import Reading


def check_networks(view: View, spec: api.ServiceSpec) -> None:
    """No network of the task is the ingress network; unknown ones are let through. Raises InvalidArgument."""
    for attachment in spec.task.networks:
        network = view.networks.get(attachment.target)
        if network is not None and is_ingress(network):
            raise InvalidArgument(f"Service cannot be explicitly attached to the ingress network {quote(network.spec.annotations.name)}")


def check_ports(view: View, endpoint: api.EndpointSpec, own_id: str = "") -> None:
    """No published port is taken by another service than `own_id`. Raises InvalidArgument.

    Host ports of two services may be equal (the scheduler places them apart); everything that involves an ingress port may not.
    """
    wanted = {(p.protocol, p.published_port): p.publish_mode for p in endpoint.ports if p.published_port}
    if not wanted:
        return
    for service in view.services:
        if service.id == own_id:
            continue
        for ports in (service.spec.endpoint.ports, service.endpoint.ports):
            for port in ports:
                if port.published_port and (port.protocol, port.published_port) in wanted:
                    _check_port(service, port, wanted[port.protocol, port.published_port])


def _check_port(service: api.Service, port: api.PortConfig, mode: api.PortConfig.PublishMode.ValueType) -> None:
    taken = f"port '{port.published_port}' is already in use by service '{service.spec.annotations.name}' ({service.id})"
    if port.publish_mode == api.PortConfig.INGRESS:
        raise InvalidArgument(f"{taken} as an ingress port")
    if mode == api.PortConfig.INGRESS:
        raise InvalidArgument(f"{taken} as a host-published port")


def check_ingress(view: View, spec: api.ServiceSpec) -> None:
    """Ports in ingress mode need the ingress network. Raises FailedPrecondition."""
    if uses_ingress(spec) and not any(is_ingress(network) for network in view.networks):
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def check_payloads(view: View, spec: api.ServiceSpec) -> None:
    """Every secret and config exists under the name given for it. Raises InvalidArgument naming all that do not."""
    container = spec.task.container
    _check_uses("secret", secret_uses(container), view.secrets)
    _check_uses("config", config_uses(container), view.configs)


def _check_uses(word: str, uses: Sequence[Use], table: Reading[api.Secret] | Reading[api.Config]) -> None:
    missing = [use.name for use in uses if (found := table.get(use.object_id)) is None or found.spec.annotations.name != use.name]
    if missing:
        raise InvalidArgument(f"{word}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")


def users(view: View, *, secret: str = "", config: str = "") -> list[str]:
    """Names of the services whose current spec references a secret or config."""
    selector = by.secret(secret) if secret else by.config(config)
    return [service.spec.annotations.name for service in view.services.find(selector)]


def check_unused(word: str, name: str, services: Sequence[str]) -> None:
    """A secret or config that services use stays. Raises InvalidArgument naming them."""
    if services:
        noun = "service" if len(services) == 1 else "services"
        raise InvalidArgument(f"{word} '{name}' is in use by the following {noun}: {', '.join(services)}")
