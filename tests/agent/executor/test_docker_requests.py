"""From a task to the body of a create call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.containers import ContainerRequest, container_request, split_image
from pyswarm.agent.executor.docker.mounts import mount_bodies, tmpfs_bodies, volume_bodies
from pyswarm.api import v1 as api

SPEC = api.ContainerSpec


def example() -> api.Task:
    """A task of a replicated service."""
    task = api.Task(id="taskID", service_id="serviceID", slot=10, node_id="node")
    task.service_annotations.name = "theservice"
    task.spec.container.image = "busybox:1.35"
    return task


def request(task: api.Task) -> ContainerRequest:
    """The request on a node that is not described."""
    return container_request(task, None)


def host_config(task: api.Task) -> dict[str, Any]:
    """HostConfig of the request."""
    config: dict[str, Any] = request(task).body["HostConfig"]
    return config


def test_plain_task() -> None:
    """A bare task asks for its image, labels and nothing else; engine defaults hold for the rest."""
    asked = request(example())
    assert asked.body == {
        "Image": "busybox:1.35",
        "Tty": False,
        "OpenStdin": False,
        "Labels": {
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": "taskID",
            "com.docker.swarm.task.name": "theservice.10.taskID",
            "com.docker.swarm.node.id": "node",
            "com.docker.swarm.service.id": "serviceID",
            "com.docker.swarm.service.name": "theservice",
        },
        "HostConfig": {"Isolation": "default", "OomScoreAdj": 0, "ReadonlyRootfs": False},
    }
    assert asked.create_body((1, 44))["NetworkingConfig"] == {"EndpointsConfig": {}}


@pytest.mark.parametrize(
    ("slot", "annotation", "name"), [(10, "", "theservice.10.taskID"), (0, "", "theservice.node.taskID"), (1, "own", "own")]
)
def test_names(slot: int, annotation: str, name: str) -> None:
    """The name holds the slot, or the node for global services; an annotation name wins. [cli 103]"""
    task = example()
    task.slot = slot
    task.annotations.name = annotation
    assert request(task).name == name


def test_user_labels() -> None:
    """Task labels win over container labels, system labels over both. [cli 113]"""
    task = example()
    task.spec.container.labels.update({"a": "1", "com.docker.swarm.task.id": "x"})
    task.annotations.labels["a"] = "2"
    labels = request(task).body["Labels"]
    assert isinstance(labels, dict)
    assert (labels["a"], labels["com.docker.swarm.task.id"], len(labels)) == ("2", "taskID", 7)


def test_home_label() -> None:
    """A container carries where its node lives, whatever users say."""
    task = example()
    task.spec.container.labels["pyswarm.home"] = "elsewhere"
    labels = container_request(task, None, home="here").body["Labels"]
    assert isinstance(labels, dict)
    assert labels["pyswarm.home"] == "here"


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (["sh"], ["-c", "x"], {"Entrypoint": ["sh"], "Cmd": ["-c", "x"]}),
        ([], ["x"], {"Cmd": ["x"]}),
        ([], [], {}),
        (["sh"], [], {"Entrypoint": ["sh"]}),
    ],
)
def test_command(command: list[str], args: list[str], expected: dict[str, list[str]]) -> None:
    """The command replaces the entrypoint; arguments alone keep the image's. [cli 110]"""
    task = example()
    task.spec.container.command.extend(command)
    task.spec.container.args.extend(args)
    body = request(task).body
    assert {key: body[key] for key in ("Entrypoint", "Cmd") if key in body} == expected


def test_plain_fields() -> None:
    """Env with templates, hostname, user, directory, stop signal, tty and stdin are handed over."""
    task = example()
    container = task.spec.container
    container.env.extend(["A=1", "S={{.Task.Slot}}"])
    container.hostname, container.user, container.dir, container.stop_signal = "h-{{.Task.Slot}}", "me", "/d", "SIGWINCH"
    container.tty = container.open_stdin = True
    body = request(task).body
    assert {key: body[key] for key in ("Env", "Hostname", "User", "WorkingDir", "StopSignal", "Tty", "OpenStdin")} == {
        "Env": ["A=1", "S=10"],
        "Hostname": "h-10",
        "User": "me",
        "WorkingDir": "/d",
        "StopSignal": "SIGWINCH",
        "Tty": True,
        "OpenStdin": True,
    }


def test_generic_resources() -> None:
    """Assigned generic resources become one variable per kind, after the spec's own. [cli 111; scheduling 82]"""
    task = example()
    task.spec.container.env.append("A=1")
    for value in ("UUID1", "UUID2"):
        task.assigned_generic_resources.add().named_resource_spec.CopyFrom(api.NamedGenericResource(kind="gpu", value=value))
    task.assigned_generic_resources.add().discrete_resource_spec.CopyFrom(api.DiscreteGenericResource(kind="fpga", value=1))
    assert request(task).body["Env"] == ["A=1", "DOCKER_RESOURCE_GPU=UUID1,UUID2", "DOCKER_RESOURCE_FPGA=1"]


def test_ports() -> None:
    """Only host ports are bound, without a published port to any. [cli 112]"""
    task = example()
    task.endpoint.ports.add(target_port=8080, published_port=18080, publish_mode=api.PortConfig.HOST)
    task.endpoint.ports.add(target_port=53, protocol=api.PortConfig.UDP, publish_mode=api.PortConfig.HOST)
    task.endpoint.ports.add(target_port=80, published_port=80)
    assert request(task).body["ExposedPorts"] == {"8080/tcp": {}, "53/udp": {}}
    assert host_config(task)["PortBindings"] == {
        "8080/tcp": [{"HostIp": "", "HostPort": "18080"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }


def test_healthcheck() -> None:
    """Durations are nanoseconds; without a check there is none. [cli 106]"""
    task = example()
    check = task.spec.container.healthcheck
    check.test.extend(["a", "b", "c"])
    check.interval.FromSeconds(1)
    check.timeout.FromSeconds(60)
    check.retries = 10
    check.start_period.FromSeconds(60)
    check.start_interval.FromSeconds(60)
    assert request(task).body["Healthcheck"] == {
        "Test": ["a", "b", "c"],
        "Interval": 10**9,
        "Timeout": 60 * 10**9,
        "StartPeriod": 60 * 10**9,
        "StartInterval": 60 * 10**9,
        "Retries": 10,
    }
    assert "Healthcheck" not in request(example()).body


def test_limits() -> None:
    """Limits become memory and a CPU quota of at least the engine's smallest; reservations nothing. [cli 109]"""
    task = example()
    task.spec.resources.reservations.memory_bytes = 1 << 30
    assert not {"Memory", "CpuPeriod", "CpuQuota", "MemoryReservation"} & host_config(task).keys()
    task.spec.resources.limits.memory_bytes = 64 << 20
    task.spec.resources.limits.nano_cpus = 500_000_000
    config = host_config(task)
    assert (config["Memory"], config["CpuPeriod"], config["CpuQuota"]) == (67108864, 100000, 50000)
    task.spec.resources.limits.nano_cpus = 1_000_000
    assert host_config(task)["CpuQuota"] == 1000
    task.spec.resources.swap_bytes.value = 1 << 20
    task.spec.resources.memory_swappiness.value = 0
    config = host_config(task)
    assert (config["MemorySwap"], config["MemorySwappiness"]) == ((64 << 20) + (1 << 20), 0)


def test_host_fields() -> None:
    """Pids, capabilities, ulimits, OOM score, isolation, groups, hosts, init. [cli 107] [cli 108]"""
    task = example()
    container = task.spec.container
    container.hosts.extend(["1.2.3.4 example.com", "5.6.7.8 example.org alias", "127.0.0.1"])
    container.pidsLimit = 10
    container.init.value = True
    container.isolation = SPEC.ISOLATION_HYPERV
    container.capability_add.extend(["CAP_NET_RAW", "CAP_SYS_CHROOT"])
    container.capability_drop.append("CAP_KILL")
    container.ulimits.add(name="nofile", soft=1024, hard=2048)
    container.oom_score_adj = 500
    container.groups.append("wheel")
    config = host_config(task)
    assert config == {
        "ExtraHosts": ["example.com:1.2.3.4", "example.org:5.6.7.8"],
        "PidsLimit": 10,
        "Init": True,
        "Isolation": "hyperv",
        "CapAdd": ["CAP_NET_RAW", "CAP_SYS_CHROOT"],
        "CapDrop": ["CAP_KILL"],
        "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
        "OomScoreAdj": 500,
        "GroupAdd": ["wheel"],
        "ReadonlyRootfs": False,
    }
    container.init.value = False
    assert host_config(task)["Init"] is False


def test_single_host_extras() -> None:
    """DNS, sysctls, read-only root and privileges reach the container, which the reference leaves out."""
    task = example()
    container = task.spec.container
    container.dns_config.nameservers.append("9.9.9.9")
    container.dns_config.search.append("example.com")
    container.sysctls["net.core.somaxconn"] = "9"
    container.read_only = True
    container.privileges.no_new_privileges = True
    container.privileges.seccomp.mode = api.Privileges.SeccompOpts.UNCONFINED
    container.privileges.apparmor.mode = api.Privileges.AppArmorOpts.DISABLED
    container.privileges.selinux_context.type = "t"
    config = host_config(task)
    assert (config["Dns"], config["DnsSearch"], config["Sysctls"], config["ReadonlyRootfs"]) == (
        ["9.9.9.9"],
        ["example.com"],
        {"net.core.somaxconn": "9"},
        True,
    )
    assert config["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "label=type:t"]


def test_log_driver() -> None:
    """The task's log driver is used, else the engine's default. [cli 115]"""
    task = example()
    task.log_driver.name = "json-file"
    task.log_driver.options["max-size"] = "10m"
    assert host_config(task)["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m"}}
    assert "LogConfig" not in host_config(example())


@pytest.mark.parametrize(
    ("mount", "body"),
    [
        (
            api.Mount(type=api.Mount.BIND, source="/banana", target="/kerfluffle"),
            {"Type": "bind", "Source": "/banana", "Target": "/kerfluffle"},
        ),
        (
            api.Mount(type=api.Mount.BIND, source="/b", target="/k", readonly=True, bind_options=api.Mount.BindOptions(nonrecursive=True)),
            {
                "Type": "bind",
                "Source": "/b",
                "Target": "/k",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
            },
        ),
        (
            api.Mount(type=api.Mount.VOLUME, source="banana", target="/k", volume_options=api.Mount.VolumeOptions(nocopy=True)),
            {"Type": "volume", "Source": "banana", "Target": "/k", "VolumeOptions": {"NoCopy": True}},
        ),
        (api.Mount(type=api.Mount.VOLUME, target="/k"), {"Type": "volume", "Target": "/k"}),
        (
            api.Mount(type=api.Mount.NPIPE, source=r"\\.\pipe\foo", target=r"\\.\pipe\foo"),
            {"Type": "npipe", "Source": r"\\.\pipe\foo", "Target": r"\\.\pipe\foo"},
        ),
        (
            api.Mount(type=api.Mount.TMPFS, target="/t", tmpfs_options=api.Mount.TmpfsOptions(size_bytes=1 << 30, mode=0o1777)),
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 30, "Mode": 0o1777}},
        ),
    ],
)
def test_mounts(mount: api.Mount, body: dict[str, object]) -> None:
    """Every mount has its type; tmpfs too, which the reference sends untyped. [cli 104] [cli 132]"""
    assert mount_bodies([mount]) == [body]
    assert tmpfs_bodies([mount]) == {}


@pytest.mark.parametrize(
    ("options", "readonly", "text"),
    [
        (api.Mount.TmpfsOptions(options="exec"), False, "exec"),
        (api.Mount.TmpfsOptions(options="EXEC,foo"), False, "exec"),
        (api.Mount.TmpfsOptions(options="noexec", size_bytes=1 << 30), False, "size=1g,noexec"),
        (api.Mount.TmpfsOptions(options="exec", size_bytes=10 << 20), False, "size=10m,exec"),
        (api.Mount.TmpfsOptions(options="exec", size_bytes=3 << 10), False, "size=3k,exec"),
        (api.Mount.TmpfsOptions(options="exec", size_bytes=1000), False, "size=1000,exec"),
        (api.Mount.TmpfsOptions(options="exec", size_bytes=1536, mode=0o1777), True, "ro,mode=1777,size=1536,exec"),
    ],
)
def test_tmpfs_with_options(options: api.Mount.TmpfsOptions, readonly: bool, text: str) -> None:
    """A tmpfs that says exec or noexec goes to the engine in the older form, and only there. [cli 105]"""
    mount = api.Mount(type=api.Mount.TMPFS, target="/t", readonly=readonly, tmpfs_options=options)
    assert tmpfs_bodies([mount]) == {"/t": text}
    assert mount_bodies([mount]) == []


def test_volumes_with_a_driver() -> None:
    """Volumes with a driver of their own are created first."""
    options = api.Mount.VolumeOptions(labels={"l": "1"}, driver_config=api.Driver(name="nfs", options={"o": "2"}))
    mount = api.Mount(type=api.Mount.VOLUME, source="v", target="/v", volume_options=options)
    assert volume_bodies([mount, api.Mount(type=api.Mount.VOLUME, source="w")]) == [
        {"Name": "v", "Driver": "nfs", "DriverOpts": {"o": "2"}, "Labels": {"l": "1"}}
    ]


def attached(task: api.Task, name: str, *addresses: str) -> api.Network:
    """The task attached to a network."""
    attachment = task.networks.add(addresses=addresses)
    attachment.network.id = f"{name}-id"
    attachment.network.spec.annotations.name = name
    return attachment.network


def test_networks() -> None:
    """Networks are created from what the allocator decided; engines before API 1.44 get the further ones after creation. [cli 116]"""
    task = example()
    for name in ("one", "two"):
        network = attached(task, name, "10.0.1.5/24", "fd00::5/64")
        network.driver_state.name = "overlay"
        network.driver_state.options["vxlan"] = "4097"
        network.ipam.driver.name = "default"
        network.ipam.configs.add(subnet="10.0.1.0/24", gateway="10.0.1.1")
    attached(task, "host")
    asked = request(task)
    assert [body["Name"] for body in asked.networks] == ["one", "two"]
    assert asked.networks[0]["IPAM"] == {"Driver": "default", "Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]}
    assert asked.networks[0]["Options"] == {"vxlan": "4097"}
    endpoint = {"IPAMConfig": {"IPv4Address": "10.0.1.5", "IPv6Address": "fd00::5"}}
    assert asked.create_body((1, 44))["NetworkingConfig"] == {"EndpointsConfig": {"one": endpoint, "two": endpoint, "host": {}}}
    assert asked.connect_later((1, 44)) == {}
    assert asked.create_body((1, 41))["NetworkingConfig"] == {"EndpointsConfig": {"one": endpoint}}
    assert asked.connect_later((1, 41)) == {"two": endpoint, "host": {}}


def generic_runtime(task: api.Task) -> None:
    """Another runtime."""
    task.spec.generic.kind = "x"


def no_image(task: api.Task) -> None:
    """No image."""
    task.spec.container.image = ""


def bad_template(task: api.Task) -> None:
    """A template with a mistake."""
    task.spec.container.hostname = "{{.Oops}}"


def cluster_volume(task: api.Task) -> None:
    """A cluster volume."""
    task.spec.container.mounts.add(type=api.Mount.CLUSTER, source="data", target="/c")


def unallocated_network(task: api.Task) -> None:
    """A network the allocator has not seen."""
    attached(task, "lost")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (generic_runtime, "exec: unsupported runtime"),
        (no_image, "dockerexec: image required"),
        (bad_template, "expanding hostname failed: "),
        (cluster_volume, "cluster volume data (mount /c) was not attached to the task"),
        (unallocated_network, "network lost has not been allocated"),
    ],
)
def test_refusals(change: Any, error: str) -> None:
    """What cannot run here is refused with a reason before anything is made. [cli 114]"""
    task = example()
    change(task)
    with pytest.raises(ExecutorError) as caught:
        request(task)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("redis", ("redis", "latest")),
        ("redis:3.0.5", ("redis", "3.0.5")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c")),
        ("a/b@sha256:0123", ("a/b", "sha256:0123")),
    ],
)
def test_image_references(image: str, parts: tuple[str, str]) -> None:
    """A reference splits into repository and tag or digest."""
    assert split_image(image) == parts


def test_cluster_volumes_are_bind_mounts() -> None:
    """Each is mounted from where the node has it, read-only if asked for; templates in source and target count as expanded."""
    task = example()
    task.service_annotations.name = "web"
    for source, target, readonly in (("data", "/d", False), ("{{.Service.Name}}", "/{{.Service.Name}}", True)):
        task.spec.container.mounts.add(type=api.Mount.CLUSTER, source=source, target=target, readonly=readonly)
        task.volumes.add(id=f"id-of-{source}", source=source, target=target)
    made = container_request(task, None, place=lambda volume_id: Path("/volumes") / volume_id.strip("{}."))
    mounts = made.body["HostConfig"]["Mounts"][-2:]  # type: ignore[index]
    assert mounts == [
        {"Type": "bind", "Target": "/d", "Source": "/volumes/id-of-data"},
        {"Type": "bind", "Target": "/web", "Source": "/volumes/id-of-{{.Service.Name", "ReadOnly": True},
    ]
    with pytest.raises(ExecutorError, match="this node has no cluster volumes"):
        container_request(task, None)


def test_files_are_mounts() -> None:
    """Secrets and configs are mounted after the mounts of the spec, and appear nowhere else in the request."""
    task = example()
    before = request(task)
    file: dict[str, object] = {"Type": "bind", "Source": "/mem/0", "Target": "/run/secrets/x", "ReadOnly": True}
    after = container_request(task, None, files=[file])
    mounts = [*host_config(task).get("Mounts", ()), file]
    assert after.body == {**before.body, "HostConfig": {**host_config(task), "Mounts": mounts}}
