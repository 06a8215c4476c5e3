"""Models of images and texts are restored completely, from `.keras` files and from folders."""

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_models import write_checkpoint
from helpers_pairs import CAPTIONS, COLORS, fused, pictures, write_clip

import finetune_tf as ft
from finetune_tf.messages import quiet
from finetune_tf.model import saving

RESNET = TINY_VIT.parents[1] / "resnet" / "image-classification"
RETRIEVAL, ZERO_SHOT = "image-text-retrieval", "zero-shot-image-classification"
PROMPTS = ["a {} picture", "something {}"]
TEXTS = ["the film was good", "bad", "a very long story"]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def frozen(model):
    return [variable.path for variable in model.weights if not variable.trainable]


def inputs_of(model, texts=TEXTS):
    pixels = np.stack([model.image_processor(picture) for picture in pictures()])
    return {**model.tokenizer(texts, padding=True, return_tensors="np"), "pixel_values": pixels}


def reloaded(model, kind, folder):
    """The model after it was saved, as a `.keras` file or as a folder of Hugging Face."""
    with quiet():
        if kind == "folder":
            return ft.load(model.save_pretrained(folder / "saved"))
        model.save(folder / "model.keras")
        return keras.models.load_model(folder / "model.keras")


def check_restored(model, again, texts=TEXTS):
    assert type(again) is type(model) and again.task.name == model.task.name
    assert again.labels == model.labels
    assert again.info.image_processor == model.info.image_processor
    assert again.max_length == model.max_length
    assert [(s.name, s.role) for s in again.stages] == [(s.name, s.role) for s in model.stages]
    inputs = inputs_of(model, texts)
    assert {n: v.tolist() for n, v in inputs_of(again, texts).items()} == {
        n: v.tolist() for n, v in inputs.items()
    }
    np.testing.assert_array_equal(again(inputs), model(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "folder"])
def test_a_zero_shot_classifier(kind, clip, tmp_path):
    with quiet():
        model = ft.load(clip, ZERO_SHOT, labels=COLORS, prompts=PROMPTS)
        ft.freeze(model, ft.select.chain("text"))
    again = reloaded(model, kind, tmp_path)
    check_restored(model, again, CAPTIONS)
    assert again.task.prompts == tuple(PROMPTS) and tuple(again.labels) == COLORS
    if kind == "keras":
        assert frozen(again) == frozen(model) != []
    with quiet():
        predictions = [ft.predict(each, image=pictures()) for each in (model, again)]
    assert predictions[0] == predictions[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "folder"])
def test_a_model_for_retrieval(kind, clip, tmp_path):
    with quiet():
        model = ft.load(clip, RETRIEVAL)
        ft.train_only(model, ft.select.blocks(-1, chain="image") | ft.select.head())
    again = reloaded(model, kind, tmp_path)
    check_restored(model, again, CAPTIONS)
    if kind == "keras":
        assert frozen(again) == frozen(model) != []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "folder"])
@pytest.mark.parametrize(
    ("labels", "how", "images"),
    [
        (["yes", "no"], "concatenation", TINY_VIT),
        slow(["yes", "no"], "gate", TINY_VIT),
        slow(["yes", "no"], "cross_attention", TINY_VIT),
        slow(["yes", "no"], "cross_attention", RESNET),
        slow(["grade"], "concatenation", RESNET),
        (None, "concatenation", RESNET),
        slow(None, "concatenation", TINY_VIT),
    ],
)
def test_a_model_that_was_joined(kind, labels, how, images, tmp_path):
    with quiet():
        image_model = ft.load(images, "image-feature-extraction")
        model = fused(tmp_path / "bert", labels, image_model, how=how)
    assert model.info.head_layers and frozen(model)
    again = reloaded(model, kind, tmp_path)
    check_restored(model, again)
    assert again.config["text_pooling"] == model.config["text_pooling"] == "mean"
    if kind == "keras":
        assert frozen(again) == frozen(model)
    # The head that was never trained is known to be so.
    assert set(again.info.head_layers) == set(model.info.head_layers)


@pytest.mark.slow
def test_the_maximum_length_and_new_tokens_of_the_texts(tmp_path):
    """The texts of a model of sentence-transformers may be shorter than its tokenizer says."""
    with quiet():
        texts = ft.load(write_checkpoint(tmp_path / "bert"), "feature-extraction")
        texts.info.max_length = 5
        texts.tokenizer.add_tokens(["covid"])
        texts.resize_token_embeddings(len(texts.tokenizer))
        model = ft.fuse(ft.load(TINY_VIT, "image-feature-extraction"), texts, ["yes", "no"])
        again = ft.load(model.save_pretrained(tmp_path / "saved"))
    assert again.max_length == model.max_length == 5 < texts.tokenizer.model_max_length
    check_restored(model, again, ["covid film", "bad", "good"])
    assert len(again.tokenizer) == again.config["text_config"]["vocab_size"]
    with quiet():
        found = [ft.predict(each, [*TEXTS[2:]], image=pictures()[:1]) for each in (model, again)]
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["pooler", "mean"])
@pytest.mark.parametrize("labels", [None, ["yes", "no"]])
@pytest.mark.parametrize("pooler_output_size", [12, 7])  # PyTorch projects vectors of 12 features
def test_pytorch_opens_what_the_message_says(pooling, labels, pooler_output_size, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers
    from references import pytorch_towers

    with quiet():
        config = {"pooler_output_size": pooler_output_size}
        images = ft.load(TINY_VIT, "image-feature-extraction", config=config)
        texts = ft.load(write_checkpoint(tmp_path / "bert"), "feature-extraction", pooling=pooling)
        model = ft.fuse(images, texts, labels, size=8)
        folder = model.save_pretrained(tmp_path / "saved")
    is_there = pooling == "pooler" and labels is None and pooler_output_size == 12
    class_name = "transformers.VisionTextDualEncoderModel" if is_there else "finetune_tf.load"
    assert saving.opens_in(model) == class_name
    if not is_there:
        return
    theirs = transformers.VisionTextDualEncoderModel.from_pretrained(folder).eval()
    inputs = inputs_of(model)
    tensors = pytorch_towers.tensors_of(theirs, inputs)
    with torch.no_grad():
        expected = theirs(**tensors).logits_per_image
    rows = np.asarray(model(inputs))
    np.testing.assert_allclose(rows[:, 0] @ rows[:, 1].T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of:UserWarning")  # the models are random
@pytest.mark.parametrize("labels", [["yes", "no"], slow(None)])
def test_a_fit_goes_on_after_saving(labels, tmp_path):
    model = fused(tmp_path / "bert", labels)
    data = ft.data.from_arrays(TEXTS, labels and ["yes", "no", "yes"], image=pictures())
    with quiet():
        model.compile(ft.training.AdamW(1e-2), run_eagerly=True)
        batches = data.batches(model, batch_size=3)
        model.fit(batches, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        losses = [each.evaluate(batches, verbose=0) for each in (model, again)]
        again.fit(batches, verbose=0)
        saved = model.save_pretrained(tmp_path / "saved")
        plain = ft.load(saved)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) + 1 == 2
    np.testing.assert_array_equal(plain(inputs_of(model)), model(inputs_of(model)))
    assert not plain.info.initial_weights


@pytest.mark.slow
def test_a_joined_model_opens_with_another_task(tmp_path):
    """The towers of a classifier are those of any other model, whose head is new."""
    model = fused(tmp_path / "bert", ["yes", "no"])
    with quiet():
        folder = model.save_pretrained(tmp_path / "saved")
        other = ft.load(folder, labels=["a", "b", "c"], new_head=True)
        tower = ft.load(folder, "feature-extraction")
    towers = {v.path: v for v in model.weights if v.path.startswith(("image_", "text_"))}
    for variable in other.weights:
        if variable.path in towers and "seed_generator" not in variable.path:
            np.testing.assert_array_equal(variable, towers[variable.path])
    assert tuple(other.labels) == ("a", "b", "c")
    assert tower(inputs_of(model)["input_ids"]).shape[0] == 3
