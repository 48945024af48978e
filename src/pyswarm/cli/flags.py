"""The composite values of flags: what they look like and the messages they become (spec/cli-and-executor, section 3). Pure.

All raise FlagError, in the words of SwarmKit's command line. Where that one silently drops a part of what was typed, this one refuses.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from pyswarm.api import v1 as api
from pyswarm.cli import units
from pyswarm.cli.flagset import FlagError, Given, Kind, csv_record

T = TypeVar("T")

ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()  # noqa: SIM905
)


def labels(values: Iterable[str], malformed: str = "malformed label: ") -> dict[str, str]:
    """`key=value` pairs, split at the first `=`, both sides trimmed."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise FlagError(malformed + value)
        found[key.strip()] = text.strip()
    return found


def log_driver(given: Given) -> api.Driver | None:
    """--log-driver and --log-opt as a driver; None for `--log-driver ''`, which means no driver. Options need their driver."""
    if "log-driver" not in given:
        if "log-opt" in given:
            raise FlagError("--log-opt needs --log-driver: the options belong to a driver")
        return None
    name = given.text("log-driver")
    options = dict(value.partition("=")[::2] for value in given.texts("log-opt"))
    if not name and options:
        raise FlagError("--log-opt needs the name of a driver in --log-driver")
    return api.Driver(name=name, options=options) if name else None


def driver_options(values: Iterable[str]) -> dict[str, str]:
    """`key=value` pairs with exactly one `=`."""
    found: dict[str, str] = {}
    for value in values:
        if value.count("=") != 1:
            raise FlagError(f"Malformed opts: {value}")
        key, _, text = value.partition("=")
        found[key] = text
    return found


def memory(text: str) -> int:
    """Bytes."""
    return _number(units.parse_memory, text)


def cpus(text: str) -> int:
    """Billionths of a CPU."""
    return _number(units.parse_cpus, text)


def duration(text: str) -> int:
    """Nanoseconds."""
    return _number(units.parse_duration, text)


def ulimit(text: str) -> api.ContainerSpec.Ulimit:
    """`<name>=<soft>[:<hard>]`; -1 is unlimited, hard is soft unless given."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise FlagError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise FlagError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise FlagError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft, hard = (_number(_base10, part) for part in (parts[0], parts[-1]))
    if soft == -1 and hard != -1:
        raise FlagError(f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}")
    if hard != -1 and soft > hard:
        raise FlagError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return api.ContainerSpec.Ulimit(name=name, soft=soft, hard=hard)


def generic_resources(text: str) -> list[api.GenericResource]:
    """One CSV record of `kind=value` terms: a kind with one whole number is an amount, a kind with only names a set of these."""
    try:
        kinds = _generic_terms(text)
        return [resource for kind, values in kinds.items() for resource in _generic_kind(kind, values)]
    except ValueError as reason:
        raise FlagError(f"could not parse GenericResource: {reason}") from None


def generic_reservation(text: str) -> list[api.GenericResource]:
    """Generic resources that a service may ask for: amounts only."""
    found = generic_resources(text)
    for resource in found:
        if resource.WhichOneof("resource") != "discrete_resource_spec":
            raise FlagError(f"invalid argument for resource {resource.named_resource_spec.kind}")
    return found


def _generic_terms(text: str) -> dict[str, list[str]]:
    if "\n" in text:
        raise ValueError("unexpected '\\n' character")
    if not text:
        raise ValueError("found multiple records while parsing cmd []")
    kinds: dict[str, list[str]] = {}
    for term in csv_record(text):
        kind, equals, value = term.partition("=")
        if not equals or "=" in value:
            raise ValueError(f"incorrect term {term}, missing '=' or malformed expression")
        kinds.setdefault(kind.strip(), []).append(value.strip())
    return kinds


def _generic_kind(kind: str, values: list[str]) -> list[api.GenericResource]:
    amounts = [amount for amount in map(_whole, values) if amount is not None]
    if not amounts:
        return [api.GenericResource(named_resource_spec=api.NamedGenericResource(kind=kind, value=value)) for value in values]
    if len(values) > 1:
        raise ValueError(f"mixed discrete and named resources in expression '{kind}=[{' '.join(values)}]'")
    if amounts[0] < 0:
        raise ValueError(f"cannot ask for negative resource {kind}")
    return [api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind=kind, value=amounts[0]))]


def external_ca(text: str) -> api.ExternalCA:
    """One CSV record of `key=value`: `protocol=cfssl`, `url=...`, and options of any other name. Raises ValueError."""
    if not text:
        raise ValueError("EOF")
    protocol = url = None
    options: dict[str, str] = {}
    for term in csv_record(text):
        key, equals, value = term.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{term}' must be a key=value pair")
        match key.lower():
            case "protocol":
                if value.lower() != "cfssl":
                    raise ValueError(f"unrecognized external CA protocol {value}")
                protocol = api.ExternalCA.CAProtocol.CFSSL
            case "url":
                url = value
            case _:
                options[key] = value
    if protocol is None:
        raise ValueError("the external-ca option needs a protocol= parameter")
    if url is None:
        raise ValueError("the external-ca option needs a url= parameter")
    return api.ExternalCA(protocol=protocol, url=url, options=options)


EXTERNAL_CA = Kind("external-ca", external_ca, many=True)


def port(text: str) -> api.PortConfig:
    """`<name>:<target>[/<proto>][:<published>[/<proto>]]`, published on the task's own host; published 0 is the engine's choice."""
    parts = text.split(":")
    if len(parts) < 2:
        raise FlagError("insufficient parameters in port configuration")
    if len(parts) > 3:
        raise FlagError(f"too many parameters in port configuration {text}")
    protocol, target = _port_half(parts[1], "failed to parse port")
    published = 0
    if len(parts) == 3:
        published_protocol, published = _port_half(parts[2], "failed to parse node port")
        if published_protocol != protocol:
            raise FlagError("protocol mismatch")
    mode = api.PortConfig.PublishMode.HOST
    return api.PortConfig(name=parts[0], protocol=protocol, target_port=target, published_port=published, publish_mode=mode)


def ingress_port(text: str) -> api.PortConfig:
    """`[<published>:]<target>[/<proto>]`, published on all nodes; published 0 or left out is the manager's choice."""
    published, _, target = text.rpartition(":")
    protocol, number = _port_half(target, "failed to parse port")
    other = 0
    if published:
        published_protocol, other = _port_half(published, "failed to parse published port")
        if "/" in published and published_protocol != protocol:
            raise FlagError("protocol mismatch")
    mode = api.PortConfig.PublishMode.INGRESS
    return api.PortConfig(protocol=protocol, target_port=number, published_port=other, publish_mode=mode)


def _port_half(text: str, problem: str) -> tuple[api.PortConfig.Protocol.ValueType, int]:
    number, slash, protocol = text.partition("/")
    try:
        value = units.parse_uint(number, bits=32, base=10)
        if slash and protocol.upper() not in api.PortConfig.Protocol.keys():  # noqa: SIM118
            raise ValueError(f"invalid protocol string: {protocol}")
    except ValueError as reason:
        raise FlagError(f"{problem}: {reason}") from None
    return api.PortConfig.Protocol.Value(protocol.upper() if slash else "TCP"), value


def bind(text: str) -> api.Mount:
    """`<source>:<target>`."""
    source, colon, target = text.partition(":")
    if not colon:
        raise FlagError(f"bind format {units.quoted(text)} not supported")
    return api.Mount(type=api.Mount.Type.BIND, source=source, target=target)


def volume(text: str) -> api.Mount:
    """`<target>`: a volume of the task's own."""
    if ":" in text:
        raise FlagError(f"volume format {units.quoted(text)} not supported")
    return api.Mount(type=api.Mount.Type.VOLUME, target=text)


def cluster_volume(text: str) -> api.Mount:
    """`<volume>:<target>[:ro]`, where the volume is a name or `group:<group>`."""
    group, rest = ("group:", text.removeprefix("group:")) if text.startswith("group:") else ("", text)
    source, _, target = rest.partition(":")
    target, colon, mode = target.partition(":")
    if not (source and target) or (colon and mode not in {"ro", "rw"}):
        raise FlagError(f"cluster volume format {units.quoted(text)} not supported: <volume>:<target>[:ro]")
    return api.Mount(type=api.Mount.Type.CLUSTER, source=group + source, target=target, readonly=mode == "ro")


def npipe(text: str) -> api.Mount:
    """`<source>:<target>`, a Windows named pipe."""
    source, colon, target = text.partition(":")
    if not colon:
        raise FlagError(f"npipe format {units.quoted(text)} not supported")
    return api.Mount(type=api.Mount.Type.NPIPE, source=source, target=target)


def tmpfs(text: str) -> api.Mount:
    """`<absolute path>[:<option>[,<option>...]]` with `size=`, `mode=`, `ro`, `rw`, `exec`, `noexec`."""
    target, colon, options = text.partition(":")
    if not posixpath.isabs(target) or ":" in options:
        raise FlagError(f"invalid mount spec: {text}")
    mount = api.Mount(type=api.Mount.Type.TMPFS, target=target)
    for option in options.split(",") if colon else []:
        key, equals, value = option.partition("=")
        if key == "size" and equals:
            mount.tmpfs_options.size_bytes = _tmpfs_size(value)
        elif key == "mode" and equals:
            mount.tmpfs_options.mode = _number(_file_mode, value)
        elif option in {"ro", "rw"}:
            mount.readonly = option == "ro"
            mount.tmpfs_options.SetInParent()
        elif option in {"exec", "noexec"}:
            mount.tmpfs_options.options = option
        else:
            raise FlagError("unsupported flag")
    return mount


def _tmpfs_size(text: str) -> int:
    power = "kmg".find(text[-1:]) + 1 if text else 0
    number = _whole(text[:-1] if power else text)
    if number is None or number < 0 or number << 10 * power >= 1 << 63:
        raise FlagError(f"invalid size format: size={text}")
    return number << 10 * power


def file_target(name: str) -> api.FileTarget:
    """The file that carries a secret or config into a container: readable by all, root's. Docker Engines fail on an owner left empty."""
    return api.FileTarget(name=name, uid="0", gid="0", mode=0o444)


def references(values: Iterable[str], kind: str) -> list[tuple[str, str]]:
    """`<name>[:<target>]` of secrets or configs (`kind`) as pairs; the target is the name unless given."""
    found: list[tuple[str, str]] = []
    for value in values:
        name, colon, target = (part.strip() for part in value.partition(":"))
        if not name:
            raise FlagError(f"invalid {kind} name provided")
        if colon and (not target or ":" in target):
            raise FlagError("invalid presentation name provided")
        found.append((name, target or name))
    return found


def choice(flag: str, value: str, choices: Mapping[str, T], complaint: str = "") -> T:
    """One of a few words; `complaint` is the error for any other."""
    if value not in choices:
        words = list(choices)
        raise FlagError(complaint or f"--{flag} must be {', '.join(words[:-1])} or {words[-1]}, not {units.quoted(value)}")
    return choices[value]


def _number(read: Callable[[str], int], text: str) -> int:
    try:
        return read(text)
    except ValueError as reason:
        raise FlagError(str(reason)) from None


def _base10(text: str) -> int:
    return units.parse_int(text, base=10)


def _file_mode(text: str) -> int:
    value = units.parse_int(text, bits=32, base=8)
    if value < 0:
        raise ValueError(f"mode cannot be negative: {text}")
    return value


def _whole(text: str) -> int | None:
    """A decimal number that fits 64 bits with sign, or None."""
    try:
        return _base10(text)
    except ValueError:
        return None
