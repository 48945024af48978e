"""What the engine's answers mean: descriptions, containers, ports, log frames."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.describe import description
from pyswarm.agent.executor.docker.frames import FrameReader, Line, log_parameters
from pyswarm.agent.executor.docker.state import Container, Port, Verdict, judge_exit, judge_health, parse_container, port_status
from pyswarm.api import v1 as api

INFO = {
    "Name": "host",
    "OSType": "linux",
    "Architecture": "x86_64",
    "ServerVersion": "20.10",
    "Labels": ["a=b=c", "novalue", "a=z"],
    "NCPU": 2,
    "MemTotal": 1 << 30,
    "Plugins": {"Volume": ["local"], "Network": ["bridge", "overlay"], "Authorization": None, "Log": ["json-file"]},
}


def managed(name: str, kind: object, enabled: bool = True) -> dict[str, object]:
    """A managed plugin."""
    return {"Name": name, "Enabled": enabled, "Config": {"Interface": {"Types": [kind]}}}


def test_description() -> None:
    """Name, platform, version, labels, resources and plugins come from the engine, but for overlay networks. [cli 102]"""
    plugins = [
        managed("vieux/sshfs:latest", "docker.volumedriver/1.0"),
        managed("off", "docker.volumedriver/1.0", enabled=False),
        managed("guard", {"Prefix": "docker", "Capability": "authz", "Version": "1.0"}),
        managed("alien", "other.thing/1.0"),
    ]
    node = description(INFO, plugins, [api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind="gpu", value=2))])
    assert (node.hostname, node.platform.os, node.platform.architecture, node.engine.engine_version) == ("host", "linux", "x86_64", "20.10")
    assert node.engine.labels == {"a": "z"}
    assert (node.resources.nano_cpus, node.resources.memory_bytes) == (2 * 10**9, 1 << 30)
    assert node.resources.generic[0].discrete_resource_spec.value == 2
    assert [(plugin.type, plugin.name) for plugin in node.engine.plugins] == [
        ("Network", "bridge"),
        ("Volume", "local"),
        ("Volume", "vieux/sshfs:latest"),
        ("authz", "guard"),
    ]


def test_container() -> None:
    """An inspect answer is reduced to what matters; absent parts are empty."""
    answer = {
        "Id": "abc",
        "State": {"Status": "exited", "Pid": 0, "ExitCode": 3, "Error": "boom", "OOMKilled": True, "Health": {"Status": "unhealthy"}},
        "Config": {"Tty": True, "Healthcheck": {"Test": ["CMD", "x"]}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "81"}, {"HostIp": "::", "HostPort": "81"}], "90/udp": None}
        },
    }
    assert parse_container(answer) == Container(
        id="abc",
        status="exited",
        exit_code=3,
        error="boom",
        oom_killed=True,
        health_checked=True,
        health="unhealthy",
        tty=True,
        ports=(Port(80, "tcp", 81),),
    )
    assert parse_container({}) == Container(id="", status="")
    for test in ([], ["NONE"], None):
        assert not parse_container({"Config": {"Healthcheck": {"Test": test}}}).health_checked


@pytest.mark.parametrize(
    ("ports", "error"),
    [
        ({"x/tcp": []}, "invalid port mapping: x/tcp"),
        ({"80/foo": []}, "invalid protocol: foo"),
        ({"80/tcp": [{"HostPort": "y"}]}, "invalid port mapping: 80/tcp"),
    ],
)
def test_bad_ports(ports: dict[str, object], error: str) -> None:
    """Ports that make no sense are errors."""
    with pytest.raises(ExecutorError, match=error):
        parse_container({"NetworkSettings": {"Ports": ports}})


def test_port_status() -> None:
    """Each binding counts once and gets back the name the endpoint gives it. [cli 130]"""
    endpoint = api.Endpoint(ports=[api.PortConfig(name="web", target_port=80)])
    status = port_status(Container(id="", status="running", ports=(Port(80, "tcp", 81), Port(80, "udp", 82))), endpoint)
    assert status is not None
    assert [(port.name, port.protocol, port.target_port, port.published_port) for port in status.ports] == [
        ("web", api.PortConfig.TCP, 80, 81),
        ("", api.PortConfig.UDP, 80, 82),
    ]
    assert {port.publish_mode for port in status.ports} == {api.PortConfig.HOST}


@pytest.mark.parametrize(
    ("container", "exit_verdict", "health_verdict"),
    [
        (Container(id="", status="running"), Verdict.WAIT, Verdict.DONE),
        (Container(id="", status="running", health_checked=True, health="starting"), Verdict.WAIT, Verdict.WAIT),
        (Container(id="", status="running", health_checked=True, health="healthy"), Verdict.WAIT, Verdict.DONE),
        (Container(id="", status="running", health_checked=True, health="unhealthy"), Verdict.UNHEALTHY, Verdict.UNHEALTHY),
        (Container(id="", status="exited", health_checked=True, health="unhealthy"), Verdict.DONE, Verdict.DONE),
        (Container(id="", status="paused"), Verdict.WAIT, Verdict.DONE),
    ],
)
def test_verdicts(container: Container, exit_verdict: Verdict, health_verdict: Verdict) -> None:
    """What is seen of a container decides whether somebody who waits for its end, or its health, goes on waiting."""
    assert judge_exit(container) is exit_verdict
    assert judge_health(container) is health_verdict


def frame(stream: int, payload: bytes) -> bytes:
    """One log frame."""
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


LINES = [(1, b"out\n"), (2, b"err"), (1, b""), (2, b"two words\n")]


@given(st.lists(st.integers(1, 40), max_size=30))
def test_frames_at_any_boundary(sizes: list[int]) -> None:
    """However the stream is cut, the same lines come out in order. [cli 133]"""
    data = b"".join(frame(stream, b"2026-01-02T03:04:05.123456789Z " + text) for stream, text in LINES)
    reader = FrameReader()
    seen: list[Line] = []
    for size in sizes:
        seen += reader.feed(data[:size])
        data = data[size:]
    seen += reader.feed(data)
    reader.finish()
    assert [(line.stream, line.data) for line in seen] == LINES
    assert {line.timestamp.nanos for line in seen} == {123456789}


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"nothing", "invalid timestamp in log message: "),
        (b"yesterday noon", "failed to parse timestamp 'yesterday'"),
        (b"2026-13-02T03:04:05Z x", "failed to parse timestamp"),
    ],
)
def test_malformed_lines(payload: bytes, error: str) -> None:
    """A line without a time is an error. [cli 133]"""
    with pytest.raises(ExecutorError, match=error):
        list(FrameReader().feed(frame(1, payload)))


def test_broken_streams() -> None:
    """A stream that ends within a header or a frame is an error that says which."""
    for part, error in ((4, "failed reading log header"), (12, "failed reading buffer")):
        reader = FrameReader()
        assert list(reader.feed(frame(1, b"2026-01-02T03:04:05Z x")[:part])) == []
        with pytest.raises(ExecutorError, match=error):
            reader.finish()


def test_timestamps_with_a_zone() -> None:
    """Offsets are understood, fractions are optional."""
    [line] = FrameReader().feed(frame(1, b"1970-01-01T02:00:01+02:00 x"))
    assert line.timestamp == Timestamp(seconds=1)


@pytest.mark.parametrize(
    ("options", "query"),
    [
        (api.LogSubscriptionOptions(), {"tail": "all", "stdout": 1, "stderr": 1}),
        (api.LogSubscriptionOptions(tail=-1), {"tail": "0", "stdout": 1, "stderr": 1}),
        (api.LogSubscriptionOptions(tail=-11, streams=[api.LogStream.LOG_STREAM_STDERR]), {"tail": "10", "stderr": 1}),
        (
            api.LogSubscriptionOptions(follow=True, since=Timestamp(seconds=1, nanos=500_000_000)),
            {"tail": "all", "stdout": 1, "stderr": 1, "follow": 1, "since": "1.500000000"},
        ),
    ],
)
def test_log_query(options: api.LogSubscriptionOptions, query: dict[str, object]) -> None:
    """Options become the engine's query. [cli 133; dispatcher 166]"""
    assert log_parameters(options) == {"timestamps": 1, **query}


def test_tail_from_the_beginning() -> None:
    """The engine cannot count lines from the beginning. [cli 133; dispatcher 166]"""
    with pytest.raises(ExecutorError, match="tail relative to start of logs not supported via docker API"):
        log_parameters(api.LogSubscriptionOptions(tail=5))
