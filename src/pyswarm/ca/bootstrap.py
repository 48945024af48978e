"""Which credentials a node starts with (spec/ca-and-security, section 11): those on disk, a new cluster's, or ones it asks for.

`choose` decides; `bootstrap` does it. Credentials on disk win over tokens and join addresses; a restart asks nobody.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pyswarm.api import v1 as api
from pyswarm.ca import credentials, founding, keystore, tokens, unlock
from pyswarm.ca.client import Client, Request
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.founding import Ids
from pyswarm.ca.keystore import KeyFileError, KeyStore, LockedError, MissingFileError
from pyswarm.ca.root import RootCA
from pyswarm.ca.unlock import KEK
from pyswarm.ca.validate import CertificateError
from pyswarm.clock import Clock
from pyswarm.errors import FailedPrecondition, SwarmError, Unknown

log = structlog.get_logger(__name__)

_FIPS_PREFIX = "FIPS."


class Plan(enum.Enum):
    """What to do about credentials."""

    USE = "use the ones on disk"
    CREATE = "found a cluster"
    RECREATE = "found the interrupted cluster again, with its ids"
    JOIN = "ask a cluster for them"
    FAIL = "report why those on disk cannot be used"


@dataclass(frozen=True, slots=True)
class Options:
    """How the node was told to start."""

    join_addr: str = ""
    join_token: str = field(default="", repr=False)
    availability: api.NodeSpec.Availability.ValueType = api.NodeSpec.Availability.ACTIVE
    autolock: bool = False
    unlock_key: bytes = field(default=b"", repr=False)
    force_new_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the disk had: credentials, or the reason why not (None: nothing there)."""

    credentials: Credentials | None = None
    root: RootCA | None = None
    problem: SwarmError | None = None


def choose(loaded: Loaded, *, founding_ids: Ids | None, log_is_empty: bool, join_addr: str) -> Plan:
    """The plan. `founding_ids` are in the marker of a cluster that was not known to be committed (see `founding`)."""
    if founding_ids is not None and log_is_empty:
        return Plan.JOIN if join_addr else Plan.CREATE
    if loaded.credentials is not None:
        return Plan.USE
    if founding_ids is not None and not isinstance(loaded.problem, LockedError):
        return Plan.RECREATE
    if loaded.problem is not None or not log_is_empty:
        # Raft data without credentials: the key file had the only keys to it, and a new one must not take its place.
        return Plan.FAIL
    return Plan.JOIN if join_addr else Plan.CREATE


class Bootstrapped:
    """The node's identity once it has one, and the way from a root in memory to a committed cluster."""

    def __init__(self, security: SecurityConfig, store: KeyStore, root: RootCA, clock: Clock, kek: bytes = b"") -> None:
        self.security = security
        self.keystore = store
        self.root = root
        """Able to sign only if it was created by this process and is not in the cluster object yet (or an old root key file is there)."""
        self.first_kek = kek
        """The unlock key that a cluster founded now starts with; empty when it is not locked."""
        self._clock = clock

    async def signing_root(self) -> RootCA:
        """The root for the cluster object that is about to be created. Only for a leader that found no such object.

        Usually the one that was created at the start; after a crash in between another one is made and takes its place, everywhere.
        """
        if self.root.signer is None:
            current = self.security.current
            chosen = Ids(current.node_id, current.organization)
            log.warning("the cluster was never committed: making its root CA again", cluster=chosen.cluster_id)
            self.root, fresh = await asyncio.to_thread(founding.create, self.keystore, chosen, self._clock.now())
            self.first_kek = self.keystore.kek
            self.security.replace_all(fresh)
        return self.root

    async def committed(self) -> None:
        """The cluster object exists: the root key is safe in the log, and needed here no longer. May be called at any start of leading."""
        await asyncio.to_thread(founding.remove_marker, self.keystore.directory)


async def bootstrap(directory: Path, options: Options, client: Client, clock: Clock, *, log_is_empty: bool) -> Bootstrapped:
    """Get the node its credentials. `directory` is the `certificates` directory; `log_is_empty` says that no raft data is on disk.

    Blocks until a certificate is issued when the node has to join. Raises LockedError, FailedPrecondition (FIPS), Unknown with the file's
    name when the disk holds something unusable, and what the client raises.
    """
    store = KeyStore(directory, options.unlock_key)
    chosen = founding.read_marker(directory)
    loaded = await asyncio.to_thread(_load, store, clock.now(), options)
    plan = choose(loaded, founding_ids=chosen, log_is_empty=log_is_empty, join_addr=options.join_addr)
    log.info("credentials", plan=plan.value, directory=str(directory))
    match plan:
        case Plan.FAIL:
            raise loaded.problem or Unknown(
                f"error while loading TLS certificate in {directory}: there is raft data but no certificate for it; "
                "restore the certificates directory, or empty the whole state directory to begin anew"
            )
        case Plan.CREATE:
            return await _found(KeyStore(directory), options, clock, founding.new_ids())
        case Plan.RECREATE:
            return await _found(store, options, clock, chosen or founding.new_ids())
        case Plan.JOIN:
            if chosen is not None:
                await asyncio.to_thread(_abandon, store)
            loaded = await _join(store, options, client, clock)
        case Plan.USE:
            pass
    fresh, root = loaded.credentials, loaded.root
    if fresh is None or root is None:
        raise Unknown(f"no credentials in {directory}")
    _refuse_fips(fresh.organization.startswith(_FIPS_PREFIX))
    return Bootstrapped(SecurityConfig(fresh, clock), store, root, clock)


def _load(store: KeyStore, now: float, options: Options) -> Loaded:
    """The credentials on disk. Without a root file there are none, whatever else is there."""
    place = store.directory / keystore.CERT_FILE
    root = None
    try:
        bundle = store.read_root()
        if bundle is None:
            return Loaded()
        place = store.directory / keystore.ROOT_FILE
        root = _root_of(store, bundle, now)
        place = store.directory / keystore.CERT_FILE
        pair = store.read()
        return Loaded(credentials.build(bundle, pair.cert_pem, pair.key_pem, now, allow_expired=options.force_new_cluster), root)
    except MissingFileError:
        return Loaded(root=root)
    except LockedError as error:
        return Loaded(root=root, problem=error)
    except (CertificateError, KeyFileError) as error:
        return Loaded(root=root, problem=Unknown(f"error while loading TLS certificate in {place}: {error.message}"))


def _root_of(store: KeyStore, bundle: bytes, now: float) -> RootCA:
    key = store.read_root_key()
    return RootCA.load(bundle, now=now, signing_cert=bundle if key else b"", signing_key=key or b"")


async def _found(store: KeyStore, options: Options, clock: Clock, chosen: Ids) -> Bootstrapped:
    """A cluster of one. `store` brings what has to survive of an interrupted attempt: data keys of the log, and how they are encrypted."""
    key = store.kek or (unlock.generate() if options.autolock else b"")
    root, fresh = await asyncio.to_thread(founding.create, store, chosen, clock.now(), KEK(key))
    return Bootstrapped(SecurityConfig(fresh, clock), store, root, clock, key)


def _abandon(store: KeyStore) -> None:
    """Drop the files of a cluster that was never committed; the marker goes last."""
    store.erase()
    founding.remove_marker(store.directory)


async def _join(store: KeyStore, options: Options, client: Client, clock: Clock) -> Loaded:
    """Credentials from the cluster; its root too, unless the disk has one."""
    if options.join_token:
        _refuse_fips(tokens.parse(options.join_token).fips)
    bundle = await asyncio.to_thread(store.read_root)
    if bundle is None:
        bundle = await client.fetch_root(options.join_token)
        await asyncio.to_thread(store.write_root, bundle)
    usable = await asyncio.to_thread(_load, store, clock.now(), options)
    if isinstance(usable.problem, LockedError):
        # A new key would overwrite one that only waits for its unlock key.
        raise usable.problem
    if usable.credentials is not None or usable.root is None:
        return usable
    request = Request(bundle, options.join_token, options.availability)
    return Loaded(await client.request_certificate(request, store), usable.root)


def _refuse_fips(required: bool) -> None:
    if required:
        raise FailedPrecondition("node is not FIPS-enabled but cluster requires FIPS")
