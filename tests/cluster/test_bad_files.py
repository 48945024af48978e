"""A manager of three with bad files, or with the wrong neighbours: one clear line, its bytes stay as they are, and the others go on."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import grpc.aio
import pytest
from tools.cluster import Cluster, free_port, until

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2 as private_pb2
from pyswarm.api.swarmkit import raft_pb2_grpc
from pyswarm.ca import credentials
from pyswarm.ca.keystore import KeyStore
from pyswarm.clock import SystemClock
from pyswarm.rpc import channel
from tests.cluster.replicas import connection
from tests.cluster.test_bad_input import daemon, one_line
from tests.cluster.test_managers import managers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
VICTIM = "node-3"
VOLATILE = ("daemon.lock", "run")
"""What every start writes: the lock's process id, and sockets of its own."""
CERTIFICATES = pathlib.Path("certificates")


async def set_snapshot_interval(socket: pathlib.Path) -> None:
    """Small snapshots, often, and no log before them."""
    async with connection(socket) as stub:
        found = (await stub.ListClusters(api.ListClustersRequest())).clusters[0]
        found.spec.raft.snapshot_interval, found.spec.raft.log_entries_for_slow_followers = 5, 0
        await stub.UpdateCluster(api.UpdateClusterRequest(cluster_id=found.id, cluster_version=found.meta.version, spec=found.spec))


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """Three managers and a worker; the third manager is stopped, and all three have snapshots."""
    made = new_cluster(0)
    token = made.token("Manager")
    for name in ("node-2", VICTIM):
        made.join(name, token, control=True)
    made.join("node-4", made.token("Worker"))
    made.await_ready(4)
    until("three managers are members", lambda: sorted(managers(made).values()) == ["REACHABLE", "REACHABLE", "REACHABLE *"])
    asyncio.run(set_snapshot_interval(made.socket))
    made.ask("service", "create", "--name", "probe", "--image", "x", "--replicas", "0")
    until("there is a snapshot of what the log no longer has", lambda: has_trimmed_log(made))
    made.terminate(VICTIM)
    shutil.copytree(made.root / VICTIM, made.root / "sound", symlinks=True, ignore=shutil.ignore_patterns("run", "*.sock"))
    yield made
    made.stop()


def has_trimmed_log(made: Cluster) -> bool:
    """Write something large; whether the victim's first log file is gone and a snapshot there."""
    large = made.root / "large"
    large.write_bytes(b"x" * 1_000_000)
    for _ in range(2):
        made.ask("config", "create", f"c{time.monotonic_ns()}", "--file", str(large))
    raft = made.root / VICTIM / "raft"
    return bool([*(raft / "snap-pyswarm").glob("*.snap")]) and not [*(raft / "wal-pyswarm").glob("*-0000000000000001.wal")]


@pytest.fixture
def victim(cluster: Cluster) -> pathlib.Path:
    """The third manager's directory as it was when it stopped."""
    state = cluster.root / VICTIM
    shutil.rmtree(state)
    shutil.copytree(cluster.root / "sound", state)
    return state


def image(directory: pathlib.Path) -> dict[str, bytes]:
    """Every byte that a start has no business to change."""
    found = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    return {str(path): data for path, data in found.items() if path.parts[0] not in VOLATILE}


def only(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    """The newest file of a kind."""
    return max(directory.glob(pattern))


def flip(file: pathlib.Path) -> None:
    """One bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: pathlib.Path, size: int) -> None:
    """Keep only the beginning."""
    file.write_bytes(file.read_bytes()[:size])


def swap(own: pathlib.Path, foreign: pathlib.Path) -> None:
    """Somebody else's files in place of the own ones."""
    shutil.rmtree(own)
    shutil.copytree(foreign, own)


def damage(case: str, state: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Do it; the words that the refusal must have."""
    log, snapshots, certificates = state / "raft" / "wal-pyswarm", state / "raft" / "snap-pyswarm", state / CERTIFICATES
    key, certificate = certificates / "swarm-node.key", certificates / "swarm-node.crt"
    match case:
        case "flipped journal":
            flip(only(log, "*.wal"))
            return [only(log, "*.wal").name, "damaged", "join again"]
        case "cut journal":
            cut(only(log, "*.wal"), 50)
            return [only(log, "*.wal").name, "damaged", "join again"]
        case "journal of another node":
            swap(log, other / "raft" / "wal-pyswarm")
            return [str(log), "belongs to node", "state directory of its own"]
        case "flipped snapshot":
            flip(only(snapshots, "*.snap"))
            return [only(snapshots, "*.snap").name, "damaged", "join again"]
        case "cut snapshot":
            cut(only(snapshots, "*.snap"), 200)
            return [only(snapshots, "*.snap").name, "damaged", "join again"]
        case "snapshot of another node":
            swap(snapshots, other / "raft" / "snap-pyswarm")
            return [str(snapshots), "belongs to node", "state directory of its own"]
        case "flipped key":
            flip(key)
            return [str(certificates)]
        case "cut key":
            cut(key, 60)
            return [str(certificates)]
        case "key of another node":
            shutil.copy(other / CERTIFICATES / key.name, key)
            return [str(certificates)]
        case "cut certificate":
            cut(certificate, 100)
            return [str(certificate)]
        case "identity of another node":
            swap(certificates, other / CERTIFICATES)
            return ["raft", "belongs to node", "state directory of its own"]
    raise AssertionError(case)


CASES = [
    "flipped journal", "cut journal", "journal of another node", "flipped snapshot", "cut snapshot", "snapshot of another node",
    "flipped key", "cut key", "key of another node", "cut certificate", "identity of another node",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_files(cluster: Cluster, victim: pathlib.Path, case: str) -> None:
    """Damaged or foreign: the line names the file and what to do, nothing is written over, and the others take writes."""
    words = damage(case, victim, cluster.root / "node-2")
    before = image(victim)
    one_line(daemon("-d", str(victim)), 1, *words)
    assert image(victim) == before
    cluster.ask("service", "update", "probe", "--label", f"seen={case.replace(' ', '-')}")


def test_sound_files_start(cluster: Cluster, victim: pathlib.Path) -> None:
    """The same directory without damage starts and catches up: the refusals above are about the damage."""
    cluster.start(VICTIM)
    until("it is back", lambda: managers(cluster)[VICTIM] == "REACHABLE")
    cluster.terminate(VICTIM)
    assert victim.exists()


def test_second_process(cluster: Cluster) -> None:
    """The directory of a running follower is refused, and the follower does not notice."""
    before = image(cluster.root / "node-2" / "certificates")
    one_line(daemon("-d", str(cluster.root / "node-2")), 1, "in use by another pyswarmd", "node-2")
    assert image(cluster.root / "node-2" / "certificates") == before
    until("it is a follower still", lambda: managers(cluster)["node-2"].startswith("REACHABLE"))


def test_another_cluster_at_the_address(cluster: Cluster, victim: pathlib.Path, new_cluster: Callable[[int], Cluster]) -> None:
    """A manager of another cluster where a member was: neither cluster takes the other in, by raft or by a token."""
    other = Cluster(cluster.root / "other", cluster.executor)
    other.root.mkdir()
    other.remote = cluster.remotes[VICTIM]
    other.found()
    try:
        until("both have met", lambda: "other" in met(cluster))
        cluster.ask("service", "update", "probe", "--label", "seen=stranger")
        assert managers(cluster)[VICTIM] == "UNREACHABLE"
        assert managers(other).keys() == {"node-1"}
        flags = (
            "--executor",
            "process",
            "--listen-control-api",
            str(other.root / "x.sock"),
            "--listen-remote-api",
            f"127.0.0.1:{free_port()}",
        )
        wrong = daemon("-d", str(other.root / "new"), "--join-addr", other.remote, "--join-token", cluster.token("Manager"), *flags)
        one_line(wrong, 1, other.remote, "token")
        assert managers(other).keys() == {"node-1"}
    finally:
        other.stop()


def met(cluster: Cluster) -> str:
    """`other` once the first manager has logged that whoever is at the victim's address shows a certificate that it does not trust."""
    log = (cluster.root / "node-1.log").read_text()
    return "other" if "CERTIFICATE_VERIFY_FAILED" in log or "certificate verify failed" in log.lower() else ""


def test_a_worker_is_no_manager(cluster: Cluster) -> None:
    """With a worker's certificate neither a place in the log is given nor a word of the log heard; the members stay who they are."""
    before = managers(cluster)
    assert asyncio.run(ask_as_worker(cluster)) == [grpc.StatusCode.PERMISSION_DENIED] * 2
    assert managers(cluster).keys() == before.keys()


async def ask_as_worker(cluster: Cluster) -> list[grpc.StatusCode]:
    """Call Join and Talk at the leader; the statuses."""
    store = KeyStore(cluster.root / "node-4" / CERTIFICATES)
    bundle, pair = store.read_root(), store.read()
    assert bundle is not None
    me = credentials.build(bundle, pair.cert_pem, pair.key_pem, SystemClock().now())
    opened = channel.connect(cluster.remote, me)
    found = []
    try:
        try:
            await raft_pb2_grpc.RaftMembershipStub(opened).Join(api.JoinRequest(addr="127.0.0.1:1"), timeout=20)  # type: ignore[no-untyped-call,misc]
        except grpc.aio.AioRpcError as error:
            found.append(error.code())
        talk = opened.stream_stream(
            "/pyswarm.v1.RaftTransport/Talk",
            request_serializer=private_pb2.Envelope.SerializeToString,
            response_deserializer=private_pb2.Welcome.FromString,
        )()
        # Nothing is written: the refusal does not wait for it, and a write that it overtakes would hide it behind another status.
        found.append(await asyncio.wait_for(talk.code(), 20))
    finally:
        await opened.close(None)
    return found
