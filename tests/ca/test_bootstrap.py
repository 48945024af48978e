"""Which credentials a node starts with, and founding a cluster through crashes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.ca import dek, files, founding, tokens, validate
from pyswarm.ca.bootstrap import Bootstrapped, Loaded, Options, Plan, bootstrap, choose
from pyswarm.ca.client import Client
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.founding import Ids
from pyswarm.ca.keystore import KeyStore, LockedError
from pyswarm.ca.root import NODE_BACKDATE, RootCA
from pyswarm.errors import FailedPrecondition, SwarmError, Unavailable, Unknown
from pyswarm.manager.store import Store
from tests.ca import pki
from tests.ca.cluster import create_cluster, running
from tests.ca.test_client import World
from tests.support.clock import VirtualClock

ROOT = RootCA.create(now=VirtualClock().now())


class Start(World):
    """A node that starts, again and again, in one directory."""

    @property
    def directory(self) -> Path:
        """Its certificates."""
        return self.keystore.directory

    async def start(self, *, log_is_empty: bool = True, client: Client | None = None, **options: object) -> Bootstrapped:
        """One start."""
        chosen = Options(**options)  # type: ignore[arg-type]
        return await bootstrap(self.directory, chosen, client or self.client, self.clock, log_is_empty=log_is_empty)

    def fill(self, pair: Credentials, root: bytes | None) -> None:
        """Put files there."""
        store = KeyStore(self.directory)
        store.write(pair.cert_pem, pair.key_pem)
        if root is not None:
            store.write_root(root)


@pytest.fixture
async def node(store: Store, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[Start]:
    """A node with an empty directory, next to a running cluster."""
    await create_cluster(store, ROOT)
    made = Start(store, clock, ROOT, tmp_path)
    async with running(made.signer.run()):
        yield made


CREDENTIALS = pki.issue(ROOT, now=VirtualClock().now())
IDS = Ids("n", "c")


@pytest.mark.parametrize(("loaded", "ids", "empty", "join", "plan"), [
    (Loaded(), None, True, "", Plan.CREATE),
    (Loaded(), None, True, "m:1", Plan.JOIN),
    (Loaded(CREDENTIALS), None, True, "m:1", Plan.USE),
    (Loaded(CREDENTIALS), None, False, "", Plan.USE),
    (Loaded(problem=Unknown("x")), None, True, "m:1", Plan.FAIL),
    (Loaded(), None, False, "", Plan.FAIL),
    (Loaded(), None, False, "m:1", Plan.FAIL),
    (Loaded(CREDENTIALS), IDS, True, "", Plan.CREATE),
    (Loaded(CREDENTIALS), IDS, True, "m:1", Plan.JOIN),
    (Loaded(problem=LockedError(Path("x"))), IDS, True, "", Plan.CREATE),
    (Loaded(CREDENTIALS), IDS, False, "", Plan.USE),
    (Loaded(problem=LockedError(Path("x"))), IDS, False, "", Plan.FAIL),
    (Loaded(problem=Unknown("x")), IDS, False, "", Plan.RECREATE),
    (Loaded(), IDS, False, "", Plan.RECREATE),
])  # fmt: skip
def test_plan(loaded: Loaded, ids: Ids | None, empty: bool, join: str, plan: Plan) -> None:
    """Files win over addresses, and the marker decides what an interrupted founding becomes."""
    assert choose(loaded, founding_ids=ids, log_is_empty=empty, join_addr=join) is plan


async def test_new_cluster(node: Start) -> None:
    """An empty directory without join address becomes a manager of a new cluster, which can sign [ca 68] [ca 70]."""
    made = await node.start()
    assert made.security.current.is_manager
    assert made.root.signer is not None
    assert made.security.current.organization != made.security.current.node_id
    assert made.security.current.issuer_public_key == validate.public_key_der(made.root.roots[0])
    assert made.first_kek == b""
    assert KeyStore(node.directory).read().key_pem == made.security.current.key_pem
    assert sorted(entry.name for entry in node.directory.iterdir()) == [
        ".founding", "swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt",
    ]  # fmt: skip
    lifetime = made.security.current.not_after - made.security.current.not_before - NODE_BACKDATE
    assert lifetime == 90 * pki.DAY


async def test_new_autolocked_cluster(node: Start) -> None:
    """With autolock the very first key is unreadable without the key that goes into the cluster object [ca 70]."""
    made = await node.start(autolock=True, unlock_key=b"from elsewhere")
    assert len(made.first_kek) == 32
    with pytest.raises(LockedError):
        KeyStore(node.directory).read()
    assert KeyStore(node.directory, made.first_kek).read()


@pytest.mark.parametrize("root_only", [True, False])
async def test_incomplete_directory(node: Start, root_only: bool) -> None:
    """A root alone, or a pair alone, is replaced by a new cluster [ca 71]. [dispatcher 182]"""
    if root_only:
        KeyStore(node.directory).write_root(ROOT.bundle)
    else:
        node.fill(CREDENTIALS, None)
    made = await node.start()
    assert made.security.current.root_pem != ROOT.bundle
    assert made.security.current.node_id != CREDENTIALS.node_id


async def test_files_win(node: Start) -> None:
    """Usable files are used although a token and an address are given, without asking anyone [ca 72]."""
    node.fill(CREDENTIALS, ROOT.bundle)
    made = await node.start(join_addr="m:1", join_token=tokens.generate(b"x"))
    assert made.security.current == CREDENTIALS
    assert made.root.signer is None
    assert node.direct.dials == []


async def test_locked_files(node: Start) -> None:
    """Locked files need their key, and open with it [ca 72] [ca 73]."""
    store = KeyStore(node.directory, b"k" * 32)
    store.write_root(ROOT.bundle)
    store.write(CREDENTIALS.cert_pem, CREDENTIALS.key_pem)
    for wrong in (b"", b"w" * 32):
        for addr in ("", "m:1"):
            with pytest.raises(LockedError, match="node is locked, and needs a valid unlock key"):
                await node.start(unlock_key=wrong, join_addr=addr)
    assert (await node.start(unlock_key=b"k" * 32)).security.current == CREDENTIALS


async def test_locked_pair_without_root(node: Start) -> None:
    """A locked key whose root file is gone is not overwritten by joining."""
    store = KeyStore(node.directory, b"k" * 32)
    store.write(CREDENTIALS.cert_pem, CREDENTIALS.key_pem)
    with pytest.raises(LockedError):
        await node.start(join_addr="m:1", join_token=node.tokens.worker)
    assert KeyStore(node.directory, b"k" * 32).read()


async def test_root_of_another_cluster(node: Start) -> None:
    """A pair under another root is an error, even with a token [ca 74]."""
    node.fill(CREDENTIALS, RootCA.create(now=node.clock.now()).bundle)
    for options in ({}, {"join_addr": "m:1", "join_token": node.tokens.worker}):
        with pytest.raises(SwarmError, match=r"error while loading TLS certificate in .*swarm-node\.crt: .*unknown authority"):
            await node.start(**options)


async def test_expired_certificate(node: Start) -> None:
    """An expired certificate is an error unless a new cluster is forced; one from the future always is [ca 75] [ca 80].

    [dispatcher 192 in part]
    """
    node.fill(CREDENTIALS, ROOT.bundle)
    node.clock._now += 200 * pki.DAY
    with pytest.raises(SwarmError, match="not valid after"):
        await node.start()
    assert (await node.start(force_new_cluster=True)).security.current.node_id == "node1"
    node.clock._now -= 400 * pki.DAY
    KeyStore(node.directory).write_root(pki.make("r", key=None, start=0).pem)
    for force in (True, False):
        with pytest.raises(SwarmError, match="not valid before"):
            await node.start(force_new_cluster=force)


async def test_intermediate(node: Start) -> None:
    """A leaf under an intermediate loads only together with it, and then names it as issuer [ca 76]."""
    top = pki.make("top")
    middle = pki.make("middle", top)
    root = RootCA.load(top.pem, now=pki.NOW, signing_cert=middle.pem, signing_key=middle.key_pem, intermediates=middle.pem)
    whole = pki.issue(root)
    leaf = whole.cert_pem[: -len(middle.pem)]
    KeyStore(node.directory).write_root(top.pem)
    KeyStore(node.directory).write(leaf, whole.key_pem)
    with pytest.raises(SwarmError, match="unknown authority"):
        await node.start()
    KeyStore(node.directory).write(whole.cert_pem, whole.key_pem)
    assert (await node.start()).security.current.issuer_subject == middle.certificate.subject.public_bytes()


@pytest.mark.parametrize("name", ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"])
async def test_garbage(node: Start, name: str) -> None:
    """A damaged file is named, not replaced [ca 6] [ca 77]."""
    node.fill(CREDENTIALS, ROOT.bundle)
    (node.directory / name).write_bytes(b"garbage")
    with pytest.raises(SwarmError, match=f"error while loading TLS certificate in .*{name}"):
        await node.start()
    assert (node.directory / name).read_bytes() == b"garbage"


async def test_legacy_root_key(node: Start) -> None:
    """A root key left by an old version makes the root sign; one of another root is an error [ca 5]."""
    assert ROOT.signer is not None
    node.fill(CREDENTIALS, ROOT.bundle)
    (node.directory / "swarm-root-ca.key").write_bytes(ROOT.signer.key_pem)
    assert (await node.start()).root.signer is not None
    (node.directory / "swarm-root-ca.key").write_bytes(CREDENTIALS.key_pem)
    with pytest.raises(SwarmError, match="certificate key mismatch"):
        await node.start()


@pytest.mark.parametrize("kind", ["worker", "manager"])
async def test_joining(node: Start, kind: str) -> None:
    """A node with address and token fetches root and certificate and stores both [ca 41] [ca 69]."""
    made = await node.start(join_addr="m:1", join_token=getattr(node.tokens, kind), availability=api.NodeSpec.Availability.PAUSE)
    assert made.security.current.role == f"swarm-{kind}"
    assert KeyStore(node.directory).read_root() == ROOT.bundle
    stored = node.store.nodes.get(made.security.current.node_id)
    assert stored is not None
    assert stored.spec.availability == api.NodeSpec.Availability.PAUSE
    assert (await node.start()).security.current == made.security.current


async def test_root_on_disk_is_kept(node: Start) -> None:
    """When only the pair is missing the root on disk stays, byte for byte, and is not asked for [ca 78]."""
    KeyStore(node.directory).write_root(ROOT.bundle)
    made = await node.start(join_addr="m:1", join_token=node.tokens.worker)
    assert made.security.current.root_pem == ROOT.bundle
    assert "root" not in node.direct.calls


async def test_pair_on_disk_is_used(node: Start) -> None:
    """When only the root is missing it is fetched, and a pair that fits it is used."""
    node.fill(CREDENTIALS, None)
    made = await node.start(join_addr="m:1", join_token=node.tokens.worker)
    assert made.security.current == CREDENTIALS
    assert "issue" not in node.direct.calls


async def test_unreachable(node: Start) -> None:
    """When nobody answers the start ends with the reason [ca 78]."""
    node.direct.faults["connect"] = [Unavailable("no route")] * 5
    task = await node.passing(node.start(join_addr="m:1", join_token=node.tokens.worker), 20)
    with pytest.raises(Unavailable, match="no route"):
        task.result()


async def test_fips(node: Start) -> None:
    """A node is refused by clusters that demand FIPS: by token before asking anyone, by certificate afterwards [ca 181].

    [dispatcher 185 in part]
    """
    with pytest.raises(FailedPrecondition, match="node is not FIPS-enabled but cluster requires FIPS"):
        await node.start(join_addr="m:1", join_token=tokens.generate(ROOT.bundle, fips=True))
    assert node.direct.dials == []
    node.fill(pki.issue(ROOT, org="FIPS.x", now=node.clock.now()), ROOT.bundle)
    with pytest.raises(FailedPrecondition, match="FIPS"):
        await node.start()


async def test_lost_certificates(node: Start) -> None:
    """Raft data without certificates is an error with a remedy, not a reason to make new ones."""
    with pytest.raises(Unknown, match="there is raft data but no certificate for it; restore"):
        await node.start(log_is_empty=False)
    assert not node.directory.exists()


# --- founding through crashes


class Crash(Exception):
    """The machine stopped here."""


def count_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> list[str]:
    """Let the disk work for `stop_at` operations; returns what was done."""
    steps: list[str] = []
    write, sync = files.write_atomically, files.sync_directory

    def step(name: str) -> None:
        if len(steps) == stop_at:
            raise Crash
        steps.append(name)

    def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
        step(path.name)
        write(path, data, mode)

    def sync_directory(path: Path) -> None:
        step("sync")
        sync(path)

    monkeypatch.setattr(files, "write_atomically", write_atomically)
    monkeypatch.setattr(files, "sync_directory", sync_directory)
    return steps


@pytest.mark.parametrize("stop_at", range(12))
async def test_crash_while_founding(node: Start, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """Whatever was written when a first start died, the next one founds a cluster that can sign."""
    with monkeypatch.context() as patch:
        count_steps(patch, stop_at)
        with contextlib.suppress(Crash):
            await node.start()
    made = await node.start()
    assert made.root.signer is not None
    assert (await made.signing_root()) is made.root
    await made.committed()
    assert (await node.start(log_is_empty=False)).security.current == made.security.current


async def test_uncommitted_cluster_with_an_empty_log(node: Start) -> None:
    """A cluster that never committed anything begins anew, with other ids, or joins another one instead."""
    first = await node.start(autolock=True)
    second = await node.start()
    assert second.security.current.organization != first.security.current.organization
    joined = await node.start(join_addr="m:1", join_token=node.tokens.manager)
    assert joined.security.current.root_pem == ROOT.bundle
    assert founding.read_marker(node.directory) is None


@pytest.mark.parametrize("stop_at", range(12))
async def test_crash_before_the_first_commit(node: Start, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """A log that began without a cluster object gets another root under the same ids, and keeps its data key, through further crashes."""
    first = await node.start()
    first.keystore.update_data_keys(lambda _: dek.DataKeys(b"data key"))
    second = await node.start(log_is_empty=False)
    assert second.root.signer is None
    assert second.security.current == first.security.current
    with monkeypatch.context() as patch:
        count_steps(patch, stop_at)
        with contextlib.suppress(Crash):
            await second.signing_root()
    third = await node.start(log_is_empty=False)
    root = await third.signing_root()
    current = third.security.current
    assert root.signer is not None
    assert (current.node_id, current.organization) == (first.security.current.node_id, first.security.current.organization)
    assert current.root_pem == root.bundle
    assert third.keystore.data_keys() == dek.DataKeys(b"data key")
    await third.committed()
    last = await node.start(log_is_empty=False)
    assert last.security.current == current
    assert last.keystore.data_keys() == dek.DataKeys(b"data key")


async def test_subscribers_hear_of_another_root(node: Start) -> None:
    """Making the root again switches the live credentials."""
    await node.start()
    second = await node.start(log_is_empty=False)
    heard: list[Credentials] = []
    second.security.subscribe(heard.append)
    root = await second.signing_root()
    assert [c.root_pem for c in heard] == [root.bundle]


async def test_committed_twice(node: Start) -> None:
    """Every leader may say that the cluster exists."""
    made = await node.start()
    await made.committed()
    await made.committed()
    assert founding.read_marker(node.directory) is None


def test_root_key_is_never_written(tmp_path: Path) -> None:
    """No file of a new cluster holds the root's key."""
    root, _ = founding.create(KeyStore(tmp_path / "certificates"), IDS, pki.NOW)
    assert root.signer is not None
    secret = root.signer.key_pem.splitlines()[1]
    assert all(secret not in path.read_bytes() for path in (tmp_path / "certificates").iterdir())
