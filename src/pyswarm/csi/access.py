"""An access mode of the swarm API as plugins read it, and what else both sides say to them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi

A = api.VolumeAccessMode
M = csi.VolumeCapability.AccessMode
_MODES = {
    (A.SINGLE_NODE, A.NONE): M.SINGLE_NODE_WRITER,
    (A.SINGLE_NODE, A.READ_ONLY): M.SINGLE_NODE_READER_ONLY,
    (A.SINGLE_NODE, A.ONE_WRITER): M.SINGLE_NODE_WRITER,
    (A.SINGLE_NODE, A.ALL): M.SINGLE_NODE_WRITER,
    (A.MULTI_NODE, A.READ_ONLY): M.MULTI_NODE_READER_ONLY,
    (A.MULTI_NODE, A.ONE_WRITER): M.MULTI_NODE_SINGLE_WRITER,
    (A.MULTI_NODE, A.ALL): M.MULTI_NODE_MULTI_WRITER,
}


def capability(mode: api.VolumeAccessMode) -> csi.VolumeCapability:
    """How the volume may be used: its scope and sharing as one mode (UNKNOWN for what has none), and mount or block."""
    made = csi.VolumeCapability(access_mode=M(mode=_MODES.get((mode.scope, mode.sharing), M.UNKNOWN)))
    if mode.WhichOneof("access_type") == "block":
        made.block.SetInParent()
    else:
        made.mount.fs_type = mode.mount.fs_type
        made.mount.mount_flags.extend(mode.mount.mount_flags)
    return made


def secrets_of(references: Iterable[api.VolumeSecret], find: Callable[[str], api.Secret | None]) -> dict[str, str]:
    """Key to value of the secrets that are there. Those that are missing, are kept by a driver, or are no text, are left out."""
    found: dict[str, str] = {}
    for reference in references:
        secret = find(reference.secret)
        if secret is None or secret.spec.HasField("driver"):
            continue
        try:
            found[reference.key] = secret.spec.data.decode()
        except UnicodeDecodeError:
            continue
    return found
