from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dalle.data.images import centre_crop, open_rgb, random_crop_paper
from dalle.errors import DataError


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_accepted_formats_open_as_rgb(form: str) -> None:
    image = open_rgb(encode(Image.new("RGB", (12, 9), (250, 0, 0)), form))
    assert (image.mode, image.size) == ("RGB", (12, 9))
    red, green, blue = np.asarray(image)[4, 6].tolist()
    assert red > 240
    assert max(green, blue) < 12  # JPEG and WebP are lossy


@pytest.mark.parametrize("form", ["TIFF", "GIF", "BMP", "PCX"])
def test_other_formats_are_refused_whatever_their_name(form: str) -> None:
    with pytest.raises(DataError, match="not PNG, JPEG or WebP"):
        open_rgb(encode(Image.new("RGB", (8, 8)), form))


def test_empty_and_foreign_bytes_are_refused() -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(DataError, match="damaged"):
            open_rgb(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_truncated_picture_is_refused(form: str, tenths: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    with pytest.raises(DataError, match="damaged"):
        open_rgb(data[: len(data) * tenths // 10])


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "told"),
    [
        (20_000, 20_000, "400000000"),  # beyond Pillow's cap, which says the product alone
        (10_000, 10_000, "10000x10000"),
        (6400, 6400, "6400x6400"),
    ],
)
def test_a_huge_picture_is_refused_from_its_header(width: int, height: int, told: str) -> None:
    """One that Pillow itself refuses was once called damaged."""
    message = f"is too large: it has {told} pixels, over the limit of 40000000; give a smaller"
    with pytest.raises(DataError, match=message):
        open_rgb(header_only_png(width, height))


@pytest.mark.filterwarnings("error:Image size:PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_too_large_also_where_warnings_are_errors() -> None:
    with pytest.raises(DataError, match="it has 100000000 pixels, over the limit of 40000000"):
        open_rgb(header_only_png(10_000, 10_000))


def test_the_pixel_limit_is_exact() -> None:
    data = encode(Image.new("RGB", (10, 10)))
    assert open_rgb(data, max_pixels=100).size == (10, 10)
    with pytest.raises(DataError, match="10x10 pixels, over the limit of 99"):
        open_rgb(data, max_pixels=99)


def test_pictures_over_eight_to_one_are_too_thin() -> None:
    assert open_rgb(encode(Image.new("RGB", (80, 10)))).size == (80, 10)
    for size in ((81, 10), (1, 300)):
        with pytest.raises(DataError, match="too thin"):
            open_rgb(encode(Image.new("RGB", size)))


def test_one_pixel_is_a_picture() -> None:
    assert open_rgb(encode(Image.new("RGB", (1, 1), (1, 2, 3)))).getpixel((0, 0)) == (1, 2, 3)


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))
    opened = open_rgb(encode(image))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    # 200 * 128/255 + 255 * 127/255 = 227.4; 0 + 255 * 127/255 = 127
    assert np.allclose(np.asarray(opened)[0, 1], (227, 127, 127), atol=1)


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 90, 100, 110])
    image.putpixel((1, 0), 1)
    opened = open_rgb(encode(image, transparency=0))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (90, 100, 110)]


def test_sixteen_bits_keep_their_high_byte() -> None:
    levels = np.array([[0, 255, 256, 0x80FF, 65535]], dtype=np.uint16)
    opened = open_rgb(encode(Image.fromarray(levels)))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 0, 1, 0x80, 255]


def test_one_bit_and_gray_and_cmyk_become_rgb() -> None:
    assert open_rgb(encode(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(encode(Image.new("L", (2, 2), 77))).getpixel((0, 0)) == (77, 77, 77)
    cyan = open_rgb(encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    assert np.allclose(np.asarray(cyan)[8, 8], (0, 255, 255), atol=6)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    opened = open_rgb(encode(image, exif=exif))
    assert opened.size == (2, 4)
    assert opened.getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_exif_that_cannot_be_read_turns_nothing(form: str) -> None:
    """Intact pictures were once refused for it, unless they were JPEGs."""
    image = Image.new("RGB", (16, 8), (200, 10, 10))
    opened = open_rgb(encode(image, form, exif=b"Exif\x00\x00junk"))
    assert opened.size == (16, 8)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert open_rgb(data).getpixel((3, 3)) == (255, 0, 0)


def test_a_photograph_is_decoded_as_far_as_it_is_needed() -> None:
    """Bug: all twelve megapixels were, for every version of 64 pixels."""
    rows, columns = np.mgrid[0:900, 0:1200] / 100
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    photo = Image.fromarray((127 + 120 * waves).astype(np.uint8))
    (jpeg := BytesIO()), (png := BytesIO())
    photo.save(jpeg, "JPEG", quality=90)
    photo.save(png, "PNG")
    part = open_rgb(jpeg.getvalue(), enough_px=224)
    assert part.size == (300, 225)
    whole = open_rgb(jpeg.getvalue())
    assert whole.size == (1200, 900)
    left, right = (np.asarray(centre_crop(image, (56, 56))).astype(int) for image in (part, whole))
    assert abs(left - right).max() <= 3
    assert open_rgb(jpeg.getvalue(), enough_px=900).size == (1200, 900)
    assert open_rgb(png.getvalue(), enough_px=224).size == (1200, 900)


def test_a_centre_crop_takes_the_centre() -> None:
    columns = np.repeat(np.arange(30, dtype=np.uint8)[None, :, None] * 8, 10, axis=0)
    image = Image.fromarray(np.repeat(columns, 3, axis=2))
    pixels = np.asarray(centre_crop(image, (10, 10)))
    assert pixels.shape == (10, 10, 3)
    assert pixels[5, :, 0].tolist() == list(range(80, 160, 8))  # columns 10 to 19


def test_a_centre_crop_leaves_a_fitting_picture_alone() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(centre_crop(Image.fromarray(noise), (16, 16))), noise)


def test_a_centre_crop_has_any_proportions() -> None:
    cut = np.asarray(centre_crop(coordinates(256, 256), (32, 64))).astype(int)
    assert cut.shape == (32, 64, 3)
    assert np.ptp(cut[:, 0, 0]) == 0, "all of its width is seen"
    assert cut[[0, -1], 0, 1] == pytest.approx([64, 191], abs=3), (
        "and the middle half of its height"
    )


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red and green say where each pixel came from, in 1/255 of its sides."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([x, y, 0 * x], axis=2).round().astype(np.uint8))


def spans(listing: str, width: int, height: int, draws: int = 300) -> np.ndarray:
    """Left, right, top, bottom of many cuts, as fractions of the picture."""
    rng = np.random.default_rng(5)
    image = coordinates(width, height)
    found = []
    for _ in range(draws):
        cut = np.asarray(random_crop_paper(image, (64, 64), rng, listing=listing))  # type: ignore[arg-type]
        assert cut.shape == (64, 64, 3)
        found.append([*cut[0, [0, -1], 0], *cut[[0, -1], 0, 1]])
    return np.array(found) / 255


def test_vae_cuts_reach_everywhere_and_mirror_half() -> None:
    left, right, top, bottom = spans("vae", 200, 200).T
    mirrored = left > right
    assert 0.4 < mirrored.mean() < 0.6
    assert (top < bottom).all()
    # The square is the whole picture, shown at 72 to 96 pixels: a cut spans 64/96 to 64/72 of it.
    span = np.abs(right - left)
    assert span.min() == pytest.approx(64 / 96, abs=0.02)
    assert span.max() == pytest.approx(64 / 72, abs=0.02)
    assert np.minimum(left, right).min() < 0.02
    assert np.maximum(left, right).max() > 0.98


def test_transformer_cuts_stay_near_the_middle_and_never_mirror() -> None:
    left, right, top, bottom = spans("transformer", 400, 200).T
    assert (left < right).all()
    # The square is half as wide as the picture, its left edge at 3/8 to 5/8 of the other half:
    # 0.1875 to 0.3125; at 64 to 72 pixels a cut loses at most 1/9 of the square.
    assert left.min() >= 0.1875 - 0.01
    assert right.max() <= 0.8125 + 0.01
    span = bottom - top
    assert span.min() == pytest.approx(64 / 72, abs=0.02)
    assert span.max() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("listing", ["vae", "transformer"])
def test_a_picture_of_the_final_size_is_not_resized(listing: str) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng(3)
    cut = np.asarray(random_crop_paper(Image.fromarray(noise), (64, 64), rng, listing=listing))  # type: ignore[arg-type]
    assert np.array_equal(cut, noise) or np.array_equal(cut, noise[:, ::-1])


@pytest.mark.parametrize("listing", ["vae", "transformer"])
def test_a_small_picture_is_enlarged_to_the_final_size(listing: str) -> None:
    cut = random_crop_paper(
        Image.new("RGB", (20, 31)),
        (64, 64),
        np.random.default_rng(0),
        listing=listing,  # type: ignore[arg-type]
    )
    assert cut.size == (64, 64)


@pytest.mark.parametrize("listing", ["vae", "transformer"])
def test_cuts_have_any_proportions_and_no_distortion(listing: str) -> None:
    rng = np.random.default_rng(4)
    image = coordinates(500, 250)
    spans = []
    for _ in range(100):
        cut = random_crop_paper(image, (64, 96), rng, listing=listing)  # type: ignore[arg-type]
        assert cut.size == (96, 64)
        red, green, _ = (np.asarray(band).astype(float) for band in cut.split())
        # In pixels of the picture, from the middle of the first pixel to that of the last.
        spans.append((np.abs(red[0, -1] - red[0, 0]) / 255 * 500, np.ptp(green[:, 0]) / 255 * 250))
    across, down = np.array(spans).T
    assert across / down == pytest.approx(np.full(100, 95 / 63), abs=0.1)
    # The part is as high as the picture, and shown at 9/8 to 12/8, or 1 to 9/8, of 64 pixels.
    low, high = (64 / 96, 64 / 72) if listing == "vae" else (64 / 72, 1)
    assert down.min() == pytest.approx(250 * low, abs=6)
    assert down.max() == pytest.approx(250 * high, abs=6)


def test_cuts_repeat_for_the_same_generator() -> None:
    image = coordinates(150, 120)
    first, second = (
        random_crop_paper(image, (64, 64), np.random.default_rng(9), listing="vae")
        for _ in range(2)
    )
    assert first.tobytes() == second.tobytes()
