"""From the bytes of a picture file to upright 8-bit pixels.

Nothing in a file is trusted: few formats are read, sizes are checked before pixels are decoded, and
whatever goes wrong is an ImageError that names the file.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lucid.checks import check_choice
from lucid.errors import ImageError
from lucid.files import open_file

Color = Literal["RGB", "L"]
Decoder = Literal["scaled", "full"]
Source = str | Path | bytes | BinaryIO
Box = tuple[float, float, float, float]

COLORS: tuple[Color, ...] = ("RGB", "L")
DECODERS: tuple[Decoder, ...] = ("scaled", "full")

MAX_FILE_BYTES = 512 * 1024**2
MAX_PIXELS = 2**27  # 134 megapixels, above most cameras; 400 MB as RGB
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp"}
    | {".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)

# The formats that are read, by the first bytes of their files. Pillow knows many more, but EPS runs
# a program and the rare ones have the weakest parsers. Image.open would also warn of every picture
# above a global limit of its own.
_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"RIFF", WebPImageFile),
    (b"GIF8", GifImageFile),
    (b"BM", BmpImageFile),
    *((magic, TiffImageFile) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % digit, PpmImageFile) for digit in range(1, 7)),
)
# A scaled decode keeps this many times the pixels that the resize needs, so that the resize's own
# filter, not the decoder's, decides what the network sees.
_OVERSAMPLING = 2

_ORIENTATION_TAG = 0x0112


class _Turn(NamedTuple):
    """How an EXIF orientation is undone, and where that leaves the top left corner."""

    method: Image.Transpose
    swaps_axes: bool
    flips_x: bool
    flips_y: bool


# EXIF 2.3, tag 0x0112; 1 is upright.
_TURNS = {
    2: _Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: _Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: _Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: _Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: _Turn(Image.Transpose.ROTATE_270, True, True, False),
    7: _Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: _Turn(Image.Transpose.ROTATE_90, True, False, True),
}

# Pillow warns about damaged metadata, which decides nothing here, from the depth of these modules.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Tiff|Png)ImagePlugin")


@dataclass(frozen=True)
class Picture:
    """A decoded picture, turned upright, and what its file said about it.

    Attributes:
        image: mode RGB or L.
        box: (left, top, right, bottom), the part of ``image`` that holds the picture, in pixels:
            all of it, but for the fraction of a pixel that a scaled decode adds to an axis whose
            length the scale does not divide.
        size: (width, height) of the upright picture in the file, in pixels.
        format: such as ``"JPEG"``.
        mode: Pillow's name of the pixels in the file, such as ``"P"`` or ``"CMYK"``.
        bits: of a channel in the file, 8 or 16.
        orientation: 1 to 8, EXIF's; 1 is upright, and what a TIFF says, which Pillow turns itself.
        animated: whether there are more frames or pages than the first, which is ``image``.
    """

    image: Image.Image
    box: Box
    size: tuple[int, int]
    format: str
    mode: str
    bits: int
    orientation: int
    animated: bool


def decode(
    source: Source,
    *,
    name: str | None = None,
    needed_side: int | None = None,
    decoder: Decoder = "scaled",
    color: Color = "RGB",
) -> Picture:
    """Decode a picture file and turn it upright; of an animation, the first frame.

    Transparent pixels are laid over white; 16-bit grey is scaled to 8 bits; palettes, CMYK and
    the like become ``color``.

    Args:
        source: a path, the bytes of a file, or a binary stream, which is read to its end.
        name: for messages; the path by default.
        needed_side: pixels that will be needed of the picture's shorter side; with ``decoder``
            ``"scaled"`` a larger JPEG comes at the smallest scale with at least twice as many.
        decoder: ``"scaled"`` or ``"full"``.
        color: ``"RGB"`` or ``"L"``.
    Raises:
        ImageError: missing, unreadable, truncated, too large, or no picture at all.
    """
    check_choice("color", color, COLORS)
    check_choice("decoder", decoder, DECODERS)
    name = name or (str(source) if isinstance(source, str | Path) else "image")
    with _image_errors(name):
        content = _content(source, name)
        file = _reader(content, name)(io.BytesIO(content))
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise _too_large(name, f"{width} x {height} pixels")
        mode = file.mode
        bits = 16 if mode == "I" or any(";16" in f"{mode}{tile.args}" for tile in file.tile) else 8
        box = (0.0, 0.0, float(width), float(height))
        if decoder == "scaled" and needed_side is not None:
            side = _OVERSAMPLING * needed_side
            box = (file.draft(None, (side, side)) or (mode, box))[1]
        file.load()
        orientation = _orientation(file)
        image = to_color(file, color, name)
        if turn := _TURNS.get(orientation):
            image, box = _upright(image, box, turn)
            width, height = (height, width) if turn.swaps_axes else (width, height)
    return Picture(
        image=image,
        box=box,
        size=(width, height),
        format=file.format or "",
        mode=mode,
        bits=bits,
        orientation=orientation,
        animated=_is_animated(file),
    )


def read_image(
    source: Source,
    *,
    name: str | None = None,
    needed_side: int | None = None,
    decoder: Decoder = "scaled",
    color: Color = "RGB",
) -> Image.Image:
    """The upright picture alone; arguments and errors are those of ``decode``."""
    return decode(source, name=name, needed_side=needed_side, decoder=decoder, color=color).image


def _content(source: Source, name: str) -> bytes:
    """All bytes of the source, once its size is known to be within the limit."""
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | Path):
        with open_file(source, max_bytes=MAX_FILE_BYTES, error=ImageError) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    else:
        content = source.read(MAX_FILE_BYTES + 1)
    if not content:
        raise ImageError(f"{name}: the file is empty; it may not have been copied to its end")
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(name, f"over {MAX_FILE_BYTES} bytes")
    return content


def _reader(content: bytes, name: str) -> type[ImageFile]:
    for magic, reader in _READERS:
        if content.startswith(magic):
            return reader
    raise ImageError(f"{name}: not a picture; expected JPEG, PNG, WebP, GIF, BMP, TIFF or PPM")


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(
        f"{name}: too large, {found}; the limits are {MAX_PIXELS} pixels and "
        f"{MAX_FILE_BYTES} bytes; save it smaller"
    )


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow's parsers trip over into an ImageError; they promise no list."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, "by its header") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"{name}: damaged or truncated ({reason}); replace or remove it"
        ) from error


def _orientation(file: ImageFile) -> int:
    """EXIF's 1 to 8; 1 where there is none, or none that can be read."""
    with suppress(Exception):
        value = file.getexif().get(_ORIENTATION_TAG)
        if value in _TURNS:
            return int(value)
    return 1


def _is_animated(file: ImageFile) -> bool:
    """Whether there is a second frame; what is damaged behind the first does not matter."""
    with suppress(Exception):
        return bool(getattr(file, "is_animated", False))
    return True


def _upright(image: Image.Image, box: Box, turn: _Turn) -> tuple[Image.Image, Box]:
    """Undo an EXIF orientation; the box (it starts at the top left) turns with the image."""
    _, _, width, height = box
    image = image.transpose(turn.method)
    if turn.swaps_axes:
        width, height = height, width
    left = image.width - width if turn.flips_x else 0.0
    top = image.height - height if turn.flips_y else 0.0
    return image, (left, top, left + width, top + height)


def to_color(image: Image.Image, color: Color, name: str) -> Image.Image:
    """The image in mode ``color``; the same object if it is in that mode already.

    Raises:
        ImageError: its pixels have no range that could be scaled to 8 bits; names ``name``.
    """
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image, name)
    elif image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels; save it with 8 or 16 bits a channel")
    elif image.has_transparency_data:
        image = _over_white(image)
    return image if image.mode == color else image.convert(color)


def _sixteen_to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded; Pillow's own conversion clips at 255."""
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ImageError(f"{name}: 32-bit pixels; save it with 8 or 16 bits a channel")
    return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow has no way from La to RGBA
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
