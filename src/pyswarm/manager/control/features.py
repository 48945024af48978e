"""What this manager cannot do yet, in one place: switch a field on when its component exists.

Accepting what nobody will carry out leaves a service that never runs and never says why, so it is refused when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pyswarm.api import v1 as api
from pyswarm.errors import Unimplemented


@dataclass(frozen=True, slots=True)
class Features:
    """The parts a request may rely on. The defaults say what is there today."""

    networks: bool = False
    ingress: bool = False
    """Ports published through the routing mesh; needs `networks`."""

    @classmethod
    def everything(cls) -> Features:
        """All of them, as if every component existed."""
        return cls(**{field.name: True for field in fields(cls)})


def check_service(spec: api.ServiceSpec, features: Features) -> None:
    """What a service asks of components that do not exist yet. Raises Unimplemented naming the field and the remedy."""
    if not features.networks and (spec.task.networks or spec.networks):
        raise Unimplemented("TaskSpec.networks: networks are not supported yet; leave them out and publish ports in host mode")
    if not features.ingress:
        for port in spec.endpoint.ports:
            if port.publish_mode == api.PortConfig.INGRESS:
                number = port.published_port or port.target_port
                raise Unimplemented(f"EndpointSpec.ports: port {number} asks for ingress mode, which is not supported yet; use host mode")
