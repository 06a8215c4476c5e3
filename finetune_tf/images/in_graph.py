"""The preparation of images as TensorFlow operations, for graphs that read the bytes of files.

`ImageProcessor` prepares images with Pillow. The operations here do the same without Python: they
decode files, turn them as their EXIF data say, and resize them with Pillow's filters and roundings,
so that the levels are equal.

Shape legend: B batch, H height, W width.
"""

from typing import TYPE_CHECKING, Any

from finetune_tf.images.decoding import MAX_PIXELS
from finetune_tf.images.processor import ImageProcessor
from finetune_tf.images.resize_in_graph import pillow_may_begin_with_height, resized

if TYPE_CHECKING:
    import tensorflow as tf

_PNG = b"\x89PNG"
_EXIF_BYTES = 1 << 16  # where the EXIF data of a JPEG file are looked for
_ORIENTATION = 0x0112  # the tag of EXIF data that says how an image is turned


def levels_of_files(contents: "tf.Tensor", processor: ImageProcessor) -> "tf.Tensor":
    """Decodes and prepares images of JPEG and PNG files.

    The levels are those of `ImageProcessor` with the installed version of Pillow. There are three
    differences: the orientation of PNG files, and that which XMP data name, is not read; levels of
    JPEG files of four colors (CMYK) may differ by 1; and a file of another format, or one that
    cannot be decoded, is an error of TensorFlow.

    Args:
        contents: The bytes of files, a tensor (B,) of strings.
        processor: The processor of the model.

    Returns:
        Levels (B, height, width, 3) uint8, of the size `processor.output_size`.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((*processor.output_size, 3), tf.uint8)
    return tf.map_fn(
        lambda content: tf.ensure_shape(prepared(decoded(content), processor), spec.shape),
        contents,
        fn_output_signature=spec,
    )


def decoded(content: "tf.Tensor") -> "tf.Tensor":
    """Decodes a file to levels (H, W, 3) uint8.

    Args:
        content: The bytes of the file, a scalar.
    """
    import tensorflow as tf

    def jpeg() -> tf.Tensor:
        # Other methods of the discrete cosine transform are faster and differ by up to 18 levels.
        levels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        return turned(levels, orientation_of(content))

    def png() -> tf.Tensor:
        # TensorFlow reads no palettes of BMP files, and not the parts of GIF files as Pillow does.
        is_png = tf.equal(tf.strings.substr(content, 0, len(_PNG)), _PNG)
        tf.debugging.assert_equal(is_png, True, "A file is neither a JPEG nor a PNG file.")
        return tf.io.decode_png(content, channels=3)

    levels = tf.cond(tf.io.is_jpeg(content), jpeg, png)
    return tf.ensure_shape(levels, (None, None, 3))


def orientation_of(content: "tf.Tensor") -> "tf.Tensor":
    """Reads the orientation of a JPEG file from its EXIF data, from 1 to 8; 1 if it has none.

    Args:
        content: The bytes of the file, a scalar.
    """
    import tensorflow as tf

    start = tf.strings.substr(content, 0, _EXIF_BYTES)
    found = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32)
    # Zeros behind the end, so that reading there finds nothing.
    data = tf.concat([found, tf.zeros(16, tf.int32)], 0)
    size = tf.shape(data)[0]
    marker = tf.constant(list(b"Exif\0\0"), tf.int32)
    windows = tf.stack([data[i : size - 6 + i] for i in range(6)], 1)
    places = tf.where(tf.reduce_all(tf.equal(windows, marker), 1))[:, 0]
    has_exif = tf.size(places) > 0
    begin = tf.cond(has_exif, lambda: tf.cast(places[0], tf.int32) + 6, lambda: size - 1)

    def byte(place: Any) -> tf.Tensor:
        return tf.gather(data, tf.clip_by_value(place, 0, size - 1))

    is_little = tf.equal(byte(begin), ord("I"))

    def number(place: Any, count: int) -> tf.Tensor:
        each = [byte(place + i) for i in range(count)]
        low = sum(value * 256**i for i, value in enumerate(each))
        high = sum(value * 256**i for i, value in enumerate(reversed(each)))
        return tf.where(is_little, low, high)

    directory = begin + tf.clip_by_value(number(begin + 4, 4), 0, _EXIF_BYTES)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    is_orientation = tf.equal(number(entries, 2), _ORIENTATION)
    values = tf.boolean_mask(number(entries + 8, 2), is_orientation)
    value = tf.concat([values, [1]], 0)[0]
    is_valid = has_exif & (value >= 1) & (value <= 8)
    return tf.where(is_valid, value, 1)


def turned(levels: "tf.Tensor", orientation: "tf.Tensor") -> "tf.Tensor":
    """Turns and mirrors an image (H, W, 3) as its EXIF orientation says."""
    import tensorflow as tf

    def is_in(*values: int) -> tf.Tensor:
        return tf.reduce_any(tf.equal(orientation, list(values)))

    levels = tf.cond(
        is_in(5, 6, 7, 8), lambda: tf.transpose(levels, (1, 0, 2)), lambda: tf.identity(levels)
    )
    for axis, values in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        levels = tf.cond(
            is_in(*values),
            lambda levels=levels, axis=axis: tf.reverse(levels, [axis]),
            lambda levels=levels: tf.identity(levels),
        )
    return levels


def prepared(levels: "tf.Tensor", processor: ImageProcessor) -> "tf.Tensor":
    """Resizes and crops levels (H, W, 3) uint8 as `processor` does."""
    import tensorflow as tf

    values, size = processor.values, processor.values["size"]
    options = (values["resample"], pillow_may_begin_with_height())
    if values["do_resize"] and processor.kind == "ConvNextImageProcessor":
        edge = size["shortest_edge"]
        if edge >= 384:
            levels = resized(levels, edge, edge, *options)
        else:
            scaled = _shortest(levels, int(edge / values["crop_pct"]))
            levels = _center_crop(resized(levels, *scaled, *options), edge, edge)
    elif values["do_resize"] and "shortest_edge" in size:
        levels = resized(levels, *_shortest(levels, size["shortest_edge"]), *options)
    elif values["do_resize"]:
        levels = resized(levels, size["height"], size["width"], *options)
    if values["do_center_crop"]:
        crop = values["crop_size"]
        levels = _center_crop(levels, crop["height"], crop["width"])
    message = "An image has another size than the checkpoint expects, which does not resize images."
    tf.debugging.assert_equal(tf.shape(levels)[:2], processor.output_size, message)
    return levels


def _shortest(levels: "tf.Tensor", edge: int) -> tuple["tf.Tensor", "tf.Tensor"]:
    """Height and width with a shortest edge of `edge` and the proportions of an image."""
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(tf.shape(levels)[:2], tf.float64))
    shorter = tf.minimum(height, width)
    sizes = [tf.cast(edge * each / shorter, tf.int32) for each in (height, width)]  # rounded down
    message = (
        f"An image would have more than {MAX_PIXELS:,} pixels with its shortest edge of {edge}."
    )
    pixels = tf.reduce_prod(tf.cast(sizes, tf.int64))
    tf.debugging.assert_less_equal(pixels, tf.constant(MAX_PIXELS, tf.int64), message)
    return sizes[0], sizes[1]


def _center_crop(levels: "tf.Tensor", height: int, width: int) -> "tf.Tensor":
    """Cuts out the centre of an image, as `processor.center_crop` does."""
    import tensorflow as tf

    wanted = tf.constant([height, width])
    found = tf.shape(levels)[:2]
    missing = tf.maximum(wanted, found) - found
    before = (missing + 1) // 2
    padding = tf.stack([before, missing - before], 1)
    levels = tf.pad(levels, tf.concat([padding, [[0, 0]]], 0))
    start = tf.maximum((found - wanted) // 2 + before, 0)
    return tf.slice(levels, [start[0], start[1], 0], [height, width, 3])
