"""`service ls / inspect / create / update / remove / logs` (spec/cli-and-executor, sections 8 and 9)."""

from __future__ import annotations

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.cli import flags, framework, helptext, resolve, service_flags, service_spec
from pyswarm.cli.client import Client
from pyswarm.cli.commands import logs
from pyswarm.cli.flagset import FlagError, Given
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import services, tasks

COMMAND = framework.Group("service", helptext.Text("Manage services", aliases=("service", "svc")))
_MISSING = "service ID missing"


@COMMAND.declare("ls", no_arguments("ls"), summary="List services", example="pyswarmctl service ls", flags=[framework.QUIET])
def ls(call: Call) -> None:
    """All services; running tasks are counted on nodes that are not down."""
    with call.connect() as client:
        found = client.ask(client.control.ListServices, api.ListServicesRequest()).services
        if call.given.truth("quiet"):
            call.show("".join(f"{service.id}\n" for service in found))
            return
        nodes = client.ask(client.control.ListNodes, api.ListNodesRequest()).nodes
        listed = client.ask(client.control.ListTasks, api.ListTasksRequest()).tasks
    call.show(services.listing(found, services.by_service(listed, nodes)))


@COMMAND.declare(
    "inspect",
    one_argument("<service>", _MISSING, "inspect command takes exactly 1 argument"),
    summary="Show a service and its tasks",
    example="pyswarmctl service inspect redis",
    flags=[framework.ALL],
)
def inspect(call: Call) -> None:
    """The service, then its tasks."""
    with call.connect() as client:
        service = resolve.service(client, call.argument)
        request = api.ListTasksRequest(filters=api.ListTasksRequest.Filters(service_ids=[service.id]))
        found = client.ask(client.control.ListTasks, request).tasks
        now = call.now()
        call.show(services.summary(service, found, now))
        if found:
            call.show("\n" + tasks.table(found, call.names(client).node, now, all_tasks=call.given.truth("all")))


@COMMAND.declare(
    "create",
    no_arguments("create"),
    summary="Create a service",
    more="Later updates replace all its tasks at once unless --update-parallelism says otherwise.",
    example="pyswarmctl service create --name redis --image redis:3.0.5\n"
    "pyswarmctl service create --name web --image nginx --replicas 3 --ports http:80:8080 --env MODE=live\n"
    "pyswarmctl service create --name sums --image busybox --mode replicated-job --replicas 9 --max-concurrent 3 --command ./sum",
    flags=service_flags.CREATE,
)
def create(call: Call) -> None:
    """Create it, print its ID."""
    given = call.given
    if "name" not in given or "image" not in given:
        raise FlagError("--name and --image are mandatory")
    service_spec.check(given)
    spec = service_spec.blank()
    service_spec.build(spec, given)
    with call.connect() as client:
        _look_up(client, spec, given)
        call.show(client.ask(client.control.CreateService, api.CreateServiceRequest(spec=spec)).service.id + "\n")


@COMMAND.declare(
    "update",
    one_argument("<service>", _MISSING, "update command takes exactly 1 argument"),
    summary="Change a service; its tasks are replaced as its update settings say",
    more="Only what a flag names is changed. Lists are replaced by those given, and emptied by ''; mounts are added.",
    example="pyswarmctl service update redis --replicas 6\n"
    "pyswarmctl service update redis --image redis:3.0.7 --update-parallelism 2 --update-delay 10s",
    flags=service_flags.UPDATE,
)
def update(call: Call) -> None:
    """Apply the flags to the spec as it is now and send it with its version."""
    given = call.given
    service_spec.check(given)
    with call.connect() as client:
        service = resolve.service(client, call.argument)
        spec = api.ServiceSpec()
        spec.CopyFrom(service.spec)
        service_spec.build(spec, given)
        _look_up(client, spec, given)
        service_spec.remove_references(spec, given)
        service_spec.capabilities(spec, given)
        if not service_spec.differs(service.spec, spec):
            raise errors.FailedPrecondition(f"service {call.argument}: no changes detected")
        request = api.UpdateServiceRequest(service_id=service.id, service_version=service.meta.version, spec=spec)
        call.show(client.ask(client.control.UpdateService, request).service.id + "\n")


def _look_up(client: Client, spec: api.ServiceSpec, given: Given) -> None:
    """Put in what other objects the flags name: network, secrets, configs. Raises NotFound."""
    if "network" in given:
        service_spec.set_network(spec, resolve.network(client, given.text("network")).id)
    secrets = flags.references([*given.texts("secret"), *given.texts("add-secret")], "secret")
    if secrets:
        by_name = api.ListSecretsRequest.Filters(names=[name for name, _ in secrets])
        listed = client.ask(client.control.ListSecrets, api.ListSecretsRequest(filters=by_name)).secrets
        service_spec.add_secrets(spec, secrets, {secret.spec.annotations.name: secret.id for secret in listed})
    configs = flags.references(given.texts("add-config"), "config")
    if configs:
        named = api.ListConfigsRequest.Filters(names=[name for name, _ in configs])
        found = client.ask(client.control.ListConfigs, api.ListConfigsRequest(filters=named)).configs
        service_spec.add_configs(spec, configs, {config.spec.annotations.name: config.id for config in found})


@COMMAND.declare(
    "remove",
    one_argument("<service>", _MISSING, "remove command takes exactly 1 argument"),
    summary="Remove a service and stop its tasks",
    example="pyswarmctl service rm redis",
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove it, print what was typed."""
    with call.connect() as client:
        service = resolve.service(client, call.argument)
        client.ask(client.control.RemoveService, api.RemoveServiceRequest(service_id=service.id))
        call.show(call.argument + "\n")


@COMMAND.declare(
    "logs",
    framework.some_arguments("<service>...", "missing service IDs"),
    summary="Print what the tasks of services wrote",
    more=logs.MORE,
    example="pyswarmctl service logs redis\npyswarmctl service logs -f --tail 10 web worker",
    flags=logs.FLAGS,
    aliases=("log",),
)
def show_logs(call: Call) -> None:
    """One subscription for all of them; tasks that start later are followed too."""
    with call.connect() as client:
        logs.show(call, client, api.LogSelector(service_ids=[resolve.service(client, text).id for text in call.arguments]))
