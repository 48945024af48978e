"""The root as the cluster object stores it: at first, and when UpdateCluster asks for a change (spec/ca-and-security, section 18).

Root rotation and external CAs are not there yet; asking for them is refused with Unimplemented rather than half done.
"""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.ca import pem, tokens
from pyswarm.ca.root import RootCA
from pyswarm.errors import InvalidArgument, Unimplemented
from pyswarm.manager.store import copy_of


def initial_root(root: RootCA, *, fips: bool = False) -> api.RootCA:
    """What a new cluster stores about its root. Raises InvalidArgument when `root` cannot sign."""
    if root.signer is None:
        raise InvalidArgument("a new cluster needs the key of its root CA")
    return api.RootCA(
        ca_key=root.signer.key_pem,
        ca_cert=root.bundle,
        ca_cert_hash=root.digest,
        join_tokens=api.JoinTokens(worker=tokens.generate(root.bundle, fips=fips), manager=tokens.generate(root.bundle, fips=fips)),
    )


def apply_config(stored: api.RootCA, config: api.CAConfig) -> api.RootCA:
    """The stored root after a requested CA configuration; a new object.

    Without a certificate and a forced rotation in the request nothing changes, and naming the present certificate with its present key is
    the same. Raises InvalidArgument for a contradictory request, Unimplemented for whatever would rotate the root or use an external CA.
    """
    if config.signing_ca_key and not config.signing_ca_cert:
        raise InvalidArgument("if a signing CA key is provided, the signing CA cert must also be provided")
    if config.external_cas:
        raise Unimplemented("external CAs are not supported yet: leave the list of external CAs empty")
    changed = copy_of(stored)
    if not config.signing_ca_cert:
        if config.force_rotate != stored.last_forced_rotation:
            raise Unimplemented("rotating the root CA is not supported yet: leave force_rotate as it is")
        return changed
    same_cert = pem.normalize(config.signing_ca_cert) == pem.normalize(stored.ca_cert)
    if not same_cert or pem.normalize(config.signing_ca_key) != pem.normalize(stored.ca_key):
        raise Unimplemented("rotating to another root CA, or taking its key out of the cluster, is not supported yet")
    changed.last_forced_rotation = config.force_rotate
    return changed
