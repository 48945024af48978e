"""Why the store refuses a write or a find. The texts are part of the API (spec/store-and-raft, section 5)."""

from __future__ import annotations

from pyswarm.errors import Unknown


class Exists(Unknown):
    """Create with an id that is there already."""

    def __init__(self) -> None:
        super().__init__("object already exists")


class NotExist(Unknown):
    """Update or delete of an unknown id."""

    def __init__(self) -> None:
        super().__init__("object does not exist")


class NameConflict(Unknown):
    """A name held by another object of the table; compared without case."""

    def __init__(self) -> None:
        super().__init__("name conflicts with an existing object")


class SequenceConflict(Unknown):
    """The version passed in is not the stored one: somebody else wrote in between."""

    def __init__(self) -> None:
        super().__init__("update out of sequence")


class NoKind(Unknown):
    """A resource whose kind names no extension."""

    def __init__(self) -> None:
        super().__init__("object kind is unregistered")


class InvalidFind(Unknown):
    """A selector this table does not know."""

    def __init__(self) -> None:
        super().__init__("invalid find argument type")
