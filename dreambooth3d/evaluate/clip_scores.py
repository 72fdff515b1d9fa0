"""What a clip scored, in a folder of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.image import read_image
from dreambooth3d.artifacts.jsonfile import read_json, write_json
from dreambooth3d.errors import ArtifactError, InputError
from dreambooth3d.evaluate.clip_scoring import ClipNumbers

SHEET = "sheet.png"
_NUMBERS = "numbers.json"


def write_numbers(folder: Path, numbers: ClipNumbers) -> None:
    """Write the numbers of one clip."""
    plain = asdict(numbers)
    plain |= {"frames": list(numbers.frames), "identity": list(numbers.identity)}
    write_json(folder / _NUMBERS, plain)


def read_numbers(folder: Path) -> ClipNumbers:
    """Read the numbers of one clip.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    found: Any = read_json(folder / _NUMBERS, what="scores of a clip")
    try:
        return ClipNumbers(
            numbers={name: float(value) for name, value in found["numbers"].items()},
            wrong={name: float(value) for name, value in found["wrong"].items()},
            frames=tuple(int(place) for place in found["frames"]),
            identity=tuple(float(value) for value in found["identity"]),
            num_frames=int(found["num_frames"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"scores of a clip must be numbers by name, got another form in {folder} ({error!r}); "
            "delete the folder and score the clip again"
        ) from error


def is_whole(folder: Path) -> bool:
    """Say whether a clip was scored and all that was kept can be read."""
    try:
        read_numbers(folder)
        read_image(folder / SHEET)
    except (ArtifactError, InputError):
        return False
    return True
