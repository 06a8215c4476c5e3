"""The task: texts to token ids, labels to targets, logits to probabilities."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from finetune_tf import Labels
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.data.places import Places
from finetune_tf.errors import DataError, ModelError
from finetune_tf.tasks import TASKS, get_task

MOODS = Labels(["bad", "good"])
TOPICS = Labels(["plot", "cast", "sound"], "multi_label_classification")
STARS = Labels(["stars"])


def task(labels=MOODS):
    return get_task("text-classification", labels)


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return load_tokenizer(tiny_bert)


def examples(**columns):
    rows = len(next(iter(columns.values())))
    return SimpleNamespace(columns=columns, name="films.csv", places=Places(range(rows)))


def targets(values, labels):
    return task(labels).targets(examples(label=values))


class TestEncode:
    TEXTS = ("the film was good", "dull", "A GREAT story, unheard of")

    def test_is_what_the_tokenizer_gives(self, tokenizer):
        encoded = task().encode(examples(text=list(self.TEXTS)), tokenizer, 32)
        for i, text in enumerate(self.TEXTS):
            expected = tokenizer(text)
            assert encoded.inputs["input_ids"][i].tolist() == expected["input_ids"]
            assert encoded.inputs["token_type_ids"][i].tolist() == expected["token_type_ids"]
        assert encoded.inputs["input_ids"][0].dtype == "int32"
        assert encoded.targets is None
        assert encoded.truncated == 0
        paddings = {name: feature.padding for name, feature in encoded.inputs.items()}
        assert paddings == {"input_ids": tokenizer.pad_token_id, "token_type_ids": 0}

    def test_a_pair_has_two_token_types(self, tokenizer):
        pair = examples(text=["the film was good"], text_pair=["a great story"])
        encoded = task().encode(pair, tokenizer, 32)
        expected = tokenizer("the film was good", "a great story")
        assert encoded.inputs["input_ids"][0].tolist() == expected["input_ids"]
        assert encoded.inputs["token_type_ids"][0].tolist() == [0] * 6 + [1] * 4

    def test_long_texts_lose_their_end_and_are_counted(self, tokenizer):
        texts = ["good", "good " * 20, "the film was good"]
        encoded = task().encode(examples(text=texts), tokenizer, 6)
        assert [len(row) for row in encoded.inputs["input_ids"]] == [3, 6, 6]
        assert encoded.truncated == 1
        good, end = tokenizer.convert_tokens_to_ids(["good", "[SEP]"])
        assert encoded.inputs["input_ids"][1].tolist()[1:] == [good] * 4 + [end]

    def test_of_a_long_pair_the_longer_text_is_cut(self, tokenizer):
        pair = examples(text=["good " * 10], text_pair=["dull story"])
        encoded = task().encode(pair, tokenizer, 8)
        assert encoded.inputs["token_type_ids"][0].tolist() == [0] * 5 + [1] * 3
        assert encoded.truncated == 1

    def test_labels_become_targets_in_the_order_of_the_model(self, tokenizer):
        labelled = examples(text=["dull", "great"], label=["bad", "good"])
        assert task().encode(labelled, tokenizer, 8).targets.rows.tolist() == [0, 1]
        turned = Labels(["good", "bad"])
        assert task(turned).encode(labelled, tokenizer, 8).targets.rows.tolist() == [1, 0]


class TestTargets:
    def test_names(self):
        found = targets(["good", "bad", "good"], MOODS)
        assert found.tolist() == [1, 0, 1]
        assert found.dtype == "int32"

    def test_class_numbers(self):
        assert targets([1, 0, np.int64(1), "1"], MOODS).tolist() == [1, 0, 1, 1]

    def test_names_that_are_numbers_are_names(self):
        assert targets([3, "1", 2], Labels(["1", "2", "3"])).tolist() == [2, 0, 1]
        with pytest.raises(DataError, match="has the label 0, which is none of the model's 3"):
            targets([0], Labels(["1", "2", "3"]))

    def test_several_labels(self):
        found = targets([["plot", "sound"], [], ("cast",), [1]], TOPICS)
        assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]]
        assert found.dtype == "float32"

    def test_numbers(self):
        found = targets([1, 2.5, "3", np.float64(4)], STARS)
        assert found.tolist() == [1, 2.5, 3, 4]
        assert found.dtype == "float32"


class TestWrongLabels:
    def test_an_unknown_name(self):
        message = (
            "Row 1 of films.csv has the label 'so-so', which is none of the model's 2 labels: "
            "bad, good. A class without training examples can be neither learned nor measured "
            "('so-so'): add training examples of it and include it in labels=[…], or leave such "
            "rows out."
        )
        with pytest.raises(DataError, match=re.escape(message)):
            targets(["good", "so-so"], MOODS)

    @pytest.mark.parametrize("value", [2, -1, None, 0.5, "Good", "²"])
    def test_what_is_no_class(self, value):
        with pytest.raises(DataError, match="which is none of the model's 2 labels"):
            targets([value], MOODS)

    @pytest.mark.parametrize("value", ["plot", 1, None])
    def test_one_label_where_a_list_is_meant(self, value):
        message = (
            f"Row 0 of films.csv has the label {value!r}; a model of several labels "
            "expects a list of label names."
        )
        with pytest.raises(DataError, match=re.escape(message)):
            targets([value], TOPICS)

    def test_an_unknown_name_in_a_list(self):
        with pytest.raises(DataError, match="has the label 'price', which is none"):
            targets([["plot", "price"]], TOPICS)

    @pytest.mark.parametrize("value", ["many", None, float("nan"), float("inf"), [1, 2]])
    def test_no_number(self, value):
        message = f"Row 0 of films.csv has the score {value!r}; a regression expects a number."
        with pytest.raises(DataError, match=re.escape(message)):
            targets([value], STARS)


class TestProbabilities:
    def test_one_of_several(self):
        found = task().probabilities(np.array([[0.0, np.log(3)], [1000.0, -1000.0]]))
        np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0]])

    def test_several(self):
        found = task(TOPICS).probabilities(np.array([[0.0, np.log(3), -np.log(3)]]))
        np.testing.assert_allclose(found, [[0.5, 0.75, 0.25]])

    def test_very_sure_of_several(self):
        found = task(TOPICS).probabilities(np.array([[-1000.0, 1000.0, 0.0]]))
        np.testing.assert_allclose(found, [[0, 1, 0.5]])

    def test_a_number_stays(self):
        np.testing.assert_array_equal(task(STARS).probabilities(np.array([[3.5], [-1]])), [3.5, -1])


def test_unknown_task():
    assert next(iter(TASKS)) == "text-classification"
    with pytest.raises(ModelError, match="There is no task 'sentiment'; known are: text-class"):
        get_task("sentiment")
