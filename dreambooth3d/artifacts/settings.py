"""Which settings of a stage decide its result, and which only where and how fast it runs."""

from dataclasses import field, fields
from typing import Any

_IS_RESOURCE = "is_resource"


def resource(default: Any) -> Any:
    """Declare a config field that cannot change the result (workers, log interval): no key."""
    return field(default=default, metadata={_IS_RESOURCE: True})


def versioned_fields(config: Any) -> dict[str, Any]:
    """List the fields of a config dataclass that belong to the artifact's key."""
    return {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if not f.metadata.get(_IS_RESOURCE, False)
    }
