"""Whoever looks at a picture sees the same pixels."""

import math
import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from macco.pipeline.pictures import ImageError, decode
from macco.train.data import crops
from macco.train.evaluation.encoder import open_picture

RAMP = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (48, 1))


def encode(picture: Image.Image, form: str, **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def deep(kind: str) -> Image.Image:
    """A grey ramp of 16 bits a pixel, as Pillow's mode `kind`."""
    if kind == "I":
        return Image.fromarray(RAMP.astype(np.int32))
    if kind == "I;16B":
        return Image.frombytes("I;16B", (64, 48), RAMP.astype(">u2").tobytes())
    return Image.fromarray(RAMP)


def clear(mode: str) -> Image.Image:
    """Nothing on the left, half of a red on the right."""
    picture = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    picture.paste((200, 0, 0, 128), (32, 0, 64, 48))
    return picture.convert(mode)


PICTURES: dict[str, Callable[[], bytes]] = {
    "16-bit PNG": lambda: encode(deep("I;16"), "PNG"),
    "16-bit PNG with tRNS": lambda: encode(deep("I;16"), "PNG", transparency=51400),
    "32-bit TIFF": lambda: encode(deep("I"), "TIFF"),
    "16-bit TIFF": lambda: encode(deep("I;16"), "TIFF"),
    "16-bit big-endian TIFF": lambda: encode(deep("I;16B"), "TIFF"),
    "RGBA PNG": lambda: encode(clear("RGBA"), "PNG"),
    "LA PNG": lambda: encode(clear("LA"), "PNG"),
    "palette with transparency": lambda: encode(clear("RGB").quantize(4), "PNG", transparency=0),
    "RGBA WebP": lambda: encode(clear("RGBA"), "WEBP", lossless=True),
    "GIF": lambda: encode(clear("RGBA"), "GIF"),
    "bits": lambda: encode(clear("1"), "PNG"),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_formats_that_are_read(form: str) -> None:
    found = decode(encode(Image.new("RGB", (40, 30), (200, 30, 40)), form))
    assert (found.width, found.height) == (40, 30)
    assert np.abs(np.asarray(found.image).astype(int) - (200, 30, 40)).max() < 12


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_formats_that_are_not_read_have_a_status(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.status == "image_unsupported"


@pytest.mark.parametrize("kind", PICTURES)
def test_training_sees_a_picture_as_extraction_does(kind: str) -> None:
    data = PICTURES[kind]()
    assert np.array_equal(np.asarray(crops.decode(data, 64)), np.asarray(decode(data).image))


@pytest.mark.parametrize("kind", [kind for kind in PICTURES if "TIFF" in kind or "16" in kind])
def test_sixteen_bits_are_scaled(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = PICTURES[kind]()
    grey = np.asarray(crops.decode(data, 64))[0, :, 0]
    assert grey[::8].tolist() == [0, 32, 64, 97, 129, 161, 194, 226]
    (tmp_path / "x.png").write_bytes(data)
    scored = open_picture(str(tmp_path / "x.png"), None)
    assert not isinstance(scored, str)
    assert np.asarray(scored)[0, :, 0].tolist() == grey.tolist()


def test_a_tiff_of_sixteen_bits_whose_zero_is_white_is_no_negative() -> None:
    data = encode(deep("I;16"), "TIFF", tiffinfo={262: 0})
    assert Image.open(BytesIO(data)).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert decode(data).pixels[0, ::8, 0].tolist() == [255, 223, 191, 158, 126, 94, 61, 29]


@pytest.mark.parametrize("values", [(0, 2**31 - 1), (-5, 100)])
def test_more_bits_than_sixteen_are_refused_by_name(values: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="more than 16 bits") as caught:
        decode(encode(Image.fromarray(np.tile(np.array(values, np.int32), (4, 2))), "TIFF"))
    assert caught.value.status == "image_unsupported"


def literal(data: bytes, side: int) -> Image.Image:
    """A JPEG as torchvision's users write it: Pillow's draft, exif_transpose and convert."""
    with warnings.catch_warnings(), Image.open(BytesIO(data)) as image:
        warnings.simplefilter("ignore")
        scale = math.ceil(side * crops.MARGIN) / min(image.size)
        image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        return ImageOps.exif_transpose(image).convert("RGB")


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 700),
    side=st.sampled_from([8, 32, 64, 224]),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    turn=st.integers(0, 9),
    progressive=st.booleans(),
)
def test_a_jpeg_of_training_is_small_and_bit_equal_to_pillows(
    width: int, height: int, side: int, mode: str, turn: int, progressive: bool
) -> None:
    noise = np.random.default_rng(width).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = Image.fromarray(noise).resize((width, height)).convert(mode)
    data = encode(picture, "JPEG", exif=exif, progressive=progressive)
    assert np.array_equal(np.asarray(crops.decode(data, side)), np.asarray(literal(data, side)))


def test_benchmarks_loaders_turn_nothing_and_drop_transparency(tmp_path) -> None:  # type: ignore[no-untyped-def]
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, data in (("a.jpg", encode(clear("RGB"), "JPEG", exif=exif)), ("b.png", PICTURES["RGBA PNG"]())):
        (tmp_path / name).write_bytes(data)
        seen = open_picture(str(tmp_path / name), None)
        assert not isinstance(seen, str)
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.asarray(seen), np.asarray(image.convert("RGB")))
