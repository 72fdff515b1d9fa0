"""Every kind of bad picture is refused by name; every odd one is read as it looks."""

import contextlib
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.image import (
    TooManyPixelsError,
    UnsupportedImageError,
    decode_image,
    flatten,
    letterbox,
    list_images,
    read_image,
)
from dreambooth3d.errors import ConfigError, ImageError

RED = (220, 30, 20)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_header(width: int, height: int) -> bytes:
    """Return a PNG that is correct up to its pixels, which are almost all absent."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def assert_refused(path: Path, text: str) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.png", "got nothing at")
    assert_refused(tmp_path, "got nothing at")


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert_refused(path, "got zero bytes in")


def test_text_named_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("hello, I am a picture")
    assert_refused(path, "must be a JPEG, PNG, WebP, GIF, BMP or TIFF picture")


def test_postscript_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert_refused(path, "got something else in")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", noise(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(path, "damaged or truncated|something else")


def test_truncated_jpeg_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", noise(64, 64))
    path.write_bytes(path.read_bytes()[:-800])
    assert_refused(path, "must decode completely, got a damaged or truncated file")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(40_000, 40_000), (10_000, 9_000), (9_000, 8_889)])
def test_gigapixel_header_is_refused_before_pixel_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    taken: list[tuple[object, ...]] = []
    take = Image.core.new

    def count(*args: object) -> object:
        taken.append(args)
        return take(*args)

    monkeypatch.setattr(Image.core, "new", count)
    read_image(saved(tmp_path / "small.png", Image.new("RGB", (4, 4))))
    assert taken
    taken.clear()
    path = tmp_path / "a.png"
    path.write_bytes(png_with_header(*size))
    assert_refused(path, "must have at most 80000000 pixels")
    assert taken == []


@pytest.mark.filterwarnings("error")
def test_gigapixel_header_is_refused_when_warnings_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with_header(10_000, 9_000))
    assert_refused(path, "must have at most 80000000 pixels")


def test_max_pixels_is_inclusive(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (10, 10)))
    assert read_image(path, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="must have at most 99 pixels, got 10x10"):
        read_image(path, max_pixels=99)


def test_small_header_without_pixels_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with_header(64, 64))
    assert_refused(path, "damaged or truncated")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_bytes_decode_to_what_the_file_does(tmp_path: Path, kind: str) -> None:
    data = encoded(noise(30, 20), kind)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    decoded, read = decode_image(data, name="row 7"), read_image(path)
    assert (decoded.mode, decoded.size) == (read.mode, read.size)
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(read))
    assert decoded.info == {}


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"", ImageError, "must have content, got zero bytes in row 7"),
        (b"hello", UnsupportedImageError, "got something else in row 7"),
        (png_with_header(64, 64), ImageError, "damaged or truncated file row 7"),
        (png_with_header(9_000, 8_889), TooManyPixelsError, "at most 80000000 pixels"),
        (png_with_header(40_000, 40_000), TooManyPixelsError, "got far more in row 7"),
        (
            encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
            UnsupportedImageError,
            "got mode F in row 7",
        ),
    ],
)
def test_bad_bytes_are_refused_by_name_and_kind(
    data: bytes, kind: type[ImageError], text: str
) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        decode_image(data, name="row 7")
    assert type(caught.value) is kind


def test_max_pixels_holds_for_bytes() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert decode_image(data, name="a", max_pixels=100).size == (10, 10)
    with pytest.raises(TooManyPixelsError, match="must have at most 99 pixels, got 10x10 in a"):
        decode_image(data, name="a", max_pixels=99)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_decode_or_are_refused_and_nothing_else(kind: str) -> None:
    whole = bytearray(encoded(noise(24, 16), kind))
    rng = np.random.default_rng(len(whole))
    for _ in range(150):
        data = whole.copy()
        for place in rng.integers(0, min(len(data), 200), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        with contextlib.suppress(ImageError):
            image = decode_image(bytes(data), name="row 7", max_pixels=1_000_000)
            assert image.mode in ("RGB", "RGBA")


def test_animated_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255), (0, 255, 0))]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    image = read_image(path)
    assert image.mode in ("RGB", "RGBA")
    assert flatten(image).getpixel((4, 4)) == RED


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    cmyk = Image.new("RGB", (16, 16), RED).convert("CMYK")
    image = read_image(saved(tmp_path / "a.jpg", cmyk, quality=95))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((8, 8)), RED, atol=4)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    image = read_image(saved(tmp_path / f"a.{suffix}", Image.fromarray(ramp)))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image)[0, :, 1], np.arange(256))


def test_sixteen_bits_may_have_a_clear_colour(tmp_path: Path) -> None:
    gray = np.full((4, 4), 40_000, np.uint16)
    gray[:, 2:] = 17
    path = saved(tmp_path / "a.png", Image.fromarray(gray), transparency=17)
    image = read_image(path)
    assert image.mode == "RGBA"
    assert np.asarray(image)[0, :, 3].tolist() == [255, 255, 0, 0]


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    assert_refused(path, "must have 8 or 16 bits a channel .* got mode F")


@pytest.mark.parametrize(("orientation", "corner"), [(3, (29, 9)), (6, (9, 0)), (8, (0, 29))])
def test_exif_rotation_is_applied_and_metadata_dropped(
    tmp_path: Path, orientation: int, corner: tuple[int, int]
) -> None:
    stored = Image.new("RGB", (30, 10))
    stored.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(saved(tmp_path / "a.png", stored, exif=exif))
    assert image.size == ((30, 10) if orientation == 3 else (10, 30))
    assert image.getpixel(corner) == (255, 255, 255)
    assert image.info == {}
    assert dict(image.getexif()) == {}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = read_image(saved(tmp_path / "a.png", Image.new("RGB", (4, 4), "white").convert(mode)))
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_becomes_rgba_and_white_in_a_letterbox(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 4, 4))
    suffix, picture = ("gif", clear) if mode == "PA" else ("png", clear.convert(mode))
    image = read_image(saved(tmp_path / f"a.{suffix}", picture))
    assert image.mode == "RGBA"
    boxed = letterbox(image, (8, 8))
    assert boxed.mode == "RGB"
    assert boxed.getpixel((7, 4)) == (255, 255, 255)
    assert boxed.getpixel((0, 4)) == (0, 0, 0)


@pytest.mark.parametrize("size", [(128, 72), (72, 128), (50, 50), (1, 300), (40, 20)])
def test_letterbox_never_crops(size: tuple[int, int]) -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    boxed = np.asarray(letterbox(image, size))
    assert boxed.shape == (size[1], size[0], 3)
    dark = np.argwhere(boxed[..., 0] < 128)
    height, width = dark.max(0) - dark.min(0) + 1
    scale = min(size[0] / 40, size[1] / 20)
    assert (width, height) == (max(1, round(40 * scale)), max(1, round(20 * scale)))
    margins = [*dark.min(0), *(np.array(boxed.shape[:2]) - 1 - dark.max(0))]
    assert abs(margins[0] - margins[2]) <= 1
    assert abs(margins[1] - margins[3]) <= 1


def test_letterbox_to_the_same_size_changes_nothing() -> None:
    image = noise(16, 12)
    np.testing.assert_array_equal(np.asarray(letterbox(image, (16, 12))), np.asarray(image))


def test_letterbox_size_is_checked() -> None:
    with pytest.raises(ConfigError, match="letterbox size must be positive"):
        letterbox(noise(4, 4), (0, 4))


def test_pictures_are_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.JPG", "b.png", ".hidden.png", "notes.txt", "1.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["1.png", "9.JPG", "10.jpg", "b.png"]
    assert list_images(tmp_path / "none") == ()
