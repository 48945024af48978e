"""`volume create / ls / inspect / update / remove`: cluster volumes. SwarmKit's command line has none; these are ours."""

from __future__ import annotations

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.cli import framework, helptext, resolve, volume_spec
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import volumes

COMMAND = framework.Group("volume", helptext.Text("Manage cluster volumes: storage that follows tasks from node to node"))


@COMMAND.declare(
    "create",
    one_argument("<volume name>", "volume name missing", "create command takes exactly 1 argument"),
    summary="Create a cluster volume",
    more="Its driver is a storage plugin that the managers, and the nodes that are to mount it, know by this name.",
    example=(
        "pyswarmctl volume create data --driver nfs --opt server=10.0.0.1 --scope multi --sharing all\n"
        "pyswarmctl service create --name db --image postgres --cluster-volume data:/var/lib/postgresql/data"
    ),
    flags=volume_spec.CREATE_FLAGS,
)
def create(call: Call) -> None:
    """Create it, print its ID."""
    spec, secrets = volume_spec.build(call.argument, call.given), volume_spec.secrets(call.given)
    with call.connect() as client:
        for key, name in secrets.items():
            spec.secrets.add(key=key, secret=resolve.secret(client, name).id)
        call.show(client.ask(client.control.CreateVolume, api.CreateVolumeRequest(spec=spec)).volume.id + "\n")


@COMMAND.declare("ls", no_arguments("ls"), summary="List cluster volumes", example="pyswarmctl volume ls", flags=[framework.QUIET])
def ls(call: Call) -> None:
    """All volumes."""
    with call.connect() as client:
        found = client.ask(client.control.ListVolumes, api.ListVolumesRequest()).volumes
    if call.given.truth("quiet"):
        call.show("".join(f"{volume.id}\n" for volume in found))
    else:
        call.show(volumes.listing(found))


@COMMAND.declare(
    "inspect",
    one_argument("<volume>", "volume ID missing", "inspect command takes exactly 1 argument"),
    summary="Show a cluster volume and which nodes have it",
    example="pyswarmctl volume inspect data",
)
def inspect(call: Call) -> None:
    """The spec, what the plugin made of it, and its state on each node."""
    with call.connect() as client:
        volume = resolve.volume(client, call.argument)
        call.show(volumes.summary(volume, call.names(client).node))


@COMMAND.declare(
    "update",
    one_argument("<volume>", "volume ID missing", "update command takes exactly 1 argument"),
    summary="Change a cluster volume's availability or labels",
    more="Nothing else about a volume can change once its plugin was told.",
    example="pyswarmctl volume update data --availability drain",
    flags=volume_spec.UPDATE_FLAGS,
)
def update(call: Call) -> None:
    """Change it, print its ID. No change is an error that says so."""
    with call.connect() as client:
        volume = resolve.volume(client, call.argument)
        spec = api.VolumeSpec()
        spec.CopyFrom(volume.spec)
        volume_spec.edit(spec, call.given)
        if spec == volume.spec:
            raise errors.FailedPrecondition(f"No change for volume {call.argument}")
        request = api.UpdateVolumeRequest(volume_id=volume.id, volume_version=volume.meta.version, spec=spec)
        client.ask(client.control.UpdateVolume, request)
        call.show(volume.id + "\n")


@COMMAND.declare(
    "remove",
    one_argument("<volume>", "volume ID missing", "remove command takes exactly 1 argument"),
    summary="Delete a cluster volume that no task uses, with its data",
    example="pyswarmctl volume rm data",
    flags=volume_spec.REMOVE_FLAGS,
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove it, print its ID."""
    with call.connect() as client:
        volume = resolve.volume(client, call.argument)
        client.ask(client.control.RemoveVolume, api.RemoveVolumeRequest(volume_id=volume.id, force=call.given.truth("force")))
        call.show(volume.id + "\n")
