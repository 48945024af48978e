"""Generic resources: amounts (`apple=8`) and named sets (`gpu=uuid1,gpu=uuid2`) that tasks hold exclusively (spec section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyswarm.api import v1 as api


def available(described: Iterable[api.GenericResource], held: Iterable[api.GenericResource]) -> list[api.GenericResource]:
    """What is left of a node's resources when tasks hold `held`. Computed afresh, so a changed description needs no repair."""
    taken_amount: dict[str, int] = {}
    taken_names: set[tuple[str, str]] = set()
    for claim in held:
        if claim.WhichOneof("resource") == "discrete_resource_spec":
            discrete = claim.discrete_resource_spec
            taken_amount[discrete.kind] = taken_amount.get(discrete.kind, 0) + discrete.value
        else:
            taken_names.add((claim.named_resource_spec.kind, claim.named_resource_spec.value))
    left = []
    for item in described:
        if item.WhichOneof("resource") == "discrete_resource_spec":
            spec = item.discrete_resource_spec
            value = spec.value - taken_amount.get(spec.kind, 0)
            if value > 0:
                left.append(discrete_of(spec.kind, value))
        elif (item.named_resource_spec.kind, item.named_resource_spec.value) not in taken_names:
            left.append(item)
    return left


def discrete_of(kind: str, value: int) -> api.GenericResource:
    """An amount as a message."""
    return api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind=kind, value=value))


def lacking(left: Sequence[api.GenericResource], wanted: Iterable[api.GenericResource]) -> str:
    """The kind of the first reservation that cannot be satisfied, each judged on its own; empty when all can."""
    return next((_kind_of(w) for w in wanted if not _enough_of(left, w)), "")


def _kind_of(wanted: api.GenericResource) -> str:
    return wanted.discrete_resource_spec.kind or wanted.named_resource_spec.kind or "a generic resource"


def _enough_of(left: Sequence[api.GenericResource], wanted: api.GenericResource) -> bool:
    if wanted.WhichOneof("resource") != "discrete_resource_spec":
        return False
    kind, amount = wanted.discrete_resource_spec.kind, wanted.discrete_resource_spec.value
    return amount <= sum(_weight(item, kind) for item in left)


def _weight(item: api.GenericResource, kind: str) -> int:
    if item.WhichOneof("resource") == "discrete_resource_spec":
        return item.discrete_resource_spec.value if item.discrete_resource_spec.kind == kind else 0
    return 1 if item.named_resource_spec.kind == kind else 0


def claim(left: Sequence[api.GenericResource], wanted: Iterable[api.GenericResource]) -> list[api.GenericResource]:
    """What a task gets: one entry for an amount, the first n names of a set. Call only when nothing is `lacking`."""
    got: list[api.GenericResource] = []
    for w in wanted:
        kind, amount = w.discrete_resource_spec.kind, w.discrete_resource_spec.value
        names = [i for i in left if i.WhichOneof("resource") == "named_resource_spec" and i.named_resource_spec.kind == kind]
        if names:
            got += names[:amount]
        elif amount:
            got.append(discrete_of(kind, amount))
    return got
