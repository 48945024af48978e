"""List filters (spec/control-api, sections 5.4 and 5.5).

Two families on purpose: most lists need every given field to match, with exact names; secrets, configs and resources take any of names and
prefixes, without case. An index narrows the candidates first, so a list costs what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from pyswarm.manager.store import Selector, Stored, by
from pyswarm.manager.store.transaction import Reading

T = TypeVar("T", bound=Stored)
M = TypeVar("M", bound=Message)

Narrow: TypeAlias = tuple[Sequence[Any], Callable[[Any], Selector]]
"""The values of one filter field, and the selector that finds the objects of one value."""
Test: TypeAlias = Callable[[T], bool] | None
"""Whether an object passes one filter field; None when the field is not used."""


class AnyOfFilters(Protocol):
    """The fields that lists of the second family share."""

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def name_prefixes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def id_prefixes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102


def labels_match(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Every wanted key is there, with the wanted value unless that is empty."""
    return all(labels.get(key) == value if value else key in labels for key, value in wanted.items())


def among(values: Sequence[Any], of: Callable[[T], Any]) -> Test[T]:
    """The object's value is one of these."""
    if not values:
        return None
    wanted = frozenset(values)
    return lambda obj: of(obj) in wanted


def prefixed(prefixes: Sequence[str], of: Callable[[T], str | None]) -> Test[T]:
    """The object's text begins with one of these; an absent text never does."""
    if not prefixes:
        return None
    wanted = tuple(prefixes)

    def test(obj: T) -> bool:
        text = of(obj)
        return text is not None and text.startswith(wanted)

    return test


def labelled(wanted: Mapping[str, str], of: Callable[[T], Mapping[str, str]]) -> Test[T]:
    """The object's labels match."""
    if not wanted:
        return None
    return lambda obj: labels_match(of(obj), wanted)


def all_of(table: Reading[T], narrow: Iterable[Narrow], tests: Iterable[Test[T]]) -> list[T]:
    """Objects that pass every test, looked up through the first field of `narrow` that has values (a field must be in both)."""
    selector = next((by.any_of(*map(select, values)) for values, select in narrow if values), by.everything())
    used = [test for test in tests if test is not None]
    found = table.find(selector)
    if not used:
        return found
    return [obj for obj in found if all(test(obj) for test in used)]


def any_of(table: Reading[T], filters: AnyOfFilters, labels: Callable[[T], Mapping[str, str]]) -> list[T]:
    """Objects that one of names, name prefixes (without case) and id prefixes finds, all when none is given; then labels."""
    parts = [
        *map(by.name, filters.names),
        *map(by.name_prefix, filters.name_prefixes),
        *map(by.id_prefix, filters.id_prefixes),
    ]
    found = table.find(by.any_of(*parts) if parts else by.everything())
    wanted = filters.labels
    return [obj for obj in found if labels_match(labels(obj), wanted)] if wanted else found


def id_of(obj: Stored) -> str:
    """The object's id."""
    return obj.id


def spec_name(obj: Any) -> str:
    """The name in the object's spec."""
    return obj.spec.annotations.name  # type: ignore[no-any-return]


def spec_labels(obj: Any) -> Mapping[str, str]:
    """The labels in the object's spec."""
    return obj.spec.annotations.labels  # type: ignore[no-any-return]
