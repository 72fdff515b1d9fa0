"""A clip that goes around its object, as the JSON file beside it tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.custombench import descriptions
from dreambooth3d.evaluate.visual_hull import VisualHull
from dreambooth3d.scenes import Camera

# Degrees of ten turns.
_TURNS = 3600.0
# Of the masks: one in five may be wrong.
_AGREEING = 0.8


@dataclass(frozen=True, kw_only=True)
class Turntable:
    """How a clip goes around its object, which stands still in the middle.

    Attributes:
        first_deg, turn_deg: azimuth of the first frame, and from it to the last.
        elevation_deg: of every frame.
    """

    first_deg: float = 0.0
    turn_deg: float = 360.0
    elevation_deg: float = 0.0

    def __post_init__(self) -> None:
        """Check what a JSON file may hold."""
        for name, most in (("first_deg", _TURNS), ("turn_deg", _TURNS), ("elevation_deg", 90.0)):
            value = getattr(self, name)
            # Not a number is not within.
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not (abs(value) <= most)
            ):
                raise ConfigError(
                    f"{name} must be a number of at most {most:g} degrees, got {str(value)[:40]}; "
                    "correct it"
                )

    def cameras(self, places: Sequence[int], num_frames: int) -> tuple[Camera, ...]:
        """Cameras of some frames."""
        step = self.turn_deg / max(num_frames - 1, 1)
        return tuple(
            Camera(
                azimuth_deg=(self.first_deg + step * place) % 360, elevation_deg=self.elevation_deg
            )
            for place in places
        )


def find_hull(clip: Path, places: Sequence[int], num_frames: int) -> VisualHull | None:
    """What a turntable's outlines make, if the clip says that it is one.

    Raises:
        ArtifactError: what it says is none.
    """
    told = [each["turntable"] for each in descriptions(clip) if "turntable" in each]
    if not told:
        return None
    table = told[0]
    try:
        turntable = Turntable(**cast(dict[str, Any], table))
        return VisualHull(cameras=turntable.cameras(places, num_frames), agreeing=_AGREEING)
    except (TypeError, ConfigError) as error:
        raise ArtifactError(
            "turntable must be numbers named first_deg, turn_deg and elevation_deg, got "
            f"{str(table)[:100]} beside {clip} ({error}); correct it"
        ) from error
