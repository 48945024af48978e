"""Names, image references, quoting, durations: the pure vocabulary of the validators."""

from __future__ import annotations

import time

import pytest
from google.protobuf.duration_pb2 import Duration

from pyswarm.errors import InvalidArgument
from pyswarm.manager.control.durations import nanoseconds
from pyswarm.manager.control.image import is_reference
from pyswarm.manager.control.names import check_payload_name, check_service_name, quote
from tests.manager.control.support import IA, UNK, refused

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", ["name", "n-me", "n_me", "n-m-e", "n--d", "a" * 63])
def test_service_names_accepted(name: str) -> None:
    """Letters, digits, dashes and underscores, not at the ends, make a service name. [control 1]"""
    check_service_name(name)


@pytest.mark.parametrize("name", ["", "_nam", ".nam", "-nam", "nam-", "n/me", "n&me", "////", "a.b", "nam\n", "näm"])
def test_service_names_refused(name: str) -> None:
    """Anything that is no DNS label with underscores is refused, a final newline too. [control 2]"""
    with pytest.raises(InvalidArgument):
        check_service_name(name)


def test_long_service_names() -> None:
    """Syntax is judged before length, in linear time. [control 3]"""
    with refused(IA, "name must be 63 characters or fewer", exactly=True):
        check_service_name("a" * 64)
    started = time.perf_counter()
    with refused(IA, "name must be valid as a DNS name component", exactly=True):
        check_service_name("a" * 100_000 + "!")
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "-",
        "_",
        ".name",
        "name.",
        "-name",
        "name-",
        "_name",
        "name_",
        "/a",
        "a/",
        "a/b",
        "..",
        "../a",
        "a/..",
        "withexclamation!",
        "with space",
        "with\nnewline",
        "with@splat",
        "with:colon",
        "with;semicolon",
        "snow\u2603man",
        "a" * 65,
        "a\n",
    ],
)
def test_payload_names_refused(name: str) -> None:
    """Secrets and configs have file-like names of at most 64 bytes. [control 4]"""
    with pytest.raises(InvalidArgument):
        check_payload_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "0",
        "a",
        "A",
        "name-with--dashes",
        "name.with..dots",
        "name_with__underscores",
        "name.with-all_special",
        "02624name035with1699numbers015125",
        "a" * 64,
    ],
)
def test_payload_names_accepted(name: str) -> None:
    """Dots, dashes and underscores may stand inside the name of a secret or config. [control 5]"""
    check_payload_name(name)


@pytest.mark.parametrize(
    "image",
    [
        "image",
        "busybox:1.36",
        f"localhost:5000/a/b@sha256:{HEX}",
        "docker.io/library/x",
        "index.docker.io/x",
        "localhost/x",
        "Registry.example/a__b/c--d:Tag_1",
        "[::1]:5000/x",
        f"a@sha512:{HEX}{HEX}",
        "redis:3.0.5",
        "HOST/x",
    ],
)
def test_images_accepted(image: str) -> None:
    """Repository with optional domain, tag and digest. [control 19]"""
    assert is_reference(image)


@pytest.mark.parametrize(
    "image",
    [
        "busybox###",
        "Busybox",
        HEX,
        "a//b",
        "a:",
        "a@sha256:abc",
        f"a@md5:{HEX}",
        "a/",
        "/a",
        "a___b",
        "a:b:c",
        "x" * 250,
        f"a@sha256:{HEX.upper()}",
        "a" * 10_000,
        "a\n",
        "a-",
        ".a",
        "-a/b",
    ],
)
def test_images_refused(image: str) -> None:
    """Upper-case repositories, bare identifiers, unknown digests and names over 255 characters are no images. [control 19]"""
    assert not is_reference(image)


def test_quoting() -> None:
    """Quotes, backslashes and what cannot be printed are escaped, printable text of any script is not. [control 19]"""
    assert quote('a"b\\c\nd\x01é\u200b') == '"a\\"b\\\\c\\nd\\x01é\\u200b"'


def test_durations_that_are_none() -> None:
    """Spans out of range or with parts of different sign are no durations; all others count in nanoseconds. [control 8]"""
    assert nanoseconds(Duration(seconds=-1, nanos=-500)) == -1_000_000_500
    assert nanoseconds(Duration()) == 0
    for bad in (Duration(seconds=10**12), Duration(nanos=10**9), Duration(seconds=1, nanos=-1), Duration(seconds=10**10)):
        with refused(UNK, "duration:"):
            nanoseconds(bad)
