"""Clips play in a browser, keep their metadata and their colours, and appear whole."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.clip import (
    read_clip,
    read_clip_metadata,
    save_contact_sheet,
    write_clip,
)
from dreambooth3d.errors import ArtifactError, ConfigError

METADATA = {"prompt": 'ein "Häschen" <b>', "seed": 7, "adapter": None, "seconds": [0.5, 1.25]}


def frames(num: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """Return four flat quarters and a bar that moves down."""
    clip = np.zeros((num, height, width, 3), np.uint8)
    clip[:, : height // 2, : width // 2] = (220, 30, 20)
    clip[:, : height // 2, width // 2 :] = (20, 200, 40)
    clip[:, height // 2 :, : width // 2] = (30, 40, 210)
    clip[:, height // 2 :, width // 2 :] = (230, 230, 230)
    for number in range(num):
        clip[number, 2 * number : 2 * number + 2] = 0
    return clip


def boxes(data: bytes) -> list[str]:
    names, offset = [], 0
    while offset < len(data):
        names.append(data[offset + 4 : offset + 8].decode())
        offset += int.from_bytes(data[offset : offset + 4], "big")
    return names


def test_clip_is_h264_yuv420p_with_its_index_first(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames(), fps=24, metadata=METADATA)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1
        assert (stream.width, stream.height, stream.frames) == (64, 48, 9)
        assert float(stream.duration * stream.time_base) == pytest.approx(9 / 24, abs=1e-3)
        assert container.duration / av.time_base == pytest.approx(9 / 24, abs=0.01)
    order = boxes(path.read_bytes())
    assert order.index("moov") < order.index("mdat")


def test_frames_and_rate_come_back(tmp_path: Path) -> None:
    original = frames()
    write_clip(tmp_path / "a.mp4", original, fps=12, metadata={})
    found, fps = read_clip(tmp_path / "a.mp4")
    assert (found.shape, found.dtype, fps) == (original.shape, np.uint8, 12.0)
    assert np.abs(found.astype(int) - original).mean() < 4
    for y, x in ((21, 10), (21, 54), (40, 10), (40, 54)):
        assert np.abs(found[0, y, x].astype(int) - original[0, y, x]).max() <= 6
    assert [int(np.argmin(f[:20, 8].sum(-1)) // 2) for f in found] == list(range(9))


def test_metadata_is_in_the_container_and_beside_it(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames(1), fps=1, metadata=METADATA)
    assert read_clip_metadata(tmp_path / "a.mp4") == METADATA
    assert json.loads((tmp_path / "a.mp4.json").read_text()) == METADATA
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a.mp4.json"]


def test_single_frame_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames(1), fps=24, metadata={})
    assert read_clip(tmp_path / "a.mp4")[0].shape == (1, 48, 64, 3)


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, frames(), fps=24, metadata=METADATA)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("clip", "fps", "text"),
    [
        (frames(height=47), 24, "must be even, got 64x47"),
        (frames(width=63), 24, "must be even, got 63x48"),
        (frames().astype(np.float32), 24, "must be uint8 .* got float32"),
        (frames()[..., :1], 24, r"of shape \(F, H, W, 3\)"),
        (frames()[0], 24, r"of shape \(F, H, W, 3\)"),
        (frames()[:0], 24, r"got uint8 of shape \(0, 48, 64, 3\)"),
        (frames(), 0, "fps must be at least 1, got 0"),
    ],
)
def test_frames_that_cannot_be_written(
    tmp_path: Path, clip: np.ndarray, fps: int, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        write_clip(tmp_path / "a.mp4", clip, fps=fps, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames(2), fps=24, metadata={"take": 1})
    with pytest.raises(ArtifactError, match=r"numbers in the metadata of a\.mp4 must be finite"):
        write_clip(path, frames(3), fps=24, metadata={"take": float("nan")})
    assert read_clip_metadata(path) == {"take": 1}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [None, b"", b"not a video", b"half"])
def test_unreadable_clips_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content == b"half":
        write_clip(path, frames(), fps=24, metadata={})
        content = path.read_bytes()[:600]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match="clip must be a readable video file") as caught:
        read_clip(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("comment", "shown"),
    [(b"made elsewhere", "made elsewhere"), (b"\xe9t\xe9 2020 now", "\ufffdt\ufffd 2020 now")],
)
def test_foreign_comment_is_refused(tmp_path: Path, comment: bytes, shown: str) -> None:
    path, placeholder = tmp_path / "a.mp4", "x" * len(comment)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = placeholder
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), comment))
    with pytest.raises(ArtifactError, match=f"comment must be a JSON object, got '{shown}'"):
        read_clip_metadata(path)
    assert len(read_clip(path)[0]) == 2


def test_contact_sheet_shows_every_image(tmp_path: Path) -> None:
    colors = ("red", "lime", "blue")
    tiles = [Image.new("RGB", (30, 30), color) for color in colors]
    rows = [("a label that is long enough to be wrapped", tiles), ("ä", tiles[:1]), ("", [])]
    save_contact_sheet(tmp_path / "sheet.png", rows, tile=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        found = [sheet.getpixel((160 + 36 * i + 16, 4 + 16)) for i in range(3)]
        assert found == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        assert sheet.getpixel((160 + 16, 4 + 36 + 16)) == (255, 0, 0)
        assert sheet.size == (160 + 3 * 36 + 4, 3 * 36 + 4)


def test_contact_sheet_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contact sheet must have rows"):
        save_contact_sheet(tmp_path / "sheet.png", [])
