"""Decoding of images of every kind, and errors for what is none."""

import io

import numpy as np
import pytest
from PIL import Image

from finetune_tf.errors import DataError
from finetune_tf.images import decode
from finetune_tf.images.decoding import check_file

RANDOM = np.random.default_rng(0)


def levels(height=7, width=5, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RANDOM.integers(0, 256, shape).astype("uint8")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files(kind, tmp_path):
    array = levels()
    content = encoded(Image.fromarray(array), kind)
    path = tmp_path / "photo"
    path.write_bytes(content)
    for image in (content, path, str(path)):
        np.testing.assert_array_equal(decode(image), array)
        check_file(image)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_files_are_what_pillow_decodes(kind):
    content = encoded(Image.fromarray(levels()), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)
    check_file(content)


def test_grey_levels_are_repeated():
    array = levels(channels=1)
    for image in (array, array[:, :, None], encoded(Image.fromarray(array), "PNG")):
        np.testing.assert_array_equal(decode(image), np.repeat(array[:, :, None], 3, 2))


def test_transparency_is_dropped():
    array = levels(channels=4)
    for image in (array, encoded(Image.fromarray(array), "PNG"), Image.fromarray(array)):
        np.testing.assert_array_equal(decode(image), array[:, :, :3])


def test_palettes_and_one_bit():
    array = levels()
    palette = Image.fromarray(array).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(palette, "PNG")), expected)
    bits = Image.fromarray(array[:, :, 0] > 127)
    found = decode(encoded(bits, "PNG"))
    np.testing.assert_array_equal(found[:, :, 0], (array[:, :, 0] > 127) * 255)


def test_sixteen_bits_are_not_clipped():
    wide = np.array([[0, 255, 256], [1000, 40_000, 65_535]], "uint16")
    found = decode(encoded(Image.fromarray(wide), "PNG"))
    np.testing.assert_array_equal(found[:, :, 1], wide >> 8)


def test_sixteen_bits_in_a_mode_of_thirty_two():
    wide = np.array([[0, 255, 256], [1000, 40_000, 65_535]], "int32")
    content = encoded(Image.fromarray(wide), "PPM")
    assert Image.open(io.BytesIO(content)).mode == "I"
    np.testing.assert_array_equal(decode(content)[:, :, 1], wide >> 8)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_numbers_of_thirty_two_bits_are_refused(dtype):
    """They may be levels, shares of 1 or anything else, of which levels would be a black image."""
    image = Image.fromarray(levels(channels=1).astype(dtype))
    for given in (image, encoded(image, "TIFF")):
        with pytest.raises(DataError, match=r"^it has the mode '[IF]' of Pillow, numbers of 32 bi"):
            decode(given)


def test_exif_rotation():
    array = levels()
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    found = decode(encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(array, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "the file is empty, 0 bytes"),
        (b"no image at all", "it is not an image"),
        (np.zeros((4, 4, 3)), "an array of float64, but levels from 0 to 255 in uint8"),
        (np.zeros((4, 4, 2), "uint8"), r"an array of the shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), "uint8"), r"an array of the shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_image(image, message):
    for function in (decode, check_file):
        with pytest.raises(DataError, match=message):
            function(image)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "WEBP"])
def test_a_file_of_another_format_that_is_cut_off(kind):
    content = encoded(Image.fromarray(levels(80, 80)), kind)[:-100]
    for function in (check_file, decode):
        with pytest.raises(DataError, match="it is not an image that can be decoded"):
            function(content)


def test_the_end_of_a_thumbnail_is_not_that_of_the_image():
    thumbnail = encoded(Image.fromarray(levels(8, 8)), "JPEG")
    content = encoded(Image.fromarray(levels(80, 80)), "JPEG")
    # An application segment behind the start of the image holds the complete thumbnail.
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = content[:2] + segment + content[2:]
    check_file(content)
    with pytest.raises(DataError, match="the JPEG file is cut off: its end is missing"):
        check_file(content[:-200])


def test_a_file_with_other_data_behind_its_image():
    """As in photos of telephones with a short video behind them."""
    for kind in ("JPEG", "PNG"):
        content = encoded(Image.fromarray(levels(80, 80)), kind)
        check_file(content + b"\xff\xda a video IDAT" * 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_is_cut_off(kind):
    content = encoded(Image.fromarray(levels(80, 80)), kind)[:-200]
    with pytest.raises(DataError, match="is cut off: its end is missing"):
        check_file(content)
    with pytest.raises(DataError, match="cannot be used|cannot be decoded|cut off|truncated"):
        decode(content)


def test_files_that_are_missing_or_folders(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        decode(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="it is a folder"):
        decode(tmp_path)


def test_an_image_of_too_many_pixels():
    # A file of a few kilobytes that would fill gigabytes.
    content = encoded(Image.new("1", (30_000, 8_000)), "PNG")
    for function in (decode, check_file):
        with pytest.raises(DataError, match="it has more than 178,956,970 pixels"):
            function(content)
