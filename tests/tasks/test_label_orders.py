"""Class numbers of examples are those of their own labels, in whatever order a model has them."""

import numpy as np
import pytest
from helpers_models import small_model
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.messages import quiet

TEXTS = ["a good film", "a bad film", "a great story", "a poor story"]
NAMES = ["good", "bad", "good", "bad"]
#: The same labels as numbers, which have names in another order.
NUMBERED = ft.data.from_arrays(TEXTS, [0, 1, 0, 1], labels=["good", "bad"], name="numbered")
NAMED = ft.data.from_arrays(TEXTS, NAMES, name="named")  # bad, good


def targets(examples, model):
    return model.task.targets(examples).tolist()


def test_numbers_and_names_are_the_same_targets(tiny_bert):
    model = small_model(("bad", "good"), tiny_bert)
    assert targets(NUMBERED, model) == targets(NAMED, model) == [1, 0, 1, 0]
    with quiet():
        assert ft.evaluate(model, NUMBERED).metrics == ft.evaluate(model, NAMED).metrics
        assert ft.evaluate(model, NUMBERED, train=NAMED).contradictions == 0
        ft.fewshot.fit_head(model, NUMBERED, C=100.0)
        assert [each.label for each in ft.predict(model, NAMED)] == NAMES


def test_several_labels_and_tags(tiny_bert):
    several = small_task_model("several labels", tiny_bert)  # a, b, c
    labels = ft.Labels(["c", "a", "b"], "multi_label_classification")
    examples = ft.data.from_arrays(TEXTS[:2], [[0], [1, 2]], labels=labels)
    np.testing.assert_array_equal(several.task.targets(examples), [[0, 0, 1], [1, 1, 0]])
    words = small_task_model("tokens", tiny_bert)  # O, B-X, I-X
    labels = ft.Labels(["B-X", "I-X", "O"])
    examples = ft.data.Examples({"tokens": [["good", "film"]], "tags": [[0, 2]]}, labels, "words")
    assert words.task.targets(examples) == [["B-X", "O"]]


def test_numbers_stay_numbers_where_one_side_has_no_names(tiny_bert):
    plain = ft.data.from_arrays(TEXTS, [0, 1, 0, 1])  # "0" and "1"
    assert targets(plain, small_model(("bad", "good"), tiny_bert)) == [0, 1, 0, 1]
    assert targets(NUMBERED, small_model(2, tiny_bert)) == [0, 1, 0, 1]  # LABEL_0 and LABEL_1


def test_a_name_that_the_model_does_not_have_is_an_error_as_a_number_too(tiny_bert):
    model = small_model(("negative", "positive"), tiny_bert)
    for examples in (NUMBERED, NAMED):
        with pytest.raises(DataError, match="has the label 'good', which is none of the model's"):
            targets(examples, model)


def test_a_message_says_what_numbers_without_names_mean_to_a_model(tiny_bert, capsys):
    plain = ft.data.from_arrays(TEXTS, [0, 1, 0, 1], name="mnli.csv")
    model = small_model(("contradiction", "entailment", "neutral"), tiny_bert)
    expected = (
        "mnli.csv: labels that are numbers are read as class numbers of the model: 0 is "
        "'contradiction', 1 is 'entailment'. If the data number the classes in another order, name "
        "them in that order when reading the data: labels=[…]."
    )
    plain.batches(model, 2)
    assert capsys.readouterr().out.splitlines() == [expected]
    ft.evaluate(model, plain)
    assert capsys.readouterr().out.splitlines() == [expected]
    for labels in (2, ("0", "1")):  # numbers are the names of the classes, or there are none
        plain.batches(small_model(labels, tiny_bert), 2)
    NUMBERED.batches(small_model(("bad", "good"), tiny_bert), 2)
    assert capsys.readouterr().out == ""
