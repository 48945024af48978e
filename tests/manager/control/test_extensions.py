"""Extensions and resources."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from tests.manager.control.support import AE, IA, ME, NF, refused
from tests.manager.control.test_payloads import NAMES


async def extend(control: ControlService, name: str) -> api.Extension:
    """CreateExtension; the extension."""
    request = api.CreateExtensionRequest(annotations=api.Annotations(name=name), description="why")
    return (await control.CreateExtension(request, ME)).extension


async def make(control: ControlService, name: str, kind: str, payload: any_pb2.Any | None = None, **labels: str) -> api.Resource:
    """CreateResource; the resource."""
    annotations = api.Annotations(name=name, labels=labels)
    return (await control.CreateResource(api.CreateResourceRequest(annotations=annotations, kind=kind, payload=payload), ME)).resource


async def change(control: ControlService, **fields: Any) -> api.Resource:
    """UpdateResource; the resource."""
    return (await control.UpdateResource(api.UpdateResourceRequest(**fields), ME)).resource


async def test_extensions(control: ControlService) -> None:
    """Names are unique and no table's; get and remove need an id that exists. [control 114]"""
    with refused(IA, "extension name must be provided", exactly=True):
        await control.CreateExtension(api.CreateExtensionRequest(), ME)
    with refused(IA, "extension name must be provided", exactly=True):
        await extend(control, "")
    made = await extend(control, "extension1")
    for taken in ("extension1", "node", "volume"):
        with refused(AE, f"extension {taken} already exists", exactly=True):
            await extend(control, taken)
    with refused(IA, "extension ID must be provided", exactly=True):
        await control.GetExtension(api.GetExtensionRequest(), ME)
    with refused(NF, "extension x not found", exactly=True):
        await control.GetExtension(api.GetExtensionRequest(extension_id="x"), ME)
    assert (await control.GetExtension(api.GetExtensionRequest(extension_id=made.id), ME)).extension == made
    with refused(IA, "extension ID must be provided", exactly=True):
        await control.RemoveExtension(api.RemoveExtensionRequest(), ME)
    await control.RemoveExtension(api.RemoveExtensionRequest(extension_id=made.id), ME)
    with refused(NF, f"could not find extension {made.id}", exactly=True):
        await control.RemoveExtension(api.RemoveExtensionRequest(extension_id=made.id), ME)


@pytest.mark.parametrize("kind", ["kind1", "KIND1"])
async def test_extensions_in_use(control: ControlService, kind: str) -> None:
    """An extension with resources stays, whatever the case of their kind; the refusal names them. [control 115]"""
    made = await extend(control, "kind1")
    await make(control, "r1", kind)
    with refused(IA, "extension 'kind1' is in use by the following resource: r1", exactly=True):
        await control.RemoveExtension(api.RemoveExtensionRequest(extension_id=made.id), ME)
    await make(control, "r2", kind)
    with refused(IA, "extension 'kind1' is in use by the following resources: r1, r2", exactly=True):
        await control.RemoveExtension(api.RemoveExtensionRequest(extension_id=made.id), ME)
    assert (await control.GetExtension(api.GetExtensionRequest(extension_id=made.id), ME)).extension == made


async def test_create_resource(control: ControlService) -> None:
    """A resource has a name of its own and a registered kind. [control 116]"""
    await extend(control, "kind1")
    await extend(control, "kind2")
    with refused(IA, "Resource must have a name", exactly=True):
        await control.CreateResource(api.CreateResourceRequest(kind="kind1"), ME)
    with refused(IA, "Resource must have a name", exactly=True):
        await make(control, "", "kind1")
    with refused(IA, "Resource must belong to an Extension", exactly=True):
        await make(control, "r", "")
    with refused(IA, "Kind other is not registered", exactly=True):
        await make(control, "r", "other")
    made = await make(control, "r", "kind1", any_pb2.Any())
    assert made.HasField("payload")
    assert not (await make(control, "bare", "kind1")).HasField("payload")
    for kind in ("kind1", "kind2"):
        with refused(AE, "A resource with name r already exists", exactly=True):
            await make(control, "r", kind)


async def test_update_resource(control: ControlService) -> None:
    """Annotations and payload are replaced when given; the kind never; conflicts are invalid arguments. [control 117]"""
    await extend(control, "kind1")
    made = await make(control, "r", "kind1", any_pb2.Any(value=b"1"))
    both = {"annotations": api.Annotations(name="r", labels={"a": "b"}), "payload": any_pb2.Any(value=b"2")}
    changed = await change(control, resource_id=made.id, resource_version=made.meta.version, **both)
    assert (changed.annotations, changed.payload, changed.kind) == (both["annotations"], both["payload"], "kind1")
    labels = api.Annotations(name="r", labels={"c": "d"})
    changed = await change(control, resource_id=made.id, resource_version=changed.meta.version, annotations=labels)
    assert (changed.annotations, changed.payload) == (labels, both["payload"])
    changed = await change(control, resource_id=made.id, resource_version=changed.meta.version, payload=any_pb2.Any(value=b"3"))
    assert (changed.annotations, changed.payload.value) == (labels, b"3")
    for fields in ({"resource_version": made.meta.version}, {"resource_id": made.id}):
        with refused(IA, "must include ID and version", exactly=True):
            await change(control, **fields)
    with refused(IA, "update out of sequence", exactly=True):
        await change(control, resource_id=made.id, resource_version=api.Version(index=99))
    for name in ("", "R", "other"):
        with refused(IA, "cannot change resource name", exactly=True):
            annotations = api.Annotations(name=name)
            await change(control, resource_id=made.id, resource_version=changed.meta.version, annotations=annotations)
    with refused(NF, "resource x not found", exactly=True):
        await change(control, resource_id="x", resource_version=made.meta.version)


async def test_list_resources(control: ControlService) -> None:
    """Names and prefixes are alternatives; labels and kind must match too. [control 118]"""
    for kind in ("kind1", "kind2", "kind3"):
        await extend(control, kind)
    ids = {}
    for number, name in enumerate(NAMES):
        made = await make(control, name, f"kind{number % 3 + 1}", mod2=str(number % 2))
        ids[name] = made.id

    async def listed(**fields: Any) -> list[str]:
        request = api.ListResourcesRequest(filters=api.ListResourcesRequest.Filters(**fields))
        return sorted(r.annotations.name for r in (await control.ListResources(request, ME)).resources)

    some = {"names": ["aaa", "abc"], "name_prefixes": ["aa", "bb"], "id_prefixes": [ids["aaa"], ids["ddd"]]}
    assert await listed() == sorted(NAMES)
    assert await listed(kind="kind1") == ["aaa", "bbb", "ccc", "ddd"]
    assert await listed(kind="KIND1") == []
    assert await listed(kind="kind1", labels={"mod2": "1"}) == ["bbb", "ddd"]
    assert await listed(**some) == ["aaa", "aab", "abc", "bbb", "bbc", "ddd"]
    assert await listed(**some, labels={"mod2": "0"}, kind="kind1") == ["aaa"]


async def test_get_and_remove_resource(control: ControlService) -> None:
    """Both need an id that exists. [control 119]"""
    await extend(control, "kind1")
    made = await make(control, "r", "kind1")
    with refused(IA, "resource ID must be present", exactly=True):
        await control.GetResource(api.GetResourceRequest(), ME)
    with refused(NF, "resource x not found", exactly=True):
        await control.GetResource(api.GetResourceRequest(resource_id="x"), ME)
    assert (await control.GetResource(api.GetResourceRequest(resource_id=made.id), ME)).resource == made
    with refused(IA, "resource ID must be present", exactly=True):
        await control.RemoveResource(api.RemoveResourceRequest(), ME)
    await control.RemoveResource(api.RemoveResourceRequest(resource_id=made.id), ME)
    with refused(NF, f"resource {made.id} not found", exactly=True):
        await control.RemoveResource(api.RemoveResourceRequest(resource_id=made.id), ME)
