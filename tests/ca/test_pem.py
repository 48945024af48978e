"""PEM blocks, headers and the normal form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.ca import pem
from tests.ca import pki


def test_normalize_drops_everything_but_blocks() -> None:
    """Garbage, blanks, odd white space and headers disappear; certificates are concatenated [ca 25]."""
    one, two = pki.make("a").pem, pki.make("b").pem
    assert pem.normalize(b"") == b""
    assert pem.normalize(b"garbage\nmore") == b""
    assert pem.normalize(b"garbage\n" + one + b"\n  \n\n") == one
    with_header = one.replace(b"CERTIFICATE-----\n", b"CERTIFICATE-----\nhello: world\n\n", 1)
    assert pem.normalize(with_header) == one
    assert pem.normalize(one + b"\n\n \t" + two.replace(b"\n", b"\r\n") + b"\n\n") == one + two


def test_headers_are_ordered() -> None:
    """Proc-Type comes first, the rest by name, then a blank line."""
    block = pem.Block("X", b"abc", {"b": "2", "a": "1", "Proc-Type": "4,ENCRYPTED"})
    assert pem.encode(block) == b"-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\na: 1\nb: 2\n\nYWJj\n-----END X-----\n"
    assert pem.scan(pem.encode(block)) == [block]


@given(
    st.binary(max_size=300),
    st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,10}", fullmatch=True), st.from_regex(r"[A-Za-z0-9+/=]{1,40}", fullmatch=True)),
)
def test_round_trip(data: bytes, headers: dict[str, str]) -> None:
    """What is encoded is scanned back."""
    block = pem.Block("PRIVATE KEY", data, headers)
    assert pem.scan(b"noise\n" + pem.encode(block)) == [block]


def test_secrets_are_hidden() -> None:
    """A block never shows its content when printed."""
    shown = repr(pem.Block("X", b"secret", {"raft-dek": "secret"}))
    assert "secret" not in shown


@pytest.mark.parametrize("text", [b"", b"-----BEGIN X-----\n", b"-----BEGIN X-----\n!!!\n-----END X-----\n"])
def test_no_block(text: bytes) -> None:
    """Incomplete or undecodable blocks are passed over."""
    assert pem.scan(text) == []
