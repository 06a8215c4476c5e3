"""Tests of the models of transformers 4 that compare images with texts."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import harness
from conformance.harness import Case
from helpers_images import TINY_VIT
from helpers_models import write_checkpoint
from helpers_pairs import CAPTIONS, COLORS, pictures, write_clip

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

TASK = "image-text-retrieval"
CLASSES = {"clip": "TFCLIPModel", "vision-text-dual-encoder": "TFVisionTextDualEncoderModel"}
FIELDS = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
FIELDS += ["text_model_output", "vision_model_output"]


def normalized(model, pixels):
    """What the image processor of the model's class makes of levels (B, H, W, C)."""
    values = model.image_processor.values
    numbers = (pixels / 255.0 - values["image_mean"]) / np.array(values["image_std"])
    return np.moveaxis(numbers, 3, 1).astype("float32")


def inputs_of(model, case):
    """The inputs of PyTorch: normalised images with channels first."""
    return {**case.inputs, "pixel_values": normalized(model, case.inputs["pixel_values"])}


@pytest.fixture(scope="module")
def stored():
    return Case.stored(f"clip/{TASK}", TASK)


@pytest.fixture(scope="module")
def clip(stored):
    with quiet():
        return compat.TFCLIPModel.from_pretrained(stored.folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random CLIP with a tokenizer."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def test_the_classes_are_those_of_transformers_4():
    names = {"TFCLIPModel", "TFCLIPTextModel", "TFCLIPVisionModel", "TFVisionTextDualEncoderModel"}
    found = {n for n in compat.CLASSES if re.search("CLIP|Siglip|Dual", n)}
    assert found == names
    assert issubclass(compat.TFCLIPModel, compat.TFPreTrainedModel)
    with pytest.raises(ModelError, match="transformers 4 had no TensorFlow classes of siglip mod"):
        compat.TFAutoModel.from_config(compat.SiglipConfig())
    with pytest.raises(ModelError, match="vit models have no class for image-text-retrieval"):
        compat.TFAutoModelForZeroShotImageClassification.from_config(compat.ViTConfig())


@pytest.mark.parametrize("family", CLASSES)
def test_logits_and_loss_of_pytorch(family):
    case = Case.stored(f"{family}/{TASK}", TASK)
    with quiet():
        model = getattr(compat, CLASSES[family]).from_pretrained(case.folder)
    output = model(**inputs_of(model, case), return_loss=True)
    assert list(output) == ["loss", *FIELDS]
    harness.close(output.logits_per_image, case.expected["logits_per_image"])
    np.testing.assert_array_equal(output.logits_per_text, np.transpose(output.logits_per_image))
    assert output.loss.shape == (1,)
    np.testing.assert_allclose(output.loss, case.expected["losses"][:1], rtol=1e-5)
    rows = case.expected["logits"]
    harness.close(output.text_embeds, rows[:, 1])
    scaled = np.asarray(output.image_embeds) * np.exp(float(model.logit_scale))
    harness.close(scaled, rows[:, 0])
    assert list(output.text_model_output) == ["last_hidden_state", "pooler_output"]


@pytest.mark.slow
def test_all_call_signatures_are_equivalent(clip, stored):
    inputs = inputs_of(clip, stored)
    expected = clip(inputs)
    ids, pixels, mask = (inputs[n] for n in ("input_ids", "pixel_values", "attention_mask"))
    for output in (
        clip(ids, pixels, mask),
        clip([ids, pixels, mask]),
        clip(input_ids=ids, pixel_values=tf.constant(pixels), attention_mask=mask, training=False),
    ):
        np.testing.assert_allclose(output.logits_per_image, expected[0], atol=1e-6)
    as_tuple = clip(inputs, return_dict=False, return_loss=True)
    assert len(as_tuple) == 7
    np.testing.assert_array_equal(as_tuple[1], expected.logits_per_image)
    # Levels, as `Examples.batches` returns them, are accepted as well.
    levels = clip(stored.inputs).logits_per_image
    np.testing.assert_allclose(levels, expected.logits_per_image, atol=1e-6)
    harness.close(clip.call(inputs), stored.expected["logits"])
    harness.close(clip.call(stored.inputs), stored.expected["logits"])


def test_the_numbers_of_images_and_texts_may_differ(clip, stored):
    inputs = inputs_of(clip, stored)
    one = {**inputs, "pixel_values": inputs["pixel_values"][1:2]}
    output = clip(**one)
    assert output.logits_per_image.shape == (1, 4) and output.logits_per_text.shape == (4, 1)
    harness.close(output.logits_per_image, stored.expected["logits_per_image"][1:2])
    with pytest.raises(ModelError, match="a text for each image, found 1 images and 4 texts."):
        clip(**one, return_loss=True)


def test_features_before_they_are_normalised(clip, stored):
    inputs = inputs_of(clip, stored)
    output = clip(**inputs)
    texts = clip.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    images = clip.get_image_features(pixel_values=inputs["pixel_values"])
    for features, embeds in ((texts, output.text_embeds), (images, output.image_embeds)):
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(features / lengths, embeds, atol=1e-6)
    pooled = clip.vision_model(inputs["pixel_values"]).pooler_output
    np.testing.assert_array_equal(pooled, output.vision_model_output.pooler_output)
    np.testing.assert_allclose(clip.visual_projection(pooled), images, atol=1e-6)


@pytest.mark.slow
def test_a_tower_alone(clip, stored, tmp_path):
    inputs = inputs_of(clip, stored)
    both = clip(**inputs, output_hidden_states=True, output_attentions=True)
    with quiet():
        texts = compat.TFCLIPTextModel.from_pretrained(stored.folder)
        images = compat.TFCLIPVisionModel.from_pretrained(stored.folder)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    of_text = texts(ids, mask, output_hidden_states=True, output_attentions=True)
    of_image = images(inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    names = ["last_hidden_state", "pooler_output", "hidden_states", "attentions"]
    for alone, joint in ((of_text, "text_model_output"), (of_image, "vision_model_output")):
        assert list(alone) == names
        close_as_trees(alone, both[joint])
    assert [part.name for part in texts.layers] == ["text_model"]
    assert images.predict(inputs["pixel_values"], verbose=0).pooler_output.shape == (4, 8)

    with quiet():
        again = compat.TFCLIPTextModel.from_pretrained(texts.save_pretrained(tmp_path / "text"))
    np.testing.assert_array_equal(again(ids, mask)[0], texts(ids, mask)[0])
    hidden = keras.Input((8,), dtype="int32", name="input_ids")
    own = keras.Model(hidden, keras.layers.Dense(2)(texts(hidden).pooler_output))
    expected = own.layers[-1](texts(ids).pooler_output)
    np.testing.assert_allclose(own(ids), expected, atol=1e-6)


def test_models_from_configs():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 30, "eos_token_id": 7, "bos_token_id": 1, "pad_token_id": 0}
    image = {**sizes, "image_size": 12, "patch_size": 4}
    ids, pixels = np.array([[1, 5, 7], [1, 7, 0]]), np.zeros((1, 3, 12, 12), "float32")
    with quiet():
        texts = compat.TFCLIPTextModel(compat.CLIPTextConfig(**text))
        images = compat.TFCLIPVisionModel(compat.CLIPVisionConfig(**image))
        both = compat.TFCLIPModel(compat.CLIPConfig(text_config=text, vision_config=image))
    assert texts(ids).last_hidden_state.shape == (2, 3, 8)
    assert images(pixels).last_hidden_state.shape == (1, 10, 8)
    assert both(ids, pixels).logits_per_image.shape == (1, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of:UserWarning")  # the model is random
@pytest.mark.parametrize("eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_fit_on_pairs_without_labels(eagerly, folder, tmp_path):
    with quiet():
        model = compat.TFAutoModel.from_pretrained(folder)
    processor = compat.CLIPProcessor.from_pretrained(folder)
    inputs = processor(text=CAPTIONS, images=pictures(), return_tensors="tf", padding=True)
    data = tf.data.Dataset.from_tensor_slices(dict(inputs)).batch(3)
    with_flag = data.map(lambda rows: {**rows, "return_loss": True})
    before = float(model(**inputs, return_loss=True).loss[0])
    with quiet():
        model.compile(keras.optimizers.Adam(1e-2), run_eagerly=eagerly)
        history = model.fit(with_flag, epochs=12, verbose=0).history["loss"]
    assert history[0] == pytest.approx(before, rel=1e-5)
    assert history[-1] < before / 2
    after = float(model(**inputs, return_loss=True).loss[0])
    assert model.evaluate(data, verbose=0) == pytest.approx(after, rel=1e-5)
    predicted = model.predict(data, verbose=0)
    assert list(predicted) == FIELDS and list(predicted.text_model_output)
    logits = model(inputs).logits_per_image
    np.testing.assert_allclose(predicted.logits_per_image, logits, atol=1e-5)
    assert np.argmax(logits, -1).tolist() == [0, 1, 2]

    with quiet():  # what was trained by an old class is used by the rest of the library
        saved = model.save_pretrained(tmp_path / "saved")
        zero_shot = ft.load(
            saved, "zero-shot-image-classification", labels=COLORS, prompts="a {} picture"
        )
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    assert [each.label for each in ft.predict(zero_shot, image=pictures())] == list(COLORS)
    assert type(again) is type(model)
    np.testing.assert_array_equal(again(inputs).logits_per_image, logits)


@pytest.mark.slow
def test_batches_of_the_library(folder):
    with quiet():
        model = compat.TFCLIPModel.from_pretrained(folder)
        pairs = ft.data.from_arrays(CAPTIONS, image=pictures())
        batches = pairs.batches(model, batch_size=3)
        model.compile("sgd")
        found = model.evaluate(batches, verbose=0)
    (rows, _), *_ = batches
    assert found == pytest.approx(float(model(rows, return_loss=True).loss[0]), rel=1e-5)


def test_freezing_a_tower(folder):
    with quiet():
        model = compat.TFCLIPModel.from_pretrained(folder)
    assert [part.name for part in model.layers] == [
        *("vision_model", "text_model"),
        *("image_projection", "text_projection"),
    ]
    model.clip.vision_model.trainable = False
    kinds = {variable.path.partition("_")[0] for variable in model.trainable_variables}
    frozen = [v for v in model.weights if v.path.startswith("image_block")]
    assert frozen and not any(variable.trainable for variable in frozen)
    assert kinds == {"text", "image"}  # the projection and the scale of images are trained
    assert [layer.name for layer in model.clip.vision_model.layer] == ["image_block_0"]


@pytest.mark.parametrize("name", ["CLIPProcessor", "AutoProcessor"])
def test_processors_return_tensors(name, folder, tmp_path):
    processor = getattr(compat, name).from_pretrained(folder)
    assert type(processor).__name__ == "CLIPProcessor"
    texts, images = ["a red picture", "blue"], pictures()[:1]
    both = processor(text=texts, images=images, return_tensors="tf", padding=True)
    assert both["input_ids"].dtype == tf.int32 and both["pixel_values"].shape == (1, 3, 21, 21)
    only = processor(text=texts, padding=True, return_tensors="tf")
    np.testing.assert_array_equal(only["input_ids"], both["input_ids"])
    alone = processor.image_processor(images, return_tensors="tf")["pixel_values"]
    np.testing.assert_array_equal(alone, both["pixel_values"])
    assert processor.tokenizer(texts, padding=True, return_tensors="tf")["input_ids"].shape[0] == 2
    lists = processor(text=texts, images=images)
    assert isinstance(lists["input_ids"], list)
    processor.save_pretrained(tmp_path)
    again = compat.AutoProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(images=images)["pixel_values"][0], alone[0])


def test_auto_processors_of_one_kind_of_input(folder, tiny_bert):
    texts = compat.AutoProcessor.from_pretrained(tiny_bert)(["the film"], return_tensors="tf")
    assert texts["input_ids"].shape == (1, 4)
    images = compat.AutoProcessor.from_pretrained(TINY_VIT)(pictures(), return_tensors="tf")
    assert images["pixel_values"].shape == (3, 3, 21, 21)


@pytest.mark.slow
def test_a_dual_encoder_of_two_checkpoints(tmp_path):
    bert = write_checkpoint(tmp_path / "bert", ("a", "picture", *COLORS))
    with quiet():
        model = compat.TFVisionTextDualEncoderModel.from_vision_text_pretrained(
            TINY_VIT, bert, projection_dim=6, text_from_pt=True
        )
    assert all(variable.trainable for variable in model.trainable_variables)
    assert len(model.trainable_variables) == len(model.weights)
    images = compat.ViTImageProcessor.from_pretrained(TINY_VIT)
    tokenizer = compat.AutoTokenizer.from_pretrained(bert)
    processor = compat.VisionTextDualEncoderProcessor(images, tokenizer)
    inputs = processor(text=CAPTIONS, images=pictures(), return_tensors="tf", padding=True)
    output = model(**inputs)
    assert output.text_embeds.shape == (3, 6) and model.logit_scale.shape == ()
    text = model.text_model(inputs["input_ids"])
    with quiet():
        alone = compat.TFBertModel.from_pretrained(bert)
    np.testing.assert_allclose(text[0], alone(inputs["input_ids"])[0], atol=1e-6)
    with quiet():
        saved = model.save_pretrained(tmp_path / "saved")
        again = compat.TFVisionTextDualEncoderModel.from_pretrained(saved)
    np.testing.assert_array_equal(again(**inputs)[0], output[0])
    with pytest.raises(TypeError, match="takes no nonsense"):
        type(model).from_vision_text_pretrained(TINY_VIT, bert, nonsense=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m(input_ids=np.ones((1, 3), int)),
            "expects the inputs pixel_values and input_ids, found input_ids. Use Exam",
        ),
        (
            lambda m: m(np.ones((1, 3), int), np.zeros((1, 21, 21, 3), "float32")),
            "found the shape (1, 21, 21, 3). Write keras.ops.transpose(images, (0, 3, 1, 2)).",
        ),
        (
            lambda m: m(np.ones((1, 3), int), np.zeros((1, 3, 21, 21), int)),
            "Levels from 0 to 255 in uint8 have the shape (batch, 21, 21, 3).",
        ),
        (
            lambda m: m(np.full((1, 3), 99), np.zeros((1, 3, 21, 21), "float32")),
            "input_ids must be rows of the token embedding table, from 0 to 22, found 99.",
        ),
        (
            lambda m: m(np.ones((1, 3), int), np.zeros((1, 3, 30, 30), "float32")),
            "The images have 30 x 30 pixels, but the model reads 21 x 21.",
        ),
        (lambda m: m.get_text_features(position_ids=np.ones((1, 3))), "position_ids is not supp"),
    ],
)
def test_invalid_inputs(clip, call, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        call(clip)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("family", CLASSES)
def test_all_outputs_are_those_of_pytorch(family, seed, tmp_path):
    torch = pytest.importorskip("torch")
    from references import pytorch, pytorch_images, pytorch_towers

    config, size = pytorch_towers.config_of(family, seed)
    theirs = pytorch_towers.make_model(family, config, seed or 0)
    pytorch.save(theirs, config, tmp_path)
    pytorch_images.write_preprocessor(tmp_path, size)
    inputs = pytorch_towers.make_inputs(theirs.config, seed or 0, size)
    tensors = pytorch_towers.tensors_of(theirs, inputs)
    wanted = {"output_hidden_states": True, "output_attentions": True, "return_loss": True}
    with torch.no_grad():
        expected = theirs(**tensors, **wanted)
    with quiet():
        model = compat.TFAutoModel.from_pretrained(tmp_path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    found = model(**arrays, **wanted)
    np.testing.assert_allclose(found.loss[0], expected.loss.numpy(), rtol=1e-5, atol=1e-5)
    for name in FIELDS[:4]:
        close_as_trees(found[name], expected[name])
    del wanted["return_loss"]
    for kind, names in (("Text", ["input_ids", "attention_mask"]), ("Vision", ["pixel_values"])):
        # The pooled vectors that CLIP returns in transformers 5 are projected, unlike those of 4.
        with torch.no_grad():
            tower = getattr(theirs, f"{kind.lower()}_model")
            expected = tower(**{name: tensors[name] for name in names}, **wanted)
        close_as_trees(found[f"{kind.lower()}_model_output"], expected)
        if family == "clip":
            with quiet():
                alone = getattr(compat, f"TFCLIP{kind}Model").from_pretrained(tmp_path)
            close_as_trees(alone({n: arrays[n] for n in names}, **wanted), expected)


def close_as_trees(found, expected):
    """Checks the arrays of an output, in which outputs may be nested."""
    if hasattr(found, "keys"):
        assert set(found) == set(expected.keys()) - {"cross_attentions"}
        for name in found:
            close_as_trees(found[name], expected[name])
    elif isinstance(found, tuple):
        for one, other in zip(found, expected, strict=True):
            close_as_trees(one, other)
    else:
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)
