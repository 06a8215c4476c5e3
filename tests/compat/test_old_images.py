"""Tests of the image models of transformers 4: normalised numbers, channels first."""

import pickle
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_images import TINY_VIT, levels, write_classes, write_image

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.messages import quiet

RESNET = TINY_VIT.parents[1] / "resnet" / "image-classification"
OLD = [
    name
    for name, family in FAMILIES.items()
    if family.image_processor and family.has_old_classes and not family.towers
]
# Small random models for images of 24 x 24 pixels.
_VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
_VIT |= {"image_size": 24, "patch_size": 8}
CONFIGS = {
    "vit": _VIT,
    "deit": _VIT,
    "resnet": {"embedding_size": 4, "hidden_sizes": [8, 12], "depths": [1, 1]},
    "convnext": {"num_stages": 2, "hidden_sizes": [4, 6], "depths": [1, 1]},
    "swin": {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "patch_size": 4},
}
CONFIGS["swin"] |= {"window_size": 3, "image_size": 24}
#: The shapes of the last hidden state and of the pooled vector of the bare classes.
SHAPES = {
    "vit": ((2, 10, 8), (2, 8)),
    "deit": ((2, 11, 8), (2, 8)),
    "resnet": ((2, 12, 3, 3), (2, 12, 1, 1)),
    "convnext": ((2, 6, 3, 3), (2, 6)),
    "swin": ((2, 9, 8), (2, 8)),
}


def make(family, suffix="ForImageClassification", **keys):
    made = getattr(compat, f"TF{FAMILIES[family].class_prefix}{suffix}")
    config = getattr(compat, f"{FAMILIES[family].class_prefix}Config")
    with quiet():
        if family in ("resnet", "convnext"):  # their configs have no size of images
            return made.from_config(config(**CONFIGS[family], **keys), image_size=24)
        return made(config(**CONFIGS[family], **keys))


def normalized(model, pixels):
    """What the image processor of the model's class makes of levels (B, H, W, C)."""
    values = model.image_processor.values
    numbers = (pixels / 255.0 - values["image_mean"]) / np.array(values["image_std"])
    return np.moveaxis(numbers, 3, 1).astype("float32")


PIXELS = np.stack([levels("red", (24, 24)), levels("blue", (24, 24))])


@pytest.fixture(scope="module")
def classifier():
    with quiet():
        return compat.TFViTForImageClassification.from_pretrained(TINY_VIT)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return [write_image(tmp_path_factory.mktemp("p") / "a.png"), levels("blue", (40, 25))]


def test_the_classes_are_those_of_transformers_4():
    assert OLD == ["vit", "deit", "resnet", "convnext", "swin"]
    suffixes = ("Model", "ForImageClassification")
    names = {f"TF{FAMILIES[name].class_prefix}{suffix}" for name in OLD for suffix in suffixes}
    assert names | {"TFAutoModelForImageClassification"} < compat.CLASSES.keys()
    for prefix in ("Dinov2", "MobileNetV1", "MobileNetV2"):
        assert f"TF{prefix}Model" not in compat.CLASSES
    with pytest.raises(ModelError, match="transformers 4 had no TensorFlow classes of dinov2 mod"):
        compat.TFAutoModel.from_config(compat.Dinov2Config())
    with pytest.raises(ModelError, match="bert models have no class for image-classification"):
        compat.TFAutoModelForImageClassification.from_config(compat.BertConfig())


@pytest.mark.slow
@pytest.mark.parametrize("family", OLD)
def test_outputs_are_those_of_the_same_model_on_levels(family):
    old = make(family, num_labels=3)
    pixels = normalized(old, PIXELS)
    expected = np.asarray(old.call(PIXELS))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(old(pixels).logits, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(old(PIXELS).logits, expected)
    states = old(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert len(states) == 3

    bare = make(family, "Model")
    last, pooled = SHAPES[family]
    found = bare(pixels)
    assert list(found) == ["last_hidden_state", "pooler_output"]
    assert found.last_hidden_state.shape == last and found.pooler_output.shape == pooled
    vectors = np.asarray(bare.call(PIXELS))
    np.testing.assert_allclose(
        np.asarray(found.pooler_output).reshape(vectors.shape), vectors, rtol=0, atol=1e-6
    )
    assert bare.predict(pixels, verbose=0).pooler_output.shape == pooled


def test_the_parts_of_a_model():
    old = make("resnet")
    encoded = old.resnet(normalized(old, PIXELS), return_dict=False)
    assert [tuple(part.shape) for part in encoded] == list(SHAPES["resnet"])
    assert [layer.name for layer in old.layers] == ["resnet", "classifier"]
    assert [group.name for group in old.resnet.encoder.stages] == ["block_0", "block_1"]
    old.resnet.trainable = False
    assert {variable.path.partition("/")[0] for variable in old.trainable_variables} == {
        "classifier"
    }
    vit = make("vit")
    assert list(vit.vit(normalized(vit, PIXELS))) == ["last_hidden_state"]  # without a pooler
    assert vit.get_input_embeddings() is vit.vit.embeddings is vit.stages[0].layers[0]


def test_swin_returns_its_hidden_states_as_images_too():
    states = make("swin", "Model")
    found = states(normalized(states, PIXELS), output_hidden_states=True)
    assert [s.shape for s in found.hidden_states] == [(2, 36, 4), (2, 9, 8), (2, 9, 8)]
    reshaped = np.asarray(found.reshaped_hidden_states[0])
    assert reshaped.shape == (2, 4, 6, 6)
    flat = np.asarray(found.hidden_states[0])
    np.testing.assert_array_equal(reshaped.reshape(2, 4, 36).transpose(0, 2, 1), flat)


@pytest.mark.parametrize("name", ["AutoImageProcessor", "ViTImageProcessor", "ViTFeatureExtractor"])
def test_image_processors_return_tensors(name, classifier, pictures, tmp_path):
    processor = getattr(compat, name).from_pretrained(TINY_VIT)
    from PIL import Image

    inputs = processor(images=[Image.open(pictures[0]), pictures[1]], return_tensors="tf")
    assert isinstance(inputs["pixel_values"], tf.Tensor)
    assert inputs["pixel_values"].shape == (2, 3, 21, 21)
    with quiet():
        ours = ft.predict(ft.load(TINY_VIT), image=pictures)
    found = keras.ops.softmax(classifier(**inputs).logits)
    expected = [list(prediction.probabilities.values()) for prediction in ours]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(classifier(inputs).logits, classifier(**inputs).logits)
    assert type(pickle.loads(pickle.dumps(processor))) is type(processor)
    processor.save_pretrained(tmp_path)
    again = compat.AutoImageProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(pictures[1])["pixel_values"][0], inputs["pixel_values"][1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of:UserWarning")  # the model is random
def test_a_loss_and_a_fit_on_a_dataset_of_dicts(pictures, tmp_path):
    with quiet():
        model = compat.TFViTForImageClassification.from_pretrained(
            TINY_VIT, num_labels=2, ignore_mismatched_sizes=True
        )
    shown = np.stack(
        [levels(color, (21, 21), seed) for seed in range(8) for color in ("red", "blue")]
    )
    labels = np.arange(16) % 2
    pixels = normalized(model, shown)
    losses = model(pixels, labels=labels).loss
    logits = model(pixels).logits
    wanted = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)

    data = tf.data.Dataset.from_tensor_slices({"pixel_values": pixels, "labels": labels})
    with quiet():
        model.compile(keras.optimizers.Adam(1e-2))
        history = model.fit(data.batch(16), epochs=12, verbose=0).history["loss"]
        again = type(model).from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert history[0] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert history[-1] < history[0] / 2
    logits = np.asarray(model(pixels).logits)
    assert logits.argmax(-1).tolist() == labels.tolist()
    np.testing.assert_allclose(again(pixels).logits, logits, rtol=0, atol=1e-6)


class Transformed:
    """A data set as of `datasets`, whose transform makes `pixel_values` when rows are read."""

    column_names = ("image", "label")

    def __init__(self, processor, images):
        self.processor, self.images = processor, images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        images = [self.images[i] for i in indices]
        pixels = self.processor(images, return_tensors="np")["pixel_values"]
        return {"pixel_values": list(pixels), "label": [i % 3 for i in indices], "image": images}


def test_batches_of_a_dataset_with_a_transform(classifier):
    processor = compat.ViTImageProcessor.from_pretrained(TINY_VIT)
    images = [levels("red", (30, 25), seed) for seed in range(5)]
    expected = processor(images, return_tensors="np")["pixel_values"]
    rows = Transformed(processor, images)
    batches = list(classifier.prepare_tf_dataset(rows, 2, shuffle=False, tokenizer=processor))
    assert [inputs["pixel_values"].shape[0] for inputs, _ in batches] == [2, 2, 1]
    for batch, (inputs, labels) in enumerate(batches):
        places = slice(2 * batch, 2 * batch + 2)
        np.testing.assert_array_equal(inputs["pixel_values"], expected[places])
        assert labels.numpy().tolist() == [0, 1, 2, 0, 1][places]
    columns = {"pixel_values": list(expected), "labels": [0, 1, 2, 0, 1]}
    (inputs, labels), *_ = classifier.prepare_tf_dataset(columns, 4, shuffle=False)
    np.testing.assert_array_equal(inputs["pixel_values"], expected[:4])
    assert labels.numpy().tolist() == [0, 1, 2, 0]


@pytest.mark.slow
def test_the_rest_of_the_library_reads_levels_with_an_old_class(classifier, tmp_path):
    data = ft.data.from_image_folder(write_classes(tmp_path / "data", 2))
    names = dict(enumerate(data.labels))
    with quiet():
        model = compat.TFResNetForImageClassification.from_pretrained(
            RESNET, id2label=names, ignore_mismatched_sizes=True
        )
        model.compile(keras.optimizers.SGD(0.0))
        model.fit(data.batches(model, batch_size=2), verbose=0)
        assert 0 <= ft.evaluate(model, data).metrics["accuracy"] <= 1
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    pixels = normalized(model, np.stack([levels("green", (37, 37))]))
    np.testing.assert_array_equal(again(pixels).logits, model(pixels).logits)


def test_layers_on_the_outputs_of_a_bare_model(tmp_path):
    vit = make("vit", "Model")
    inputs = keras.Input((3, 24, 24), name="pixel_values")
    outputs = keras.layers.Dense(2)(vit(inputs)[0][:, 0, :])
    own = keras.Model(inputs, outputs)
    assert [layer.name for layer in own.layers][1].startswith("tf_vi_t_model")
    pixels = normalized(vit, PIXELS)
    expected = own.layers[-1](vit(pixels).last_hidden_state[:, 0])
    np.testing.assert_allclose(own(pixels), expected, rtol=0, atol=1e-6)
    own.save(tmp_path / "own.keras")
    again = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(again(pixels), own(pixels))


@pytest.mark.slow
def test_images_of_another_size():
    resnet, vit, swin = make("resnet"), make("vit"), make("swin")
    large = np.stack([levels("red", (40, 40)), levels("blue", (40, 40))])
    with quiet():
        other = ft.load({"model_type": "resnet", **CONFIGS["resnet"]}, image_size=40, labels=2)
    other.set_weights(resnet.get_weights())
    found = resnet(normalized(resnet, large)).logits
    np.testing.assert_allclose(found, other(large), rtol=0, atol=1e-6)

    wide = np.stack([levels("red", (40, 32)), levels("blue", (40, 32))])
    with quiet():
        larger = ft.load({"model_type": "vit", **_VIT}, image_size=(40, 32), labels=2)
    larger.set_weights(vit.get_weights())
    pixels = normalized(vit, wide)
    with pytest.raises(
        ModelError, match=r"40 x 32 pixels, but the model reads 24 x 24. Write inte"
    ):
        vit(pixels)
    found = vit(pixels, interpolate_pos_encoding=True).logits
    np.testing.assert_allclose(found, larger(wide), rtol=0, atol=1e-6)
    with pytest.raises(
        ModelError, match=r"Load it for images of this size: from_pretrained\(…, im"
    ):
        swin(normalized(swin, wide))
    with quiet():
        model = compat.TFViTModel.from_pretrained(TINY_VIT, image_size=30)
    assert model(np.zeros((1, 3, 30, 30), "float32")).last_hidden_state.shape == (1, 37, 12)


@pytest.mark.slow
def test_datasets_without_static_shapes(classifier):
    pixels = np.random.default_rng(0).normal(size=(2, 3, 21, 21)).astype("float32")
    spec = {"pixel_values": tf.TensorSpec((None, None, None, None), tf.float32)}
    data = tf.data.Dataset.from_generator(lambda: [{"pixel_values": pixels}], output_signature=spec)
    data = data.apply(tf.data.experimental.assert_cardinality(1))
    found = classifier.predict(data, verbose=0).logits
    np.testing.assert_allclose(found, classifier(pixels).logits, rtol=0, atol=1e-6)
    pixels = np.zeros((2, 3, 42, 42), "float32")
    with pytest.raises(Exception, match=r"not compatible with expected shape \[\?,3,21,21\]"):
        classifier.predict(data, verbose=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m(np.zeros((2, 21, 21, 3), "float32")),
            r"normalised floats (batch, 3, 21, 21), as the image processor returns them: "
            r'AutoImageProcessor.from_pretrained(…)(images, return_tensors="tf"), found the shape '
            r"(2, 21, 21, 3). Write keras.ops.transpose(images, (0, 3, 1, 2)).",
        ),
        (
            lambda m: m(np.zeros((2, 3, 21, 21), "int32")),
            "found int32 of the shape (2, 3, 21, 21). Levels from 0 to 255 in uint8 have the shape "
            "(batch, 21, 21, 3).",
        ),
        (
            lambda m: m.fit(
                {"pixel_values": np.zeros((2, 21, 21, 3))}, np.array([0, 1]), verbose=0
            ),
            "found the shape (2, 21, 21, 3).",
        ),
        (lambda m: m(keras.Input((3, None, None))), "keras.Input((3, 21, 21))"),
        (lambda m: m({"input_ids": np.array([[2, 3]])}), "These are inputs of a model of texts."),
        (lambda m: m(["a cat"]), "found 'a cat'."),
        (lambda m: m(np.zeros((1, 3, 21, 21)), head_mask=np.ones(2)), "takes pixel_values and lab"),
    ],
)
def test_invalid_images(classifier, call, message):
    with quiet(), pytest.raises(ModelError, match=re.escape(message)):
        call(classifier)


def test_attentions_of_models_that_return_none():
    with pytest.raises(ModelError, match="output_attentions is not supported for swin models"):
        make("swin")(np.zeros((1, 3, 24, 24)), output_attentions=True)


def test_levels_as_floats_are_reported(classifier):
    with pytest.warns(UserWarning, match="values up to 255, but the image processor of this check"):
        classifier(np.full((1, 3, 21, 21), 255.0))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["image-classification", "image-feature-extraction"])
@pytest.mark.parametrize("family", OLD)
def test_all_outputs_are_those_of_pytorch(family, task, tmp_path):
    torch = pytest.importorskip("torch")
    from references import pytorch, pytorch_images

    config, size = pytorch_images.config_of(family, task, 3)
    theirs = pytorch_images.make_model(family, task, config, 3).eval()
    pytorch.save(theirs, config, tmp_path)
    pytorch_images.write_preprocessor(tmp_path, size)
    pixels = np.random.default_rng(0).normal(size=(2, 3, *size)).astype("float32")
    auto = "TFAutoModelForImageClassification" if "class" in task else "TFAutoModel"
    with quiet():
        model = getattr(compat, auto).from_pretrained(Path(tmp_path))
    wanted = {"output_hidden_states": True}
    if family in ("vit", "deit"):
        wanted["output_attentions"] = True
    with torch.no_grad():
        expected = theirs(torch.tensor(pixels), **wanted)
    found = model(pixels, **wanted)
    assert list(found) == list(expected)
    for name, value in found.items():
        both = zip(keras.tree.flatten(value), keras.tree.flatten(expected[name]), strict=True)
        for mine, other in both:
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-5, atol=1e-5)
