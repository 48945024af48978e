from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store
from tests.manager.control.support import MembersLog
from tests.support.clock import VirtualClock
from tests.support.loops import write


@pytest.fixture
def log(store: Store) -> MembersLog:
    """The log that the control service asks for members and read barriers."""
    return MembersLog(store)


@pytest.fixture
def control(store: Store, log: MembersLog, clock: VirtualClock) -> ControlService:
    """The control service; the store has an ingress network."""
    network = api.Network(id="ingress-id", spec=api.NetworkSpec(annotations=api.Annotations(name="ingress"), ingress=True))
    write(store, network)
    return ControlService(store, log, clock)


@pytest.fixture
def today(store: Store, log: MembersLog, clock: VirtualClock) -> ControlService:
    """The control service, with no network at all."""
    return ControlService(store, log, clock)
