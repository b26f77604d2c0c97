from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.utils.loopback import head, serving
from utils.errors import InputError
from utils.image_inputs import as_picture

RGB = np.random.default_rng(0).integers(2, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
THREE_GREYS = np.stack([GREY] * 3, axis=2)


@pytest.fixture
def file(tmp_path):
    """RGB as a file whose name is not ASCII."""
    path = tmp_path / "Ü 图.png"
    Image.fromarray(RGB).save(path)
    return path


@pytest.mark.parametrize("kind", [Path, str])
def test_a_file(file, kind):
    picture = as_picture(kind(file))
    np.testing.assert_array_equal(picture.image, RGB)
    assert picture.file == "Ü 图.jpg"


def test_a_file_of_the_web(file, tmp_path):
    def answer(handler):
        head(handler, Content_Length=file.stat().st_size)
        handler.wfile.write(file.read_bytes())

    with serving(answer) as server:
        picture = as_picture(f"{server}/holiday/beach.png?size=1")
    np.testing.assert_array_equal(picture.image, RGB)
    assert picture.file == "beach.jpg"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.full((1, 1), 7, np.uint8), np.full((1, 1, 3), 7, np.uint8)),
        (RGB, RGB),
        (RGB[..., ::-1][..., ::-1], RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (GREY, THREE_GREYS),
        (GREY[..., None], THREE_GREYS),
        (GREY[None], THREE_GREYS),
        (np.dstack([RGB, GREY]), RGB),
        (np.dstack([RGB, GREY]).transpose(2, 0, 1), RGB),
        (RGB.astype(np.float32), RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (np.zeros((6, 9)), np.zeros((6, 9, 3), np.uint8)),
        (RGB > 99, (RGB > 99) * np.uint8(255)),
    ],
)
def test_an_array(given, expected):
    picture = as_picture(given, 3)
    np.testing.assert_array_equal(picture.image, expected)
    assert picture.image.dtype == np.uint8
    assert picture.image.flags.c_contiguous
    assert picture.file == "image3.jpg"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "got NoneType"),
        (np.zeros((0, 9, 3), np.uint8), r"got \(0, 9, 3\)"),
        (np.zeros(9, np.uint8), r"got \(9,\)"),
        (np.zeros((6, 9, 2), np.uint8), r"got \(6, 9, 2\)"),
        (np.zeros((2, 6, 9, 3), np.uint8), r"got \(2, 6, 9, 3\)"),
        (RGB / 255, "0..1: multiply it by 255"),
        (RGB.astype(float) - 128, "values 0..255, got float64 from -"),
        (np.full((6, 9), np.nan), "got float64 from nan"),
        (np.full((6, 9), "a"), "of numbers, got <U1"),
        ("nowhere.jpg", r"nowhere\.jpg"),
        ("file:///etc/hostname", "file:"),
        ("http://", "http://"),
    ],
)
def test_what_is_no_image_is_told(given, told):
    with pytest.raises(InputError, match=told):
        as_picture(given)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_pil_images_of_every_mode(mode):
    flat = Image.new("RGB", (9, 6), (255, 255, 255)).convert(mode)
    picture = as_picture(flat)
    np.testing.assert_array_equal(picture.image, np.full((6, 9, 3), 255))
    assert picture.file == "image0.jpg"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_pil_images_of_numbers(dtype):
    given = GREY.astype(dtype) * (1 if dtype == np.float32 else 257)
    np.testing.assert_array_equal(as_picture(Image.fromarray(given)).image, THREE_GREYS)


def test_a_pil_image_has_the_name_of_its_file(file):
    assert as_picture(Image.open(file), 5).file == "Ü 图.jpg"


@pytest.mark.parametrize("as_pil", [False, True])
def test_upright_as_exif_says(tmp_path, as_pil):
    flag = Image.Exif()
    flag[0x0112] = 6  # orientation: to be turned clockwise
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=flag)
    source = Image.open(tmp_path / "a.png") if as_pil else tmp_path / "a.png"
    np.testing.assert_array_equal(as_picture(source).image, np.rot90(RGB, -1))


def test_the_callers_array_is_not_copied_for_nothing():
    assert np.shares_memory(as_picture(RGB).image, RGB)


def test_files_are_those_of_opencv(file):
    np.testing.assert_array_equal(as_picture(file).image, cv2.imdecode(np.fromfile(file, np.uint8), 1)[..., ::-1])
