"""Secrets: create, get, list, relabel, remove (spec/control-api, section 11). No answer ever holds the data."""

from __future__ import annotations

import hmac

from pyswarm.api import v1 as api
from pyswarm.errors import AlreadyExists, InvalidArgument, NotFound, Unknown
from pyswarm.manager.control import filters, references, validate_payload
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import NameConflict, Tx, copy_of
from pyswarm.rpc.caller import Caller


class Secrets(Part):
    """The RPCs about secrets. Every answer passes through `redacted`."""

    async def CreateSecret(self, request: api.CreateSecretRequest, _caller: Caller) -> api.CreateSecretResponse:  # noqa: N802
        """Store a new secret. Raises AlreadyExists for a taken name, and what the checks raise."""
        require(request.HasField("spec"))
        validate_payload.check_secret(request.spec)
        if request.spec.HasField("driver"):
            raise Unknown("plugin getter is nil")
        secret = api.Secret(id=self._env.new_id(), spec=request.spec)
        try:
            stored = await self._env.store.update(lambda tx: tx.secrets.create(secret))
        except NameConflict:
            raise AlreadyExists(f"secret {request.spec.annotations.name} already exists") from None
        return api.CreateSecretResponse(secret=redacted(stored))

    async def GetSecret(self, request: api.GetSecretRequest, _caller: Caller) -> api.GetSecretResponse:  # noqa: N802
        """One secret without its data. Raises NotFound."""
        require(request.secret_id, "secret ID must be provided")
        secret = (await self._reading()).secrets.get(request.secret_id)
        if secret is None:
            raise NotFound(f"secret {request.secret_id} not found")
        return api.GetSecretResponse(secret=redacted(secret))

    async def ListSecrets(self, request: api.ListSecretsRequest, _caller: Caller) -> api.ListSecretsResponse:  # noqa: N802
        """The secrets that a name or prefix finds, without data; internal ones are left out."""
        found = filters.any_of((await self._reading()).secrets, request.filters, filters.spec_labels)
        return api.ListSecretsResponse(secrets=[redacted(secret) for secret in found if not secret.internal])

    async def UpdateSecret(self, request: api.UpdateSecretRequest, _caller: Caller) -> api.UpdateSecretResponse:  # noqa: N802
        """Replace the labels; nothing else can change. Raises NotFound, InvalidArgument, SequenceConflict."""
        require(request.secret_id and request.HasField("secret_version"))

        def update(tx: Tx) -> api.Secret:
            old = tx.secrets.get(request.secret_id)
            if old is None:
                raise NotFound(f"secret {request.secret_id} not found")
            require(request.HasField("spec"))
            wanted = request.spec
            same_data = not wanted.data or hmac.compare_digest(wanted.data, old.spec.data)
            if wanted.annotations.name != old.spec.annotations.name or not same_data:
                raise InvalidArgument("only updates to Labels are allowed")
            secret = copy_of(old)
            secret.meta.version.index = request.secret_version.index
            secret.spec.annotations.labels.clear()
            secret.spec.annotations.labels.update(wanted.annotations.labels)
            return tx.secrets.update(secret)

        return api.UpdateSecretResponse(secret=redacted(await self._env.store.update(update)))

    async def RemoveSecret(self, request: api.RemoveSecretRequest, _caller: Caller) -> api.RemoveSecretResponse:  # noqa: N802
        """Delete a secret that no service references. Raises NotFound, InvalidArgument naming the services."""
        require(request.secret_id, "secret ID must be provided")

        def remove(tx: Tx) -> None:
            secret = tx.secrets.get(request.secret_id)
            if secret is None:
                raise NotFound(f"could not find secret {request.secret_id}")
            references.check_unused("secret", secret.spec.annotations.name, references.users(tx, secret=secret.id))
            tx.secrets.delete(secret.id)

        await self._env.store.update(remove)
        return api.RemoveSecretResponse()


def redacted(secret: api.Secret) -> api.Secret:
    """A copy without the data, made without ever copying the data."""
    shown = api.Secret(id=secret.id, meta=secret.meta, internal=secret.internal)
    shown.spec.annotations.CopyFrom(secret.spec.annotations)
    if secret.spec.HasField("templating"):
        shown.spec.templating.CopyFrom(secret.spec.templating)
    if secret.spec.HasField("driver"):
        shown.spec.driver.CopyFrom(secret.spec.driver)
    return shown
