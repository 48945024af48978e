"""Composite flag values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.cli import flags
from pyswarm.cli.flagset import FlagError, Given


def complaint(read: Callable[[str], object], text: str) -> str:
    """The error for a value."""
    with pytest.raises(ValueError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(("text", "soft", "hard"), [("nofile=1024:2048", 1024, 2048), ("nofile=10", 10, 10), ("core=-1", -1, -1)])
def test_ulimit(text: str, soft: int, hard: int) -> None:
    """The hard limit is the soft one unless given. [cli 51]"""
    assert (flags.ulimit(text).soft, flags.ulimit(text).hard) == (soft, hard)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nofile", "invalid ulimit argument: nofile"),
        ("foo=1", "invalid ulimit type: foo"),
        ("nofile=20:10", "ulimit soft limit must be less than or equal to hard limit: 20 > 10"),
        ("nofile=-1:5", "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5"),
        ("nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
        ("nofile=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_bad_ulimit(text: str, reason: str) -> None:
    """Ulimits are checked before they are sent. [cli 51]"""
    assert complaint(flags.ulimit, text) == reason


def test_generic_resources() -> None:
    """Amounts and sets, kinds in order of appearance. [cli 50; scheduling 73]"""
    found = flags.generic_resources("gpu=UUID1, fpga = 2 ,gpu=UUID2")
    shown = [(one.named_resource_spec.value, one.discrete_resource_spec.value) for one in found]
    assert shown == [("UUID1", 0), ("UUID2", 0), ("", 2)]
    assert len(flags.generic_resources("orange=red,orange=green,orange=blue,apple=3")) == 4
    assert [one.discrete_resource_spec.kind for one in flags.generic_reservation("gpu=3,fpga=1")] == ["gpu", "fpga"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gpu", "could not parse GenericResource: incorrect term gpu, missing '=' or malformed expression"),
        ("gpu=1=2", "could not parse GenericResource: incorrect term gpu=1=2, missing '=' or malformed expression"),
        ("gpu=-1", "could not parse GenericResource: cannot ask for negative resource gpu"),
        ("gpu=a", "invalid argument for resource gpu"),
        ("gpu=a,gpu=1", "could not parse GenericResource: mixed discrete and named resources in expression 'gpu=[a 1]'"),
        ("gpu=1,gpu=2", "could not parse GenericResource: mixed discrete and named resources in expression 'gpu=[1 2]'"),
        ("", "could not parse GenericResource: found multiple records while parsing cmd []"),
        ("a=1\nb=2", "could not parse GenericResource: unexpected '\\n' character"),
    ],
)
def test_bad_generic_resources(text: str, reason: str) -> None:
    """Services reserve amounts only, one for each kind. [cli 50; scheduling 73]"""
    assert complaint(flags.generic_reservation, text) == reason


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("http:8080:18080", api.PortConfig(name="http", target_port=8080, published_port=18080)),
        ("dns:53/udp", api.PortConfig(name="dns", target_port=53, protocol=api.PortConfig.Protocol.UDP)),
        ("dns:53/UDP:5353/udp", api.PortConfig(name="dns", target_port=53, published_port=5353, protocol=api.PortConfig.Protocol.UDP)),
        (":80", api.PortConfig(target_port=80)),
    ],
)
def test_port(text: str, port: api.PortConfig) -> None:
    """Ports are published on the host; without a published part the engine chooses. [cli 52]"""
    port.publish_mode = api.PortConfig.PublishMode.HOST
    assert flags.port(text) == port


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("80", "insufficient parameters in port configuration"),
        ("web:abc", 'failed to parse port: strconv.ParseUint: parsing "abc": invalid syntax'),
        ("web:80/foo", "failed to parse port: invalid protocol string: foo"),
        ("web:80:x", 'failed to parse node port: strconv.ParseUint: parsing "x": invalid syntax'),
        ("web:80/tcp:8080/udp", "protocol mismatch"),
        ("dns:53/udp:53", "protocol mismatch"),
        ("web:80:8080:9090", "too many parameters in port configuration web:80:8080:9090"),
        ("web:80/tcp/udp", "failed to parse port: invalid protocol string: tcp/udp"),
    ],
)
def test_bad_port(text: str, reason: str) -> None:
    """Nothing of a port is ignored. [cli 52]"""
    assert complaint(flags.port, text) == reason


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", api.PortConfig(target_port=80)),
        ("8080:80", api.PortConfig(target_port=80, published_port=8080)),
        ("5353:53/udp", api.PortConfig(target_port=53, published_port=5353, protocol=api.PortConfig.Protocol.UDP)),
        ("5353/sctp:53/sctp", api.PortConfig(target_port=53, published_port=5353, protocol=api.PortConfig.Protocol.SCTP)),
    ],
)
def test_ingress_port(text: str, port: api.PortConfig) -> None:
    """What --publish names is published on all nodes; without a published part the manager chooses."""
    assert flags.ingress_port(text) == port


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", 'failed to parse port: strconv.ParseUint: parsing "": invalid syntax'),
        ("x:80", 'failed to parse published port: strconv.ParseUint: parsing "x": invalid syntax'),
        ("8080/udp:80/tcp", "protocol mismatch"),
        ("1:2:3", 'failed to parse published port: strconv.ParseUint: parsing "1:2": invalid syntax'),
    ],
)
def test_bad_ingress_port(text: str, reason: str) -> None:
    """Nothing of it is ignored."""
    assert complaint(flags.ingress_port, text) == reason


def test_mounts() -> None:
    """Each mount flag has its form. [cli 53]"""
    assert flags.bind("/etc:/host") == api.Mount(type=api.Mount.Type.BIND, source="/etc", target="/host")
    assert flags.volume("/data") == api.Mount(type=api.Mount.Type.VOLUME, target="/data")
    assert flags.npipe("a:b") == api.Mount(type=api.Mount.Type.NPIPE, source="a", target="b")
    assert flags.tmpfs("/t") == api.Mount(type=api.Mount.Type.TMPFS, target="/t")
    assert complaint(flags.bind, "/x") == 'bind format "/x" not supported'
    assert complaint(flags.volume, "a:b") == 'volume format "a:b" not supported'
    assert complaint(flags.npipe, "x") == 'npipe format "x" not supported'


def test_tmpfs_options() -> None:
    """Size, mode, read-only and exec. [cli 54]"""
    mount = flags.tmpfs("/a:size=10m,mode=1777,ro,exec,noexec")
    assert (mount.tmpfs_options.size_bytes, mount.tmpfs_options.mode) == (10 << 20, 0o1777)
    assert (mount.readonly, mount.tmpfs_options.options) == (True, "noexec")
    assert flags.tmpfs("/a:size=1536").tmpfs_options.size_bytes == 1536


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rel", "invalid mount spec: rel"),
        ("/a:b:c", "invalid mount spec: /a:b:c"),
        ("/a:size=10x", "invalid size format: size=10x"),
        ("/a:size=", "invalid size format: size="),
        ("/a:size=k", "invalid size format: size=k"),
        ("/a:mode=999", 'strconv.ParseInt: parsing "999": invalid syntax'),
        ("/a:bogus", "unsupported flag"),
        ("/a:", "unsupported flag"),
    ],
)
def test_bad_tmpfs(text: str, reason: str) -> None:
    """A broken option is refused and nothing crashes. [cli 54]"""
    assert complaint(flags.tmpfs, text) == reason


def test_references() -> None:
    """Name and target, trimmed; the target is the name unless given. [cli 55]"""
    assert flags.references(["pw", " pw2 : renamed "], "secret") == [("pw", "pw"), ("pw2", "renamed")]
    assert complaint(lambda text: flags.references([text], "secret"), "pw:") == "invalid presentation name provided"
    assert complaint(lambda text: flags.references([text], "secret"), "a:b:c") == "invalid presentation name provided"
    assert complaint(lambda text: flags.references([text], "config"), ":x") == "invalid config name provided"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "EOF"),
        ("asdf", "invalid field 'asdf' must be a key=value pair"),
        ("asdf=", "the external-ca option needs a protocol= parameter"),
        ("protocol", "invalid field 'protocol' must be a key=value pair"),
        ("protocol=foo", "unrecognized external CA protocol foo"),
        ("protocol=cfssl", "the external-ca option needs a url= parameter"),
        ("url=https://xyz", "the external-ca option needs a protocol= parameter"),
        ("url,protocol", "invalid field 'url' must be a key=value pair"),
    ],
)
def test_bad_external_ca(text: str, reason: str) -> None:
    """Protocol and URL are needed. [cli 33; ca 155]"""
    assert complaint(flags.external_ca, text) == reason


def test_external_ca() -> None:
    """Keys in any case; what is neither protocol nor URL is an option. [cli 33; ca 155]"""
    found = flags.external_ca("Protocol=CFSSL,URL=https://example.com/a=b,Extra=1")
    assert (found.url, dict(found.options)) == ("https://example.com/a=b", {"Extra": "1"})


def test_labels() -> None:
    """Labels are split at the first `=` and trimmed. [cli 41]"""
    assert flags.labels(["security=high", " zone = east=west "]) == {"security": "high", "zone": "east=west"}
    assert complaint(lambda text: flags.labels([text]), "x") == "malformed label: x"


def test_log_driver() -> None:
    """Options need their driver; an empty driver is none."""
    assert flags.log_driver(Given()) is None
    driver = flags.log_driver(Given({"log-driver": "json-file", "log-opt": ["max-size=1m=x", "bare"]}))
    assert driver == api.Driver(name="json-file", options={"max-size": "1m=x", "bare": ""})
    assert flags.log_driver(Given({"log-driver": ""})) is None
    for values in ({"log-opt": ["a=b"]}, {"log-opt": ["a=b"], "log-driver": ""}):
        with pytest.raises(FlagError, match="--log-opt needs"):
            flags.log_driver(Given(values))
