"""What commands send to the manager, and what they refuse before they ask."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from pyswarm.api import logs, times
from pyswarm.api import v1 as api
from pyswarm.cli.framework import Call

from . import builders as b
from .conftest import Run
from .fake import Manager, object_id

S = api.TaskState


def error(run: Run, *words: str, status: int = 1) -> str:
    """The error line of a command that fails with this status and prints nothing else on stdout."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (status, "")
    first, _, rest = result.stderr.partition("\n")
    assert rest == ("" if status == 1 else rest)
    assert first.startswith("Error: ")
    return first.removeprefix("Error: ")


# --- services


def test_create_sends_the_spec(manager: Manager, run: Run) -> None:
    """create prints the ID; its update settings say all at once. [cli 46]"""
    result = run("service", "create", "--name", "redis", "--image", "redis:3.0.5")
    assert result.stdout == object_id(1000) + "\n"
    (request,) = manager.requests("CreateService")
    assert request.spec.annotations.name == "redis"
    assert request.spec.HasField("update")
    assert request.spec.update.parallelism == 0


def test_create_needs_name_and_image(dead: Path, run: Run) -> None:
    """Both are mandatory, and missed before anyone is asked. [cli 45]"""
    for words in ((), ("--name", "x"), ("--image", "x")):
        assert error(run, "service", "create", *words, status=2) == "--name and --image are mandatory"


def test_bad_values_are_refused_without_a_manager(dead: Path, run: Run) -> None:
    """A flag that cannot be read is a usage error even when nobody listens."""
    for command in (("create", "--name", "a", "--image", "b"), ("update", "a")):
        assert error(run, "service", *command, "--memory-limit", "abc", status=2) == "invalid size: 'abc'"
    assert error(run, "service", "update", "a", "--rm-secret", ":x", status=2) == "invalid secret name provided"
    assert error(run, "cluster", "update", "a", "--log-opt", "x=y", status=2).startswith("--log-opt needs --log-driver")


def test_secrets_and_network_are_looked_up(manager: Manager, run: Run) -> None:
    """References carry IDs; a network is found like any object. [cli 55]"""
    manager.add(api.Secret(id=object_id(34), spec=api.SecretSpec(annotations=api.Annotations(name="pw"))))
    manager.add(api.Network(id=object_id(38), spec=api.NetworkSpec(annotations=api.Annotations(name="net1"))))
    run("service", "create", "--name", "sec", "--image", "x", "--secret", "pw:renamed", "--network", "net1")
    spec = manager.requests("CreateService")[0].spec
    assert spec.task.container.secrets[0].secret_id == object_id(34)
    assert [network.target for network in spec.task.networks] == [object_id(38)]
    base = ("service", "create", "--name", "x", "--image", "x")
    assert error(run, *base, "--secret", "PW") == "secret not found: PW"
    assert error(run, *base, "--network", "nope").startswith("network nope not found")


def test_update_sends_the_version_it_read(manager: Manager, run: Run) -> None:
    """update edits the spec as it is and sends its version. [cli 67]"""
    made = b.service(12, "redis")
    made.meta.version.index = 77
    made.spec.task.log_driver.name = "syslog"
    manager.add(made)
    assert run("service", "update", "redis", "--replicas", "6").stdout == object_id(12) + "\n"
    (request,) = manager.requests("UpdateService")
    assert (request.service_id, request.service_version.index, request.spec.replicated.replicas) == (object_id(12), 77, 6)
    assert request.spec.task.log_driver.name == "syslog"


def test_update_without_change(manager: Manager, run: Run) -> None:
    """Nothing to change is an error that names the service, and nothing is sent. [cli 60]"""
    manager.add(b.service(12, "redis"))
    for words in ((), ("--replicas", "1"), ("--force=false",), ("--rm-secret", "pw")):
        assert error(run, "service", "update", "redis", *words) == "service redis: no changes detected"
    assert not manager.requests("UpdateService")


def test_update_of_references(manager: Manager, run: Run) -> None:
    """Adding comes before removing, by name. [cli 65]"""
    made = b.service(48, "sec")
    made.spec.task.container.secrets.extend([b.secret_reference("pw", 34, "pw"), b.secret_reference("pw2", 28, "renamed")])
    manager.add(made)
    manager.add(api.Secret(id=object_id(34), spec=api.SecretSpec(annotations=api.Annotations(name="pw"))))
    manager.add(api.Config(id=object_id(82), spec=api.ConfigSpec(annotations=api.Annotations(name="cfg"))))
    run("service", "update", "sec", "--add-config", "cfg", "--rm-secret", "pw2", "--add-secret", "pw:again")
    container = manager.requests("UpdateService")[0].spec.task.container
    assert [(ref.secret_name, ref.file.name) for ref in container.secrets] == [("pw", "pw"), ("pw", "again")]
    assert [ref.config_id for ref in container.configs] == [object_id(82)]


def test_flags_of_create_and_update_differ(dead: Path, run: Run) -> None:
    """A service's mode is fixed; secrets are added by another flag. [cli 66]"""
    assert error(run, "service", "update", "x", "--mode", "global", status=2) == "unknown flag: --mode"
    assert error(run, "service", "update", "x", "--secret", "pw", status=2) == "unknown flag: --secret"
    assert error(run, "service", "create", "--force", status=2) == "unknown flag: --force"


def test_jobs(manager: Manager, run: Run) -> None:
    """Jobs are created and changed by their own flags; what they have not is refused with the reason, and nothing is sent."""
    base = ("service", "create", "--name", "sums", "--image", "x")
    run(*base, "--mode", "replicated-job", "--replicas", "9", "--max-concurrent", "3")
    run(*base, "--mode", "global-job")
    replicated, everywhere = manager.requests("CreateService")
    assert isinstance(replicated, api.CreateServiceRequest)
    assert isinstance(everywhere, api.CreateServiceRequest)
    assert replicated.spec.replicated_job == api.ReplicatedJob(max_concurrent=3, total_completions=9)
    assert (everywhere.spec.WhichOneof("mode"), everywhere.spec.HasField("update")) == ("global_job", False)
    made = b.service(12, "sums")
    made.spec.CopyFrom(replicated.spec)
    made.spec.annotations.name = "old"
    manager.add(made)
    assert run("service", "update", "old", "--max-concurrent", "5").exit_code == 0
    (update,) = manager.requests("UpdateService")
    assert isinstance(update, api.UpdateServiceRequest)
    assert update.spec.replicated_job == api.ReplicatedJob(max_concurrent=5, total_completions=9)
    assert error(run, *base, "--max-concurrent", "3") == "--max-concurrent can only be specified in --mode replicated-job"
    assert error(run, *base, "--mode", "global-job", "--max-concurrent", "3", status=2).startswith("--max-concurrent can only")
    expected = "--update-delay: a job has no update settings, since an update runs it again from the start"
    assert error(run, "service", "update", "old", "--update-delay", "1s") == expected
    assert (len(manager.requests("CreateService")), len(manager.requests("UpdateService"))) == (2, 1)


def test_removing_a_service(manager: Manager, run: Run) -> None:
    """rm prints what was typed; the second time there is nothing. [cli 74]"""
    manager.add(b.service(31, "web"))
    assert run("service", "rm", "web").stdout == "web\n"
    assert error(run, "svc", "remove", "web").startswith("service web not found")


def test_removing_a_task(manager: Manager, run: Run) -> None:
    """rm prints what was typed and sends the whole ID. [cli 82]"""
    manager.add(b.task(42, b.service(1, "web"), 1, 0, 1))
    assert run("task", "rm", "id0042").stdout == "id0042\n"
    assert manager.requests("RemoveTask")[0].task_id == object_id(42)


# --- logs


def log(task: int, node: int, data: bytes, stream: int = api.LogStream.LOG_STREAM_STDOUT) -> api.LogMessage:
    """A line of a task."""
    return api.LogMessage(context=api.LogContext(task_id=object_id(task), node_id=b.node_id(node)), stream=stream, data=data)


def logging_manager(manager: Manager) -> None:
    """The service web with one task that wrote three lines."""
    web = b.service(86, "web", 2)
    manager.add(web)
    manager.add(b.service(87, "redis"))
    manager.add(b.node(3))
    manager.add(b.task(55, web, 1, 3, 9))
    manager.messages = [
        log(55, 3, b"out 1\n"),
        log(55, 3, b"err\n", api.LogStream.LOG_STREAM_STDERR),
        log(99, 1, b"\xff\n"),
    ]


def test_logs(manager: Manager, run: Run) -> None:
    """Lines go to the stream they came from, after task and node; one subscription serves several services. [cli 75]"""
    logging_manager(manager)
    result = run("service", "logs", "web", "redis")
    assert result.exit_code == 0
    assert result.stdout_bytes == "web.1@node-3❯ out 1\n".encode() + f"{object_id(99)}@{b.node_id(1)}❯ ".encode() + b"\xff\n"  # noqa: RUF001
    assert result.stderr == "web.1@node-3❯ err\n"  # noqa: RUF001
    (request,) = manager.requests("SubscribeLogs")
    assert (list(request.selector.service_ids), request.options.follow) == ([object_id(86), object_id(87)], False)


def test_logs_with_ids_and_follow(manager: Manager, run: Run) -> None:
    """-n prints IDs, -f follows. [cli 75] [cli 76]"""
    logging_manager(manager)
    result = run("service", "log", "-n", "-f", "web")
    assert result.stdout.startswith(f"{object_id(55)}@{b.node_id(3)}❯ out 1\n")  # noqa: RUF001
    assert manager.requests("SubscribeLogs")[0].options.follow


def test_incomplete_logs(manager: Manager, run: Run) -> None:
    """What arrived is printed, then the error with its status. [cli 77]"""
    logging_manager(manager)
    manager.failures["SubscribeLogs"] = (grpc.StatusCode.UNKNOWN, "warning: incomplete log stream. node x is not available")
    result = run("service", "logs", "web")
    assert result.exit_code == 1
    assert "out 1" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "Error: failed receiving stream message: rpc error: code = Unknown desc = warning: incomplete log stream. node x is not available"
    )


def test_logs_of_tasks(manager: Manager, run: Run) -> None:
    """task logs is the same for single tasks, found by id, name or prefix."""
    logging_manager(manager)
    result = run("task", "logs", "id0055", f"web.1.{object_id(55)}")
    assert result.stdout.startswith("web.1@node-3❯ out 1\n")  # noqa: RUF001
    (request,) = manager.requests("SubscribeLogs")
    assert list(request.selector.task_ids) == [object_id(55), object_id(55)]
    assert error(run, "task", "logs", status=2) == "missing task IDs"
    assert error(run, "task", "logs", "nope").startswith("task nope not found")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), api.LogSubscriptionOptions()),
        (("--tail", "0"), api.LogSubscriptionOptions(tail=-1)),
        (("--tail", "10"), api.LogSubscriptionOptions(tail=-11)),
        (("--tail", str(2**64 - 1)), api.LogSubscriptionOptions(tail=-(2**31) - 1)),
        (("--since", "1m30s"), api.LogSubscriptionOptions(since=times.timestamp(b.NOW - 90))),
        (("--since", "1970-01-01T01:00:00.5+01:00"), api.LogSubscriptionOptions(since=times.timestamp(0.5))),
        (("--stream", "stderr"), api.LogSubscriptionOptions(streams=[api.LogStream.LOG_STREAM_STDERR])),
        (("--stream=stdout", "-f"), api.LogSubscriptionOptions(streams=[api.LogStream.LOG_STREAM_STDOUT], follow=True)),
    ],
)
def test_log_options(words: tuple[str, ...], wanted: api.LogSubscriptionOptions, manager: Manager, run: Run) -> None:
    """The flags become the options of the subscription; a tail of n lines is written -n-1 on the wire."""
    logging_manager(manager)
    assert run("service", "logs", "web", *words).exit_code == 0
    assert manager.requests("SubscribeLogs")[0].options == wanted


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--since", "yesterday"), 'invalid argument "yesterday" for "--since" flag: neither a span like 10m nor a time like '),
        (("--since", "2006-01-02T15:04:05"), 'invalid argument "2006-01-02T15:04:05" for "--since" flag: '),
        (("--stream", "stdin"), 'invalid argument "stdin" for "--stream" flag: it is stdout or stderr'),
        (("--tail", "-1"), 'invalid argument "-1" for "--tail" flag: '),
    ],
)
def test_wrong_log_options(words: tuple[str, ...], text: str, manager: Manager, run: Run) -> None:
    """A wrong value is a usage error that names it, and nothing is asked for."""
    logging_manager(manager)
    assert error(run, "service", "logs", "web", *words, status=2).startswith(text)
    assert manager.requests("SubscribeLogs") == []


def test_log_timestamps(manager: Manager, run: Run) -> None:
    """--timestamps puts the time before everything else."""
    logging_manager(manager)
    manager.messages[0].timestamp.CopyFrom(times.timestamp(1.25))
    assert run("service", "logs", "--timestamps", "web").stdout.startswith("1970-01-01T00:00:01.25Z web.1@node-3❯ out 1\n")  # noqa: RUF001


def test_log_colours(manager: Manager, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal what stands before the line has a colour, always the same for the same task; NO_COLOR turns that off. [cli 75]"""
    logging_manager(manager)
    manager.messages = [log(55, 3, b"a\n"), log(99, 3, b"b\n"), log(55, 3, b"c\n")]
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    first, second, third = run("service", "logs", "-n", "web").stdout.splitlines()
    assert re.fullmatch(rf"\x1b\[\d\dm{object_id(55)}@{b.node_id(3)}❯ \x1b\[0ma", first)  # noqa: RUF001
    assert first[:5] == third[:5] != second[:5]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("service", "logs", "web").stdout


def test_a_node_is_missing(manager: Manager, run: Run) -> None:
    """A note of a node that is away, among followed lines, is one warning on stderr with the node's name."""
    logging_manager(manager)
    manager.messages = [log(55, 3, b"a\n"), logs.missing(b.node_id(3)), log(55, 3, b"b\n")]
    result = run("service", "logs", "-f", "web")
    assert result.stdout == "web.1@node-3❯ a\nweb.1@node-3❯ b\n"  # noqa: RUF001
    assert result.stderr == "warning: node node-3 is not available; what its tasks write is missing\n"


def at(message: api.LogMessage, moment: float) -> api.LogMessage:
    """The line with a time."""
    message.timestamp.CopyFrom(times.timestamp(moment))
    return message


def test_followed_logs_go_on(manager: Manager, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another manager leads, what is followed goes on where it broke off; without -f, or with nothing read yet, it is an error."""
    logging_manager(manager)
    pauses: list[float] = []
    monkeypatch.setattr(Call, "pause", lambda _, seconds: pauses.append(seconds))
    manager.messages = [at(log(55, 3, b"a\n"), 1.0), at(log(55, 3, b"b\n"), 2.0), at(log(55, 3, b"c\n"), 2.0)]
    manager.more = [at(log(55, 3, b"d\n"), 2.0)]
    manager.breaks = [
        (grpc.StatusCode.CANCELLED, "the manager that served these logs leads no longer; ask again"),
        (grpc.StatusCode.UNKNOWN, "broker is not running"),
    ]
    result = run("service", "logs", "-f", "-n", "--tail", "3", "web")
    assert result.exit_code == 0
    assert "".join(line[-1] for line in result.stdout.splitlines()) == "abcdd"
    assert len(pauses) == 2
    first, second, _ = [request.options for request in manager.requests("SubscribeLogs")]
    assert (first.tail, first.HasField("since")) == (-4, False)
    assert (second.tail, second.since.seconds) == (0, 2)
    for words in (("service", "logs", "web"), ("service", "logs", "-f", "redis")):
        manager.breaks = [(grpc.StatusCode.CANCELLED, "leads no longer")]
        if "-f" in words:
            manager.messages, manager.more = [], []
        assert run(*words).exit_code == 1
    assert len(pauses) == 2


def test_logs_not_there(manager: Manager, run: Run) -> None:
    """A manager without logs says so in one plain line."""
    logging_manager(manager)
    manager.messages.clear()
    manager.failures["SubscribeLogs"] = (grpc.StatusCode.UNIMPLEMENTED, "logs are not there yet")
    assert error(run, "service", "logs", "web") == "logs are not there yet"


# --- nodes


@pytest.mark.parametrize(
    ("command", "value", "unchanged"),
    [
        ("drain", api.NodeSpec.Availability.DRAIN, "Node node-1 was already drained"),
        ("pause", api.NodeSpec.Availability.PAUSE, "Node node-1 was already paused"),
    ],
)
def test_availability(command: str, value: int, unchanged: str, manager: Manager, run: Run) -> None:
    """A change prints nothing, the same again is an error, activate takes it back. [cli 37]"""
    node = b.node(1)
    node.meta.version.index = 5
    manager.add(node)
    assert error(run, "node", "activate", "node-1") == "Node node-1 is already active"
    assert run("node", command, "node-1").output == ""
    (request,) = manager.requests("UpdateNode")
    assert (request.spec.availability, request.node_version.index) == (value, 5)
    assert error(run, "node", command, "node-1") == unchanged
    assert run("node", "activate", "node-1").exit_code == 0


def test_roles(manager: Manager, run: Run) -> None:
    """Promote and demote set the desired role; what is already so is an error. [cli 38]"""
    manager.add(b.node(2))
    assert error(run, "node", "demote", "node-2") == "Node node-2 is already a worker"
    assert run("node", "promote", "node-2").output == ""
    assert manager.requests("UpdateNode")[0].spec.desired_role == api.NodeRole.MANAGER
    assert error(run, "node", "promote", "node-2") == "Node node-2 is already a manager"


def test_node_labels(manager: Manager, run: Run) -> None:
    """Labels replace the ones before; an empty value removes them; no change and no sense are errors. [cli 41]"""
    manager.add(b.node(2))
    assert run("node", "update", "node-2", "--label", "a=1", "--label", " b = 2 ").output == ""
    assert dict(manager.requests("UpdateNode")[0].spec.annotations.labels) == {"a": "1", "b": "2"}
    for words in (("--label", "b=2,a=1"), ()):
        assert error(run, "node", "update", "node-2", *words) == "No change for node node-2"
    assert error(run, "node", "update", "node-2", "--label", "broken", status=2) == "malformed label for node broken"
    assert run("node", "update", "node-2", "--label", "").exit_code == 0
    assert not manager.requests("UpdateNode")[-1].spec.annotations.labels


def test_removing_a_node(manager: Manager, run: Run) -> None:
    """The server's refusal is passed on; --force is sent; success prints nothing. [cli 40]"""
    manager.add(b.node(3))
    manager.failures["RemoveNode"] = (grpc.StatusCode.FAILED_PRECONDITION, "node x is not down and can't be removed")
    assert error(run, "node", "rm", "node-3") == "node x is not down and can't be removed"
    manager.failures.clear()
    assert run("node", "rm", "-f", "node-3").output == ""
    assert [request.force for request in manager.requests("RemoveNode")] == [False, True]


# --- cluster


def test_cluster_update(manager: Manager, run: Run) -> None:
    """Given flags change the spec, the rest stays; without flags it is sent all the same. [cli 29, 31, 35]"""
    made = b.cluster(67, task_defaults=api.TaskDefaults(log_driver=api.Driver(name="syslog")))
    made.meta.version.index = 9
    manager.add(made)
    words = ("--taskhistory", "10", "--certexpiry", "720h", "--heartbeatperiod", "500ms", "--autolock")
    assert run("cluster", "update", "default", *words).stdout == object_id(67) + "\n"
    request = manager.requests("UpdateCluster")[0]
    assert request.cluster_version.index == 9
    assert request.spec.orchestration.task_history_retention_limit == 10
    assert request.spec.ca_config.node_cert_expiry.seconds == 720 * 3600
    assert request.spec.dispatcher.heartbeat_period.nanos == 500_000_000
    assert request.spec.encryption_config.auto_lock_managers
    assert request.spec.task_defaults.log_driver.name == "syslog"
    assert run("cluster", "update", "default").exit_code == 0
    assert manager.requests("UpdateCluster")[1].spec == request.spec
    run("cluster", "update", "default", "--autolock=false", "--log-driver", "")
    last = manager.requests("UpdateCluster")[2].spec
    assert not last.encryption_config.auto_lock_managers
    assert not last.task_defaults.HasField("log_driver")


def test_rotating_join_tokens(manager: Manager, run: Run) -> None:
    """One role per call, in any case. [cli 30]"""
    manager.add(b.cluster())
    run("cluster", "update", "default", "--rotate-join-token", "worker")
    run("cluster", "update", "default", "--rotate-join-token", "MANAGER")
    worker, manager_role = (request.rotation for request in manager.requests("UpdateCluster"))
    assert worker == api.KeyRotation(worker_join_token=True)
    assert manager_role == api.KeyRotation(manager_join_token=True)
    complaint = "--rotate-join-token flag must be followed by 'worker' or 'manager'"
    assert error(run, "cluster", "update", "default", "--rotate-join-token", "both", status=2) == complaint


def test_unlock_key(manager: Manager, run: Run) -> None:
    """The key is printed in its readable form, and after a rotation; with auto-lock off there is one sentence. [cli 34]"""
    manager.add(b.cluster())
    assert run("cluster", "unlock-key", "anything").stdout == "Managers not auto-locked\n"
    manager.key = bytes(range(32))
    line = "Managers auto-locked.  Unlock key: SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n"
    assert run("cluster", "unlock-key", "anything").stdout == line
    assert run("cluster", "update", "default", "--rotate-unlock-key").stdout == object_id(67) + "\n" + line
    assert manager.requests("UpdateCluster")[0].rotation.manager_unlock_key


def test_external_cas(manager: Manager, run: Run) -> None:
    """Each occurrence adds one; together they replace those before. [cli 33]"""
    made = b.cluster()
    made.spec.ca_config.external_cas.add(url="https://old")
    manager.add(made)
    first, second = "protocol=cfssl,url=https://a", "url=https://b,protocol=CFSSL,x=y"
    run("cluster", "update", "default", "--external-ca", first, "--external-ca", second)
    found = manager.requests("UpdateCluster")[0].spec.ca_config.external_cas
    assert [(one.url, dict(one.options)) for one in found] == [("https://a", {}), ("https://b", {"x": "y"})]
    complaint = 'invalid argument "asdf" for "--external-ca" flag: invalid field \'asdf\' must be a key=value pair'
    assert error(run, "cluster", "update", "default", "--external-ca", "asdf", status=2) == complaint


# --- secrets and configs


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_create_from_stdin_and_file(kind: str, manager: Manager, run: Run, tmp_path: Path) -> None:
    """Data comes from standard input or a file, byte for byte. [cli 83]"""
    file = tmp_path / "f.txt"
    file.write_bytes(b"\xff\x00\n")
    assert run(kind, "create", "one", stdin=b"\x00s3cr3t").stdout == object_id(1000) + "\n"
    assert run(kind, "create", "two", "--file", str(file)).exit_code == 0
    requests = manager.requests(f"Create{kind.capitalize()}")
    assert [(request.spec.annotations.name, request.spec.data) for request in requests] == [("one", b"\x00s3cr3t"), ("two", b"\xff\x00\n")]


def test_missing_file(dead: Path, run: Run) -> None:
    """A file that is not there is named, before anyone is asked. [cli 83]"""
    line = "Error reading from file '/does/not/exist': open /does/not/exist: no such file or directory"
    assert error(run, "secret", "create", "x", "-f", "/does/not/exist") == line


def test_secret_with_driver_reads_nothing(manager: Manager, run: Run) -> None:
    """A driver knows the value, so standard input is left alone. [cli 84]"""
    run("secret", "create", "ext", "-d", "myplugin", stdin=b"ignored")
    spec = manager.requests("CreateSecret")[0].spec
    assert (spec.driver.name, spec.data) == ("myplugin", b"")


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_templates(kind: str, manager: Manager, run: Run) -> None:
    """Data is a template when that is said, with the one driver that there is."""
    run(kind, "create", "plain", stdin=b"{{x}}")
    run(kind, "create", "made", "--template-driver", "golang", stdin=b"{{.Task.ID}}")
    plain, made = (request.spec for request in manager.requests(f"Create{kind.capitalize()}"))
    assert not plain.HasField("templating")
    assert made.templating.name == "golang"
    assert error(run, kind, "create", "x", "--template-driver", "jinja") == "--template-driver jinja: there is only one, golang"


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_removing_data(kind: str, manager: Manager, run: Run) -> None:
    """rm prints the ID; more than one argument is refused, nothing is half done. [cli 85]"""
    spec = getattr(api, f"{kind.capitalize()}Spec")(annotations=api.Annotations(name="pw"))
    manager.add(getattr(api, kind.capitalize())(id=object_id(34), spec=spec))
    complaint = f"remove command takes a single {kind} ID or name"
    assert error(run, kind, "rm", "pw", "extra", status=2) == complaint
    assert run(kind, "rm", "pw").stdout == object_id(34) + "\n"


# --- networks


def test_network_create(manager: Manager, run: Run) -> None:
    """Gateways and ranges go to the subnet they lie in, whatever their order. [cli 87] [cli 88]"""
    run(
        *("network", "create", "--name", "net2", "--driver", "overlay", "--opts", "a=1,b=2", "--ipam-driver", "default"),
        *("--subnet", "10.99.0.0/16,fd00:1::/64", "--gateway", "fd00:1::1,10.99.0.1", "--ip-range", "10.99.5.0/24"),
    )
    spec = manager.requests("CreateNetwork")[0].spec
    assert (spec.annotations.name, spec.driver_config.name, dict(spec.driver_config.options)) == ("net2", "overlay", {"a": "1", "b": "2"})
    family = api.IPAMConfig.AddressFamily
    assert list(spec.ipam.configs) == [
        api.IPAMConfig(family=family.IPV4, subnet="10.99.0.0/16", range="10.99.5.0/24", gateway="10.99.0.1"),
        api.IPAMConfig(family=family.IPV6, subnet="fd00:1::/64", gateway="fd00:1::1"),
    ]
    run("network", "create", "--name", "net1")
    bare = manager.requests("CreateNetwork")[1].spec
    assert not bare.HasField("driver_config")
    assert not bare.HasField("ipam")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "--name is required"),
        (("--name", "n", "--driver", "overlay", "--opts", "a"), "Malformed opts: a"),
        (("--name", "n", "--driver", "overlay", "--opts", "a=b=c"), "Malformed opts: a=b=c"),
        (("--name", "n", "--opts", "a=b"), "--opts needs --driver"),
        (("--name", "n", "--gateway", "10.0.0.1"), "--gateway needs --subnet"),
        (("--name", "n", "--ip-range", "10.0.0.0/8"), "--ip-range needs --subnet"),
        (("--name", "n", "--subnet", "10.0.0.0"), "invalid CIDR address: 10.0.0.0"),
        (("--name", "n", "--subnet", "10.98.0.0/16", "--ip-range", "bad"), "invalid CIDR address: bad"),
        (("--name", "n", "--subnet", "10.98.0.0/16", "--gateway", "bad"), "invalid gateway address: bad"),
        (("--name", "n", "--subnet", "10.98.0.0/16", "--gateway", "10.1.1.1"), "--gateway 10.1.1.1 lies in no --subnet that has none yet"),
        (
            ("--name", "n", "--subnet", "10.0.0.0/8", "--gateway", "10.0.0.1,10.0.0.2"),
            "--gateway 10.0.0.2 lies in no --subnet that has none yet",
        ),
    ],
)
def test_bad_networks(words: tuple[str, ...], complaint: str, dead: Path, run: Run) -> None:
    """What was typed is used or refused, never dropped. [cli 87]"""
    assert error(run, "network", "create", *words, status=2) == complaint


def test_removing_a_network(manager: Manager, run: Run) -> None:
    """rm prints what was typed. [cli 89]"""
    manager.add(api.Network(id=object_id(68), spec=api.NetworkSpec(annotations=api.Annotations(name="net1"))))
    assert run("network", "rm", "net1").stdout == "net1\n"
    assert manager.requests("RemoveNetwork")[0].network_id == object_id(68)
