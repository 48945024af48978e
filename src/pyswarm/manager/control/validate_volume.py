"""What a volume's spec must be like, and what of it can never change (spec/control-api, section 14). Pure."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.manager.control.environment import require
from pyswarm.manager.store import View

_FIXED: tuple[tuple[str, Callable[[api.VolumeSpec], object]], ...] = (
    ("Name", lambda spec: spec.annotations.name),
    ("Group", lambda spec: spec.group),
    ("AccessibilityRequirements", lambda spec: (spec.HasField("AccessibilityRequirements"), spec.AccessibilityRequirements)),
    ("Driver", lambda spec: (spec.HasField("driver"), spec.driver)),
    ("AccessMode", lambda spec: (spec.HasField("access_mode"), spec.access_mode)),
    ("Secrets", lambda spec: list(spec.secrets)),
    ("CapacityRange", lambda spec: (spec.HasField("capacity_range"), spec.capacity_range)),
)


def check(spec: api.VolumeSpec) -> None:
    """Raises InvalidArgument for a spec that no volume can be made from."""
    require(spec.HasField("driver"), "driver must be specified")
    require(spec.annotations.name, "meta: name must be provided")
    require(spec.HasField("access_mode"), "AccessMode must not be nil")
    require(spec.access_mode.WhichOneof("access_type"), "Volume AccessMode must specify either Mount or Block access type")


def check_secrets(view: View, spec: api.VolumeSpec) -> None:
    """Raises InvalidArgument naming all secrets, by id, that do not exist."""
    missing = list(dict.fromkeys(use.secret for use in spec.secrets if view.secrets.get(use.secret) is None))
    if missing:
        raise InvalidArgument(f"{'secret' if len(missing) == 1 else 'secrets'} not found: {', '.join(missing)}")


def check_unchanged(old: api.VolumeSpec, new: api.VolumeSpec) -> None:
    """Raises InvalidArgument naming the first field of those that the plugin was told already and that differ."""
    for name, of in _FIXED:
        if of(old) != of(new):
            raise InvalidArgument(f"{name} cannot be updated")
