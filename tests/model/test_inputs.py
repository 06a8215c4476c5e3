"""Valid inputs of a model, and errors for invalid inputs in all methods."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_models import small_model

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError, ModelError


@pytest.fixture(scope="module")
def bert(tiny_bert):
    keras.utils.set_random_seed(0)
    return ft.load(tiny_bert, labels=["no", "yes"])


@pytest.fixture(scope="module")
def encoded(bert):
    """Two texts of the same length, encoded by the tokenizer."""
    return dict(bert.tokenizer(["the film was good", "a dull long story"], return_tensors="np"))


METHODS = {
    "call": lambda model, inputs: model(inputs),
    "predict": lambda model, inputs: model.predict(inputs, verbose=0),
    "fit": lambda model, inputs: model.fit(inputs, np.zeros(2), verbose=0),
    "stateless": lambda model, inputs: model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, inputs
    ),
}


class TestLeftOut:
    def test_input_ids_alone(self, bert, encoded):
        np.testing.assert_array_equal(bert({"input_ids": encoded["input_ids"]}), bert(encoded))

    def test_an_array_instead_of_a_dict(self, bert, encoded):
        np.testing.assert_array_equal(bert(encoded["input_ids"]), bert(encoded))

    def test_none_is_left_out(self, bert, encoded):
        np.testing.assert_array_equal(bert(encoded | {"token_type_ids": None}), bert(encoded))

    def test_the_output_of_the_tokenizer_itself(self, bert, encoded):
        texts = ["the film was good", "a dull long story"]
        batch = bert.tokenizer(texts, return_tensors="np")
        np.testing.assert_array_equal(bert(batch), bert(encoded))

    def test_token_types_and_mask_count(self, bert, encoded):
        other = encoded | {"token_type_ids": np.ones_like(encoded["input_ids"])}
        assert np.abs(np.asarray(bert(other)) - bert(encoded)).max() > 1e-3
        mask = np.ones_like(encoded["input_ids"])
        mask[:, 3:] = 0
        assert (
            np.abs(np.asarray(bert(encoded | {"attention_mask": mask})) - bert(encoded)).max() > 0
        )

    def test_what_is_masked_does_not_count(self, bert, encoded):
        longer = {name: np.pad(array, ((0, 0), (0, 5))) for name, array in encoded.items()}
        np.testing.assert_allclose(bert(longer), bert(encoded), atol=1e-6)

    def test_dtypes_and_containers_do_not_matter(self, bert, encoded):
        expected = np.asarray(bert(encoded))
        wide = {name: array.astype("int64") for name, array in encoded.items()}
        np.testing.assert_array_equal(bert(wide), expected)
        tensors = {name: keras.ops.convert_to_tensor(array) for name, array in wide.items()}
        np.testing.assert_array_equal(bert(tensors), expected)
        np.testing.assert_array_equal(bert(tensors | {"attention_mask": None}), expected)

    @pytest.mark.parametrize("method", ["predict", "stateless"])
    def test_other_methods(self, bert, encoded, method):
        result = METHODS[method](bert, {"input_ids": encoded["input_ids"]})
        logits = result[0] if method == "stateless" else result
        np.testing.assert_allclose(logits, bert(encoded), atol=1e-6)

    def test_order_of_a_dict_does_not_matter(self, bert, encoded):
        turned = dict(reversed(encoded.items()))
        np.testing.assert_allclose(
            bert.predict(turned, verbose=0), bert.predict(encoded, verbose=0), atol=1e-7
        )


def test_what_tokenizers_add_is_dropped(bert, encoded):
    texts = ["the film was good", "a dull long story"]
    more = bert.tokenizer(
        texts,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        return_length=True,
        return_tensors="np",
    )
    assert {"special_tokens_mask", "offset_mapping", "length"} < set(more)
    np.testing.assert_array_equal(bert(more), bert(encoded))


class TestRefused:
    @pytest.mark.parametrize("method", METHODS)
    def test_an_unknown_input_is_named(self, method):
        inputs = {"input_ids": np.zeros((2, 4), "int32"), "input_mask": np.ones((2, 4), "int32")}
        message = (
            "The model expects the inputs input_ids, token_type_ids, attention_mask (only "
            "input_ids is required), found input_ids, input_mask; unknown: input_mask."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            METHODS[method](small_model(), inputs)

    @pytest.mark.parametrize("method", METHODS)
    def test_without_input_ids(self, method):
        message = "(only input_ids is required), found attention_mask."
        with pytest.raises(ModelError, match=re.escape(message)):
            METHODS[method](small_model(), {"attention_mask": np.ones((2, 4), "int32")})

    def test_nothing(self, bert):
        with pytest.raises(ModelError, match=re.escape("(only input_ids is required), found none")):
            bert({})

    @pytest.mark.parametrize("inputs", [["a good film"], [[1, 2, 3]], ("a", "b")])
    def test_a_list_is_told_about_predict(self, bert, inputs):
        message = (
            "The model expects input_ids (batch, length) or a dict of inputs, found a "
            f"{type(inputs).__name__}. For plain texts use ft.predict(model, texts)."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            bert(inputs)

    def test_a_list_of_arrays_is_told_about_names(self, bert, encoded):
        message = (
            "The model expects its inputs by name, found a list of tensors. Write "
            "model({'input_ids': ids"
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            bert([encoded["input_ids"], encoded["attention_mask"]])

    @pytest.mark.parametrize("text", ["a good film", np.array(["a good film"])])
    def test_a_text_is_told_about_predict(self, bert, text):
        with pytest.raises(ModelError, match=re.escape("For plain texts use ft.predict")):
            bert(text)

    def test_examples_are_told_about_batches(self, bert):
        texts = ft.data.from_arrays(["good", "bad"], ["yes", "no"], name="films")
        message = (
            "fit expects batches, found <Examples films: 2 rows of text, label; labels no 1, yes "
            "1>. Encode the texts: train.batches(model, batch_size=32, shuffle=True)."
        )
        with pytest.raises(DataTypeError, match=re.escape(message)):
            bert.fit(texts)
        with pytest.raises(DataTypeError, match=re.escape("texts: validation.batches(model, ")):
            bert.fit(np.zeros((2, 4), "int32"), np.zeros(2), validation_data=texts)

    @pytest.mark.parametrize("texts", [["good", "bad"], np.array(["good", "bad"])])
    def test_texts_are_told_about_examples(self, bert, texts):
        message = "found texts. Encode them: train = ft.data.from_arrays(texts, labels), then fit("
        with pytest.raises(DataTypeError, match=re.escape(message)):
            bert.fit(texts, np.zeros(2))

    @pytest.mark.parametrize("label", [2, -1])
    def test_a_label_beyond_the_outputs(self, label):
        message = (
            f"A label is {label}, but the model has 2 outputs, for the class numbers 0 to 1. "
            "Correct the data, or load the model with as many labels as the data have: "
            "ft.load(…, labels=train.labels)."
        )
        arrays = np.zeros((2, 4), "int32"), np.array([0, label])
        with pytest.raises(DataError, match=re.escape(message)):
            small_model().fit(*arrays, verbose=0)
        batches = tf.data.Dataset.from_tensors(arrays)  # whose values are known in the step only
        with pytest.raises(DataError, match=re.escape(message)) as raised:
            small_model().fit(batches, verbose=0)
        assert raised.value.__suppress_context__  # Keras's own error has a hundred lines

    @pytest.mark.parametrize("method", METHODS)
    def test_more_tokens_than_positions(self, method):
        message = (
            "The texts have 33 tokens, but the model has positions for 32. Truncate them: use "
            "Examples.batches(model) or tokenizer(…, truncation=True)."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            METHODS[method](small_model(), np.zeros((2, 33), "int32"))

    def test_as_many_tokens_as_positions_are_fine(self, bert):
        assert bert(np.zeros((1, 32), "int32")).shape == (1, 2)


class TestInsideAnotherModel:
    def test_symbolic_call(self, bert):
        ids = keras.Input((None,), dtype="int32")
        logits = bert({"input_ids": ids})
        assert logits.shape == (None, 2)
        assert logits.dtype == "float32"
        with pytest.raises(ModelError, match="unknown: mask"):
            bert({"input_ids": ids, "mask": ids})
        with pytest.raises(ModelError, match="positions for 32"):
            bert(keras.Input((40,), dtype="int32"))

    def test_as_a_layer(self, bert, encoded):
        ids = keras.Input((None,), dtype="int32", name="ids")
        mask = keras.Input((None,), dtype="int32", name="mask")
        logits = bert({"input_ids": ids, "attention_mask": mask})
        outer = keras.Model([ids, mask], keras.layers.Softmax()(logits))
        probabilities = outer.predict([encoded["input_ids"], encoded["attention_mask"]], verbose=0)
        expected = keras.ops.softmax(bert(encoded))
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    def test_cut_in_two_at_a_stage(self, bert, encoded):
        """Feature extraction: the layers up to a block form a model."""
        trunk = keras.Model(bert.inputs, bert.get_layer("block_0").output)
        inputs = {name: encoded[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
        assert trunk.predict(inputs, verbose=0).shape == (2, encoded["input_ids"].shape[1], 24)


def test_summary_lists_the_stages(bert, capsys):
    bert.summary(line_length=90)
    shown = capsys.readouterr().out
    for name in ("embeddings", "block_0", "block_1", "pooler", "classifier"):
        assert name in shown
    assert "Total params: 10,218" in shown


@pytest.mark.slow
def test_export_gives_the_same_logits(bert, encoded, tmp_path):
    tf = pytest.importorskip("tensorflow")
    bert.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    inputs = {name: tf.constant(array, tf.int32) for name, array in encoded.items()}
    np.testing.assert_allclose(served.serve(inputs)["logits"], bert(encoded), atol=1e-6)
