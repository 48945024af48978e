"""Secrets and configs: the same rules, but secrets never show their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store
from tests.manager.control.support import AE, IA, ME, NF, UNK, create, names_of, refused, service_spec
from tests.support.loops import write

NAMES = ["aaa", "aab", "abc", "bbb", "bac", "bbc", "ccc", "cac", "cbc", "ddd"]


@dataclass(frozen=True)
class Kind:
    """Calls the RPCs of one of the two kinds."""

    name: str
    limit: int

    def _message(self, verb: str, plural: str = "") -> Any:
        return getattr(api, f"{verb}{self.name.capitalize()}{plural}Request")

    async def _call(self, control: ControlService, request: Any) -> Any:
        return await getattr(control, type(request).__name__.removesuffix("Request"))(request, ME)

    def spec(self, name: str = "name", data: bytes = b"data", **labels: str) -> Any:
        """A spec."""
        spec = getattr(api, f"{self.name.capitalize()}Spec")(data=data)
        spec.annotations.name = name
        spec.annotations.labels.update(labels)
        return spec

    async def create(self, control: ControlService, spec: Any = None) -> Any:
        """Create; the new object."""
        return getattr(await self._call(control, self._message("Create")(spec=spec)), self.name)

    async def get(self, control: ControlService, object_id: str = "") -> Any:
        """Get; the object."""
        return getattr(await self._call(control, self._message("Get")(**{f"{self.name}_id": object_id})), self.name)

    async def update(self, control: ControlService, object_id: str = "", version: int | None = None, spec: Any = None) -> Any:
        """Update; the object."""
        request = self._message("Update")(spec=spec, **{f"{self.name}_id": object_id})
        if version is not None:
            getattr(request, f"{self.name}_version").index = version
            getattr(request, f"{self.name}_version").SetInParent()
        return getattr(await self._call(control, request), self.name)

    async def remove(self, control: ControlService, object_id: str = "") -> None:
        """Remove."""
        await self._call(control, self._message("Remove")(**{f"{self.name}_id": object_id}))

    async def listed(self, control: ControlService, **fields: Any) -> list[str]:
        """List; the names."""
        request = self._message("List", "s")
        answer = await self._call(control, request(filters=request.Filters(**fields)))
        return names_of(getattr(answer, self.name + "s"))

    def stored(self, store: Store, object_id: str) -> Any:
        """What the store has."""
        return getattr(store, self.name + "s").get(object_id)


SECRET, CONFIG = Kind("secret", 512_000), Kind("config", 1_024_000)
both = pytest.mark.parametrize("kind", [SECRET, CONFIG], ids=["secret", "config"])


@both
async def test_data_limits(control: ControlService, kind: Kind) -> None:
    """There is data, of any bytes, below the limit. [control 107]"""
    text = f"{kind.name} data must be larger than 0 and less than {kind.limit} bytes"
    for bad in (b"", b"x" * kind.limit):
        with refused(IA, text, exactly=True):
            await kind.create(control, kind.spec(data=bad))
    for number, good in enumerate((b"x", b"x" * (kind.limit - 1), "\0é\u2603".encode())):
        await kind.create(control, kind.spec(f"name{number}", good))
    with refused(IA, "invalid argument", exactly=True):
        await kind.create(control)
    with refused(IA, "name must be provided", exactly=True):
        await kind.create(control, kind.spec(""))


async def test_drivers(control: ControlService) -> None:
    """A driver needs a name, may go without data, and is not to be had in a daemon without plugins. [control 108]"""
    spec = SECRET.spec(data=b"")
    spec.driver.SetInParent()
    with refused(IA, "secret driver must have a name", exactly=True):
        await SECRET.create(control, spec)
    spec.driver.name = "vault"
    with refused(UNK, "plugin getter is nil", exactly=True):
        await SECRET.create(control, spec)


async def test_secrets_are_not_shown(control: ControlService, store: Store) -> None:
    """No answer holds the data of a secret; the store does. [control 109]"""
    made = await SECRET.create(control, SECRET.spec())
    got = await SECRET.get(control, made.id)
    changed = await SECRET.update(control, made.id, made.meta.version.index, SECRET.spec(a="b"))
    (shown,) = (await control.ListSecrets(api.ListSecretsRequest(), ME)).secrets
    assert made.spec.data == got.spec.data == changed.spec.data == shown.spec.data == b""
    assert shown == changed
    assert SECRET.stored(store, made.id).spec.data == b"data"


async def test_configs_are_shown(control: ControlService) -> None:
    """Every answer holds the data of a config. [control 109]"""
    made = await CONFIG.create(control, CONFIG.spec())
    got = await CONFIG.get(control, made.id)
    assert made.spec.data == got.spec.data == b"data"


async def test_redacted_secrets_keep_the_rest(control: ControlService, store: Store) -> None:
    """Drivers, templating, labels and the internal mark of a secret are shown. [control 109]"""
    secret = api.Secret(id="s", internal=True, spec=SECRET.spec(data=b"hidden", a="b"))
    secret.spec.driver.name, secret.spec.templating.name = "d", "golang"
    secret.meta.version.index = 7
    write(store, secret)
    got = await SECRET.get(control, "s")
    got.spec.data = b"hidden"
    assert got == secret


@both
async def test_names_are_unique(control: ControlService, kind: Kind) -> None:
    """A taken name is refused, also in another case. [control 109]"""
    await kind.create(control, kind.spec("name"))
    for name in ("name", "NAME"):
        with refused(AE, f"{kind.name} {name} already exists", exactly=True):
            await kind.create(control, kind.spec(name))


@both
async def test_get(control: ControlService, kind: Kind) -> None:
    """Get needs an id that exists. [control 109]"""
    with refused(IA, f"{kind.name} ID must be provided", exactly=True):
        await kind.get(control)
    with refused(NF, f"{kind.name} x not found", exactly=True):
        await kind.get(control, "x")


@both
async def test_update(control: ControlService, store: Store, kind: Kind) -> None:
    """Only labels change, as a whole; data may be left out. [control 110]"""
    spec = kind.spec(mod2="0", mod4="0")
    made = await kind.create(control, spec)
    version = made.meta.version.index
    for object_id, given in (("", 0), (made.id, None)):
        with refused(IA, "invalid argument", exactly=True):
            await kind.update(control, object_id, given, spec)
    with refused(NF, f"{kind.name} x not found", exactly=True):
        await kind.update(control, "x", 0)
    for other in (kind.spec(data=b"other"), kind.spec("Name")):
        with refused(IA, "only updates to Labels are allowed", exactly=True):
            await kind.update(control, made.id, version, other)
    made = await kind.update(control, made.id, version, spec)
    labels = {"mod2": "1", "mod6": "2"}
    changed = await kind.update(control, made.id, made.meta.version.index, kind.spec(data=b"", **labels))
    assert dict(changed.spec.annotations.labels) == labels
    assert kind.stored(store, made.id).spec.data == b"data"
    with refused(UNK, "update out of sequence", exactly=True):
        await kind.update(control, made.id, 99, spec)


@both
async def test_update_without_spec(control: ControlService, kind: Kind) -> None:
    """A missing spec is an invalid argument, not a crash. [control 111]"""
    made = await kind.create(control, kind.spec())
    with refused(IA, "invalid argument", exactly=True):
        await kind.update(control, made.id, made.meta.version.index)


@both
async def test_remove(control: ControlService, kind: Kind) -> None:
    """Remove needs an id that exists. [control 112]"""
    with refused(IA, f"{kind.name} ID must be provided", exactly=True):
        await kind.remove(control)
    made = await kind.create(control, kind.spec())
    await kind.remove(control, made.id)
    with refused(NF, f"could not find {kind.name} {made.id}", exactly=True):
        await kind.remove(control, made.id)


@both
async def test_remove_in_use(control: ControlService, kind: Kind) -> None:
    """What services reference stays, and the refusal names them. [control 112]"""
    made = await kind.create(control, kind.spec())
    services = []
    for name in ("service1", "service2"):
        spec = service_spec(name)
        uses: Any = getattr(spec.task.container, kind.name + "s")
        uses.add(file=api.FileTarget(name="f"), **{f"{kind.name}_id": made.id, f"{kind.name}_name": "name"})
        services.append(await create(control, spec))
    with refused(IA, f"{kind.name} 'name' is in use by the following services: service"):
        await kind.remove(control, made.id)
    await control.RemoveService(api.RemoveServiceRequest(service_id=services[1].id), ME)
    with refused(IA, f"{kind.name} 'name' is in use by the following service: service1", exactly=True):
        await kind.remove(control, made.id)
    await control.RemoveService(api.RemoveServiceRequest(service_id=services[0].id), ME)
    await kind.remove(control, made.id)


@both
async def test_list(control: ControlService, store: Store, kind: Kind) -> None:
    """Names (without case), name prefixes and ids are alternatives; labels must match too; internal secrets are hidden. [control 113]"""
    ids = {}
    for number, name in enumerate(NAMES):
        made = await kind.create(control, kind.spec(name, mod2=str(number % 2), mod4=str(number % 4)))
        ids[name] = made.id
    if kind is SECRET:
        write(store, api.Secret(id="int", internal=True, spec=kind.spec("internal")))
    some: dict[str, Any] = {"names": ["aaa", "ccc"], "name_prefixes": ["aa", "bb"], "id_prefixes": [ids["aaa"], ids["ddd"]]}
    assert await kind.listed(control) == sorted(NAMES)
    assert await kind.listed(control, names=["aa", "internal"]) == []
    assert await kind.listed(control, names=["aaa", "bbb", "ccc"]) == ["aaa", "bbb", "ccc"]
    assert await kind.listed(control, names=["AAA"]) == ["aaa"]
    assert await kind.listed(control, name_prefixes=["aa", "BB"]) == ["aaa", "aab", "bbb", "bbc"]
    assert await kind.listed(control, id_prefixes=[ids["aaa"], ids["bbb"]]) == ["aaa", "bbb"]
    assert await kind.listed(control, **some) == ["aaa", "aab", "bbb", "bbc", "ccc", "ddd"]
    assert await kind.listed(control, labels={"mod2": "0", "mod4": "0"}) == ["aaa", "bac", "cbc"]
    assert await kind.listed(control, **some, labels={"mod2": "0"}) == ["aaa", "ccc"]
