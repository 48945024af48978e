"""pyswarm-rafttool on the directory of a manager that is not running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.ca import dek, unlock
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from pyswarm.ca.update import initial_root
from pyswarm.ca.validate import parse_certificates
from pyswarm.cli import rafttool
from pyswarm.clock import SystemClock
from pyswarm.manager.store import Store, Tx
from pyswarm.raft import records, segments
from pyswarm.raft.errors import WrongKey
from pyswarm.raft.inspection import Inspection
from pyswarm.raft.records import Kind
from tests.ca import pki
from tests.ca.cluster import running as serving
from tests.raft.nodes import new_node, running

UNLOCK_KEY = b"u" * 32
KEYS = dek.DataKeys(b"d" * 32)
TEXT_KEY = unlock.to_text(UNLOCK_KEY)
WRONG_KEY = unlock.to_text(b"w" * 32)
NOW = SystemClock().now()
ROOT = RootCA.create(now=NOW)
SECRETS = ("very secret payload", "config payload", "PASSWORD=x", "registry-password", "PRIVATE KEY", "SWMTKN", "the unlock key")

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Runs a command line; its status, what it printed, and its complaint."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = rafttool.run(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def fill(tx: Tx) -> None:
    """Everything that has something to hide."""
    cluster = api.Cluster(id="cluster-1", root_ca=initial_root(ROOT))
    cluster.spec.annotations.name = "default"
    cluster.unlock_keys.add(subsystem="swarm-manager", key=b"the unlock key")
    tx.clusters.create(cluster)
    secret = api.Secret(id="secret-1")
    secret.spec.annotations.name, secret.spec.data = "password", b"very secret payload"
    tx.secrets.create(secret)
    config = api.Config(id="config-1")
    config.spec.annotations.name, config.spec.data = "settings", b"config payload"
    tx.configs.create(config)


def service(name: str) -> api.Service:
    """A service with a previous spec, both with things to hide."""
    made = api.Service(id=f"id-{name}")
    for spec in (made.spec, made.previous_spec):
        spec.annotations.name = name
        spec.task.container.image = "redis"
        spec.task.container.env.append("PASSWORD=x")
        spec.task.container.pull_options.registry_auth = "registry-password"
    return made


async def live(directory: Path, key: bytes = KEYS.current, *old: bytes) -> None:
    """A manager's life: three writes, a snapshot after the second, a crash in the middle of nothing."""
    store, config = Store(SystemClock()), api.RaftConfig()
    node = new_node(directory / "raft", store, config, data_key=key, old_keys=old)  # type: ignore[arg-type]
    store.attach(node)
    async with running(node), serving(store.run()):
        if "cluster-1" not in store.clusters:
            await store.update(fill)
            config.snapshot_interval = 1
            await store.update(lambda tx: tx.services.create(service("redis")))
            while not list((directory / "raft" / "snap-pyswarm").iterdir()):  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.001)
            config.snapshot_interval = 0
        await store.update(lambda tx: tx.services.create(service(f"web-{len(store.services)}")))


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """The state directory of a locked manager."""
    keystore = KeyStore(tmp_path / "certificates", UNLOCK_KEY)
    pair = pki.issue(ROOT, "node-1", org="cluster-1", now=NOW)
    keystore.write(pair.cert_pem, pair.key_pem)
    keystore.update_data_keys(lambda _: KEYS)
    await live(tmp_path)
    return tmp_path


def content(directory: Path) -> dict[str, bytes]:
    """All files below."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_decrypt(state: Path, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Log and snapshot come out readable, with owner and entries as they were; nothing else changes. [store 117; cli 100]"""
    before, out = content(state), tmp_path_factory.mktemp("out") / "plain"
    status, printed, complaint = tool("decrypt", "-d", str(state), "--unlock-key", TEXT_KEY, "-o", str(out))
    assert (status, printed, complaint) == (0, "", "")
    assert content(state) == before
    (segment,) = (out / "wal-decrypted").iterdir()
    found, damage = records.scan(segment.read_bytes(), 1)
    assert damage is None
    header = raft_pb2.FileHeader.FromString(found[0].payload)
    assert (header.cluster_id, header.node_id) == ("cluster-1", "node-1")
    assert sum(record.kind == Kind.ENTRY for record in found) == 6
    assert b"very secret payload" in segment.read_bytes()
    (snapshot,) = (out / "snap-decrypted").iterdir()
    found, _ = records.scan(snapshot.read_bytes(), 1)
    whole = b"".join(part.payload for part in found[1:])
    assert raft_pb2.LogSnapshot.FromString(whole).snapshot.store.secrets[0].spec.data == b"very secret payload"
    assert segment.stat().st_mode & 0o777 == 0o600
    assert tool("decrypt", "-d", str(state), "--unlock-key", TEXT_KEY, "-o", str(out))[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["snap-decrypted", "snap-decrypted.1", "wal-decrypted", "wal-decrypted.1"]


@pytest.mark.parametrize("key", ["", WRONG_KEY])
async def test_wrong_unlock_key(state: Path, tool: Tool, key: str) -> None:
    """Without the right unlock key nothing is written, and the sentence says what is needed. [store 117; cli 100]"""
    before = content(state)
    for words in (("decrypt", "-o", str(state / "out")), ("dump-wal",), ("dump-snapshot",), ("dump-object", "node"), ("renew-certs",)):
        status, printed, complaint = tool(*words, "-d", str(state), *(["--unlock-key", key] if key else []))
        assert (status, printed) == (1, "")
        assert complaint == "Error: node is locked, and needs a valid unlock key\n"
    assert content(state) == before


async def test_while_the_data_key_changes(state: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log half under the old, half under the pending key is read whole. [store 117]"""
    pending = b"p" * 32
    keystore = KeyStore(state / "certificates", UNLOCK_KEY)
    keystore.update_data_keys(lambda _: dek.DataKeys(KEYS.current, pending))
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 100)
    await live(state, pending, KEYS.current)
    assert len(list((state / "raft" / "wal-pyswarm").iterdir())) > 1
    for key in (KEYS.current, pending):
        with pytest.raises(WrongKey), Inspection(state / "raft", [key]) as found:
            found.entries()
    status, printed, _ = tool("dump-object", "service", "-d", str(state), "--unlock-key", TEXT_KEY)
    assert status == 0
    assert all(f'id: "id-{name}"' in printed for name in ("redis", "web-1", "web-2"))


async def test_dump_wal(state: Path, tool: Tool) -> None:
    """Entries in order with index, term and content; a range is inclusive. [cli 101]"""
    flags = ("-d", str(state), "--unlock-key", TEXT_KEY)
    _, printed, _ = tool("dump-wal", *flags)
    heads = [line for line in printed.splitlines() if line.startswith("Entry ")]
    assert heads[0] == "Entry Index=1, Term=0, Type=EntryConfChange:"
    assert [head.split("=")[1].split(",")[0] for head in heads] == ["1", "2", "3", "4", "5", "6"]
    assert "Conf change type: UPDATE" in printed
    assert 'data: "very secret payload"' in printed
    _, some, _ = tool("dump-wal", *flags, "--start", "4", "--end", "4")
    assert [line for line in some.splitlines() if line.startswith("Entry ")] == heads[3:4]
    assert tool(*flags, "dump-wal")[1] == printed
    assert tool("dump-wal", *flags, "--start", "x")[0] == 2


async def test_dump_snapshot(state: Path, tool: Tool) -> None:
    """Members and objects of the newest snapshot; one that is missing is said. [cli 101]"""
    flags = ("-d", str(state), "--unlock-key", TEXT_KEY)
    _, printed, _ = tool("dump-snapshot", *flags)
    assert printed.startswith("Active members:\n NodeID=node-1, RaftID=")
    assert "\nRemoved members:\n\nObjects:\n" in printed
    assert 'name: "redis"' in printed
    assert 'name: "web-1"' not in printed
    for path in (state / "raft" / "snap-pyswarm").iterdir():
        path.unlink()
    assert tool("dump-snapshot", *flags) == (1, "", "Error: no snapshot found\n")


async def test_dump_object(state: Path, tool: Tool) -> None:
    """Snapshot and log together; by type, ID and name; what is not there is said. [cli 101]"""
    flags = ("-d", str(state), "--unlock-key", TEXT_KEY)
    _, printed, _ = tool("dump-object", "service", *flags)
    assert printed.count('\nid: "id-') + printed.startswith('id: "id-') == 2
    for selection in (("--name", "web-1"), ("--id", "id-web-1")):
        _, printed, _ = tool("dump-object", "service", *selection, *flags)
        assert 'id: "id-web-1"' in printed
        assert "redis" not in printed.replace('image: "redis"', "")
    assert tool("dump-object", "node", "--id", "nope", *flags) == (1, "", "Error: no matching objects found\n")
    status, _, complaint = tool("dump-object", "foo", *flags)
    assert status == 2
    assert "unrecognized object type foo" in complaint
    assert tool("dump-object", *flags)[0] == 2


async def test_redaction(state: Path, tool: Tool) -> None:
    """With --redact nothing secret is printed, wherever it lies; without, all of it is there. [cli 101]"""
    flags = ("-d", str(state), "--unlock-key", TEXT_KEY)
    for words in (("dump-wal",), ("dump-snapshot",)):
        _, printed, _ = tool(*words, *flags)
        assert [word for word in SECRETS if word not in printed] == []
        _, printed, _ = tool(*words, "--redact", *flags)
        assert [word for word in SECRETS if word in printed] == []
        for word in ("SECRET REDACTED", "CONFIG REDACTED", "ENVVARS REDACTED", '"REDACTED"'):
            assert word in printed
    _, printed, _ = tool("dump-object", "cluster", "--redact", *flags)
    assert "root_ca" not in printed


async def test_renew_certs(state: Path, tool: Tool) -> None:
    """A new certificate for a new key, with the old names, signed by the key in the log; the file stays locked, data keys stay."""
    before = KeyStore(state / "certificates", UNLOCK_KEY).read()
    assert tool("renew-certs", "-d", str(state), "--unlock-key", TEXT_KEY) == (0, "", "")
    keystore = KeyStore(state / "certificates", UNLOCK_KEY)
    after = keystore.read()
    old, new = parse_certificates(before.cert_pem)[0], parse_certificates(after.cert_pem)[0]
    assert old.subject == new.subject
    assert old.public_key() != new.public_key()
    new.verify_directly_issued_by(ROOT.roots[0])
    assert keystore.data_keys() == KEYS


async def test_a_running_manager_is_left_alone(state: Path, tool: Tool) -> None:
    """A directory in use is refused, as is one without a log."""
    store = Store(SystemClock())
    node = new_node(state / "raft", store, data_key=KEYS.current)  # type: ignore[arg-type]
    store.attach(node)
    flags = ("-d", str(state), "--unlock-key", TEXT_KEY)
    async with running(node):
        status, printed, complaint = await asyncio.to_thread(tool, "dump-wal", *flags)
        assert (status, printed) == (1, "")
        assert "is in use by another process: stop the manager first" in complaint
    for path in (state / "raft" / "wal-pyswarm").iterdir():
        path.unlink()
    status, _, complaint = tool("dump-wal", *flags)
    assert status == 1
    assert "there is no log in" in complaint
    assert "name the state directory of a manager with --state-dir" in tool("dump-wal", "-d", "/nonexistent")[2]


async def test_a_torn_write_is_only_left_out(state: Path, tool: Tool) -> None:
    """What an interrupted write left behind is not shown, and not repaired either."""
    (segment,) = (state / "raft" / "wal-pyswarm").iterdir()
    found, _ = records.scan(segment.read_bytes(), 1)
    last = max(record.end for record in found if record.kind == Kind.ENTRY)
    segment.write_bytes(segment.read_bytes()[: last - 5])
    before = content(state)
    status, printed, _ = tool("dump-wal", "-d", str(state), "--unlock-key", TEXT_KEY)
    assert (status, printed.count("Entry Index")) == (0, 5)
    assert tool("decrypt", "-d", str(state), "--unlock-key", TEXT_KEY, "-o", str(state.parent / "plain"))[0] == 0
    assert content(state) == before
