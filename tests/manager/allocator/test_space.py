"""Numbers and subnets."""

from __future__ import annotations

import ipaddress
import random

import pytest

from pyswarm.manager.allocator.books import Books
from pyswarm.manager.allocator.claims import Block, Claim, Holding, Ports
from pyswarm.manager.allocator.space import Space
from pyswarm.manager.allocator.subnets import Subnet, located, parse_address


def test_a_small_range() -> None:
    """Numbers come in order, each once, none from outside; one that was given back can be had again.

    [scheduling 84 in part; dispatcher 199 in part]
    """
    space = Space()
    given = []
    while (number := space.next(50, 52, 49)) is not None:
        space.add(number)
        given.append(number)
    assert given == [50, 51, 52]
    space.remove(50)
    assert (49 in space, 50 in space, 51 in space, 53 in space) == (False, False, True, False)
    assert space.next(50, 52, 52) == 50


def test_what_was_given_back_comes_last() -> None:
    """The search goes on behind the number chosen last, and begins anew at the end. [scheduling 84 in part; dispatcher 199 in part]"""
    books, space = Books(), Ports(0)
    for number in (50, 51, 52):
        assert books.next(space, 50, 55) == number
        books.note(number, Holding(((space, number),)))
    assert books.drop(50)
    chosen = []
    for _ in range(3):
        found = books.next(space, 50, 55)
        assert found is not None
        books.note(("x", found), Holding(((space, found),)))
        chosen.append(found)
    assert chosen == [53, 54, 55]
    assert books.next(space, 50, 55) == 50


def test_explicit_numbers() -> None:
    """A number that is asked for is taken until it is given back, and does not move the search. [scheduling 84, 85; dispatcher 199]"""
    books, space = Books(), Ports(0)
    for number in (30000, 10000):
        assert not books.is_taken(space, number)
        books.note(number, Holding(((space, number),), frozenset({(space, number)})))
        assert books.is_taken(space, number)
        assert not books.is_taken(Ports(1), number)
    assert books.next(space, 30000, 32767) == 30001
    books.drop(30000)
    assert not books.is_taken(space, 30000)


def test_space_is_a_set() -> None:
    """Whatever is put in and taken out, in runs or singly, the space holds what a set would, and finds the lowest free block."""
    rng = random.Random(4)
    for _ in range(30):
        space, model = Space(), set[int]()
        for _ in range(80):
            first = rng.randrange(60)
            run = set(range(first, first + rng.choice((1, 1, 2, 4))))
            if not run & model:
                space.add(min(run), max(run))
                model |= run
            elif run <= model:
                space.remove(min(run), max(run))
                model -= run
            assert {n for n in range(70) if n in space} == model
            assert bool(space) == bool(model)
            for size in (1, 4):
                starts = (n for n in range(0, 64, size) if not model & set(range(n, n + size)) and n + size <= 61)
                assert space.free(0, 60, size) == next(starts, None)
            assert space.overlaps(first, first + 3) == bool(model & set(range(first, first + 4)))


def test_what_was_tried_is_forgotten() -> None:
    """Back at a mark, the books are what they were, whatever was noted since, in every order."""
    rng = random.Random(5)
    books, subnet = Books(), Subnet.parse("10.0.0.0/24")

    def random_holding() -> Holding:
        claims: list[Claim] = [(space, n) for space in (Ports(0), subnet) for n in rng.sample(range(20), 2)]
        base = Subnet.parse(f"10.0.{rng.randrange(8)}.0/{rng.choice((22, 24))}")
        return Holding((*claims, Block(base, base)), frozenset(rng.sample(claims, 1)))  # type: ignore[arg-type]

    def picture() -> object:
        taken = [[n for n in range(25) if books.is_taken(space, n)] for space in (Ports(0), subnet)]
        free = books.free_subnet(Subnet.parse("10.0.0.0/16"), 24)
        return taken, free, books.next(subnet, 0, 30), sorted(map(str, books.everything()))

    for _ in range(50):
        books.note(rng.randrange(5), random_holding())
        before, outer = picture(), books.mark()
        for _ in range(3):
            books.note(rng.randrange(5), random_holding())
        between, inner = picture(), books.mark()
        books.note(rng.randrange(5), random_holding())
        books.drop(rng.randrange(5))
        books.back_to(inner)
        assert picture() == between
        books.back_to(outer)
        assert picture() == before


@pytest.mark.parametrize(
    "text", ["192.168.0.5/24", "10.0.0.0/8", "10.1.2.3/32", "10.1.2.2/31", "2001:db8::7/64", "fd00::/128", "0.0.0.0/0"]
)
def test_subnets(text: str) -> None:
    """A subnet is what the standard library takes it for; its own and its broadcast address are not given out."""
    subnet, net = Subnet.parse(text), ipaddress.ip_network(text, strict=False)
    assert (str(subnet), subnet) == (str(net), Subnet.of(net))
    assert subnet.last == int(net.broadcast_address)
    first, last = subnet.usable()
    if net.version == 4 and net.prefixlen < 31:
        assert (first, last) == (int(net.network_address) + 1, int(net.broadcast_address) - 1)
    assert located(text) == (subnet, int(ipaddress.ip_interface(text).ip))
    assert subnet.interface(first).endswith(f"/{net.prefixlen}")


@pytest.mark.parametrize(
    "text", ["", "bad", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "010.0.0.0/8", "10.0/16", "::/129", "10.0.0.0/ 8"]
)
def test_no_subnets(text: str) -> None:
    """Only an address with a prefix length is a subnet."""
    with pytest.raises(ValueError, match=r"."):
        Subnet.parse(text)


@pytest.mark.parametrize("text", ["", "bad", "3232235777", "10.0.0.256", "10.0.0.01", "fe80::1%eth0", ":::"])
def test_no_addresses(text: str) -> None:
    """Only an address in its usual form is one."""
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)
