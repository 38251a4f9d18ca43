"""Pictures of every kind come out upright, 8 bits deep and the same by both decoders."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from lucid import decoding
from lucid.errors import ConfigError, ImageError, ShapeError
from lucid.images import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    Preprocessing,
    decode,
    load,
    load_sized,
    load_squashed,
    normalise,
    preprocess,
    read_image,
)

ORIENTATION = 0x0112
# The transposition that a camera held so would have stored; reading must undo it.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


@cache
def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with structure at every scale, as photos have; no two corners look alike."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    side = 2
    while side <= max(width, height):
        noise = generator.normal(0, 40, (side, side, 3)).clip(-127, 127) + 128
        layer = Image.fromarray(noise.astype(np.uint8)).resize((width, height), 3)
        pixels += np.asarray(layer, np.float64) - 128
        side *= 2
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


def stored(image: Image.Image, orientation: int, image_format: str = "JPEG") -> bytes:
    """A file that shows ``image`` once its EXIF orientation is undone."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    method = STORED_AS[orientation]
    turned = image if method is None else image.transpose(method)
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    return encode(turned, image_format, exif=exif, **options.get(image_format, {}))


def grey_levels(found: Any, expected: Any) -> float:
    """Mean difference of two pictures in grey levels."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).mean())


def bomb(width: int, height: int, *, whole: bool = False) -> bytes:
    """A black-and-white PNG of any size in few bytes; its pixels are there only if ``whole``."""
    packer = zlib.compressobj(1)
    row = bytes(1 + -(-width // 8)) if whole else b""
    data = b"".join(packer.compress(row) for _ in range(height if whole else 1)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data)]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in [*chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    return content


# --- preprocessing ---------------------------------------------------------------------------


def test_preprocessing_survives_json_and_fills_in_half_for_mean_and_std() -> None:
    grey = Preprocessing(96, color="L", crop_fraction=1, interpolation="bicubic", decoder="full")
    assert grey.mean == grey.std == (0.5,)
    assert Preprocessing(96).std == (0.5, 0.5, 0.5)
    assert Preprocessing.from_dict(grey.to_dict()) == grey
    assert Preprocessing.from_dict({"resolution": 96}) == Preprocessing(96)
    assert (grey.channels, Preprocessing(96).channels) == (1, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", 0),
        ("resolution", 1e9),
        ("resolution", True),
        ("resolution", "large"),
        ("crop_fraction", 0),
        ("crop_fraction", 5e-324),
        ("crop_fraction", 1.01),
        ("crop_fraction", float("nan")),
        ("crop_fraction", 10**400),
        ("interpolation", "cubic"),
        ("interpolation", ["bilinear"]),
        ("color", "RGBA"),
        ("decoder", None),
        ("mean", [0.5]),
        ("mean", "0.5"),
        ("mean", [0.5, 0.5, float("inf")]),
        ("mean", [0.5, 0.5, 128]),
        ("std", [0.5, 0.5, 0]),
        ("std", [0.5, 0.5, None]),
        ("std", 0.5),
    ],
)
def test_preprocessing_names_the_field_that_is_wrong(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field} must "):
        Preprocessing.from_dict({"resolution": 32, field: value})


def test_preprocessing_suggests_the_nearest_field() -> None:
    with pytest.raises(ConfigError, match="no argument 'colour'; did you mean 'color'"):
        Preprocessing.from_dict({"resolution": 32, "colour": "RGB"})
    with pytest.raises(ConfigError, match="needs the argument 'resolution'"):
        Preprocessing.from_dict({})


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (64, 64), (5, 900), (1, 1)], ids=str)
@pytest.mark.parametrize("color", ["RGB", "L"])
def test_preprocess_gives_the_centred_square(size: tuple[int, int], color: Any) -> None:
    """Independently: crop whole pixels first, where the square falls on them."""
    image = scene(*size)
    found = preprocess(image, Preprocessing(32, crop_fraction=1.0, color=color))
    assert (found.dtype, found.shape) == (np.uint8, (32, 32, len(color)))
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    if left.is_integer() and top.is_integer():
        crop = image.crop((int(left), int(top), int(left) + side, int(top) + side)).convert(color)
        expected = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR))
        expected = expected.reshape(32, 32, -1)
        # At the edge of the square, and nowhere else, the filter sees what lies outside of it.
        np.testing.assert_array_equal(found[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_crop_fraction_keeps_its_share_of_the_shorter_side() -> None:
    pixels = np.zeros((80, 200), np.uint8)
    pixels[10:70, 70:130] = 255  # the centred 60 of 80
    image = Image.fromarray(pixels)
    nearest = Preprocessing(60, crop_fraction=0.75, interpolation="nearest", color="L")
    assert preprocess(image, nearest).min() == 255
    wider = replace(nearest, crop_fraction=0.8)
    assert preprocess(image, wider)[0, 0, 0] == 0


def test_shrinking_is_antialiased() -> None:
    """A one-pixel checkerboard becomes grey; picking pixels would leave black or white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        grey = preprocess(
            Image.fromarray(board),
            Preprocessing(32, crop_fraction=1.0, interpolation=interpolation, color="L"),
        )
        assert np.abs(grey[2:-2, 2:-2].astype(int) - 127).max() <= 1, interpolation


def test_normalise_computes_the_formula_and_checks_its_input() -> None:
    preprocessing = Preprocessing(4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2))
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    found = normalise(batch, preprocessing)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (2, 3, 4, 5), True)
    expected = (batch / 255 - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=2e-6, atol=2e-7)
    for wrong in (batch[0], batch.astype(np.float32), batch.transpose(0, 3, 1, 2)):
        with pytest.raises(ShapeError, match=r"uint8 \(N, H, W, 3\)"):
            normalise(wrong, preprocessing)


# --- kinds of pictures -----------------------------------------------------------------------


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, image_format: str) -> None:
    image = scene(60, 37)
    picture = decode(stored(image, orientation, image_format))
    assert picture.size == picture.image.size == (60, 37)
    assert grey_levels(picture.image, image) < (4 if image_format == "JPEG" else 0.01)
    if image_format != "TIFF":  # Pillow turns these itself
        assert picture.orientation == orientation


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("size", [(1999, 1501), (1207, 2003)], ids=str)
def test_scaled_and_full_decode_agree_on_large_photos(
    size: tuple[int, int], orientation: int
) -> None:
    """Sides that no scale divides: the last column and row of a scaled JPEG are partly empty."""
    content = stored(scene(*size), orientation)
    scaled = Preprocessing(48, crop_fraction=1.0)
    found, found_size = load_sized(content, scaled)
    expected, expected_size = load_sized(content, replace(scaled, decoder="full"))
    assert found_size == expected_size == size
    assert grey_levels(found, expected) < 1
    squashed = [load_squashed(content, 56, decoder=d)[0] for d in ("scaled", "full")]
    assert grey_levels(*squashed) < 1
    small = decode(content, needed_side=48)
    assert 96 <= min(small.image.size) < 192 + 1
    assert small.size == size


@pytest.mark.parametrize("resolution", [32, 96])
def test_scaled_and_full_decode_agree_on_real_photos(shared: Path, resolution: int) -> None:
    photos = sorted((shared / "data/imagenet-sample").glob("*.JPEG"))[::5]
    scaled = Preprocessing(resolution)
    full = replace(scaled, decoder="full")
    differences = [grey_levels(load(path, scaled), load(path, full)) for path in photos]
    assert max(differences) > 0, "no photo was decoded at reduced scale"
    assert np.mean(differences) < 1
    assert max(differences) < 2


@pytest.mark.parametrize(
    ("mode", "image_format", "pixel", "expected"),
    [
        ("1", "PNG", 1, (255, 255, 255)),
        ("L", "JPEG", 200, (200, 200, 200)),
        ("P", "GIF", 0, (10, 20, 30)),
        ("P", "BMP", 0, (10, 20, 30)),
        ("CMYK", "JPEG", (0, 0, 0, 55), (200, 200, 200)),
        ("CMYK", "TIFF", (0, 0, 0, 55), (200, 200, 200)),
        ("RGBA", "PNG", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", "PNG", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBA", "WEBP", (0, 0, 255, 255), (0, 0, 255)),
        ("LA", "PNG", (0, 51), (204, 204, 204)),
        ("RGB", "PPM", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    mode: str, image_format: str, pixel: Any, expected: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (16, 16), pixel)
    if mode == "P":
        image.putpalette([10, 20, 30] + [0] * 765)
    options = {"lossless": True} if image_format == "WEBP" else {}
    picture = decode(encode(image, image_format, **options))
    assert picture.image.mode == "RGB"
    assert np.abs(np.asarray(picture.image).astype(int) - expected).max() <= 2
    grey = read_image(encode(image, image_format, **options), color="L")
    weighted = expected[0] * 0.299 + expected[1] * 0.587 + expected[2] * 0.114  # ITU-R 601
    assert grey.mode == "L"
    assert abs(np.asarray(grey)[8, 8] - weighted) <= 2


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])], ids=["one colour", "a table"])
def test_transparent_palette_colours_are_laid_over_white(transparency: Any) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    content = encode(image, "PNG", transparency=transparency)
    assert read_image(content).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(image_format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    picture = decode(encode(Image.fromarray(ramp), image_format))
    assert picture.bits == 16
    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0].ravel(), np.arange(256))


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    for pixels in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70000, np.int32)):
        path = tmp_path / "deep.tif"
        Image.fromarray(pixels).save(path)
        with pytest.raises(ImageError, match=r"deep\.tif: .* save it with 8 or 16 bits"):
            read_image(path)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    picture = decode(content)
    assert picture.animated
    assert picture.image.getpixel((4, 4)) == (255, 0, 0)
    assert not decode(encode(frames[0], image_format)).animated


def test_what_the_file_said_is_kept() -> None:
    picture = decode(encode(scene(30, 20).convert("CMYK"), "JPEG"))
    assert (picture.format, picture.mode, picture.bits) == ("JPEG", "CMYK", 8)
    assert (picture.size, picture.box, picture.orientation) == ((30, 20), (0, 0, 30, 20), 1)


# --- bad input -------------------------------------------------------------------------------


def test_a_text_file_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("Remember the milk.")
    with pytest.raises(ImageError, match=r"notes\.jpg: not a picture; expected JPEG, PNG"):
        load(path, Preprocessing(32))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    for name, reason in [
        ("none.jpg", "can't be opened"),
        (".", "expected a file, found a folder"),
        ("pipe.jpg", "expected a file, found a pipe or device"),
        ("empty.jpg", "the file is empty"),
        ("no\0name.jpg", "can't be opened"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_truncated_files(image_format: str, share: float, tmp_path: Path) -> None:
    content = encode(scene(64, 48), image_format)
    path = tmp_path / "cut.img"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=r"cut\.img: "):
        read_image(path)
    with path.open("rb") as file, pytest.raises(ImageError, match="upload: "):
        read_image(file, name="upload")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    """In a process of its own, whose peak memory is the proof: the pixels would take 900 MB."""
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(30_000, 30_000, whole=True))
    program = (
        "import pathlib, sys\n"
        "from lucid.errors import ImageError\n"
        "from lucid.images import read_image\n"
        "try: read_image(sys.argv[1])\n"
        "except ImageError as error: print(error)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    message, peak = answer.stdout.splitlines()
    assert message.startswith(f"{path}: too large, 30000 x 30000 pixels")
    assert str(MAX_PIXELS) in message
    assert int(peak) < 200_000  # kilobytes
    assert answer.stderr == ""


@pytest.mark.parametrize(
    "size", [(20_000, 10_000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1)], ids=str
)
def test_sizes_over_the_limit(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"image: too large.*{MAX_PIXELS} pixels"):
        read_image(bomb(*size))
    canvas = struct.pack("<I", 16382)[:3] * 2  # 16383 x 16383, WebP's largest
    chunk = b"VP8X\x0a\0\0\0\x02\0\0\0" + canvas
    with pytest.raises(ImageError, match="image: too large"):
        read_image(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)


def test_files_over_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no space
    with pytest.raises(ImageError, match=f"huge.jpg: .*{MAX_FILE_BYTES}"):
        read_image(path)


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    """In a process of its own, since pytest sets the filters of warnings anew for each test."""
    content = encode(scene(20, 20), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    program = (
        "import sys\n"
        "from lucid.images import decode\n"
        "print(decode(sys.stdin.buffer.read()).orientation)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    answer = subprocess.run(command, input=content, capture_output=True, check=True, timeout=60)
    assert (answer.stdout.strip(), answer.stderr) == (b"1", b"")


def test_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    state = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID))
    with pytest.raises(ImageError):
        read_image(tmp_path)
    read_image(encode(scene(9, 9), "JPEG"))
    assert state == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.ID)


def test_threads_decode_the_same_pixels() -> None:
    contents = [stored(scene(200 + i, 150, i), 1 + i % 8) for i in range(8)]
    preprocessing = Preprocessing(40)
    expected = [load(content, preprocessing) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: load(contents[i % 8], preprocessing), range(64)))
    for i, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, expected[i % 8])


# --- fuzzing ---------------------------------------------------------------------------------

SEEDS = [
    stored(scene(40, 30), 6),
    encode(scene(40, 30), "JPEG", progressive=True),
    encode(scene(40, 30), "PNG"),
    encode(scene(40, 30).quantize(), "PNG", transparency=3),
    encode(scene(40, 30), "WEBP"),
    encode(scene(40, 30), "GIF", save_all=True, append_images=[scene(40, 30, 1)]),
    encode(scene(40, 30), "BMP"),
    encode(scene(40, 30), "TIFF"),
    encode(scene(40, 30), "PPM"),
]

edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where, as a share of the file
        st.integers(0, 8),  # bytes taken out
        st.binary(max_size=8),  # bytes put in
    ),
    min_size=1,
    max_size=6,
)


def read_or_refuse(content: bytes) -> None:
    """A picture or an ImageError; any other exception fails the test."""
    with suppress(ImageError):
        assert load(content, Preprocessing(16)).shape == (16, 16, 3)


@settings(max_examples=150, deadline=2000)
@given(magic=st.sampled_from([b"", *(seed[:12] for seed in SEEDS)]), rest=st.binary(max_size=300))
def test_random_bytes_are_refused(magic: bytes, rest: bytes) -> None:
    read_or_refuse(magic + rest)


@settings(max_examples=400, deadline=2000)
@given(seed=st.sampled_from(SEEDS), edits=edits, start=st.sampled_from([40, 400, 10**6]))
def test_damaged_files_are_read_or_refused(seed: bytes, edits: list[Any], start: int) -> None:
    """Half of the edits fall into headers, where sizes and offsets are."""
    content = bytearray(seed)
    for share, removed, inserted in edits:
        position = int(share * min(start, len(content)))
        content[position : position + removed] = inserted
    with pytest.MonkeyPatch.context() as patch:
        # Pictures up to the real limit are right to decode, but take seconds.
        patch.setattr(decoding, "MAX_PIXELS", 10**6)
        read_or_refuse(bytes(content))
