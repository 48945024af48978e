"""The log's entries in memory, as the list that PySyncObj reads."""

from __future__ import annotations

from typing import overload

Entry = tuple[bytes, int, int]
"""Command, index, term: the shape PySyncObj uses."""


class Window:
    """Entries with dense indices. Some at the front may be hidden for a while; what shows is a list."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._hidden = 0

    def __len__(self) -> int:
        return len(self._entries) - self._hidden

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        if self._hidden == 0:
            return self._entries[item]
        if isinstance(item, slice):
            return self._entries[self._hidden :][item]
        return self._entries[item] if item < 0 else self._entries[item + self._hidden]

    @property
    def first(self) -> int:
        """Index of the first visible entry."""
        return self._entries[self._hidden][1]

    @property
    def last(self) -> Entry:
        """The newest entry."""
        return self._entries[-1]

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""
        return self._entries[-1][1]

    def at(self, index: int) -> Entry | None:
        """The entry with a log index, also among hidden ones; None when it is not there."""
        position = index - self._entries[0][1]
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def term_at(self, index: int) -> int | None:
        """Term of a visible entry; None for others."""
        entry = self.at(index)
        return entry[2] if entry is not None and index >= self.first else None

    def batch(self, index: int, size: int) -> list[Entry]:
        """Entries from `index` on, until they have `size` bytes together; at least one if there is one."""
        taken: list[Entry] = []
        position = index - self._entries[0][1]
        while position < len(self._entries) and size > 0:
            taken.append(self._entries[position])
            size -= len(taken[-1][0])
            position += 1
        return taken

    def between(self, first: int, last: int) -> list[Entry] | None:
        """Entries `first` to `last`, also among hidden ones; none when `first` is behind `last`, None when some are gone."""
        begin = self._entries[0][1]
        return self._entries[first - begin : last + 1 - begin] if begin <= first else None

    def reveal(self) -> None:
        """Show what is hidden."""
        self._hidden = 0

    def _drop_before(self, position: int) -> None:
        """Forget the first entries; what remains shows."""
        if position > 0:
            del self._entries[:position]
            self._hidden = 0
