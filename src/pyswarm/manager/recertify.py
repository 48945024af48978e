"""A new certificate for a manager that does not run, signed with the CA key in its own log.

When the old one has expired nobody talks to the manager any more, not even its own node, so it cannot ask for one. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyswarm.ca import csr
from pyswarm.ca.credentials import identity_of
from pyswarm.ca.keystore import KeyStore, MissingFileError
from pyswarm.ca.root import RootCA
from pyswarm.ca.validate import parse_certificates
from pyswarm.clock import Clock
from pyswarm.errors import FailedPrecondition, NotFound, SwarmError
from pyswarm.manager.store import Store
from pyswarm.raft.inspection import Inspection


@contextmanager
def inspection(state_dir: Path, keys: KeyStore) -> Iterator[Inspection]:
    """A stopped manager's log, opened with the data keys in its key file. Raises SwarmError."""
    try:
        data_keys = keys.update_data_keys(lambda known: known)
    except MissingFileError as error:
        raise NotFound(f"{error.message}: name the state directory of a manager with --state-dir") from error
    if data_keys is None:
        raise FailedPrecondition(f"{state_dir} holds no key for a log: this node is no manager")
    with Inspection(state_dir / "raft", [key for key in (data_keys.pending, data_keys.current) if key]) as found:
        yield found


def replay(found: Inspection, clock: Clock) -> Store:
    """What the log says is in the store."""
    store = Store(clock)
    begin, changes = found.replay()
    store.prepare(begin)()
    for index, request in changes:
        store.apply(index, request, None)
    return store


def recertify(state_dir: Path, keys: KeyStore, clock: Clock) -> None:
    """Write a certificate that is valid from now on. Name, role and cluster stay as in the old one; the key is new, locked as the old one.

    Raises SwarmError, FailedPrecondition when the log has no CA key.
    """
    now = clock.now()
    with inspection(state_dir, keys) as found:
        cluster = next(iter(replay(found, clock).clusters), None)
        root = RootCA.from_store(cluster.root_ca, now=now) if cluster is not None else None
        if cluster is None or root is None or not root.signer:
            raise FailedPrecondition("could not find CA key data in raft logs; cannot renew certs")
        me = identity_of(parse_certificates(keys.read().cert_pem)[0])
        request, key = csr.generate()
        expiry = cluster.spec.ca_config.node_cert_expiry.ToTimedelta().total_seconds()
        keys.write(root.sign_csr(request, me.node_id, me.roles[0], me.organization, expiry, now), key)


def has_expired(keys: KeyStore, now: float) -> bool:
    """Whether the certificate was valid once and no longer is; False too when there is none that can be read."""
    try:
        [leaf, *_] = parse_certificates(keys.read().cert_pem)
    except (SwarmError, OSError):
        return False  # what is wrong with it is said when it is loaded
    return leaf.not_valid_after_utc.timestamp() < now
