"""Going on alone: what a manager writes into its log when the others are lost for good (`--force-new-cluster`).

One entry does it, so that a crash leaves the old membership or the new one, never something in between. It names this member as the only
one and burns the raft ids of all others; everything before it in the log stays. The reference drops what lies behind the commit index it
last wrote down; but that index lags, and what lies behind it may have been acknowledged to somebody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pyswarm.api import v1 as api
from pyswarm.raft import commands
from pyswarm.raft.errors import StorageError
from pyswarm.raft.journal import Journal
from pyswarm.raft.membership import Change

if TYPE_CHECKING:
    from pyswarm.raft.storage import Storage

log = structlog.get_logger(__name__)


def begin_anew(storage: Storage, addr: str, era: int) -> None:
    """Make this member the only one, durably. `addr`: where it is reached, empty for where it was; `era`: a random number.

    Nothing happens when it is the only one already, so the flag may stay on a command line until another manager has joined. Raises
    StorageError for a log that cannot stand for the cluster: an empty one, and that of a removed member. Blocking.
    """
    journal, present = storage.journal, storage.present()
    own = journal.identity.raft_id
    if storage.snapshot is None and journal.last_index == 1 and not present.members:
        raise StorageError("the raft log holds nothing yet: force a new cluster on a manager that was a member")
    if own in present.removed:
        raise StorageError(
            f"raft member {own:x} was removed from its cluster and may lack the last writes: force a new cluster on a manager that still "
            "is a member, or start this one without --force-new-cluster"
        )
    lost = present.members.keys() - {own}
    if not lost and own in present.members:
        log.info("this manager is the only member already", raft_id=f"{own:x}")
        return
    known = present.members.get(own, api.RaftMember(raft_id=own, node_id=journal.identity.node_id))
    member = api.RaftMember(raft_id=own, node_id=known.node_id, addr=addr or known.addr)
    term = journal.getCurrentTerm() + 1
    journal.setCurrentTerm(term, str(own))
    journal.add(commands.membership(Change(kind=Change.RESET, member=member, era=era)), journal.last_index + 1, term)
    settle(journal)
    journal.sync()
    log.warning("this manager alone is the cluster from now on", raft_id=f"{own:x}", lost=[f"{i:x}" for i in sorted(lost)])


def settle(journal: Journal) -> None:
    """Everything up to the last RESET in a log is final: only a sole member writes one, and before anybody else gets to see it."""
    resets = (index for command, index, _ in reversed(journal[:]) if _is_reset(command))
    journal.setRaftCommitIndex(max(journal.getRaftCommitIndex(), next(resets, 0)))


def _is_reset(command: bytes) -> bool:
    change = commands.parse_membership(command)
    return change is not None and change.kind == Change.RESET
