"""How the surface of a model looks, and the MTL files that say so beside an OBJ."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.image import decode_image
from dreambooth3d.errors import ImageError
from dreambooth3d.pairs.mesh_geometry import Doubles
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

Color: TypeAlias = tuple[float, float, float]
AlphaMode: TypeAlias = Literal["opaque", "mask", "blend"]
# (a, b, c, d, e, f): u' = a u + b v + c, v' = d u + e v + f.
Affine: TypeAlias = tuple[float, float, float, float, float, float]
# Reads a file that a model mentions, by the words it mentions it with.
ReadFile: TypeAlias = Callable[[str], bytes]

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

_MAX_TEXTURE_PIXELS = 64_000_000
_MAX_TEXTURE_SIDE = 2048
# What a surface without a material looks like: the middle grey of every modelling tool.
_GREY = 0.6
_OPTION_ARITY = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-texres": 1, "-clamp": 1, "-bm": 1,
    "-imfchan": 1, "-type": 1, "-cc": 1,
}  # fmt: skip
_VECTOR_OPTIONS = ("-o", "-s", "-t")


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """A surface.

    Attributes:
        color: diffuse, linear light, 0 to 1; multiplies the texture.
        opacity: 0 to 1; multiplies the texture's alpha.
        texture: RGB or RGBA, sRGB, its first row at v = 0.
        uv_transform: applied to texture coordinates before they are used.
        alpha_mode: whether alpha is ignored, cuts holes, or lets light through.
        gloss: strength of the highlight, 0 to 1.
        shininess: Blinn-Phong exponent of the highlight.
    """

    color: Color = (_GREY, _GREY, _GREY)
    opacity: float = 1.0
    texture: Image.Image | None = None
    uv_transform: Affine = IDENTITY
    alpha_mode: AlphaMode = "opaque"
    gloss: float = 0.0
    shininess: float = 32.0

    def __post_init__(self) -> None:
        """Refuse numbers that no light can have."""
        numbers = [*self.color, *self.uv_transform, self.opacity, self.gloss, self.shininess]
        if not all(math.isfinite(number) for number in numbers):
            raise RefusedError(
                "bad_mesh",
                "numbers of a material must be finite, got NaN or infinity; export again",
            )

    @cached_property
    def bare(self) -> "Material":
        """The surface of faces without texture coordinates: the texture's mean."""
        if self.texture is None:
            return self
        srgb_HW3 = np.asarray(self.texture.convert("RGB").reduce(8), np.float64) / 255.0
        mean_3 = linear_light(srgb_HW3).mean(axis=(0, 1)) * self.color
        color = (float(mean_3[0]), float(mean_3[1]), float(mean_3[2]))
        mode: AlphaMode = "blend" if self.opacity < 1.0 else "opaque"
        return replace(self, color=color, texture=None, alpha_mode=mode)


@dataclass(kw_only=True)
class _Lines:
    """The lines of one `newmtl` block, by lower-case keyword; the last of a keyword counts."""

    words: dict[str, str] = field(default_factory=dict)

    def numbers(self, keyword: str) -> list[float]:
        """Read the numbers behind a keyword; none when it is absent."""
        try:
            return [float(word) for word in self.words.get(keyword, "").split()]
        except ValueError as error:
            raise RefusedError(
                "bad_mesh",
                f"{keyword} of a material must be numbers, got {printable(self.words[keyword])}; "
                "export as RGB",
            ) from error


def parse_mtl(text: str, *, used: Sequence[str], read: ReadFile) -> dict[str, Material]:
    """Read those materials of an MTL file that are used, with their textures.

    Raises:
        RefusedError: a number or a texture cannot be read.
    """
    blocks: dict[str, _Lines] = {}
    current = _Lines()
    for line in text.splitlines():
        keyword, rest = [*line.strip().split(maxsplit=1), "", ""][:2]
        if keyword.lower() == "newmtl":
            current = blocks.setdefault(" ".join(rest.split()), _Lines())
        elif keyword and not keyword.startswith("#"):
            current.words[keyword.lower()] = rest.strip()
    return {name: _mtl_material(blocks[name], read) for name in used if name in blocks}


def _mtl_material(lines: _Lines, read: ReadFile) -> Material:
    texture, transform = None, IDENTITY
    if lines.words.get("map_kd"):
        name, transform = _texture_words(lines.words["map_kd"])
        texture = read_texture(read(name), name=name)
    if lines.words.get("map_d") and texture is not None:
        name, _ = _texture_words(lines.words["map_d"])
        texture = _with_alpha(texture, read_texture(read(name), name=name))
    diffuse = lines.numbers("kd")
    color = _linear_color(diffuse) if len(diffuse) >= 3 else (_GREY, _GREY, _GREY)
    opacity = _mtl_opacity(lines)
    specular = lines.numbers("ks")[:3]
    return Material(
        # Exporters leave Kd at any grey, or black, when there is a texture: it stands alone.
        color=color if texture is None else (1.0, 1.0, 1.0),
        opacity=opacity,
        texture=texture,
        uv_transform=transform,
        alpha_mode=alpha_mode_of(texture, opacity),
        # Tools write 0.5 for everything that nobody made shine.
        gloss=0.5 * _unit(sum(specular) / 3.0) if len(specular) == 3 else 0.0,
        shininess=min(max(*lines.numbers("ns")[:1], 8.0, 8.0), 128.0),
    )


def _linear_color(srgb: Sequence[float]) -> Color:
    red, green, blue = linear_light(np.clip(np.array(srgb[:3]), 0.0, 1.0)).tolist()
    return red, green, blue


def _mtl_opacity(lines: _Lines) -> float:
    if values := lines.numbers("d"):
        return _unit(values[0])
    if values := lines.numbers("tr"):
        return 1.0 - _unit(values[0])
    return 1.0


def _texture_words(text: str) -> tuple[str, Affine]:
    """Split `-s 2 2 -o 0.5 wood.jpg` into the file and the change of coordinates."""
    scale, offset = [1.0, 1.0], [0.0, 0.0]
    rest = text
    while rest.startswith("-"):
        option, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        if option in _VECTOR_OPTIONS:
            values, rest = _take_numbers(rest)
            target = {"-s": scale, "-o": offset}.get(option, [0.0, 0.0])
            target[: len(values[:2])] = values[:2]
        elif option in _OPTION_ARITY:
            rest = rest.split(maxsplit=_OPTION_ARITY[option])[-1]
        else:
            raise RefusedError(
                "bad_mesh", f"option of a texture must be known, got {printable(option)}; remove it"
            )
    # MTL counts v from below, pictures from above.
    return rest.strip(), (scale[0], 0.0, offset[0], 0.0, scale[1], 1.0 - scale[1] - offset[1])


def _take_numbers(text: str) -> tuple[list[float], str]:
    values: list[float] = []
    while len(values) < 3 and (match := re.match(r"(-?\d*\.?\d+)\s+(?=\S)", text)):
        values.append(float(match[1]))
        text = text[match.end() :]
    return values, text


def read_texture(data: bytes, *, name: str) -> Image.Image:
    """Decode a texture to RGB or RGBA with sides of at most 2048 pixels.

    Raises:
        RefusedError: it is no picture, damaged, or has too many pixels.
    """
    try:
        image = decode_image(data, name=printable(name), max_pixels=_MAX_TEXTURE_PIXELS)
    except ImageError as error:
        raise RefusedError("bad_mesh", f"texture: {error}") from error
    longest = max(image.size)
    if longest <= _MAX_TEXTURE_SIDE:
        return image
    sides = [max(1, round(side * _MAX_TEXTURE_SIDE / longest)) for side in image.size]
    return image.resize((sides[0], sides[1]), Image.Resampling.BOX)


def alpha_mode_of(texture: Image.Image | None, opacity: float) -> AlphaMode:
    """Tell leaves cut out of a texture from glass: few texels of a cut-out are half clear."""
    if opacity < 1.0:
        return "blend"
    if texture is None or texture.mode != "RGBA":
        return "opaque"
    histogram = texture.getchannel("A").histogram()
    half, clear = sum(histogram[26:230]), sum(histogram[:26])
    if half + clear == 0:
        return "opaque"
    return "mask" if half <= clear + sum(histogram[230:]) else "blend"


def linear_light(srgb: Doubles) -> Doubles:
    """Turn sRGB values, 0 to 1, into linear light."""
    light: Doubles = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return light


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _with_alpha(texture: Image.Image, opacity: Image.Image) -> Image.Image:
    # The same file named twice means its own alpha; any other is read as grey.
    source = opacity.getchannel("A") if opacity.mode == "RGBA" else opacity.convert("L")
    result = texture.convert("RGB").convert("RGBA")
    result.putalpha(source.resize(texture.size, Image.Resampling.BILINEAR))
    return result
