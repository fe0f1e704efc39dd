import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers import photos
from helpers.photos import PhotoError, decode


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode, color, size=(8, 6)):
    return Image.new(mode, size, color)


def values(image):
    """The color of a plain image; fails where it is not plain."""
    pixels = np.asarray(image).reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return pixels[0].tolist()


PHOTO = saved(plain("RGB", (10, 20, 30)))


def test_an_ordinary_photo_comes_as_it_is_and_without_notes():
    image, notes = decode(PHOTO, "a.png")
    assert (image.mode, image.size, notes) == ("RGB", (8, 6), [])
    assert values(image) == [10, 20, 30]


def test_a_phone_puts_a_second_picture_behind_its_photo_and_that_is_no_finding():
    photo = plain("RGB", (10, 20, 30), (16, 16))
    data = saved(photo, "MPO", save_all=True, append_images=[plain("RGB", 0, (16, 16))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    image, notes = decode(data, "a.jpg")
    assert notes == []
    assert values(image) == pytest.approx([10, 20, 30], abs=2)


def test_a_row_of_a_bitmap_may_take_any_number_of_bytes():
    assert decode(saved(plain("RGB", (1, 2, 3), (720, 2)), "BMP"), "a.bmp")[1] == []  # 2160 bytes


def test_an_alpha_channel_that_covers_nothing_is_no_finding():
    assert decode(saved(plain("RGBA", (1, 2, 3, 255))), "a.png")[1] == []
    assert decode(saved(plain("RGBA", (1, 2, 3, 254))), "a.png")[1] == ["transparent: put on white"]


def png(width, height, depth, kind, rows):
    """A PNG put together by hand, for what Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data


def sixteen_bits(values, colors):
    """A PNG of gray values (H, W), 0 to 65535, in one channel or in three."""
    rows = np.repeat(values[..., None], colors, axis=2).astype(">u2")
    height, width = values.shape
    return png(width, height, 16, {1: 0, 3: 2}[colors], b"".join(b"\0" + row.tobytes() for row in rows))


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
JPEG = saved(Image.fromarray(NOISE), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no picture at all", "not an image, or of a kind that is not supported: save it as JPEG or PNG"),
        (b"DDS " + bytes(200), "not an image, or of a kind that is not supported"),
        (saved(plain("RGB", (10, 20, 30)), "PPM"), "not an image, or of a kind that is not supported"),
        (JPEG[: len(JPEG) // 2], "truncated or damaged"),
        (saved(Image.fromarray(NOISE))[:-600], "truncated or damaged"),
    ],
    ids=["empty", "text", "DirectX", "of another format", "half a JPEG", "PNG without its end"],
)
def test_what_cannot_be_used_says_why(data, reason):
    with pytest.raises(PhotoError, match=reason):
        decode(data, "a.jpg")


def test_a_photo_over_the_pixel_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(photos, "MAX_PIXELS", 48)
    assert decode(PHOTO)[0].size == (8, 6)
    monkeypatch.setattr(photos, "MAX_PIXELS", 47)
    with pytest.raises(PhotoError, match="8 x 6: more than 47 pixels"):
        decode(PHOTO)
    monkeypatch.undo()
    bomb = png(60_000, 60_000, 8, 2, b"")  # 3.6 billion pixels in a few bytes
    with pytest.raises(PhotoError, match="more than 80,000,000 pixels"):
        decode(bomb, "bomb.png")


@pytest.mark.parametrize(
    ("image", "options", "note", "color"),
    [
        (plain("L", 77), {}, "gray", [77, 77, 77]),
        (plain("1", 1), {}, "gray", [255, 255, 255]),
        (plain("P", 0), {}, None, [0, 0, 0]),
        (plain("P", 0), {"transparency": bytes([51])}, "transparent: put on white", [204, 204, 204]),
        (plain("RGBA", (0, 0, 0, 51)), {}, "transparent: put on white", [204, 204, 204]),  # a fifth of black
        (plain("LA", (0, 51)), {}, "transparent: put on white", [204, 204, 204]),
        (plain("CMYK", (0, 255, 255, 0)), {"kind": "TIFF"}, "CMYK", [255, 0, 0]),
        (plain("I;16", 257 * 100), {}, "16-bit", [100, 100, 100]),  # 65535 is white, as 255 is
        (plain("F", 0.2), {"kind": "TIFF"}, "gray", [51, 51, 51]),
        (plain("F", 51.0), {"kind": "TIFF"}, "gray", [51, 51, 51]),
    ],
)
def test_every_kind_of_pixel_becomes_rgb_and_is_noted(image, options, note, color):
    decoded, notes = decode(saved(image, **options))
    assert values(decoded) == color
    assert note in notes if note else notes == []


def test_sixteen_bits_of_color_become_eight():
    row = b"\0" + 4 * struct.pack(">HHH", 65535, 257 * 100, 0)
    image, notes = decode(png(4, 1, 16, 2, row), "a.png")
    assert notes == ["16-bit"]
    assert values(image) == [255, 100, 0]


@pytest.mark.parametrize(("size", "usable"), [((1, 1), False), ((3, 2), False), ((1, 4), True)], ids=str)
def test_a_picture_of_a_few_pixels_is_no_photo(size, usable):
    data = saved(Image.new("RGB", size))
    if usable:
        assert decode(data)[0].size == size
    else:
        with pytest.raises(PhotoError, match=f"{size[0]} x {size[1]} px: too small to show anything"):
            decode(data)


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (plain("F", 4095.0), "TIFF", r"^values up to 4095, where 255 is white: save it with 8 or 16 bits"),
        (plain("I", 70_000), "TIFF", r"^values up to 70000, where 65535 is white: save it with 8 or 16 bits"),
        (plain("RGBA", (10, 20, 30, 0)), "PNG", r"^transparent all over.*: save it without transparency"),
        (plain("LA", (10, 0)), "PNG", r"^transparent all over.*: save it without transparency"),
    ],
    ids=["counts in floats", "counts in 32 bits", "color", "gray"],
)
def test_a_picture_that_would_come_out_white_is_refused_with_the_remedy(image, kind, reason):
    with pytest.raises(PhotoError, match=reason):
        decode(saved(image, kind))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(PhotoError, match="values that are not finite"):
        decode(saved(plain("F", float("nan")), "TIFF"))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photo_is_turned_upright_by_its_exif_tag(orientation):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255  # white at the top left, once upright
    turns = {  # how a camera stores it that was held so
        2: lambda picture: picture[:, ::-1],
        3: lambda picture: np.rot90(picture, 2),
        4: lambda picture: picture[::-1],
        5: lambda picture: picture.transpose(1, 0, 2),
        6: lambda picture: np.rot90(picture),
        7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
        8: lambda picture: np.rot90(picture, -1),
    }
    stored = np.ascontiguousarray(turns[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, notes = decode(saved(Image.fromarray(stored), exif=exif), "a.png")
    assert notes == ["rotated by its EXIF tag"]
    np.testing.assert_array_equal(image, upright)


@pytest.mark.parametrize("orientation", [0, 1])
def test_a_photo_whose_tag_says_upright_or_nothing_is_no_finding(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, notes = decode(saved(Image.fromarray(NOISE), exif=exif), "a.png")
    assert notes == []
    np.testing.assert_array_equal(image, NOISE)


def test_of_an_animation_the_first_frame_is_taken():
    data = saved(plain("RGB", (255, 0, 0)), "GIF", save_all=True, append_images=[plain("RGB", (0, 0, 255))])
    image, notes = decode(data, "a.gif")
    assert values(image) == [255, 0, 0]
    assert notes == ["animated: first frame taken"]


def test_a_wrong_extension_is_noted_and_does_no_harm():
    assert decode(PHOTO, "a.jpg")[1] == ["is PNG, not JPEG"]
    assert decode(PHOTO, "folder.jpg/a.PNG")[1] == []
    assert decode(JPEG, "a.jpeg")[1] == []


def test_fit_shrinks_into_the_frame_with_its_proportions_and_never_enlarges():
    assert photos.shrink(plain("RGB", 0, (960, 540)), 270, 300).size == (300, 169)  # 540 * 300 / 960 = 168.75
    assert photos.shrink(plain("RGB", 0, (540, 960)), 270, 300).size == (152, 270)  # 540 * 270 / 960 = 151.875
    assert photos.shrink(plain("RGB", 0, (100, 50)), 270, 300).size == (100, 50)
    assert photos.shrink(plain("RGB", 0, (10_000, 1)), 10, 10).size == (10, 1)


def test_what_is_stored_keeps_its_colors_sharp():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    image, _ = decode(photos.encode(Image.fromarray(stripes)), "a.jpg")
    assert np.abs(np.asarray(image).astype(int) - stripes).max() < 40  # with subsampled color all would be purple


@pytest.mark.parametrize("error", [TypeError("tag"), struct.error("tag"), OverflowError("tag"), KeyError("tag")])
def test_whatever_a_decoder_stumbles_over_is_told_as_damage(error, monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "TIFF")

    def stumble(*_):
        raise error

    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", stumble)
    with pytest.raises(PhotoError, match="truncated or damaged"):
        decode(buffer.getvalue())
    monkeypatch.setattr(Image, "open", stumble)
    with pytest.raises(PhotoError, match="unreadable"):
        decode(buffer.getvalue())


def test_a_wrong_tag_beside_the_orientation_does_no_harm():
    width_as_text = struct.pack("<HHI4s", 0x0100, 2, 1, b"x")
    turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + width_as_text + bytes(4)
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "JPEG", exif=exif)
    image, notes = decode(buffer.getvalue())
    assert image.size == (4, 6)
    assert notes == ["rotated by its EXIF tag"]


def test_a_12_bit_picture_in_16_bits_is_refused_with_the_remedy():
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    for colors in (1, 3):
        with pytest.raises(PhotoError, match=r"^no value above a sixteenth of 16 bits.*: multiply 12 bits by 16"):
            decode(sixteen_bits(ramp * 4095, colors))
        assert decode(sixteen_bits(ramp * 65535, colors))[0].getextrema()[0] == (0, 255)


def test_16_bits_may_come_in_either_byte_order():
    ramp = np.linspace(0, 65535, 64).reshape(8, 8)
    little, big = (
        decode(saved(Image.frombytes(mode, (8, 8), ramp.astype(kind).tobytes()), "TIFF"))
        for mode, kind in (("I;16", "<u2"), ("I;16B", ">u2"))
    )
    assert big[1] == little[1] == ["16-bit", "gray"]
    assert np.array_equal(big[0], little[0])
    assert big[0].getextrema()[0] == (0, 255)


def test_a_picture_in_text_is_read_by_no_other_decoder_than_a_photo():
    picture = plain("RGB", (10, 20, 30))
    assert values(photos.from_text(photos.as_text(picture))) == pytest.approx([10, 20, 30], abs=2)
    for text in (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n").decode(), "no base64"):
        with pytest.raises(ValueError, match=r"not an image|base64"):
            photos.from_text(text)
