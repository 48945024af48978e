"""The wire contract: names and numbers that must never change."""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

import pyswarm.api.csi as csi
import pyswarm.api.swarmkit as swarmkit

TYPES = {getattr(FieldDescriptor, n): n[5:].lower() for n in dir(FieldDescriptor) if n.startswith("TYPE_")}


def facts(generated: ModuleType) -> list[str]:
    """Every message field, enum value and method of a public contract, a line each."""
    lines: list[str] = []
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            lines += of_file(importlib.import_module(f"{generated.__name__}.{module.name}").DESCRIPTOR)
    return sorted(lines)


def of_file(file: FileDescriptor) -> Iterator[str]:
    """The lines of one proto file."""
    for message in file.message_types_by_name.values():
        yield from of_message(message)
    for enum in file.enum_types_by_name.values():
        yield from of_enum(enum)
    for service in file.services_by_name.values():
        yield from of_service(service)


def of_message(message: Descriptor) -> Iterator[str]:
    """The lines of a message and what is nested in it."""
    yield message.full_name
    for field in message.fields:
        kind = field.message_type or field.enum_type
        type_name = kind.full_name if kind else TYPES[field.type]
        many = "repeated " if field.is_repeated else ""
        one_of = f" in {field.containing_oneof.name}" if field.containing_oneof else ""
        yield f"{message.full_name}.{field.name} = {field.number}: {many}{type_name}{one_of}"
    for nested in message.nested_types:
        yield from of_message(nested)
    for enum in message.enum_types:
        yield from of_enum(enum)


def of_enum(enum: EnumDescriptor) -> Iterator[str]:
    """The lines of an enum."""
    return (f"{enum.full_name}.{value.name} = {value.number}" for value in enum.values)


def of_service(service: ServiceDescriptor) -> Iterator[str]:
    """The lines of a service."""
    for method in service.methods:
        request = "stream " * method.client_streaming + method.input_type.full_name
        response = "stream " * method.server_streaming + method.output_type.full_name
        yield f"{method.full_name}({request}) returns ({response})"


@pytest.mark.parametrize(("generated", "golden"), [(swarmkit, "wire.txt"), (csi, "csi.txt")])
def test_the_wire_contract_is_unchanged(generated: ModuleType, golden: str) -> None:
    """Every name, number and type is the one peers (and storage plugins) know; an intended addition is added to the file by hand."""
    assert "\n".join(facts(generated)) + "\n" == pathlib.Path(__file__).with_name(golden).read_text()
