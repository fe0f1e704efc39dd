"""One photo: from the bytes of any camera or tool to an upright RGB picture, with what was unusual about it."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_FORMATS = list(dict.fromkeys(EXTENSIONS.values()))  # bytes from outside reach no other decoder
MAX_PIXELS = 80_000_000
MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits, not compressed
_LEAST_PX = 4  # of the longer side: smaller pictures are tracking pixels or mistakes
JPEG_QUALITY = 95
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DARK = 16  # of 255, as far as 12 bits reach that are stored as 16
_DEEP = "16-bit"
_DECODER_ERRORS = (  # what Pillow's decoders raise on damaged files; a wrong tag of a TIFF ends in any of the last line
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, MemoryError),
    *(TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError, struct.error),
)


class PhotoError(ValueError):
    """A photo that cannot be used; the message says why in a few words."""


def decode(data: bytes, name: str = "") -> tuple[Image.Image, list[str]]:
    """The photo in `data`, upright and in RGB, and notes on what had to be changed for that.

    name: the file's name, to compare its extension with what the bytes are.
    Raises PhotoError where the file is empty, no image, truncated, smaller than 4 px (its longer side), has more than
    MAX_PIXELS, or would come out black or white all over: 12 bits stored as 16, counts, an alpha channel never filled.
    """
    if not data:
        raise PhotoError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise PhotoError("not an image, or of a kind that is not supported: save it as JPEG or PNG") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except _DECODER_ERRORS as error:
        raise PhotoError(f"unreadable ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
    if max(image.size) < _LEAST_PX:
        raise PhotoError(f"{image.width} x {image.height} px: too small to show anything")
    try:
        notes = _notes(image, name)
        image.load()
        if (orientation := image.getexif().get(_EXIF_ORIENTATION)) in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])  # ImageOps.exif_transpose fails where another tag is wrong
        rgb = _to_rgb(image)
    except PhotoError:
        raise
    except _DECODER_ERRORS as error:
        raise PhotoError(f"truncated or damaged ({error})") from error
    if _DEEP in notes and max(high for _, high in rgb.getextrema()) <= _DARK:
        raise PhotoError("no value above a sixteenth of 16 bits, so it would be black: multiply 12 bits by 16")
    return rgb, notes


def shrink(image: Image.Image, height: int, width: int) -> Image.Image:
    """The image shrunk to fit into height x width px with its proportions kept; never enlarged."""
    scale = min(height / image.height, width / image.width)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


def encode(image: Image.Image) -> bytes:
    """JPEG bytes of high quality and without chroma subsampling, so that fine damage is not blurred."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def as_text(image: Image.Image) -> str:
    """`encode` in base64, for JSON."""
    return base64.b64encode(encode(image)).decode()


def from_text(text: str) -> Image.Image:
    """The RGB picture of `as_text`. Raises what `decode` raises, and ValueError for what is no base64."""
    return decode(base64.b64decode(text, validate=True))[0]


def _notes(image: Image.Image, name: str) -> list[str]:
    expected = EXTENSIONS.get(PurePosixPath(name).suffix.lower())
    kind = "JPEG" if image.format == "MPO" else image.format  # a phone's JPEG with a second picture behind it
    raw = [str(np.atleast_1d(tile[3])[0]) for tile in image.tile]  # modes, as "RGB;16B"; gone once it is loaded
    deep = image.mode.startswith("I") or any("16" in mode for mode in raw)
    facts = {
        f"is {image.format}, not {expected}": expected not in (None, kind),
        "rotated by its EXIF tag": image.getexif().get(_EXIF_ORIENTATION) in _UPRIGHT,
        "animated: first frame taken": kind != "JPEG" and getattr(image, "is_animated", False),
        _DEEP: deep,
        "gray": image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"),
        "CMYK": image.mode == "CMYK",
        "transparent: put on white": _may_be_transparent(image) and _alpha(image).getextrema()[0] < 255,
    }
    return [note for note, holds in facts.items() if holds]


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _alpha(image: Image.Image) -> Image.Image:
    return (image if image.mode in ("RGBA", "LA", "PA") else image.convert("RGBA")).getchannel("A")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would cut 16 bits off at 255
        image = Image.fromarray(_to_uint8(np.asarray(image)))
    if _may_be_transparent(image):
        image, alpha = image.convert("RGBA"), _alpha(image)
        if alpha.getextrema()[1] == 0:
            raise PhotoError("transparent all over, so nothing would be seen: save it without transparency")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """(H, W) of 16-bit integers, or of floats in 0..1 or 0..255, as uint8."""
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    largest = 65535 if values.dtype.kind != "f" else 1 if values.max() <= 1 else 255
    if values.max() > largest:
        raise PhotoError(f"values up to {values.max():.0f}, where {largest} is white: save it with 8 or 16 bits")
    return (values / largest * 255).round().clip(0, 255).astype(np.uint8)
