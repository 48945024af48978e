"""The storage plugins of this machine, as its operator named them: `--csi-plugin NAME=unix:///PATH`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyswarm.csi.connection import Connection
from pyswarm.errors import FailedPrecondition, InvalidArgument, NotFound, SwarmError

SCHEME = "unix://"
LONGEST_PATH = 107
"""Bytes that a socket's address has room for."""

CHECK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plugin:
    """A driver's name in volume specs, and the socket where it is served."""

    name: str
    socket: Path


def parse(text: str) -> Plugin:
    """`NAME=unix:///PATH`. Raises InvalidArgument with the reason."""
    name, equals, address = text.partition("=")
    if not (name.strip() and equals):
        raise InvalidArgument(f"{text!r} is not NAME=unix:///PATH")
    if not address.startswith(SCHEME):
        raise InvalidArgument(f"plugin {name}: {address!r} is no address of a Unix socket (unix:///PATH)")
    socket = Path(address.removeprefix(SCHEME))
    if not socket.is_absolute():
        raise InvalidArgument(f"plugin {name}: the path of its socket must be absolute (unix:///PATH), not {str(socket)!r}")
    if len(bytes(socket)) > LONGEST_PATH:
        raise InvalidArgument(f"plugin {name}: the path of its socket is longer than {LONGEST_PATH} bytes")
    return Plugin(name.strip(), socket)


def parse_all(texts: Iterable[str]) -> tuple[Plugin, ...]:
    """Several; empty texts are none. Raises InvalidArgument, for a name that is there twice too."""
    found: dict[str, Plugin] = {}
    for plugin in (parse(text) for text in texts if text):
        if plugin.name in found:
            raise InvalidArgument(f"plugin {plugin.name} is named twice")
        found[plugin.name] = plugin
    return tuple(found.values())


class Plugins:
    """Connections by driver name, opened when they are first needed. Use it on one event loop; `close` it there."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        self._connections = {plugin.name: Connection(plugin.name, plugin.socket) for plugin in plugins}

    def __iter__(self) -> Iterator[str]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    def get(self, name: str) -> Connection:
        """Raises NotFound for a driver that this machine has no plugin for."""
        try:
            return self._connections[name]
        except KeyError:
            raise NotFound(f'driver "{name}" not found: start pyswarmd with --csi-plugin {name}=unix:///PATH') from None

    async def check(self) -> None:
        """Ask each who it is. Raises FailedPrecondition naming the first that does not answer, and the way out."""
        for name, connection in self._connections.items():
            try:
                await connection.info(CHECK_SECONDS)
            except SwarmError as error:
                raise FailedPrecondition(
                    f"--csi-plugin {name}: {error.message}; start the plugin first, or leave it out (--csi-plugin '' forgets all of them)"
                ) from error

    async def close(self) -> None:
        """Close the connections; they open again when asked."""
        for connection in self._connections.values():
            await connection.close()
