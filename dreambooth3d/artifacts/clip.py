"""A clip: ``<name>.mp4`` that any browser plays, and ``<name>.mp4.json`` beside it.

H.264, yuv420p, BT.709, index before the frames so that it plays while it loads. The metadata
(prompt, seed, sampler, adapter hash, timings) is in the JSON file and, as the same JSON, in the
comment of the container, so that a clip that was moved alone still names its parents.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.artifacts.jsonfile import JsonValue, dump_json, write_json
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.errors import ArtifactError, ConfigError

_CRF = "18"
# FFmpeg's number for BT.709, the same in its lists of matrices, primaries and transfer curves.
_BT709 = 1
_LIMITED_RANGE = 1
_LABEL_WIDTH = 160
_LINE_HEIGHT = 14
_GAP = 4


def write_clip(
    path: Path,
    frames_FHWC_uint8: npt.NDArray[np.uint8],
    *,
    fps: int,
    metadata: Mapping[str, JsonValue],
) -> None:
    """Write ``path`` and ``path.json``; each appears whole, the clip last.

    Args:
        path: Ends in ``.mp4``.
        frames_FHWC_uint8: RGB frames, 0..255; F at least 1, even H and W.
        fps: Frames per second, at least 1.
        metadata: Finite JSON values.
    """
    _check_frames(frames_FHWC_uint8, fps)
    comment = dump_json(metadata, what=f"the metadata of {path.name}")
    with publish_file(path) as clip_aside:
        _encode(clip_aside, frames_FHWC_uint8, fps=fps, comment=comment)
        with publish_file(path.with_name(path.name + ".json")) as json_aside:
            write_json(json_aside, metadata)


def read_clip(path: Path) -> tuple[npt.NDArray[np.uint8], float]:
    """Return all frames as (F, H, W, 3) uint8 RGB, and the frames per second."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        if not frames:
            raise ArtifactError(f"clip must have frames, got none in {path}; make it again")
        return np.stack(frames), float(stream.average_rate)


def stream_clip(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield frames (H, W, 3) uint8 RGB one by one; nothing is kept, whatever the length.

    Raises:
        ArtifactError: the file is no video, or has no frames.
    """
    with _opened(path) as container:
        number = 0
        for frame in container.decode(container.streams.video[0]):
            number += 1
            yield frame.to_ndarray(format="rgb24")
        if number == 0:
            raise ArtifactError(f"clip must have frames, got none in {path}; make it again")


def count_frames(path: Path) -> int:
    """Return the number of frames by reading packets, without decoding pictures.

    Raises:
        ArtifactError: the file is no video.
    """
    with _opened(path) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


def read_clip_metadata(path: Path) -> dict[str, JsonValue]:
    """Return the metadata from the container itself; the file beside it is not needed."""
    with _opened(path) as container:
        comment = container.metadata.get("comment", "")
    try:
        found: JsonValue = json.loads(comment)
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ArtifactError(
            f"clip comment must be a JSON object, got {comment[:60]!r} in {path}; "
            "use a clip this project wrote"
        )
    return found


def save_contact_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Image.Image]]], *, tile: int = 96
) -> None:
    """Write a PNG with one labelled row of square tiles for each entry.

    Args:
        path: PNG file.
        rows: (label, images); images are letterboxed on white, rows may differ in length.
        tile: Side of a tile in pixels.
    """
    if not rows or tile < 16:
        raise ConfigError(
            f"contact sheet must have rows and tiles of at least 16 pixels, got {len(rows)} rows "
            f"and {tile} pixels; pass images to show"
        )
    columns = max(len(images) for _, images in rows)
    pitch = tile + _GAP
    size = (_LABEL_WIDTH + columns * pitch + _GAP, len(rows) * pitch + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for number, (label, images) in enumerate(rows):
        top = _GAP + number * pitch
        lines = _wrap(label, font, _LABEL_WIDTH - 2 * _GAP)[: max(1, tile // _LINE_HEIGHT)]
        draw.multiline_text((_GAP, top), "\n".join(lines), fill="black", font=font, spacing=2)
        for column, image in enumerate(images):
            left = _LABEL_WIDTH + column * pitch
            sheet.paste(letterbox(image, (tile, tile)), (left, top))
            draw.rectangle((left - 1, top - 1, left + tile, top + tile), outline="#cccccc")
    with publish_file(path) as aside:
        sheet.save(aside, format="PNG")


def _check_frames(frames: npt.NDArray[np.uint8], fps: int) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ConfigError(
            "clip frames must be uint8 of shape (F, H, W, 3), "
            f"got {frames.dtype} of shape {frames.shape}; convert them"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ConfigError(
            f"clip width and height must be even, got {width}x{height}; "
            "pad or resize the frames (yuv420p halves the colour planes)"
        )
    if fps < 1:
        raise ConfigError(f"clip fps must be at least 1, got {fps}; pass frames per second")


def _encode(path: Path, frames: npt.NDArray[np.uint8], *, fps: int, comment: str) -> None:
    options = {"movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": _CRF})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Untagged clips are guessed by size, so colours would change between 480p and 720p.
        coding = stream.codec_context
        coding.colorspace = coding.color_primaries = coding.color_trc = _BT709
        coding.color_range = _LIMITED_RANGE
        for frame_HWC in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode(None))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a clip; whatever goes wrong while it is read becomes an error that names it."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise ArtifactError(f"clip must have a picture, got sound only in {path}; check it")
            yield container
    except av.error.FFmpegError as error:
        raise ArtifactError(
            f"clip must be a readable video file, got {path} ({error.strerror}); make it again"
        ) from error


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
