"""Templates of tasks: `{{.Service.Name}}-{{.Task.Slot}}` in env values, mounts and the hostname of a container spec, and in secrets and
configs that say so (spec/control-api, section 21). What may be asked for is here, the language in `gotemplate`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import tasks
from pyswarm.api import v1 as api
from pyswarm.gotemplate import MAX_OUTPUT, Budget, CallError, Function, Struct, TemplateError, Value, expand, expand_bytes
from pyswarm.gotemplate.values import quoted, text_of

LANGUAGE = "golang"
"""The only templating driver there is."""

_SERVICE_KIND = "struct { ID string; Name string; Labels map[string]string }"
_NODE_KIND = "struct { ID string; Hostname string; Platform template.Platform }"
_TASK_KIND = "struct { ID string; Name string; Slot string }"


def context(task: api.Task, node: api.NodeDescription | None, kind: str = "*template.Context") -> Struct:
    """The variables of a task; node fields are empty while the engine has not described the node. `kind` is what errors call them."""
    described = node if node is not None else api.NodeDescription()
    platform = Struct("template.Platform", {"Architecture": described.platform.architecture, "OS": described.platform.os})
    annotations = task.service_annotations
    service: dict[str, Value] = {"ID": task.service_id, "Name": annotations.name, "Labels": dict(annotations.labels)}
    slot = str(task.slot) if task.slot else task.node_id
    return Struct(
        kind,
        {
            "Service": Struct(_SERVICE_KIND, service),
            "Node": Struct(_NODE_KIND, {"ID": task.node_id, "Hostname": described.hostname, "Platform": platform}),
            "Task": Struct(_TASK_KIND, {"ID": task.id, "Name": tasks.display_name(task), "Slot": slot}),
        },
    )


def expanded_container(task: api.Task, node: api.NodeDescription | None) -> api.ContainerSpec:
    """A copy of the task's container spec with its templates expanded. Raises ExecutorError with the field and the cause."""
    spec = api.ContainerSpec()
    spec.CopyFrom(container_spec(task))
    expander = _Expander(context(task, node))
    for position, entry in enumerate(spec.env):
        name, separator, value = entry.partition("=")
        if separator:
            spec.env[position] = f"{name}={expander.text(f'expanding env failed: expanding env {quoted(entry)}', value)}"
    for mount in spec.mounts:
        expander.mount(mount)
    spec.hostname = expander.text("expanding hostname failed", spec.hostname)
    return spec


class _Expander:
    """Expands the texts of one spec, which share what they may take."""

    def __init__(self, variables: Struct) -> None:
        self._variables = variables
        self._budget = Budget()

    def text(self, where: str, text: str) -> str:
        """A text expanded. Raises ExecutorError that begins with `where`."""
        try:
            expanded = expand(text, self._variables, FUNCTIONS, self._budget)
            expanded.encode()
        except TemplateError as error:
            raise ExecutorError(f"{where}: {error}") from error
        except UnicodeEncodeError:
            raise ExecutorError(f"{where}: the result is not valid UTF-8") from None
        return expanded

    def mount(self, mount: api.Mount) -> None:
        """All that may be a template in a mount."""
        failed = "expanding mounts failed"
        mount.source = self.text(f"{failed}: expanding mount source {quoted(mount.source)}", mount.source)
        mount.target = self.text(f"{failed}: expanding mount target {quoted(mount.target)}", mount.target)
        if not mount.HasField("volume_options"):
            return
        options = mount.volume_options
        for what, entries in (("volume labels", options.labels), ("volume driver config", options.driver_config.options)):
            for key in sorted(entries):
                where = f"{failed}: expanding {what}: expanding map entry {quoted(key)}={quoted(entries[key])}"
                entries[key] = self.text(where, entries[key])


def expanded_payload(
    data: bytes,
    task: api.Task,
    node: api.NodeDescription | None,
    secret: Callable[[str], bytes],
    config: Callable[[str], bytes],
) -> bytes:
    """A secret's or config's data with its templates expanded for a task.

    `secret` and `config` give the data of the task's reference with that id. Raises TemplateError, and what these raise.
    """
    container = task.spec.container
    functions = {
        **FUNCTIONS,
        "secret": _lookup("secret", {ref.file.name: ref.secret_id for ref in reversed(container.secrets) if ref.HasField("file")}, secret),
        "config": _lookup("config", {ref.file.name: ref.config_id for ref in reversed(container.configs) if ref.HasField("file")}, config),
        "env": Function(lambda names: _environment(container.env, str(names[0])), ("string",)),
    }
    return expand_bytes(data, context(task, node, "*template.PayloadContext"), functions)


def _lookup(kind: str, targets: Mapping[str, str], get: Callable[[str], bytes]) -> Function:
    """What `{{secret "target"}}` gives: the data as it is, its own templates untouched."""

    def call(arguments: Sequence[Value]) -> Value:
        target = str(arguments[0])
        if target not in targets:
            raise CallError(f"{kind} target {target} not found")
        return text_of(get(targets[target]))

    return Function(call, ("string",))


def _environment(entries: Sequence[str], wanted: str) -> str:
    """The value of the first entry of a name, unexpanded; empty without one."""
    pairs = (entry.partition("=") for entry in entries)
    return next((value for name, separator, value in pairs if separator and name == wanted), "")


def _join(words: Sequence[Value]) -> Value:
    if not words:
        raise CallError("wrong number of args for join: want at least 1 got 0")
    separator, *rest = map(str, words)
    if len(separator) * len(rest) > MAX_OUTPUT:
        raise CallError(f"more than {MAX_OUTPUT} bytes")
    return separator.join(rest)


FUNCTIONS: Mapping[str, Function] = {"join": Function(_join, more="string")}
"""What templates may call beside the built-in functions."""
