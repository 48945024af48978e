"""The warning about an address that others cannot use."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from pyswarm.node_join import warn_of_address


@pytest.mark.parametrize(
    ("listen", "advertise", "warned"),
    [
        ("0.0.0.0:4242", "", True),
        (":4242", "", True),
        ("[::]:4242", "", True),
        ("127.0.0.1:4242", "", True),
        ("[::1]:4242", "", True),
        ("192.0.2.1:4242", "", False),
        ("manager.example:4242", "", False),
        ("4242", "", True),
        ("0.0.0.0:4242", "192.0.2.1:4242", False),
    ],
)
def test_vague_addresses(listen: str, advertise: str, warned: bool) -> None:
    """All addresses, and loopback, need an advertised one beside them. [cli 91]"""
    with capture_logs() as logs:
        warn_of_address(listen, advertise)
    assert [entry["log_level"] for entry in logs] == ["warning"] * warned
