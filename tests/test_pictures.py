"""Pictures are read as a viewer shows them, and refused by name where they cannot be."""

import io
import random
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from marc.data.check import problem_with
from marc.video import VideoError
from marc.video.limits import VARIABLE
from marc.video.picture_files import FORMATS
from marc.video.pictures import picture_size, read_picture

RED = np.full((20, 30, 3), (200, 30, 40), np.uint8)


def read(path) -> np.ndarray:
    return np.asarray(read_picture(path))


def test_what_is_transparent_is_on_white(tmp_path):
    """Black letters on nothing would otherwise be black on black."""
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[5:10, 5:25, 3] = 255
    rgba[12:15, :, 3] = 128
    for name in ("a.png", "a.webp", "a.tiff"):
        Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        seen = read(tmp_path / name)
        assert (seen[0] == 255).all() and (seen[7, 10] == 0).all()
        assert abs(int(seen[13, 3, 0]) - 127) <= 1
    grey = Image.fromarray(rgba[..., 0], "L")
    grey.putalpha(Image.fromarray(rgba[..., 3]))
    grey.save(tmp_path / "grey.png")
    assert (read(tmp_path / "grey.png")[0] == 255).all()


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    palette = Image.fromarray(RED).quantize(4)
    palette.save(tmp_path / "opaque.png")
    assert np.abs(read(tmp_path / "opaque.png").astype(int) - RED).max() <= 1
    palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    assert (read(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_metadata_says(orientation, tmp_path):
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[:5, :5] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    seen = read(tmp_path / "a.png")
    height, width = seen.shape[:2]
    assert picture_size(tmp_path / "a.png") == (width, height) == ((30, 20) if orientation < 5 else (20, 30))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert seen[corner[orientation]][0] == 255 and (seen == 255).all(2).sum() == 25


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    values = np.linspace(0, 65535, 600).reshape(20, 30)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.tiff")
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("a.png", "a.tiff", "float.tiff"):
        assert np.abs(read(tmp_path / name)[..., 0] - values / 257).max() <= 1.5, name


def test_colours_of_print_become_those_of_a_screen(tmp_path):
    Image.fromarray(RED).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - RED).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr"])
def test_other_modes_are_rgb(mode, tmp_path):
    name = tmp_path / ("a.jpg" if mode == "YCbCr" else "a.png")
    Image.fromarray(RED).convert(mode).save(name)
    assert read(name).shape == (20, 30, 3)


@pytest.mark.parametrize(("width", "height"), [(3000, 6), (1, 201), (2, 401)])
def test_a_picture_too_narrow_to_read_is_named_by_the_check_too(width, height, tmp_path):
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=rf"a\.png: a picture of {width}x{height} is too narrow"):
        picture_size(tmp_path / "a.png")
    assert "is too narrow" in problem_with(tmp_path / "a.png", "image")
    Image.new("RGB", (200, 1)).save(tmp_path / "b.png")
    assert problem_with(tmp_path / "b.png", "image") is None


def test_contents_decide_and_only_formats_that_are_meant_are_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(VideoError, match=r"a\.jpg: cannot be read as a picture"):
        read_picture(tmp_path / "a.jpg")
    assert "EPS" not in FORMATS
    Image.fromarray(RED).save(tmp_path / "b.gif")
    (tmp_path / "b.gif").rename(tmp_path / "b.png")
    assert read(tmp_path / "b.png").shape == (20, 30, 3)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"picture_pixels": 599}')
    Image.fromarray(RED).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=r"a\.png: 30x20, 600 pixels; at most 599 may be \(--limit-picture-pixels\)"):
        read_picture(tmp_path / "a.png")


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"a\.png: there is no such file"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_pictures_raise_one_error(format_, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, format_)
    good, random_ = buffer.getvalue(), random.Random(0)
    for number in range(60):
        damaged = bytearray(good[: random_.randrange(1, len(good))] if number % 2 else good)
        for _ in range(random_.randrange(1, 9)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        with suppress(VideoError):
            assert read(path).ndim == 3


def test_a_picture_that_pillow_refuses_names_the_limit(tmp_path):
    """A GIF's screen of 65,535 x 65,535 is refused before its first picture is looked at."""
    file = tmp_path / "huge.gif"
    file.write_bytes(
        b"GIF89a" + b"\xff\xff" * 2 + b"\x00\x00\x00" + b"," + bytes(4) + b"\xff\xff" * 2 + b"\x00\x02\x01L\x00;"
    )
    with pytest.raises(VideoError, match="--limit-picture-pixels"):
        read_picture(file)
