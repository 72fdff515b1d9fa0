"""Settings of a stage: which decide its result, which only where and how fast it runs; ranges."""

import operator
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dreambooth3d.errors import ConfigError

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


def require_range(
    config: Any,
    *names: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check that the named fields lie in a range; NaN lies in none.

    Args:
        config: a config dataclass.
        names: of its fields.
        least, most: limits that are allowed themselves.
        above, below: limits that are not.

    Raises:
        ConfigError: names the first field outside, the rule, and what was got.
    """
    limits: tuple[tuple[str, Callable[[float, float], bool], float | None], ...] = (
        ("at least", operator.ge, least),
        ("above", operator.gt, above),
        ("at most", operator.le, most),
        ("below", operator.lt, below),
    )
    rules = [(words, holds, limit) for words, holds, limit in limits if limit is not None]
    for name in names:
        value = getattr(config, name)
        if not all(holds(value, limit) for _, holds, limit in rules):
            rule = " and ".join(f"{words} {limit}" for words, _, limit in rules)
            raise ConfigError(f"{name} must be {rule}, got {value}; leave it out for the default")


def require_choices(config: Any) -> None:
    """Check every field whose type lists its values (`Literal`)."""
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            raise ConfigError(
                f"{name} must be one of {', '.join(map(str, get_args(kind)))}, "
                f"got {getattr(config, name)!r}; choose one"
            )
