import contextlib
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from macco.pipeline.pictures import ImageError, decode, dhash

RED, WHITE = (255, 0, 0), (255, 255, 255)


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth picture with a red block in its upper left corner."""
    down, across = np.mgrid[:height, :width]
    shade = np.stack([across * 255 // width, down * 255 // height, (across + down) % 256], -1)
    picture = Image.fromarray(shade.astype(np.uint8))
    picture.paste(RED, (0, 0, width // 4, height // 4))
    return picture


def encode(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def status(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert str(caught.value)
    return caught.value.status


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(form: str) -> None:
    decoded = decode(encode(scene(), form))
    assert decoded.image.mode == "RGB"
    assert (decoded.width, decoded.height) == decoded.image.size == (64, 48)
    red, green, blue = decoded.image.getpixel((5, 5))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_truncated(form: str) -> None:
    data = encode(scene(256, 256), form)
    assert status(data[: len(data) // 2]) in {"image_truncated", "image_corrupt"}
    assert status(data[:6]) in {"image_truncated", "image_corrupt"}


def test_truncated_jpeg_says_so() -> None:
    data = encode(scene(256, 256), "JPEG")
    assert status(data[: len(data) // 2]) == "image_truncated"


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"<svg xmlns='x'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_not_an_image(data: bytes) -> None:
    assert status(data) == "image_unsupported"


def test_bombs_are_refused_by_their_header() -> None:
    assert status(png_header(20_000, 20_000)) == "image_too_large"
    assert status(png_header(30_001, 10)) == "image_too_large"
    assert status(png_header(10, 30_001)) == "image_too_large"
    assert status(encode(scene()), max_pixels=64 * 48 - 1) == "image_too_large"
    assert decode(encode(scene()), max_pixels=64 * 48).width == 64


def test_no_warning_escapes_below_the_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert status(png_header(9_500, 10_000)) in {"image_truncated", "image_corrupt"}


def test_too_small() -> None:
    assert status(encode(Image.new("RGB", (1, 1)))) == "image_too_small"
    assert status(encode(Image.new("RGB", (50, 1)))) == "image_too_small"
    assert status(encode(scene()), min_side=49) == "image_too_small"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(form: str, orientation: int) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # what undoes the turn that the tag asks for
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene(64, 48).transpose(turns[orientation]) if orientation in turns else scene(64, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(stored, form, exif=exif))
    assert (decoded.width, decoded.height) == decoded.image.size == (64, 48)
    assert decoded.image.getpixel((5, 5))[0] > 200  # type: ignore[index]
    assert decoded.image.getpixel((5, 5))[1] < 60  # type: ignore[index]


def test_broken_exif_does_not_lose_the_image() -> None:
    assert decode(encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).width == 64


def test_modes() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decode(encode(clear)).image.getpixel((4, 4)) == WHITE
    assert decode(encode(clear.convert("LA"))).image.getpixel((4, 4)) == WHITE
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert decode(encode(palette)).image.getpixel((4, 4)) == RED
    assert decode(encode(palette, transparency=0)).image.getpixel((4, 4)) == WHITE
    assert decode(encode(Image.new("1", (8, 8), 1))).image.getpixel((4, 4)) == WHITE
    cmyk = decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).image
    assert np.abs(np.asarray(cmyk, np.int16)[4, 4] - RED).max() < 12
    deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert decode(encode(deep)).image.getpixel((4, 4)) == (128, 128, 128)
    assert status(encode(Image.new("F", (8, 8)), "TIFF")) == "image_unsupported"


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert decode(data).image.getpixel((4, 4)) == RED


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1000, 700), (700, 1000), (1000, 3)])
@pytest.mark.parametrize("max_side", [100, 130, 333, 500, 501, 1000, 2000])
def test_max_side_shrinks_and_reports_the_original(form: str, size: tuple[int, int], max_side: int) -> None:
    decoded = decode(encode(scene(*size), form), max_side=max_side)
    assert (decoded.width, decoded.height) == size
    if max_side > 500:
        assert decoded.image.size == size
    else:
        assert max_side <= max(decoded.image.size) < 2 * max_side
        across, down = (side * max(decoded.image.size) / 1000 for side in size)
        assert decoded.image.width == pytest.approx(across, abs=1)
        assert decoded.image.height == pytest.approx(down, abs=1)
    if min(size) > 3:
        red, green, blue = decoded.image.getpixel((5, 5))  # type: ignore[misc]
        assert red > 200
        assert max(green, blue) < 60


def test_max_side_of_a_turned_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encode(scene(1000, 700), "JPEG", exif=exif), max_side=125)
    assert (decoded.width, decoded.height, decoded.image.size) == (700, 1000, (88, 125))


def test_dhash() -> None:
    rising = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1)))
    assert dhash(rising) == 2**64 - 1
    assert dhash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    corner = Image.new("L", (9, 8), 0)
    corner.putpixel((1, 0), 255)
    assert dhash(corner) == 1 << 63
    first, again = (
        dhash(decode(encode(scene(400, 300), "JPEG", quality=quality)).image) for quality in (95, 40)
    )
    assert (first ^ again).bit_count() <= 6


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_damage_is_an_image_or_an_image_error(data: st.DataObject, form: str) -> None:
    raw = bytearray(encode(scene(), form))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert decode(bytes(raw[: data.draw(st.integers(0, len(raw)))])).image.mode == "RGB"


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(20, 100),
            "subsampling": st.integers(0, 2),
            "progressive": st.booleans(),
        }
    ),
    cut=st.integers(0, 30),
)
def test_a_jpeg_is_what_pillow_makes_of_it(
    size: tuple[int, int], mode: str, options: dict[str, int], cut: int
) -> None:
    raw = encode(scene(*size).convert(mode), "JPEG", **options)
    raw = raw[: len(raw) - cut]
    try:
        with Image.open(BytesIO(raw)) as image:
            expected = np.asarray(image.convert("RGB"))
    except OSError:
        with pytest.raises(ImageError):
            decode(raw)
        return
    assert np.array_equal(decode(raw).pixels, expected)
