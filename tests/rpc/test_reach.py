"""Addresses of one's own, as others can use them."""

from __future__ import annotations

import pytest

from pyswarm.rpc import reach


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0:4242", True),
        (":4242", True),
        ("[::]:4242", True),
        ("127.0.0.1:4242", False),
        ("manager.example:4242", False),
        ("", False),
    ],
)
def test_wildcards(address: str, expected: bool) -> None:
    """Only an address that names every interface of a machine is a wildcard."""
    assert reach.is_wildcard(address) is expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1:50000", "127.0.0.1:4242"),
        ("[::ffff:127.0.0.1]:50000", "127.0.0.1:4242"),
        ("somewhere:1", "0.0.0.0:4242"),
        ("", "0.0.0.0:4242"),
    ],
)
def test_seen_from(peer: str, expected: str) -> None:
    """A wildcard becomes the address on the way to the peer, and stays what it is when the peer has no IP address."""
    assert reach.seen_from("0.0.0.0:4242", peer) == expected
