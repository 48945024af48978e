"""`pyswarmd`: a command line, an executor and a node. One clear line and status 1 when it fails, 2 for a wrong command line.

Nothing heavy is imported before the command line is known to be right.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyswarm import __version__
from pyswarm.garbage import keep_pauses_short
from pyswarm.rpc.turns import Loop

if TYPE_CHECKING:
    from pyswarm.agent.executor.docker import DockerExecutor
    from pyswarm.agent.executor.process import ProcessExecutor
    from pyswarm.node import Node, NodeConfig
    from pyswarm.node_state import Settings

PROGRAM = "pyswarmd"
FAILURE, USAGE, INTERRUPTED = 1, 2, 130
_LEVELS = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")
_NOT_YET = ("external_ca", "listen_debug")

_HELP = """Run a node of a swarm: always an agent that runs tasks, and a manager if its certificate says so.

Without --join-addr the first start in an empty state directory founds a cluster with this node as its manager. With --join-addr and
--join-token it joins one. Every later start needs only --state-dir: who the node is and what it was told is kept there; a flag given
again replaces what was kept.

SIGTERM and SIGINT stop the node in good order. Its tasks go on running, and the next start takes them over; to empty a node first, drain
it with `pyswarmctl node drain`. A worker that is not to come back is stopped and started once with --leave, which ends its tasks.

\b
Examples:
  pyswarmd -d /tmp/node-1 --listen-control-api /tmp/node-1/swarm.sock --hostname node-1
  pyswarmd -d /tmp/node-2 --hostname node-2 --join-addr 127.0.0.1:4242 --join-token SWMTKN-1-... \\
      --listen-remote-api 127.0.0.1:4343
  pyswarmd -d /tmp/node-2
"""


def _option(name: str, *, short: str = "", kept: str = "", **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag. `kept` is the default of one that is remembered between starts; its click default is None, so that "given" can be told."""
    if kept:
        more["help"] = f"{more['help']}  [first start: {kept}]"
    declarations = [short, f"--{name}"] if short else [f"--{name}"]
    return click.option(*declarations, metavar=more.pop("metavar", None), **more)


@click.command(PROGRAM, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_option("state-dir", short="-d", default="/var/lib/swarmd", show_default=True, metavar="DIR", help="where the node keeps everything")
@_option("hostname", metavar="NAME", kept="the machine's", help="name of the node in listings")
@_option("listen-control-api", metavar="PATH", kept="/var/run/swarmd.sock", help="control socket, open while the node is a manager")
@_option("listen-remote-api", metavar="HOST:PORT", kept="0.0.0.0:4242", help="address for other nodes, open while the node is a manager")
@_option("advertise-remote-api", metavar="HOST:PORT", kept="as others see it", help="address that other nodes are told")
@_option("join-addr", default="", metavar="HOST:PORT", help="a manager of the cluster to join")
@_option("join-token", default="", metavar="TOKEN", help="the cluster's join token (pyswarmctl cluster inspect default)")
@_option("executor", type=click.Choice(["docker", "process"]), kept="docker", help="what runs tasks: a Docker Engine, or plain processes")
@_option("engine-addr", metavar="URL", kept="unix:///var/run/docker.sock", help="Docker Engine to use: unix:// or tcp://")
@_option("generic-node-resources", metavar="K=V,...", kept="none", help="other resources of the node, e.g. fpga=2,gpu=UUID1,gpu=UUID2")
@_option("csi-plugin", multiple=True, metavar="NAME=unix:///PATH", kept="none", help="storage plugin for cluster volumes; may be repeated")
@_option("force-new-cluster", is_flag=True, help="when most managers are lost for good: be the only one, keeping all else")
@_option("leave", is_flag=True, help="end this worker's tasks, forget its cluster, and stop; the daemon must not be running")
@_option("heartbeat-tick", type=click.IntRange(min=1), kept="1", help="tenths of a second between signs of life of the leading manager")
@_option("election-tick", type=click.IntRange(min=1), kept="10", help="tenths of a second without one until managers elect another leader")
@_option("autolock", is_flag=True, help="when founding a cluster: its managers need an unlock key to start again")
@_option("unlock-key", default="", metavar="SWMKEY-...", help="unlock key of a locked manager")
@_option("external-ca", multiple=True, metavar="SPEC", help="certificate authority to use (not implemented yet)")
@_option("listen-metrics", metavar="HOST:PORT", kept="none", help="address for metrics in Prometheus' form, at /metrics")
@_option("listen-debug", metavar="HOST:PORT", help="address for debugging (not implemented yet)")
@_option("log-level", short="-l", default="info", show_default=True, metavar="LEVEL", help=f"least level to log: {', '.join(_LEVELS)}")
@click.version_option(__version__, "-v", "--version", prog_name=PROGRAM, message="%(prog)s pyswarm %(version)s", help="show the version")
def command(**flags: Any) -> int:
    """Click's entry; the help text is `_HELP`."""
    for name in _NOT_YET:
        if flags[name]:
            raise _wrong(name, "not implemented yet")
    if flags["log_level"].lower() not in _LEVELS:
        raise _wrong("log_level", f"{flags['log_level']!r} is none of {', '.join(_LEVELS)}")
    from pyswarm.cli import logging

    logging.quiet_grpc()
    logging.configure(flags["log_level"])
    config = _config(flags)
    _raise_file_limit()
    keep_pauses_short()
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(_leave(config) if flags["leave"] else _serve(config))


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status."""
    try:
        status = command.main(list(arguments), PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        return _complain(f"{error.format_message().rstrip('.')} (see {PROGRAM} --help)", USAGE)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever it is becomes one line and a status
        return _complain(_describe(error), FAILURE)
    return status if isinstance(status, int) else 0


def merge(saved: Settings | None, given: Mapping[str, Any]) -> Settings:
    """The settings of this start: what was given (not None), else what was kept, else the defaults."""
    from pyswarm.node_state import Settings

    changes = {field.name: given[field.name] for field in dataclasses.fields(Settings) if given.get(field.name) is not None}
    return dataclasses.replace(saved or Settings(), **changes)


def _config(flags: Mapping[str, Any]) -> NodeConfig:
    """Everything the node is told, checked. Raises click.UsageError for a value that cannot be, SwarmError for a broken settings file."""
    from pyswarm.ca import unlock
    from pyswarm.cli.flags import generic_resources
    from pyswarm.csi.plugins import SCHEME, parse_all
    from pyswarm.errors import InvalidArgument
    from pyswarm.node import NodeConfig
    from pyswarm.node_state import StateDirectory
    from pyswarm.rpc.server import split_address

    given = dict(flags)
    state_dir = Path(flags["state_dir"]).absolute()
    if flags["listen_control_api"] is not None:
        # Kept for starts from other working directories.
        given["listen_control_api"] = str(Path(flags["listen_control_api"]).absolute())
    for name, what in (
        ("listen_remote_api", "listen address"),
        ("listen_metrics", "address"),
        ("advertise_remote_api", "address"),
        ("join_addr", "address"),
    ):
        if flags[name]:
            host, _ = _checked(name, functools.partial(split_address, what=what), flags[name], InvalidArgument)
            if not host and name not in {"listen_remote_api", "listen_metrics"}:
                raise _wrong(name, f"{flags[name]} names no host; give it as host:port")
    if flags["generic_node_resources"]:
        _checked("generic_node_resources", generic_resources, flags["generic_node_resources"], ValueError)
    if flags["csi_plugin"]:
        named = _checked("csi_plugin", parse_all, flags["csi_plugin"], InvalidArgument)
        given["csi_plugins"] = "\n".join(f"{plugin.name}={SCHEME}{plugin.socket}" for plugin in named)
    if flags["join_token"] and not flags["join_addr"]:
        raise _wrong("join_token", "the address of a manager is needed too: --join-addr")
    if flags["leave"] and (flags["join_addr"] or flags["force_new_cluster"]):
        raise _wrong("leave", "a node that leaves neither joins nor founds a cluster: leave out the other flag")
    if flags["force_new_cluster"] and flags["join_addr"]:
        raise _wrong("force_new_cluster", "a manager that is to be the only one joins nobody: leave out --join-addr")
    key = _checked("unlock_key", unlock.parse, flags["unlock_key"], InvalidArgument) if flags["unlock_key"] else b""
    return NodeConfig(
        state_dir=state_dir,
        settings=merge(StateDirectory(state_dir).load_settings(), given),
        join_addr=flags["join_addr"],
        join_token=flags["join_token"],
        autolock=flags["autolock"],
        unlock_key=key,
        force_new_cluster=flags["force_new_cluster"],
    )


async def _leave(config: NodeConfig) -> int:
    """Remove the worker from this machine."""
    from pyswarm.clock import SystemClock
    from pyswarm.csi.plugins import Plugins, parse_all
    from pyswarm.node_leave import leave
    from pyswarm.node_state import StateDirectory

    async def make(node_id: str) -> DockerExecutor | ProcessExecutor:
        executor = _executor(config, lambda: node_id)
        await executor.check()
        return executor

    plugins = Plugins(parse_all(config.settings.csi_plugins.splitlines()))
    await leave(StateDirectory(config.state_dir), make, SystemClock(), plugins)
    return 0


async def _serve(config: NodeConfig) -> int:
    """Run the node until it fails or a signal stops it. A second signal does not wait for the end of what is still being served."""
    from pyswarm.clock import SystemClock
    from pyswarm.node import Node

    nodes: list[Node] = []
    executor = _executor(config, lambda: nodes[0].node_id)
    await executor.check()
    await _check_plugins(config)
    node = Node(config, executor, SystemClock())
    nodes.append(node)
    async with _metrics(config, node):
        return await _until_stopped(node)


@contextlib.asynccontextmanager
async def _metrics(config: NodeConfig, node: Node) -> AsyncIterator[None]:
    """Where metrics are asked for, they are there from before the node begins until after it ended."""
    address = config.settings.listen_metrics
    if not address:
        yield
        return
    import structlog

    from pyswarm.cli.metrics import MetricsServer
    from pyswarm.rpc.server import split_address

    server = MetricsServer(*split_address(address), node.metrics)
    structlog.get_logger(__name__).info("metrics", address=address, port=server.port)
    try:
        yield
    finally:
        await asyncio.to_thread(server.close)


async def _until_stopped(node: Node) -> int:
    import structlog

    log = structlog.get_logger(__name__)
    running = asyncio.ensure_future(node.run())
    signals: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        signals.append(number)
        log.info("stopping", signal=number.name)
        if len(signals) == 1:
            node.stop()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await running
    except asyncio.CancelledError:
        return INTERRUPTED
    return 0


async def _check_plugins(config: NodeConfig) -> None:
    from pyswarm.csi.plugins import Plugins, parse_all

    plugins = Plugins(parse_all(config.settings.csi_plugins.splitlines()))
    try:
        await plugins.check()
    finally:
        await plugins.close()


def _executor(config: NodeConfig, node_id: Callable[[], str]) -> DockerExecutor | ProcessExecutor:
    from pyswarm.cli.flags import generic_resources

    settings = config.settings
    generic = generic_resources(settings.generic_node_resources) if settings.generic_node_resources else ()
    if settings.executor == "process":
        from pyswarm.agent.executor.process import ProcessExecutor

        return ProcessExecutor(config.state_dir, hostname=settings.hostname, generic=generic)
    from pyswarm.agent.executor.docker import DockerExecutor
    from pyswarm.agent.home import name_of

    # Asked for when the directory exists.
    home = functools.partial(name_of, config.state_dir)
    return DockerExecutor(settings.engine_addr, node_id, hostname=settings.hostname, generic=generic, home=home)


def _checked(name: str, parse: Callable[[str], Any], value: str, kind: type[Exception]) -> Any:
    try:
        return parse(value)
    except kind as error:
        raise _wrong(name, str(error)) from error


def _wrong(name: str, reason: str) -> click.UsageError:
    return click.UsageError(f"--{name.replace('_', '-')}: {reason}")


def _raise_file_limit() -> None:
    """A connection takes three descriptors, and the usual soft limit is for interactive programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _describe(error: Exception) -> str:
    """One line for the operator. What nobody foresaw is logged with its traceback, because it is a bug."""
    import structlog

    from pyswarm.agent.executor import ExecutorError
    from pyswarm.errors import SwarmError

    if isinstance(error, SwarmError):
        return error.message
    if isinstance(error, OSError | ExecutorError):
        return str(error)
    structlog.get_logger(__name__).critical("unexpected error", exc_info=error)
    return f"unexpected {type(error).__name__}: {error}; the log above says where"


def _complain(text: str, status: int) -> int:
    click.echo(f"Error: {' '.join(text.split())}", err=True)
    return status


if __name__ == "__main__":
    main()
