"""Numbers that are given out one at a time: ports, VXLAN ids, addresses, blocks of addresses.

What is taken is kept as sorted runs, so that a space may be as large as an IPv6 subnet, and finding a free number costs the logarithm of
the runs, not of the space.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Space:
    """A set of whole numbers, as runs."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def __bool__(self) -> bool:
        return bool(self._starts)

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any number from `first` to `last` is in it."""
        at = bisect_right(self._starts, last) - 1
        return at >= 0 and self._ends[at] >= first

    def add(self, first: int, last: int | None = None) -> None:
        """Put in a run of which nothing is in it yet; one number without `last`."""
        last = first if last is None else last
        at = bisect_left(self._starts, first)
        left = at > 0 and self._ends[at - 1] == first - 1
        right = at < len(self._starts) and self._starts[at] == last + 1
        if left and right:
            self._ends[at - 1] = self._ends[at]
            del self._starts[at], self._ends[at]
        elif left:
            self._ends[at - 1] = last
        elif right:
            self._starts[at] = first
        else:
            self._starts.insert(at, first)
            self._ends.insert(at, last)

    def remove(self, first: int, last: int | None = None) -> None:
        """Take out a run that is wholly in it; one number without `last`."""
        last = first if last is None else last
        at = bisect_right(self._starts, first) - 1
        start, end = self._starts[at], self._ends[at]
        if start == first and end == last:
            del self._starts[at], self._ends[at]
        elif start == first:
            self._starts[at] = last + 1
        elif end == last:
            self._ends[at] = first - 1
        else:
            self._ends[at] = first - 1
            self._starts.insert(at + 1, last + 1)
            self._ends.insert(at + 1, end)

    def free(self, low: int, high: int, size: int = 1) -> int | None:
        """The lowest free block of `size` numbers within `low` to `high`, at a multiple of its size; None when there is none."""
        while True:
            low = -(-low // size) * size
            last = low + size - 1
            if last > high:
                return None
            at = bisect_right(self._starts, last) - 1
            if at < 0 or self._ends[at] < low:
                return low
            low = self._ends[at] + 1

    def next(self, low: int, high: int, after: int) -> int | None:
        """The first free number after `after`, beginning anew at `low` behind `high`: what was given back last is given out last."""
        if low <= after < high:
            found = self.free(after + 1, high)
            if found is not None:
                return found
        return self.free(low, high)
