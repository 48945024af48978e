"""Secrets and configs: lists and summaries. A secret's data is never shown."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.cli import columns
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts


def newest_secrets(secrets: Iterable[api.Secret]) -> list[api.Secret]:
    """The newest first."""
    return sorted(secrets, key=lambda secret: times.seconds_of(secret.meta.created_at), reverse=True)


def newest_configs(configs: Iterable[api.Config]) -> list[api.Config]:
    """The newest first."""
    return sorted(configs, key=lambda config: times.seconds_of(config.meta.created_at), reverse=True)


def secrets(listed: Iterable[api.Secret], now: float) -> str:
    """`secret ls`."""
    rows = ((one.id, one.spec.annotations.name, one.spec.driver.name, _age(one.meta, now)) for one in listed)
    return columns.table(columns.WIDE_LIST, ["ID", "Name", "Driver", "Created"], rows)


def configs(listed: Iterable[api.Config], now: float) -> str:
    """`config ls`."""
    rows = ((one.id, one.spec.annotations.name, _age(one.meta, now)) for one in listed)
    return columns.table(columns.WIDE_LIST, ["ID", "Name", "Created"], rows)


def summary(object_id: str, annotations: api.Annotations, meta: api.Meta) -> str:
    """`secret inspect`, and the first part of `config inspect`."""
    created = parts.absolute(meta.created_at) if meta.HasField("created_at") else ""
    lines = [entry("ID", object_id), entry("Name", annotations.name), *parts.labels(annotations.labels), entry("Created", created)]
    return columns.SUMMARY.text(lines)


def config(one: api.Config) -> bytes:
    """`config inspect`: the summary, then the payload as it is."""
    return summary(one.id, one.spec.annotations, one.meta).encode() + b"Payload:\n\n" + one.spec.data + b"\n"


def _age(meta: api.Meta, now: float) -> str:
    return parts.age(meta.created_at, now) if meta.HasField("created_at") else ""
