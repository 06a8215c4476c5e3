"""Images that TensorFlow decodes and prepares equal those of Pillow, level by level."""

import io

import numpy as np
import pytest
import tensorflow as tf
from helpers_images import content
from PIL import Image

from finetune_tf.images import ImageProcessor, decode
from finetune_tf.images.in_graph import decoded, levels_of_files
from finetune_tf.images.resize_in_graph import pillow_may_begin_with_height, resized

RANDOM = np.random.default_rng(0)
#: Images with noise, edges and smooth parts, higher and wider than they are wide and high.
SIZES = [(61, 47), (33, 120), (24, 24), (1, 1), (7, 300)]


def picture(height, width):
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], -1)
    smooth[: height // 2, : width // 3] = 255
    return (smooth + RANDOM.integers(-20, 20, smooth.shape)).clip(0, 255).astype("uint8")


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("size", [(24, 24), (50, 30), (5, 200)])
def test_every_filter_of_pillow(resample, size):
    for shape in SIZES:
        levels = picture(*shape)
        expected = np.asarray(Image.fromarray(levels).resize(size[::-1], resample))
        order = pillow_may_begin_with_height()
        found = resized(tf.constant(levels), *size, resample, order)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("ViTImageProcessor", {"size": 32}),
        ("DeiTImageProcessor", {"size": 40, "crop_size": 32}),
        ("BitImageProcessor", {"size": 32, "crop_size": 30}),
        ("BitImageProcessor", {"size": 20, "crop_size": {"height": 33, "width": 24}}),
        ("ConvNextImageProcessor", {"size": 32}),
        ("ConvNextImageProcessor", {"size": 384}),
        ("MobileNetV1ImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": 32}),
        ("ViTImageProcessor", {"size": 32, "resample": 1}),
    ],
)
def test_every_processor(kind, config):
    processor = ImageProcessor.from_config(config, kind)
    files = [content(picture(*size)) for size in SIZES]
    found = levels_of_files(tf.constant(files), processor)
    np.testing.assert_array_equal(found, np.stack([processor(file) for file in files]))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "1"])
def test_png_files(mode):
    buffer = io.BytesIO()
    Image.fromarray(picture(21, 30)).convert(mode).save(buffer, "PNG")
    np.testing.assert_array_equal(decoded(buffer.getvalue()), decode(buffer.getvalue()))


def test_sixteen_bits():
    wide, buffer = RANDOM.integers(0, 65536, (12, 9)).astype("uint16"), io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    np.testing.assert_array_equal(decoded(buffer.getvalue()), decode(buffer.getvalue()))


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"subsampling": 0}, {"progressive": True}]
)
def test_jpeg_files(options):
    for image in (Image.fromarray(picture(61, 47)), Image.fromarray(picture(40, 90)).convert("L")):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        np.testing.assert_array_equal(decoded(buffer.getvalue()), decode(buffer.getvalue()))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("is_big", [True, False])
def test_images_are_turned_as_their_exif_data_say(orientation, is_big):
    image, buffer = Image.fromarray(picture(16, 24)), io.BytesIO()
    exif = Image.Exif()
    exif.endian = ">" if is_big else "<"
    exif[0x010F], exif[0x0112], exif[0x0131] = "a maker", orientation, "a program"
    image.save(buffer, "JPEG", exif=exif, quality=95)
    expected = decode(buffer.getvalue())
    assert expected.shape[0] == (24 if 5 <= orientation <= 8 else 16)
    np.testing.assert_array_equal(decoded(buffer.getvalue()), expected)


def test_what_cannot_be_decoded_or_prepared():
    fixed = ImageProcessor.from_config({"do_resize": False, "size": 8}, "ViTImageProcessor")
    ours = ImageProcessor.from_config({}, "BitImageProcessor")
    for file, processor, message in (
        (b"no image", ours, "A file is neither a JPEG nor a PNG file"),
        (content(picture(9, 8), "GIF"), ours, "A file is neither a JPEG nor a PNG file"),
        (content(picture(9, 8))[:-40], ours, "Invalid PNG|Expected image"),
        (content(picture(9, 8)), fixed, "An image has another size than the checkpoint expects"),
        (content(np.zeros((1, 900_000, 3), "uint8")), ours, "more than 178,956,970 pixels"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            levels_of_files(tf.constant([file]), processor)
