"""`cluster ls / inspect / update / unlock-key` (spec/cli-and-executor, section 6)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.cli import flags, framework, helptext, resolve
from pyswarm.cli.client import Client
from pyswarm.cli.flagset import BOOL, DURATION, INT, STRING, STRINGS, Flag, FlagError, Given
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import clusters

COMMAND = framework.Group("cluster", helptext.Text("Look at and change cluster settings"))
_MISSING = "cluster name missing"


@COMMAND.declare("ls", no_arguments("ls"), summary="List clusters", example="pyswarmctl cluster ls", flags=[framework.QUIET])
def ls(call: Call) -> None:
    """There is one."""
    with call.connect() as client:
        found = client.ask(client.control.ListClusters, api.ListClustersRequest()).clusters
    if call.given.truth("quiet"):
        call.show("".join(f"{cluster.id}\n" for cluster in found))
    else:
        call.show(clusters.listing(found))


@COMMAND.declare(
    "inspect",
    one_argument("<cluster>", _MISSING, "inspect command takes exactly 1 argument"),
    summary="Show a cluster's settings and its join tokens",
    example="pyswarmctl cluster inspect default",
)
def inspect(call: Call) -> None:
    """Settings and join tokens."""
    with call.connect() as client:
        call.show(clusters.summary(resolve.cluster(client, call.argument)))


UPDATE_FLAGS = [
    Flag("autolock", BOOL, "managers need the unlock key to start again"),
    Flag("certexpiry", DURATION, "how long new node certificates are valid, at least 1h", default="2160h0m0s"),
    Flag("external-ca", flags.EXTERNAL_CA, "certificate signer, as protocol=cfssl,url=...; those given replace the ones before"),
    Flag("heartbeatperiod", DURATION, "how often nodes report that they are alive"),
    Flag("log-driver", STRING, "log driver of tasks that name none; '' removes it"),
    Flag("log-opt", STRINGS, "option of --log-driver (key=value)"),
    Flag("rotate-join-token", STRING, "make the old token of the role 'worker' or 'manager' worthless, and a new one"),
    Flag("rotate-unlock-key", BOOL, "make a new unlock key and print it"),
    Flag("taskhistory", INT, "finished tasks to keep per replica or node"),
]


@COMMAND.declare(
    "update",
    one_argument("<cluster>", _MISSING, "update command takes exactly 1 argument"),
    summary="Change cluster settings",
    more="Only what a flag names is changed.",
    example="pyswarmctl cluster update default --taskhistory 10 --heartbeatperiod 3s\n"
    "pyswarmctl cluster update default --rotate-join-token worker",
    flags=UPDATE_FLAGS,
)
def update(call: Call) -> None:
    """Apply the flags to the spec as it is now and send it with its version."""
    rotation = key_rotation(call.given)
    apply(api.ClusterSpec(), call.given)  # a flag that cannot be read is reported before anyone is asked
    with call.connect() as client:
        cluster = resolve.cluster(client, call.argument)
        spec = api.ClusterSpec()
        spec.CopyFrom(cluster.spec)
        apply(spec, call.given)
        request = api.UpdateClusterRequest(cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec, rotation=rotation)
        call.show(client.ask(client.control.UpdateCluster, request).cluster.id + "\n")
        if rotation.manager_unlock_key:
            call.show(_unlock_key(client))


def key_rotation(given: Given) -> api.KeyRotation:
    """Which secrets the flags ask to renew. Raises FlagError."""
    role = given.text("rotate-join-token").lower()
    if "rotate-join-token" in given and role not in {"worker", "manager"}:
        raise FlagError("--rotate-join-token flag must be followed by 'worker' or 'manager'")
    return api.KeyRotation(
        worker_join_token=role == "worker",
        manager_join_token=role == "manager",
        manager_unlock_key=given.truth("rotate-unlock-key"),
    )


def apply(spec: api.ClusterSpec, given: Given) -> None:
    """Write the given flags into `spec`. Raises FlagError."""
    if "certexpiry" in given:
        spec.ca_config.node_cert_expiry.FromNanoseconds(given.number("certexpiry"))
        spec.ca_config.node_cert_expiry.SetInParent()
    if "external-ca" in given:
        del spec.ca_config.external_cas[:]
        spec.ca_config.external_cas.extend(one for one in given.items_of("external-ca", api.ExternalCA))
    if "taskhistory" in given:
        spec.orchestration.task_history_retention_limit = given.number("taskhistory")
    if "heartbeatperiod" in given:
        spec.dispatcher.heartbeat_period.FromNanoseconds(given.number("heartbeatperiod"))
        spec.dispatcher.heartbeat_period.SetInParent()
    if "autolock" in given:
        spec.encryption_config.auto_lock_managers = given.truth("autolock")
    driver = flags.log_driver(given)
    if driver is not None:
        spec.task_defaults.log_driver.CopyFrom(driver)
    elif "log-driver" in given:
        spec.task_defaults.ClearField("log_driver")


@COMMAND.declare(
    "unlock-key",
    one_argument("<cluster>", _MISSING, "unlock-key command takes exactly 1 argument"),
    summary="Print the key that locked managers need to start",
    example="pyswarmctl cluster unlock-key default",
)
def unlock_key(call: Call) -> None:
    """There is one key, so the cluster is not looked up."""
    with call.connect() as client:
        call.show(_unlock_key(client))


def _unlock_key(client: Client) -> str:
    return clusters.unlock_key(client.ask(client.ca.GetUnlockKey, api.GetUnlockKeyRequest()).unlock_key)
