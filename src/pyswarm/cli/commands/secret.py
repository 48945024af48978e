"""`secret create / ls / inspect / remove` (spec/cli-and-executor, section 11)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.cli import framework, helptext, resolve
from pyswarm.cli.commands import payload
from pyswarm.cli.flagset import STRING, Flag
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import data

COMMAND = framework.Group("secret", helptext.Text("Manage secrets: data for services that is encrypted and never shown again"))
_CREATE = "create command takes a unique secret name as an argument, and accepts secret data via stdin or via a file"
_INSPECT = "inspect command takes a single secret ID or name"
_REMOVE = "remove command takes a single secret ID or name"


@COMMAND.declare(
    "create",
    one_argument("<secret name>", _CREATE, _CREATE),
    summary="Create a secret from standard input or a file",
    example="printf %s 's3cr3t' | pyswarmctl secret create password\npyswarmctl secret create key --file server.key",
    flags=[
        payload.FILE,
        payload.TEMPLATE,
        Flag("driver", STRING, "secret driver that knows the value; nothing is read without --file", "d"),
    ],
)
def create(call: Call) -> None:
    """Read first, connect afterwards: typing the data may take a while."""
    driver = call.given.text("driver")
    templating = payload.templating(call.given)
    content = payload.read(call.given) if "file" in call.given or not driver else b""
    spec = api.SecretSpec(annotations=api.Annotations(name=call.argument), data=content, templating=templating)
    if driver:
        spec.driver.name = driver
    with call.connect() as client:
        call.show(client.ask(client.control.CreateSecret, api.CreateSecretRequest(spec=spec)).secret.id + "\n")


@COMMAND.declare(
    "ls", no_arguments("ls"), summary="List secrets, the newest first", example="pyswarmctl secret ls", flags=[framework.QUIET]
)
def ls(call: Call) -> None:
    """All secrets."""
    with call.connect() as client:
        found = data.newest_secrets(client.ask(client.control.ListSecrets, api.ListSecretsRequest()).secrets)
    if call.given.truth("quiet"):
        call.show("".join(f"{secret.id}\n" for secret in found))
    else:
        call.show(data.secrets(found, call.now()))


@COMMAND.declare(
    "inspect",
    one_argument("<secret>", _INSPECT, _INSPECT),
    summary="Show a secret, without its data",
    example="pyswarmctl secret inspect password",
)
def inspect(call: Call) -> None:
    """Everything but the data."""
    with call.connect() as client:
        secret = resolve.secret(client, call.argument)
        call.show(data.summary(secret.id, secret.spec.annotations, secret.meta))


@COMMAND.declare(
    "remove",
    one_argument("<secret>", _REMOVE, _REMOVE),
    summary="Remove a secret that no service uses",
    example="pyswarmctl secret rm password",
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove it, print its ID."""
    with call.connect() as client:
        secret = resolve.secret(client, call.argument)
        client.ask(client.control.RemoveSecret, api.RemoveSecretRequest(secret_id=secret.id))
        call.show(secret.id + "\n")
