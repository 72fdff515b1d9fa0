"""Ranges and choices of configs are checked in one way."""

from dataclasses import dataclass
from typing import Literal

import pytest

from dreambooth3d.artifacts.settings import (
    require_choices,
    require_range,
    resource,
    versioned_fields,
)
from dreambooth3d.errors import ConfigError

Colour = Literal["red", "blue"]


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 3
    share: float = 0.5
    colour: Colour = "red"
    workers: int = resource(2)


@pytest.mark.parametrize(
    ("config", "limits", "sentence"),
    [
        (Config(steps=0), {"least": 1}, "steps must be at least 1, got 0; leave it out"),
        (Config(steps=9), {"least": 1, "most": 8}, "steps must be at least 1 and at most 8, got 9"),
        (Config(steps=1), {"above": 1}, "steps must be above 1, got 1"),
        (Config(steps=5), {"least": 0, "below": 5}, "steps must be at least 0 and below 5, got 5"),
    ],
)
def test_a_field_outside_its_range_is_one_sentence(
    config: Config, limits: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        require_range(config, "steps", **limits)


def test_limits_are_inside_and_nan_is_not() -> None:
    require_range(Config(share=0.0), "steps", "share", least=0, most=3)
    with pytest.raises(ConfigError, match="share must be at least 0, got nan"):
        require_range(Config(share=float("nan")), "share", least=0)


def test_choices_are_those_of_the_type() -> None:
    require_choices(Config(colour="blue"))
    with pytest.raises(ConfigError, match="colour must be one of red, blue, got 'green'; choose"):
        require_choices(Config(colour="green"))  # type: ignore[arg-type]


def test_resources_are_not_versioned() -> None:
    assert versioned_fields(Config()) == {"steps": 3, "share": 0.5, "colour": "red"}
