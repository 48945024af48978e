"""The control service, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm.api import ids
from pyswarm.ca import tokens, unlock
from pyswarm.clock import Clock
from pyswarm.manager.control.clusters import Clusters
from pyswarm.manager.control.configs import Configs
from pyswarm.manager.control.environment import Environment, NewToken, Shortage
from pyswarm.manager.control.extensions import Extensions
from pyswarm.manager.control.networks import Networks
from pyswarm.manager.control.nodes import Nodes
from pyswarm.manager.control.resources import Resources
from pyswarm.manager.control.secrets import Secrets
from pyswarm.manager.control.services import Services
from pyswarm.manager.control.tasks import Tasks
from pyswarm.manager.control.volumes import Volumes
from pyswarm.manager.store import Store
from pyswarm.raft.log import Log


class ControlService(Services, Tasks, Nodes, Clusters, Networks, Secrets, Configs, Extensions, Resources, Volumes):
    """`docker.swarmkit.v1.Control`: one coroutine per RPC, `(request, caller) -> response`. Raises `errors.SwarmError`s."""

    def __init__(
        self,
        store: Store,
        log: Log,
        clock: Clock,
        *,
        new_id: Callable[[], str] = ids.new_id,
        new_token: NewToken = tokens.generate,
        new_unlock_key: Callable[[], bytes] = unlock.generate,
        shortage: Shortage = lambda _view, _obj: "",
    ) -> None:
        """`shortage` says what the allocator could not give."""
        super().__init__(Environment(store, log, clock, new_id, new_token, new_unlock_key, shortage))
