"""Secrets and configs of this node, in memory only, its volumes, and each task's view of them (spec/dispatcher-agent-node, section 23)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.api import v1 as api

T = TypeVar("T", api.Secret, api.Config)


class DependencyNotFound(TemporaryError):
    """It is not on this node (yet)."""


class NotAuthorized(ExecutorError):
    """The task does not name it in its spec."""


class DependencyStore(Generic[T]):
    """Objects by id."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, *objects: T) -> None:
        """Insert or replace."""
        self._objects.update((obj.id, obj) for obj in objects)

    def remove(self, ids: Iterable[str]) -> None:
        """Forget; unknown ids are fine."""
        for object_id in ids:
            self._objects.pop(object_id, None)

    def reset(self) -> None:
        """Forget all."""
        self._objects.clear()

    def find(self, object_id: str) -> T | None:
        """Read only; None when it is not here."""
        return self._objects.get(object_id)

    def get(self, object_id: str) -> T:
        """Read only. Raises DependencyNotFound."""
        try:
            return self._objects[object_id]
        except KeyError:
            raise DependencyNotFound(f"{self._kind} {object_id} not found") from None


class Volumes(Protocol):
    """Where the node has cluster volumes."""

    def place(self, volume_id: str) -> Path:
        """Where one is, or will be."""
        ...

    def path(self, volume_id: str) -> Path:
        """Where one is mounted. Raises TemporaryError while it is not."""
        ...


class NoVolumes:
    """A node without cluster volumes."""

    def place(self, volume_id: str) -> Path:
        """Nowhere. Raises ExecutorError."""
        raise ExecutorError(f"volume {volume_id}: this node has no cluster volumes")

    def path(self, volume_id: str) -> Path:
        """Nowhere. Raises ExecutorError."""
        return self.place(volume_id)


class Dependencies:
    """What the node has."""

    def __init__(self) -> None:
        self.volumes: Volumes = NoVolumes()
        self.secrets: DependencyStore[api.Secret] = DependencyStore("secret")
        self.configs: DependencyStore[api.Config] = DependencyStore("config")

    def of(self, task: api.Task) -> TaskDependencies:
        """What one task may see of it."""
        return TaskDependencies(self, task)


class TaskDependencies:
    """The secrets and configs that a task's container spec names, and the volumes that it was given; no others."""

    def __init__(self, everything: Dependencies, task: api.Task) -> None:
        self._everything = everything
        self._task_id = task.id
        self._secrets = frozenset(ref.secret_id for ref in task.spec.container.secrets)
        self._configs = frozenset(ref.config_id for ref in task.spec.container.configs)
        self._volumes = frozenset(attachment.id for attachment in task.volumes)

    def secret(self, secret_id: str) -> api.Secret:
        """By its plain id; a value made for this task alone comes first. Raises NotAuthorized, DependencyNotFound."""
        if secret_id not in self._secrets:
            raise NotAuthorized(f"task not authorized to access secret {secret_id}")
        try:
            own = self._everything.secrets.get(f"{secret_id}.{self._task_id}")
        except DependencyNotFound:
            return self._everything.secrets.get(secret_id)
        renamed = api.Secret()
        renamed.CopyFrom(own)
        renamed.id = secret_id
        return renamed

    def config(self, config_id: str) -> api.Config:
        """By its id. Raises NotAuthorized, DependencyNotFound."""
        if config_id not in self._configs:
            raise NotAuthorized(f"task not authorized to access config {config_id}")
        return self._everything.configs.get(config_id)

    def volume(self, volume_id: str) -> Path:
        """Where a volume is mounted. Raises NotAuthorized, TemporaryError while it is not."""
        self._check_volume(volume_id)
        return self._everything.volumes.path(volume_id)

    def place(self, volume_id: str) -> Path:
        """Where a volume is, or will be. Raises NotAuthorized, ExecutorError on a node that has none."""
        self._check_volume(volume_id)
        return self._everything.volumes.place(volume_id)

    def _check_volume(self, volume_id: str) -> None:
        if volume_id not in self._volumes:
            raise NotAuthorized(f"task not authorized to access volume {volume_id}")


@runtime_checkable
class UsesDependencies(Protocol):
    """An executor that gives tasks their secrets, configs and volumes. It is handed the store before it makes its first controller."""

    def use_dependencies(self, dependencies: Dependencies) -> None:
        """Take them from here: `dependencies.of(task).secret(id)`."""
        ...


def needs_dependencies(task: api.Task) -> bool:
    """Whether a task names any."""
    return bool(task.spec.container.secrets or task.spec.container.configs or task.volumes)
