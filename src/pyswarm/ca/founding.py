"""A cluster between its first file and its first commit.

The root key of a fresh cluster must not be on disk, so it lives in memory until the cluster object that holds it is committed. A crash
before that would leave certificates whose root nobody can sign with. The cure is a small marker file beside the certificates, which holds
the ids that were chosen:

1. the marker is written, durably, before any other file of a new cluster;
2. root, certificate and key are written;
3. the cluster object is committed, with the root key in it;
4. the marker is removed (`Bootstrapped.committed`).

A start that finds the marker knows that step 4 was not reached, and continues according to what else is there:

- The log is empty: nothing was committed. Everything begins anew, with new ids.
- The files load: they are used. When this node then leads and finds no cluster object, step 3 was not reached either: it makes another
  root and certificate with the ids in its certificate (`Bootstrapped.signing_root`) and goes on with 3. If there is a cluster object, only
  4 is left.
- The files are locked: the start fails. Whoever has the unlock key got it from the committed cluster object. (An autolocked cluster that
  was interrupted after its log began and before its first commit has a key that nobody knows; only an empty state directory helps.)
- The files are missing or do not fit each other: step 2 was interrupted, so step 3 cannot have happened. They are made again, same ids.

Nobody can have joined before step 3, because there was no token; so a new root with the same name and ids harms nobody.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pyswarm.api import ids
from pyswarm.ca import credentials, csr, files
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from pyswarm.ca.unlock import KEK
from pyswarm.rpc.caller import MANAGER

MARKER_FILE = ".founding"
_EXPIRY = 0.0
"""Shorter than the minimum, hence the default validity: there is no cluster object to say otherwise yet."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What the first manager invents: its own id and the cluster's."""

    node_id: str
    cluster_id: str


def new_ids() -> Ids:
    """Two fresh ids."""
    return Ids(ids.new_id(), ids.new_id())


def read_marker(directory: Path) -> Ids | None:
    """The ids of a cluster that is being founded, None when none is. An unreadable marker was never finished, so it counts as none."""
    try:
        content = json.loads((directory / MARKER_FILE).read_text("utf-8"))
        return Ids(str(content["node_id"]), str(content["cluster_id"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def write_marker(directory: Path, chosen: Ids) -> None:
    """Say that a cluster with these ids is being founded."""
    files.ensure_directory(directory, 0o755)
    content = json.dumps({"node_id": chosen.node_id, "cluster_id": chosen.cluster_id})
    files.write_atomically(directory / MARKER_FILE, content.encode())


def remove_marker(directory: Path) -> None:
    """Say that the cluster exists."""
    if (directory / MARKER_FILE).exists():
        files.remove_durably(directory / MARKER_FILE)


def create(keystore: KeyStore, chosen: Ids, now: float, kek: KEK | None = None) -> tuple[RootCA, Credentials]:
    """Make a root and this node's manager certificate and write them, marker first; overwrites what is there.

    `kek` encrypts the key; None keeps to the encryption in force. The data keys in the key file's headers stay.
    """
    write_marker(keystore.directory, chosen)
    root = RootCA.create(now=now)
    csr_pem, key_pem = csr.generate()
    cert_pem = root.sign_csr(csr_pem, chosen.node_id, MANAGER, chosen.cluster_id, _EXPIRY, now)
    fresh = credentials.build(root.bundle, cert_pem, key_pem, now)
    keystore.write_root(root.bundle)
    keystore.write(fresh.cert_pem, fresh.key_pem, kek)
    return root, fresh
