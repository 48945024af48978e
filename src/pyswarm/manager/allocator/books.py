"""Who has which port, VXLAN id, subnet and address: an index over the store, nothing that the store does not say.

Changes can be tried: what was noted after a mark is forgotten again by `back_to`. So a decision may take what it needs, look what comes of
it, and leave no trace; the commit of what it decided then is noted for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

from pyswarm.manager.allocator.claims import NOTHING, Block, Claim, Holding, Ports, Vnis
from pyswarm.manager.allocator.space import Space
from pyswarm.manager.allocator.subnets import Subnet

Key = Hashable
K = TypeVar("K")
V = TypeVar("V")


class Books:
    """See the module."""

    def __init__(self) -> None:
        self._held: dict[Key, Holding] = {}
        self._spaces: dict[Ports | Vnis | Subnet, Space] = {}
        self._last: dict[Ports | Vnis | Subnet, int] = {}
        self._blocks: dict[Subnet, Counter[Subnet]] = {}
        self._taken: dict[int, Space] = {4: Space(), 6: Space()}
        self._shared: Counter[Claim] = Counter()
        self._trace: list[Callable[[], None]] = []
        self._trying = False

    # --- noting

    def note(self, key: Key, holding: Holding, *, chosen: bool = True) -> bool:
        """An object now holds this. Returns whether it gave anything back.

        `chosen`: numbers that were not asked for are the latest ones given out; what follows is searched behind them.
        """
        before = self._held.get(key, NOTHING)
        if before.claims == holding.claims:
            return False
        kept = set(before.claims) & set(holding.claims)
        freed = False
        for claim in before.claims:
            if claim not in kept:
                self._free(claim)
                freed = True
        for claim in holding.claims:
            if claim not in kept:
                self._take(claim)
                if chosen and not isinstance(claim, Block) and claim not in holding.asked:
                    self._point(claim[0], claim[1])
        self._put(key, holding)
        return freed

    def add(self, key: Key, *claims: Claim) -> None:
        """An object now holds this as well."""
        before = self.of(key)
        for claim in claims:
            self._take(claim)
        self._put(key, Holding((*before.claims, *claims), before.asked))

    def drop(self, key: Key) -> bool:
        """An object is gone. Returns whether it gave anything back."""
        return self.note(key, NOTHING)

    def of(self, key: Key) -> Holding:
        """What an object holds."""
        return self._held.get(key, NOTHING)

    def everything(self) -> Iterator[tuple[Key, Claim]]:
        """Every claim with its holder."""
        for key, holding in self._held.items():
            yield from ((key, claim) for claim in holding.claims)

    # --- trying

    def mark(self) -> int:
        """A place to come back to; from now on what is noted can be forgotten."""
        self._trying = True
        return len(self._trace)

    def back_to(self, mark: int) -> None:
        """Forget what was noted since. Back to mark 0 nothing is being tried any more."""
        while len(self._trace) > mark:
            self._trace.pop()()
        self._trying = mark > 0

    def _undo(self, step: Callable[[], None]) -> None:
        if self._trying:
            self._trace.append(step)

    # --- asking

    def is_taken(self, space: Ports | Vnis | Subnet, number: int) -> bool:
        """Whether somebody has it."""
        return number in self._spaces.get(space, ())

    def next(self, space: Ports | Vnis | Subnet, low: int, high: int) -> int | None:
        """The next free number, behind the one chosen last; None when all are taken."""
        return self._spaces.setdefault(space, Space()).next(low, high, self._last.get(space, low - 1))

    def conflicts(self, block: Block) -> bool:
        """Whether a subnet overlaps another. The same subnet may be used twice if the parts to give out from are different ones."""
        known = self._blocks.get(block.subnet)
        if known is None:
            return self._taken[block.subnet.version].overlaps(block.subnet.base, block.subnet.last)
        return block.part == block.subnet or block.part in known

    def free_subnet(self, pool: Subnet, prefix: int) -> Subnet | None:
        """The lowest block of this prefix length in a pool that overlaps nothing."""
        bits = 32 if pool.version == 4 else 128
        base = self._taken[pool.version].free(pool.base, pool.last, 1 << (bits - prefix))
        return None if base is None else Subnet(pool.version, base, prefix)

    # --- single steps

    def _put(self, key: Key, holding: Holding) -> None:
        before = self._held.get(key)
        _set(self._held, key, holding if holding.claims else None)
        self._undo(lambda: _set(self._held, key, before))

    def _take(self, claim: Claim) -> None:
        self._do_take(claim)
        self._undo(lambda: self._do_free(claim))

    def _free(self, claim: Claim) -> None:
        self._do_free(claim)
        self._undo(lambda: self._do_take(claim))
        if isinstance(claim, Block) and claim.subnet not in self._blocks:
            self._point(claim.subnet, None)  # Whoever has the subnet next begins with its first address.

    def _point(self, space: Ports | Vnis | Subnet, number: int | None) -> None:
        before = self._last.get(space)
        _set(self._last, space, number)
        self._undo(lambda: _set(self._last, space, before))

    def _do_take(self, claim: Claim) -> None:
        if isinstance(claim, Block):
            self._take_block(claim)
            return
        space = self._spaces.setdefault(claim[0], Space())
        if claim[1] in space:
            self._shared[claim] += 1  # The store says so of two: neither frees it alone.
        else:
            space.add(claim[1])

    def _do_free(self, claim: Claim) -> None:
        if isinstance(claim, Block):
            self._free_block(claim)
        elif self._shared[claim]:
            self._shared[claim] -= 1
        else:
            self._spaces[claim[0]].remove(claim[1])

    def _take_block(self, block: Block) -> None:
        if block.subnet not in self._blocks:
            self._blocks[block.subnet] = Counter()
            self._rebuild(block.subnet.version, block.subnet, taken=True)
        self._blocks[block.subnet][block.part] += 1

    def _free_block(self, block: Block) -> None:
        parts = self._blocks[block.subnet]
        parts[block.part] -= 1
        if not parts[block.part]:
            del parts[block.part]
        if not parts:
            del self._blocks[block.subnet]
            self._rebuild(block.subnet.version, block.subnet, taken=False)

    def _rebuild(self, version: int, subnet: Subnet, *, taken: bool) -> None:
        """Keep the runs of taken subnets. Networks that other programs made may overlap: then they are put together anew."""
        space = self._taken[version]
        if taken and not space.overlaps(subnet.base, subnet.last):
            space.add(subnet.base, subnet.last)
            return
        others = [other for other in self._blocks if other != subnet and other.version == version]
        if not taken and not any(other.base <= subnet.last and subnet.base <= other.last for other in others):
            space.remove(subnet.base, subnet.last)
            return
        self._taken[version] = space = Space()
        for other in sorted([*others, subnet] if taken else others, key=lambda s: (s.base, s.prefix)):
            if not space.overlaps(other.base, other.last):
                space.add(other.base, other.last)


def _set(mapping: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value
