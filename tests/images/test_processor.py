"""The preparation of images equals that of transformers' image processors on Pillow."""

import numpy as np
import pytest

from finetune_tf.errors import CheckpointError, DataError
from finetune_tf.images import ImageProcessor
from finetune_tf.images.defaults import CLASSES

_SQUARE = {"height": 224, "width": 224}
SIZES = [(300, 400), (401, 299), (37, 500), (20, 21), (1, 1), (224, 224), (256, 256)]
CASES = {
    "vit": ("ViTImageProcessor", {}),
    "vit, an older file": ("ViTFeatureExtractor", {"size": 96, "resample": 3}),
    "deit": ("DeiTImageProcessor", {"crop_size": {"height": 211, "width": 100}}),
    "dinov2": ("BitImageProcessor", {}),
    "a small crop": ("BitImageProcessor", {"size": {"shortest_edge": 31}, "crop_size": 40}),
    "resnet": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "mobilenet": ("MobileNetV2ImageProcessor", {"image_mean": [0.1, 0.2, 0.3]}),
    "without a crop": (
        "MobileNetV2ImageProcessor",
        {"do_center_crop": False, "size": {"height": 97, "width": 96}},
    ),
    "nearest": ("ViTImageProcessor", {"resample": 0, "do_rescale": False}),
    "without normalisation": ("ViTImageProcessor", {"do_normalize": False}),
}


def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3)).astype("uint8") for size in SIZES]


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_transformers(name):
    import transformers

    kind, config = CASES[name]
    ours = ImageProcessor.from_config({"image_processor_type": kind, **config}, kind)
    theirs_kind = kind.replace("FeatureExtractor", "ImageProcessor") + "Pil"
    theirs = getattr(transformers, theirs_kind)(**config)
    normalization = ours.normalization
    for image in images():
        found = ours(image)
        assert found.shape == (*ours.output_size, 3) and found.dtype == np.uint8
        options = {"input_data_format": "channels_last", "return_tensors": "np"}
        raw = theirs(image, do_rescale=False, do_normalize=False, **options)
        np.testing.assert_array_equal(found, raw["pixel_values"][0].transpose(1, 2, 0))
        expected = theirs(image, **options)["pixel_values"][0].transpose(1, 2, 0)
        values = found * normalization["scale"] - np.array(normalization["mean"])
        values = values / np.array(normalization["stddev"])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_defaults_are_those_of_transformers():
    import transformers

    for kind in CLASSES:
        ours = ImageProcessor.from_config({}, kind)
        theirs = getattr(transformers, f"{kind}Pil")().to_dict()
        for key, value in ours.values.items():
            if key == "crop_size" and not ours.values["do_center_crop"]:
                continue
            expected = theirs.get(key)
            expected = dict(expected) if isinstance(value, dict) else expected
            if key == "do_center_crop":
                expected = bool(expected)
            assert value == (list(expected) if isinstance(value, list) else expected), (kind, key)


def test_a_config_round_trip():
    for kind, config in CASES.values():
        first = ImageProcessor.from_config({"image_processor_type": kind, **config}, kind)
        again = ImageProcessor.from_config(first.to_config(), "ViTImageProcessor")
        assert again == first


@pytest.mark.parametrize(
    ("kind", "config", "size", "expected"),
    [
        ("ViTImageProcessor", {}, 96, {"size": {"height": 96, "width": 96}}),
        (
            "DeiTImageProcessor",
            {},
            (112, 112),
            {"size": {"height": 128, "width": 128}, "crop_size": {"height": 112, "width": 112}},
        ),
        ("ConvNextImageProcessor", {}, 64, {"size": {"shortest_edge": 64}}),
        ("DeiTImageProcessor", {}, (112, 224), {"size": {"height": 128, "width": 256}}),
        ("CLIPImageProcessor", {}, (112, 224), {"size": {"shortest_edge": 224}}),
        ("CLIPImageProcessor", {}, (448, 224), {"size": {"shortest_edge": 448}}),
    ],
)
def test_another_size(kind, config, size, expected):
    resized = ImageProcessor.from_config(config, kind).resized(size)
    assert {key: resized.values[key] for key in expected} == expected
    assert resized.output_size == ((size, size) if isinstance(size, int) else size)
    for shape in ((300, 400, 3), (400, 300, 3), (300, 300, 3)):
        assert (resized(np.full(shape, 9, "uint8")) == 9).all()  # without borders of zeros


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "names the image processor 'SamImageProc"),
        ({"size": -3}, "a size is a number of pixels"),
        ({"size": {"longest_edge": 3}}, "a size is a number of pixels"),
        ({"image_mean": [0.5]}, "'image_mean' must be a list of 3 numbers"),
        ({"image_mean": ["a", "b", "c"]}, "'image_mean' must be a list of 3 numbers, found"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "'image_mean' must be a list of 3 numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "'image_std' must be a list of 3 numbers above 0, found"),
        ({"rescale_factor": "1/255"}, "'rescale_factor' must be a number above 0, found '1/255'"),
        ({"rescale_factor": 0}, "'rescale_factor' must be a number above 0, found 0"),
        (
            {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0},
            "'crop_pct' must be a number above 0, found 0",
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": _SQUARE},
            "the 'size' of ConvNextImageProcessor has the key shortest_edge, found",
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "crop_size": {"shortest_edge": 224}},
            "'crop_size' is a number of pixels, or has the keys height and width; found",
        ),
        ({"resample": 17}, "'resample' must be a number of Pillow"),
        ({"do_pad": True}, "has do_pad true"),
        (
            {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
            "keeps the proportions of images",
        ),
    ],
)
def test_settings_that_are_refused(config, message):
    with pytest.raises(CheckpointError, match=message):
        ImageProcessor.from_config(config, "ViTImageProcessor")


def test_an_image_three_million_pixels_wide():
    processor = ImageProcessor.from_config({}, "BitImageProcessor")
    with pytest.raises(DataError, match="it has 1 x 3,000,000 pixels; with a shortest edge of 224"):
        processor(np.zeros((1, 3_000_000, 3), "uint8"))


def test_a_wide_image_for_a_processor_that_keeps_no_proportions():
    processor = ImageProcessor.from_config({"size": 21}, "ViTImageProcessor")
    assert (processor(np.full((1, 3_000_000, 3), 9, "uint8")) == 9).all()


def test_images_of_another_size_without_resizing():
    processor = ImageProcessor.from_config({"do_resize": False, "size": 8}, "ViTImageProcessor")
    assert processor(np.zeros((8, 8, 3), "uint8")).shape == (8, 8, 3)
    with pytest.raises(DataError, match="it has 8 x 9 pixels, but the checkpoint does not resize"):
        processor(np.zeros((8, 9, 3), "uint8"))
