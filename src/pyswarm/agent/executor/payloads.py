"""What is in a task's secrets and configs, templates expanded for the task. Pure, but for asking the node's stores."""

from __future__ import annotations

from pyswarm.agent.dependencies import DependencyNotFound, TaskDependencies
from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.files import File, Owner, WantedFile
from pyswarm.agent.executor.templates import LANGUAGE, expanded_payload
from pyswarm.api import v1 as api
from pyswarm.gotemplate import TemplateError


class Payloads:
    """One task's. Expanding takes time: ask in a thread."""

    def __init__(self, task: api.Task, node: api.NodeDescription | None, dependencies: TaskDependencies) -> None:
        """`node` describes this node, as far as it is known; `dependencies` are the task's."""
        self._task = task
        self._node = node
        self._dependencies = dependencies

    def content(self, wanted: WantedFile) -> bytes:
        """The bytes of a file. Raises TemporaryError while something is not on this node, ExecutorError when there is no way to have it."""
        try:
            spec = self._secret(wanted.id) if wanted.kind == "secret" else self._config(wanted.id)
            if not spec.HasField("templating"):
                return spec.data
            return self._expanded(f"failed to expand templated {wanted.kind} {wanted.id}", spec)
        except DependencyNotFound as error:
            raise TemporaryError(f"dependency not ready: {error}") from error

    def file(self, wanted: WantedFile, path: str, owner: Owner, mode: int) -> File:
        """The file at `path`, with `owner` and `mode` where the task leaves them open. Raises as `content` does."""
        uid = owner.uid if wanted.uid is None else wanted.uid
        gid = owner.gid if wanted.gid is None else wanted.gid
        return File(path, self.content(wanted), Owner(uid, gid), mode if wanted.mode is None else wanted.mode)

    def _expanded(self, failed: str, spec: api.SecretSpec | api.ConfigSpec) -> bytes:
        if spec.templating.name != LANGUAGE:
            raise ExecutorError(f"{failed}: unrecognized template type")
        try:
            return expanded_payload(
                spec.data, self._task, self._node, lambda name: self._secret(name).data, lambda name: self._config(name).data
            )
        except TemplateError as error:
            raise ExecutorError(f"{failed}: {error}") from error

    def _secret(self, secret_id: str) -> api.SecretSpec:
        return self._dependencies.secret(secret_id).spec

    def _config(self, config_id: str) -> api.ConfigSpec:
        return self._dependencies.config(config_id).spec
