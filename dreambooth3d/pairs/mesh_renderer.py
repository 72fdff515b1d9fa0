"""Render meshes off screen: OpenGL without a window, on the graphics card or on the CPU by Mesa.

There is one context a process, made on first use and never pickled; threads take turns with it.
Pictures are linear light, premultiplied by alpha.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.mesh_camera import Camera, Shot, floor_height, place_camera
from dreambooth3d.pairs.mesh_geometry import Floats
from dreambooth3d.pairs.mesh_light import Light
from dreambooth3d.pairs.mesh_materials import Material, linear_light
from dreambooth3d.pairs.mesh_model import Mesh, MeshPart
from dreambooth3d.pairs.mesh_shaders import (
    SHADOW_FRAGMENT,
    SHADOW_VERTEX,
    SURFACE_FRAGMENT,
    SURFACE_VERTEX,
)

_SAMPLES = 4
_ALPHA_MODES = {"opaque": 0, "mask": 1, "blend": 2}
# How high a point may be, in radii of the object, until its shadow has faded to a third.
_CONTACT_REACH, _CAST_REACH = 0.2, 0.9
_TO_LINEAR = linear_light(np.arange(256) / 255.0).astype(np.float32)
_ENGINE_HINT = (
    "install libegl1, libgl1 and libgl1-mesa-dri (Debian names), or the driver of the graphics card"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """Where a picture of one size is drawn, and where its samples are averaged."""

    drawn: moderngl.Framebuffer
    averaged: moderngl.Framebuffer


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawable:
    """A part on the graphics device."""

    material: Material
    middle_3: NDArray[np.float64]
    is_clear: bool
    texture: moderngl.Texture
    corners: moderngl.Buffer
    surface: moderngl.VertexArray
    shadow: moderngl.VertexArray


class Renderer:
    """Draws meshes in the context it is given.

    Attributes:
        name: of the device and its driver.
    """

    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        self._turn = threading.Lock()
        self._surface = context.program(SURFACE_VERTEX, fragment_shader=SURFACE_FRAGMENT)
        self._shadow = context.program(SHADOW_VERTEX, fragment_shader=SHADOW_FRAGMENT)
        self._frames: dict[int, _Frame] = {}
        self.name = str(context.info["GL_RENDERER"])

    @contextmanager
    def stage(self, mesh: Mesh) -> Iterator["Stage"]:
        """Hold a mesh on the graphics device; several may be held at a time."""
        with self._current():
            drawables = tuple(self._upload(part) for part in mesh.parts)
        try:
            yield Stage(self, mesh, drawables)
        finally:
            with self._current():
                for drawable in drawables:
                    drawable.surface.release()
                    drawable.shadow.release()
                    drawable.corners.release()
                    drawable.texture.release()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the context that of this thread, for one call and no longer.

        Readers are generators: one that is left half way must not keep others waiting.
        """
        with self._turn, self._context:
            yield

    def draw_surfaces(
        self, drawables: tuple[_Drawable, ...], camera: Camera, size: int, light: Light
    ) -> Floats:
        """Draw (size, size, 4): what hides first, then glass from far to near."""
        with self._current():
            frame = self._cleared(size)
            self._set_surface_light(camera, light)
            for drawable in _back_to_front(drawables, camera):
                frame.drawn.depth_mask = not drawable.is_clear
                material = drawable.material
                drawable.texture.use()
                _set(
                    self._surface,
                    tint=(*material.color, material.opacity),
                    alpha_mode=_ALPHA_MODES[material.alpha_mode],
                    gloss=material.gloss,
                    shininess=material.shininess,
                )
                drawable.surface.render()
            return self._averaged(frame, size)

    def draw_shadows(
        self,
        drawables: tuple[_Drawable, ...],
        camera: Camera,
        size: int,
        light: Light,
        floor: float,
    ) -> Floats:
        """Draw (size, size, 2): how near the object is to the floor, and where the key is cut."""
        with self._current():
            frame = self._cleared(size)
            self._set_shadow_blending(camera, floor)
            for direction, reach, channel in (
                ((0.0, 1.0, 0.0), _CONTACT_REACH, (1.0, 0.0, 0.0, 0.0)),
                (light.key_direction, _CAST_REACH, (0.0, 1.0, 0.0, 0.0)),
            ):
                _set(self._shadow, light_direction=direction, reach=reach, channel=channel)
                for drawable in drawables:
                    drawable.texture.use()
                    _set(
                        self._shadow,
                        has_holes=drawable.material.alpha_mode == "mask",
                        opacity=drawable.material.opacity if drawable.is_clear else 1.0,
                    )
                    drawable.shadow.render()
            return self._averaged(frame, size)[..., :2]

    def _set_surface_light(self, camera: Camera, light: Light) -> None:
        context = self._context
        context.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND)
        context.blend_func = moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA
        _set_equation(context, moderngl.FUNC_ADD)
        _set(
            self._surface,
            view_projection=_columns(camera.view_projection_44),
            eye=camera.eye,
            sky_light=light.sky,
            floor_light=light.floor,
            key_light=light.key,
            key_direction=light.key_direction,
        )

    def _set_shadow_blending(self, camera: Camera, floor: float) -> None:
        context = self._context
        context.enable_only(moderngl.BLEND)
        context.blend_func = moderngl.ONE, moderngl.ONE
        # Of several points that fall on one place, the one that shades most counts.
        _set_equation(context, moderngl.MAX)
        _set(
            self._shadow,
            view_projection=_columns(camera.view_projection_44),
            floor_height=floor,
        )

    def _cleared(self, size: int) -> _Frame:
        frame = self._frame(size)
        frame.drawn.use()
        # Clearing obeys the depth mask, which the last clear part may have left off.
        frame.drawn.depth_mask = True
        frame.drawn.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        return frame

    def _averaged(self, frame: _Frame, size: int) -> Floats:
        self._context.copy_framebuffer(frame.averaged, frame.drawn)
        data = frame.averaged.read(components=4, dtype="f2")
        picture = np.frombuffer(data, np.float16).reshape(size, size, 4)
        return np.ascontiguousarray(picture[::-1]).astype(np.float32)

    def _frame(self, size: int) -> _Frame:
        """Give the buffers of that size; one size is kept."""
        if size not in self._frames:
            for frame in self._frames.values():
                for buffer in (frame.drawn, frame.averaged):
                    for attachment in (*buffer.color_attachments, buffer.depth_attachment):
                        if attachment is not None:
                            attachment.release()
                    buffer.release()
            self._frames = {size: _make_frame(self._context, (size, size))}
        return self._frames[size]

    def _upload(self, part: MeshPart) -> _Drawable:
        count = part.positions_T33.shape[0] * 3
        corners_N12 = np.empty((count, 12), np.float32)
        corners_N12[:, :3] = part.positions_T33.reshape(count, 3)
        corners_N12[:, 3:6] = part.normals_T33.reshape(count, 3)
        corners_N12[:, 6:8] = part.uv_T32.reshape(count, 2)
        corners_N12[:, 8:] = part.colors_T34.reshape(count, 4)
        buffer = self._context.buffer(corners_N12.tobytes())
        whole = (buffer, "3f 3f 2f 4f", "in_position", "in_normal", "in_uv", "in_color")
        material = part.material
        return _Drawable(
            material=material,
            middle_3=part.positions_T33.reshape(-1, 3).mean(axis=0, dtype=np.float64),
            is_clear=material.alpha_mode == "blend",
            texture=_upload_texture(self._context, material),
            corners=buffer,
            surface=self._context.vertex_array(self._surface, [whole]),
            shadow=self._context.vertex_array(
                self._shadow, [(buffer, "3f 12x 2f 16x", "in_position", "in_uv")]
            ),
        )


def _back_to_front(drawables: tuple[_Drawable, ...], camera: Camera) -> Iterator[_Drawable]:
    """Give what hides in its own order, then glass from far to near."""
    yield from (item for item in drawables if not item.is_clear)
    eye_3 = np.array(camera.eye)
    clear = [item for item in drawables if item.is_clear]
    yield from sorted(clear, key=lambda item: -float(np.linalg.norm(item.middle_3 - eye_3)))


class Stage:
    """A mesh that is ready to be photographed."""

    def __init__(self, renderer: Renderer, mesh: Mesh, drawables: tuple[_Drawable, ...]) -> None:
        self._renderer, self._mesh, self._drawables = renderer, mesh, drawables
        self.renderer_name = renderer.name

    def photograph(self, shot: Shot, light: Light) -> Floats:
        """Take a picture (H, W, 4): linear light, premultiplied by alpha."""
        camera = place_camera(self._mesh, shot)
        return self._renderer.draw_surfaces(self._drawables, camera, shot.size, light)

    def shadows(self, shot: Shot, light: Light) -> Floats:
        """Sharp shadows (H, W, 2), 0 to 1, on the floor below: of contact, and of the key light."""
        camera = place_camera(self._mesh, shot)
        floor = floor_height(self._mesh)
        return self._renderer.draw_shadows(self._drawables, camera, shot.size, light, floor)


_FIRST = threading.Lock()


def renderer() -> Renderer:
    """Give the renderer of this process.

    Raises:
        ConfigError: the machine has no EGL, or no driver behind it.
    """
    with _FIRST:
        return _only_renderer()


@lru_cache(maxsize=1)
def _only_renderer() -> Renderer:
    with _one_thread():
        try:
            settings: Any = {"standalone": True, "backend": "egl", "require": 400}
            context = moderngl.create_context(**settings)
        # moderngl and glcontext raise bare `Exception` for every way a driver can be missing.
        except Exception as error:
            raise ConfigError(
                f"the `meshes` source must have OpenGL 4.0 by EGL, got none ({error}); "
                f"{_ENGINE_HINT}"
            ) from error
    # Leaving the block gives the context free: whichever thread draws can take it.
    with context:
        return Renderer(context)


# A context does not survive a fork; the child makes its own.
os.register_at_fork(after_in_child=_only_renderer.cache_clear)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let Mesa draw in the calling thread: workers are already one a core."""
    name = "LP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _make_frame(context: moderngl.Context, size: tuple[int, int]) -> _Frame:
    # Half floats: light adds up and is divided by alpha later, which 8 bits would show.
    return _Frame(
        drawn=context.framebuffer(
            [context.renderbuffer(size, 4, samples=_SAMPLES, dtype="f2")],
            context.depth_renderbuffer(size, samples=_SAMPLES),
        ),
        averaged=context.framebuffer([context.renderbuffer(size, 4, dtype="f2")]),
    )


def _upload_texture(context: moderngl.Context, material: Material) -> moderngl.Texture:
    """Upload linear colours premultiplied by alpha, so that mipmaps average light."""
    if material.texture is None:
        return context.texture((1, 1), 4, np.ones(4, np.float16).tobytes(), dtype="f2")
    pixels_HW4 = np.asarray(material.texture.convert("RGBA"))
    light_HW4 = np.empty(pixels_HW4.shape, np.float32)
    light_HW4[..., 3] = pixels_HW4[..., 3] / np.float32(255.0)
    light_HW4[..., :3] = _TO_LINEAR[pixels_HW4[..., :3]] * light_HW4[..., 3:]
    if material.alpha_mode == "opaque":
        light_HW4[..., :3], light_HW4[..., 3] = _TO_LINEAR[pixels_HW4[..., :3]], 1.0
    data = light_HW4.astype(np.float16).tobytes()
    texture = context.texture(material.texture.size, 4, data, alignment=1, dtype="f2")
    texture.filter = moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR
    texture.build_mipmaps()
    return texture


def _set_equation(context: Any, equation: int) -> None:
    # The library's stubs ask for a pair of equations; it takes one for both.
    context.blend_equation = equation


def _columns(matrix_44: NDArray[np.float64]) -> bytes:
    return matrix_44.T.astype(np.float32).tobytes()


def _set(program: moderngl.Program, **values: Any) -> None:
    """Set uniforms; matrices come as bytes."""
    for name, value in values.items():
        uniform: Any = program[name]
        if isinstance(value, bytes):
            uniform.write(value)
        else:
            uniform.value = value
