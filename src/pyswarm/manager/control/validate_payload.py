"""Are a secret or a config acceptable? (spec/control-api, sections 11 and 12). Pure."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.manager.control.names import check_payload_name

SECRET_LIMIT = 500 * 1024
CONFIG_LIMIT = 1000 * 1024


def check_secret(spec: api.SecretSpec) -> None:
    """Raises InvalidArgument. With a driver the data is the driver's affair and is not looked at."""
    check_payload_name(spec.annotations.name)
    if spec.HasField("driver"):
        if not spec.driver.name:
            raise InvalidArgument("secret driver must have a name")
    elif not 0 < len(spec.data) < SECRET_LIMIT:
        raise InvalidArgument("secret data must be larger than 0 and less than 512000 bytes")


def check_config(spec: api.ConfigSpec) -> None:
    """Raises InvalidArgument."""
    check_payload_name(spec.annotations.name)
    if not 0 < len(spec.data) < CONFIG_LIMIT:
        raise InvalidArgument("config data must be larger than 0 and less than 1024000 bytes")
