"""What cannot be explained says so, and what to do."""

import keras
import pytest
from helpers_explanations import knowing_model
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.messages import quiet


@pytest.fixture(scope="module")
def model(tiny_bert):
    return knowing_model(tiny_bert)


def message(error, *args, call=ft.explain, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    return str(caught.value)


def test_a_method_that_does_not_exist(model):
    text = message(ModelError, model, "good", method="integrated_gradient")
    assert text == (
        "method= is one of integrated-gradients, gradient-x-input, occlusion, attention-rollout, "
        "grad-cam, nearest; found 'integrated_gradient'. Did you mean 'integrated-gradients'?"
    )
    assert message(ModelError, model, "good", method="GradCAM").endswith("mean 'grad-cam'?")
    assert message(ModelError, model, "good", method="saliency").endswith("'gradient-x-input'?")
    assert message(ModelError, model, "good", method=None).endswith("found None.")


def test_a_target_that_is_no_label(model):
    assert message(ArgumentError, model, "good", target="possitive") == (
        "target= is a label of the model, one of neg, pos; found 'possitive'."
    )
    assert message(ArgumentError, model, "good", target="poss").endswith(" Did you mean 'pos'?")
    assert message(ArgumentError, model, ["good", "bad"], target=["pos"]) == (
        "A list of targets has one for each input: expected 2, found 1."
    )


def test_a_target_of_a_regression(tiny_bert):
    number = small_task_model("number", tiny_bert)
    assert message(ArgumentError, number, "good", target="stars") == (
        "A regression has one output, 'stars', which is what is explained; leave target='stars' "
        "out."
    )
    examples = ft.data.from_arrays(["a good film"])
    check = ft.explanations.check
    assert "A regression predicts no probability" in message(
        ModelError, number, examples, call=check
    )


def test_words_and_labels_that_the_text_does_not_have(tiny_bert):
    tagger = small_task_model("tokens", tiny_bert)
    text = "a good film was good"
    assert message(ArgumentError, tagger, text, target="story") == (
        "target= for token-classification is a word of the text, a label, or (word, label); "
        "'story' is none of the words a, good, film, was, good, and none of the labels O, B-X, I-X."
    )
    assert message(ArgumentError, tagger, text, target=("good", "B-X")) == (
        "The word 'good' occurs 2 times. Name it by its number, one of 1, 4: target=(1, label)."
    )
    assert "names the word 7, which is none of those" in message(
        ArgumentError, tagger, text, target=(7, "B-X")
    )
    assert message(ArgumentError, tagger, text, target=("film", "B-Y")).endswith("mean 'B-X'?")


def test_an_answer_that_is_not_in_the_context(tiny_bert):
    reader = small_task_model("answers", tiny_bert)
    asked = {"question": "a film", "context": "a very good film"}
    assert message(ArgumentError, reader, **asked, target="dull") == (
        'target= is "start" or "end" of the predicted answer, or an answer that stands in the '
        "context as it is written; found 'dull'."
    )


def test_tasks_without_labels(tiny_bert):
    vectors = small_task_model("vectors", tiny_bert)
    text = message(ModelError, vectors, "good")
    assert text.startswith("A model for feature-extraction has no label or answer to explain.")
    assert "text-classification, " in text and "question-answering" in text
    assert "video-classification" not in text


def test_models_without_a_task():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert message(ModelError, plain, "good").startswith(
        "Expected a model with a task and labels, as returned by ft.load, found Sequential."
    )
    assert message(ModelError, "bert", "good").startswith("Expected a Keras model")


def test_a_model_without_stages_of_embeddings(model, tiny_bert):
    from finetune_tf import FineTuneModel

    ids = keras.Input((None,), dtype="int32", name="input_ids")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    hidden = keras.layers.Lambda(lambda x: keras.ops.cast(x, "float32")[..., None])(ids)
    logits = keras.layers.Dense(2, name="dense")(
        keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(4, name="first")(hidden))
    )
    other = FineTuneModel(inputs={"input_ids": ids, "attention_mask": mask}, outputs=logits)
    other.info = model.info
    assert message(ModelError, other, "good").startswith(
        "Explanations cut a model above its embeddings, but it has no stage of embeddings; its "
        "stages are first (block)"
    )


def test_cached_features(model):
    ft.train_only(model, ft.select.head())
    learner = ft.cache_features(model)
    assert message(ModelError, learner, "good") == (
        "This is the upper part of a model, which reads cached features and no words. Explain the "
        "whole model, which has the same weights: ft.explain(learner.whole, …)."
    )
    ft.train_only(model, ft.select.everything())
    assert ft.explain(learner.whole, "good").prediction == "pos"


def test_inputs_that_do_not_fit(model):
    assert "empty" in message(DataError, model, "")
    assert "empty" in message(DataError, model, ["good", "  "])
    assert message(DataError, model, ["good"], text_pair="bad").startswith(
        "text and text_pair belong together"
    )
    assert message(DataError, model, image="photo.jpg").startswith(
        "explain takes the same inputs as predict. predict for text-classification takes texts and"
    )
    assert message(DataError, model, question="good", context="film").startswith("explain takes")
    message(DataTypeError, model, [3, 4])


def test_options_of_other_methods(model):
    assert message(ArgumentError, model, "good", method="occlusion", steps=10) == (
        "steps= is an option of integrated-gradients, and not of occlusion. Leave it out, or "
        "choose another method."
    )
    assert "stage= is an option of grad-cam" in message(ArgumentError, model, "good", stage="x")
    assert message(ArgumentError, model, "good", baseline="black") == (
        "baseline= is one of 'padding', 'mask', 'zeros'; found 'black'."
    )
    assert message(DataTypeError, model, "good", method="nearest") == (
        "method='nearest' finds the nearest training examples: pass them as examples=train; found "
        "None."
    )
    assert "Did you mean steps=" in message(ArgumentError, model, "good", n_steps=10)


def test_methods_that_the_model_does_not_allow(model):
    assert message(ModelError, model, "good", method="grad-cam") == (
        "Grad-CAM needs a convolutional network, whose stages compute maps (rows, columns, "
        "channels) of a picture; small reads texts. Use method='integrated-gradients'."
    )
    assert message(ModelError, model, "good", method="attention-rollout") == (
        "Attention rollout needs one encoder whose blocks all attend to the same tokens; small "
        "has no blocks with attention among all tokens. Use method='integrated-gradients'."
    )


def test_encoders_with_decoders(tiny_t5):
    with quiet():
        translator = ft.load(tiny_t5, "text2text-generation")
    assert "has no label or answer to explain" in message(ModelError, translator, "good")


def test_checks(model):
    check, examples = ft.explanations.check, ft.data.from_arrays(["a good film", "dull"])
    assert message(DataTypeError, model, ["good"], call=check).startswith("examples= must be Exam")
    assert message(ArgumentError, model, examples, call=check, shares=(0.5, 1)) == (
        "shares= are numbers above 0 and below 1, found 1."
    )
    assert message(ModelError, model, examples, "nearest", call=check) == (
        "Nearest training examples give no scores of words, so there is nothing to check."
    )
    one = ft.data.from_arrays(["good"])
    assert "no example with two words or more" in message(DataError, model, one, call=check)


def test_options_of_a_check_that_would_have_no_effect(model):
    examples = ft.data.from_arrays(["a good film"])
    check = ft.explanations.check
    with pytest.raises(
        ArgumentError, match="baseline= is one of 'padding', 'mask', 'zeros'; found"
    ):
        check(model, examples, baseline="zero")
    with pytest.raises(ArgumentError, match="steps= is an option of integrated-gradients, and not"):
        check(model, examples, method="occlusion", steps=200)
    with pytest.raises(ArgumentError, match="shares= needs at least one share"):
        check(model, examples, shares=())
    with pytest.raises(ArgumentError, match="patch=7 is for pictures, and this model reads texts"):
        check(model, examples, patch=7)
    with pytest.raises(ArgumentError, match="patch=7 is for pictures, and this model reads texts"):
        ft.explain(model, "a good film", patch=7)
