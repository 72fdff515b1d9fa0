"""Places to put an object in: the embedded scenery, or a folder of the user's own pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from dreambooth3d.artifacts.image import IMAGE_SUFFIXES, decode_image
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ImageError, InputError
from dreambooth3d.pairs.mesh_geometry import Floats
from dreambooth3d.pairs.mesh_light import decode, encode
from dreambooth3d.pairs.nouns import clean_name
from dreambooth3d.pairs.sources.listing import is_hidden, read_or_refuse
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.scenes import BACKGROUNDS
from dreambooth3d.scenes.backgrounds import backdrop
from dreambooth3d.vision.refusal import RefusedError

# Drawing scenery takes the square of its size: it is drawn small, once a layout, and is out of
# focus in larger pictures. 13 places x 8 layouts of 192 pixels are 23 MB.
_SCENERY_SIZE, _LAYOUTS, _KEPT = 192, 8, 128
_MAX_BYTES, _MAX_PIXELS = 64_000_000, 80_000_000
_NEAR_PAN = 0.37
_CONTACT, _CAST = 0.85, 0.55
_PLACE_WORDS = ("at", "beside", "by", "in", "inside", "near", "on", "outside", "under")


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A place.

    Attributes:
        light_HW3: its picture, linear.
        name: of the scenery or the picture's file.
        phrase: where it is, as in `on a beach`; empty when nobody says.
    """

    light_HW3: Floats
    name: str
    phrase: str


def draw_background(
    rng: np.random.Generator, size: int, pictures: Sequence[Place] = ()
) -> Background:
    """Draw a place: one of the pictures when there are any, else embedded scenery.

    Raises:
        RefusedError: unreadable_picture.
    """
    return _photographed(rng, size, pictures) if pictures else _embedded(rng, size)


def list_backgrounds(place: Place | None) -> tuple[Place, ...]:
    """List the user's background pictures.

    Raises:
        InputError: there is a folder, but no picture in it.
    """
    if place is None:
        return ()
    pictures = tuple(
        place / file.name
        for file in place.list()
        if PurePosixPath(file.name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(file.name)
    )
    if not pictures:
        raise InputError(f"backgrounds must be a folder of pictures, got none in {place}; add some")
    return pictures


def _embedded(rng: np.random.Generator, size: int) -> Background:
    name = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    layout, start = int(rng.integers(_LAYOUTS)), float(rng.random())
    panorama = _panorama(name, layout, min(size, _SCENERY_SIZE))
    side, width = panorama.height, panorama.width
    # The panorama repeats sideways; two of them hold every window.
    twice = Image.new("RGB", (2 * width, side))
    twice.paste(panorama, (0, 0))
    twice.paste(panorama, (width, 0))
    left = int(start * width)
    view = twice.crop((left, 0, left + side, side))
    view = ImageOps.mirror(view) if rng.random() < 0.5 else view
    shown = _out_of_focus(rng, view.resize((size, size), Image.Resampling.BICUBIC))
    return Background(light_HW3=decode(shown), name=name, phrase=name)


@lru_cache(maxsize=_KEPT)
def _panorama(name: str, layout: int, side: int) -> Image.Image:
    """Scenery all around (side, 2 side), far and near in one picture."""
    # The undecorated function: its own cache would keep full floats of every size.
    scenery = backdrop.__wrapped__(name, layout, side)
    near, alpha = (
        np.roll(layer, int(_NEAR_PAN * side), axis=1)
        for layer in (scenery.near, scenery.near_alpha)
    )
    rgb = near + (1.0 - alpha[..., None]) * scenery.far
    return Image.fromarray(np.rint(np.clip(rgb, 0.0, 255.0)).astype(np.uint8))


def _photographed(rng: np.random.Generator, size: int, pictures: Sequence[Place]) -> Background:
    place = pictures[int(rng.integers(len(pictures)))]
    data = read_or_refuse(place, reason="unreadable_picture", most_bytes=_MAX_BYTES)
    try:
        picture = decode_image(data, name=place.name, max_pixels=_MAX_PIXELS).convert("RGB")
    except ImageError as error:
        raise RefusedError("unreadable_picture", f"background: {error}") from error
    side = max(1, int(min(picture.size) * rng.uniform(0.75, 1.0)))
    left = int(rng.integers(picture.width - side + 1))
    top = int(rng.integers(picture.height - side + 1))
    view = picture.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    view = ImageOps.mirror(view) if rng.random() < 0.5 else view
    # As in `on a wooden table 03.jpg`.
    name = clean_name(re.sub(r"[\s_\-\d]+$", "", PurePosixPath(place.name).stem))
    is_place = bool(re.match(rf"({'|'.join(_PLACE_WORDS)}) ", name))
    return Background(
        light_HW3=decode(_out_of_focus(rng, view)),
        name=printable(place.name),
        phrase=name if is_place else "",
    )


def _out_of_focus(rng: np.random.Generator, view: Image.Image) -> Image.Image:
    return view.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.008)) * view.width))


def compose(background: Background, render_HW4: Floats, shadows_HW2: Floats) -> Image.Image:
    """Put an object into a place.

    Args:
        background: the place.
        render_HW4: the object, linear, premultiplied.
        shadows_HW2: how near the object is to the floor, and where it cuts the key light, 0 to 1.
    """
    size = render_HW4.shape[0]
    contact = _CONTACT * _softened(shadows_HW2[..., 0], 0.016 * size)
    cast = _CAST * _softened(shadows_HW2[..., 1], 0.022 * size)
    lit_HW1 = ((1.0 - contact) * (1.0 - cast))[..., None]
    ground = background.light_HW3 * lit_HW1
    return Image.fromarray(encode(render_HW4[..., :3] + (1.0 - render_HW4[..., 3:]) * ground))


def _softened(shade_HW: Floats, radius: float) -> Floats:
    levels = Image.fromarray(np.rint(np.clip(shade_HW, 0.0, 1.0) * 255.0).astype(np.uint8))
    blurred = np.asarray(levels.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return blurred / np.float32(255.0)
