"""The replicated store: tables of messages, transactions, events.

Owns: the tables and their indexes, the rules of create, update and delete, optimistic versions, grouped writes, the events of each commit.
Never: awaits anything but the log, decides what should be stored, or hands out an object that someone may change in place: stored messages
are frozen by convention (design rule 3). To change one: `copy_of(obj)`, edit, `tx.<table>.update(copy)`.
Started by the manager (`Store.run`), attached to a `raft.log.Log`, whose state machine it is.

    service = store.services.get(service_id)                      # any code on the event loop, any time
    tasks = store.tasks.find(by.service(service_id))
    await store.update(lambda tx: tx.tasks.update(changed))       # replicated, durable and visible when it returns
"""

from pyswarm.manager.store import by
from pyswarm.manager.store.events import Action, Commit, Event
from pyswarm.manager.store.rules import Exists, InvalidFind, NameConflict, NotExist, SequenceConflict
from pyswarm.manager.store.store import Store, Watch, events_of
from pyswarm.manager.store.tables import Kind, Selector, Stored, Table, copy_of
from pyswarm.manager.store.transaction import Tx, View

__all__ = [
    "Action",
    "Commit",
    "Event",
    "Exists",
    "InvalidFind",
    "Kind",
    "NameConflict",
    "NotExist",
    "Selector",
    "SequenceConflict",
    "Store",
    "Stored",
    "Table",
    "Tx",
    "View",
    "Watch",
    "by",
    "copy_of",
    "events_of",
]
