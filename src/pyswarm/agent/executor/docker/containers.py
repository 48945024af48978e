"""From a task to what the engine is asked for, field by field (spec/cli-and-executor, sections 17 and 18). Pure.

Goes beyond the reference where one host is enough: tmpfs as a typed mount, DNS, sysctls, read-only root, privileges, swap, cluster
volumes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.mounts import mount_bodies, tmpfs_bodies, volume_bodies
from pyswarm.agent.executor.docker.state import TASK_ID_LABEL
from pyswarm.agent.executor.spec import resource_environment
from pyswarm.agent.executor.templates import expanded_container
from pyswarm.agent.executor.volumes import Place, bound, nowhere
from pyswarm.api import tasks
from pyswarm.api import v1 as api

LABEL = "com.docker.swarm"
NODE_LABEL = f"{LABEL}.node.id"
NETWORK_LABEL = f"{LABEL}.network.id"
HOME_LABEL = "pyswarm.home"
"""Where the node lives that made the container (`agent.home`): it tells what an earlier life of the node left behind."""

ENDPOINTS_AT_CREATE = (1, 44)
"""From this API version on a container can be created with several networks; before, the others are connected afterwards."""

CPU_PERIOD = 100_000
SMALLEST_QUOTA = 1_000
"""Microseconds. The engine refuses quotas under 1 ms, which a limit under 0.01 CPU would give."""

PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none"})

Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """All that is asked of the engine for one task, with the names it goes by."""

    name: str
    task_id: str
    image: str
    registry_auth: str
    body: Body
    endpoints: Mapping[str, Body]
    networks: tuple[Body, ...]
    volumes: tuple[Body, ...]
    files: tuple[Body, ...]

    def create_body(self, version: tuple[int, int]) -> Body:
        """The body of the create call for an engine that speaks API `version`."""
        count = None if version >= ENDPOINTS_AT_CREATE else 1
        return {**self.body, "NetworkingConfig": {"EndpointsConfig": dict(list(self.endpoints.items())[:count])}}

    def connect_later(self, version: tuple[int, int]) -> dict[str, Body]:
        """The networks to connect to after creation."""
        return {} if version >= ENDPOINTS_AT_CREATE else dict(list(self.endpoints.items())[1:])


def container_request(
    task: api.Task, node: api.NodeDescription | None, *, files: Sequence[Body] = (), home: str = "", place: Place = nowhere
) -> ContainerRequest:
    """The request for a task on the node described; `files` are the mounts of its secrets and configs (see `given`), `home` the node's;
    `place` says where its cluster volumes are.

    Raises ExecutorError when the spec cannot run here.
    """
    spec = expanded_container(task, node)
    if not spec.image:
        raise ExecutorError("dockerexec: image required")
    name = tasks.display_name(task)
    mounts = bound(task, spec.mounts, place)
    return ContainerRequest(
        name=name,
        task_id=task.id,
        image=spec.image,
        registry_auth=spec.pull_options.registry_auth,
        body=_set_only(
            {**_config(task, spec), "Labels": _labels(task, spec, name, home), "HostConfig": _host_config(task, spec, mounts, files)}
        ),
        endpoints={attachment.network.spec.annotations.name: _endpoint(attachment) for attachment in task.networks},
        networks=tuple(_network(attachment.network, task.node_id) for attachment in task.networks if not _predefined(attachment.network)),
        volumes=tuple(volume_bodies(mounts)),
        files=tuple(files),
    )


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag (or digest) of a reference; the tag is `latest` when there is none, and a port is not a tag."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "latest")


def _config(task: api.Task, spec: api.ContainerSpec) -> Body:
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.command),
        "Cmd": list(spec.args),
        "Env": [*spec.env, *resource_environment(task)],
        "Hostname": spec.hostname,
        "User": spec.user,
        "WorkingDir": spec.dir,
        "StopSignal": spec.stop_signal,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "ExposedPorts": {_port_key(port): {} for port in _host_ports(task)},
        "Healthcheck": _healthcheck(spec),
    }


def _labels(task: api.Task, spec: api.ContainerSpec, name: str, home: str) -> dict[str, str]:
    return {
        **spec.labels,
        **task.annotations.labels,
        f"{LABEL}.task": "",
        TASK_ID_LABEL: task.id,
        f"{LABEL}.task.name": name,
        NODE_LABEL: task.node_id,
        f"{LABEL}.service.id": task.service_id,
        f"{LABEL}.service.name": task.service_annotations.name,
        **({HOME_LABEL: home} if home else {}),
    }


def _healthcheck(spec: api.ContainerSpec) -> Body | None:
    if not spec.HasField("healthcheck"):
        return None
    check = spec.healthcheck
    return {
        "Test": list(check.test),
        "Interval": check.interval.ToNanoseconds(),
        "Timeout": check.timeout.ToNanoseconds(),
        "StartPeriod": check.start_period.ToNanoseconds(),
        "StartInterval": check.start_interval.ToNanoseconds(),
        "Retries": check.retries,
    }


def _host_config(task: api.Task, spec: api.ContainerSpec, mounts: Sequence[api.Mount], files: Sequence[Body]) -> Body:
    return _set_only(
        {
            **_limits(task.spec.resources),
            "PortBindings": {_port_key(port): [{"HostIp": "", "HostPort": str(port.published_port or "")}] for port in _host_ports(task)},
            "Mounts": [*mount_bodies(mounts), *files],
            "Tmpfs": tmpfs_bodies(mounts),
            "PidsLimit": spec.pidsLimit if spec.pidsLimit > 0 else None,
            "Ulimits": [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits],
            "CapAdd": list(spec.capability_add),
            "CapDrop": list(spec.capability_drop),
            "OomScoreAdj": spec.oom_score_adj,
            "Init": spec.init.value if spec.HasField("init") else None,
            "Isolation": api.ContainerSpec.Isolation.Name(spec.isolation).removeprefix("ISOLATION_").lower(),
            "GroupAdd": list(spec.groups),
            "ExtraHosts": _extra_hosts(spec),
            "LogConfig": {"Type": task.log_driver.name, "Config": dict(task.log_driver.options)} if task.HasField("log_driver") else None,
            "Dns": list(spec.dns_config.nameservers),
            "DnsSearch": list(spec.dns_config.search),
            "DnsOptions": list(spec.dns_config.options),
            "ReadonlyRootfs": spec.read_only,
            "Sysctls": dict(spec.sysctls),
            "SecurityOpt": _security(spec.privileges),
        }
    )


def _set_only(body: Body) -> Body:
    """Without the fields that say nothing, so that the engine's defaults hold."""
    return {key: value for key, value in body.items() if value is not None and not (isinstance(value, str | list | dict) and not value)}


def _limits(resources: api.ResourceRequirements) -> Body:
    limits = resources.limits
    body: Body = {}
    if limits.memory_bytes > 0:
        body["Memory"] = limits.memory_bytes
        if resources.HasField("swap_bytes"):
            swap = resources.swap_bytes.value
            body["MemorySwap"] = swap if swap < 0 else limits.memory_bytes + swap
    if limits.nano_cpus > 0:
        body["CpuPeriod"] = CPU_PERIOD
        body["CpuQuota"] = max(SMALLEST_QUOTA, limits.nano_cpus * CPU_PERIOD // 1_000_000_000)
    if resources.HasField("memory_swappiness"):
        body["MemorySwappiness"] = resources.memory_swappiness.value
    return body


def _host_ports(task: api.Task) -> list[api.PortConfig]:
    return [port for port in task.endpoint.ports if port.publish_mode == api.PortConfig.HOST]


def _port_key(port: api.PortConfig) -> str:
    return f"{port.target_port}/{api.PortConfig.Protocol.Name(port.protocol).lower()}"


def _extra_hosts(spec: api.ContainerSpec) -> list[str]:
    lines = [line.split() for line in spec.hosts]
    return [f"{words[1]}:{words[0]}" for words in lines if len(words) > 1]


def _security(privileges: api.Privileges) -> list[str]:
    options: list[str] = []
    if privileges.no_new_privileges:
        options.append("no-new-privileges")
    if privileges.seccomp.mode == api.Privileges.SeccompOpts.UNCONFINED:
        options.append("seccomp=unconfined")
    elif privileges.seccomp.mode == api.Privileges.SeccompOpts.CUSTOM:
        options.append(f"seccomp={privileges.seccomp.profile.decode()}")
    if privileges.apparmor.mode == api.Privileges.AppArmorOpts.DISABLED:
        options.append("apparmor=unconfined")
    selinux = privileges.selinux_context
    if selinux.disable:
        options.append("label=disable")
    parts = {"user": selinux.user, "role": selinux.role, "type": selinux.type, "level": selinux.level}
    return options + [f"label={key}:{value}" for key, value in parts.items() if value]


def _predefined(network: api.Network) -> bool:
    return network.spec.annotations.name in PREDEFINED_NETWORKS


def _endpoint(attachment: api.NetworkAttachment) -> Body:
    addresses: dict[str, str] = {}
    for text in attachment.addresses:
        address = ipaddress.ip_interface(text).ip
        addresses[f"IPv{address.version}Address"] = str(address)
    body: Body = {"IPAMConfig": addresses} if addresses else {}
    if attachment.aliases:
        body["Aliases"] = list(attachment.aliases)
    if attachment.driver_attachment_opts:
        body["DriverOpts"] = dict(attachment.driver_attachment_opts)
    return body


def _network(network: api.Network, node_id: str) -> Body:
    name = network.spec.annotations.name
    if not network.HasField("driver_state") or not network.HasField("ipam"):
        raise ExecutorError(f"network {name} has not been allocated: it has no driver or no addresses")
    configs = [_set_only({"Subnet": config.subnet, "IPRange": config.range, "Gateway": config.gateway}) for config in network.ipam.configs]
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": network.driver_state.name,
        "Options": dict(network.driver_state.options),
        "Internal": network.spec.internal,
        "EnableIPv6": network.spec.ipv6_enabled,
        "IPAM": {"Driver": network.ipam.driver.name or "default", "Config": configs},
        "Labels": {NODE_LABEL: node_id, NETWORK_LABEL: network.id},
    }
