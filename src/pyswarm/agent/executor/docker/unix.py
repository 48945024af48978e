"""The `docker` package's Unix socket transport, with two repairs.

It leaves a socket open for every failed connect, which a daemon whose engine is away does over and over, and it keeps a connection pool per
URL, so that hardly any connection is used twice. Here a failed connect closes its socket, and an engine has one pool.
"""

from __future__ import annotations

import socket

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class _Connection(UnixHTTPConnection):
    def connect(self) -> None:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fresh.settimeout(self.timeout)
            fresh.connect(self.unix_socket)
        except BaseException:
            fresh.close()
            raise
        self.sock = fresh


class _Pool(UnixHTTPConnectionPool):
    def _new_conn(self) -> _Connection:  # type: ignore[override] # the stubs of docker and of urllib3 disagree about a timeout
        return _Connection(self.base_url, self.socket_path)


class UnixAdapter(UnixHTTPAdapter):
    """Carries the requests of one session to one socket. `socket_url` is the path; at most `max_pool_size` idle connections are kept."""

    def get_connection(self, url: bytes | str, proxies: object = None) -> UnixHTTPConnectionPool:  # noqa: ARG002 - the parent's signature
        """The one pool. Called from several threads."""
        with self.pools.lock:
            pool: UnixHTTPConnectionPool | None = self.pools.get(self.socket_path)
            if pool is None:
                pool = self.pools[self.socket_path] = _Pool(self.socket_path, self.socket_path, maxsize=self.max_pool_size)
        return pool
