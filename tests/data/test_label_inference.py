"""What a raw label column is taken for."""

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data.sources.label_inference import infer_labels
from finetune_tf.data.sources.label_lists import labels_of_columns
from finetune_tf.errors import DataError


def infer(values, **given):
    return infer_labels(values, "stars", "reviews", **given)


SINGLE = "single_label_classification"
SEVERAL = "multi_label_classification"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["pos", "neg", "pos"], ["neg", "pos"]),
        (["10", "9", "1"], ["1", "9", "10"]),
        (["10", "9", "one"], ["10", "9", "one"]),
        ([2, 0, 1], ["0", "1", "2"]),
        ([5, 10, 1], ["1", "5", "10"]),
        (np.array([1, 0]), ["0", "1"]),
        ([True, False], ["False", "True"]),
    ],
)
def test_texts_and_whole_numbers_are_classes(values, names):
    kept, labels = infer(values)
    assert kept == list(values)
    assert labels == Labels(names)
    assert labels.problem_type == SINGLE


def test_whole_floats_are_class_numbers():
    # A column of integers in pandas turns to floats as soon as a row is missing.
    kept, labels = infer([0.0, 1.0])
    assert kept == [0, 1]
    assert all(isinstance(value, int) for value in kept)
    assert labels == Labels(["0", "1"])


@pytest.mark.parametrize(
    "values", [[3.8, 2, 5.0], ["3.8", "2", "5"], np.array([3.8, 2, 5], "float64")]
)
def test_numbers_with_a_fraction_are_scores(values):
    kept, labels = infer(values)
    assert kept == [3.8, 2.0, 5.0]
    assert all(isinstance(value, float) for value in kept)
    assert labels == Labels(["stars"])
    assert labels.problem_type == "regression"


def test_whole_scores_need_to_be_called_a_regression():
    kept, labels = infer(["1", "5"], problem_type="regression")
    assert kept == [1.0, 5.0]
    assert labels == Labels(["stars"])
    assert infer([1, 5], labels=["rating"])[1].problem_type == "regression"


def test_lists_are_several_labels():
    kept, labels = infer([["toxic", "rude"], [], ["rude"]])
    assert kept == [["toxic", "rude"], [], ["rude"]]
    assert labels == Labels(["rude", "toxic"])
    assert labels.problem_type == SEVERAL
    assert infer([[0, 2], [10]])[1] == Labels(["0", "2", "10"])


def test_rows_of_flags_are_several_labels():
    kept, labels = infer([[0, 1, 1], [0, 0, 0]], labels=["a", "b", "c"])
    assert kept == [["b", "c"], []]
    assert (labels, labels.problem_type) == (("a", "b", "c"), SEVERAL)

    kept, labels = infer(np.array([[0.0, 1.0], [1.0, 1.0]]))
    assert kept == [["LABEL_1"], ["LABEL_0", "LABEL_1"]]
    assert labels == Labels(["LABEL_0", "LABEL_1"])


def test_flags_for_another_number_of_labels():
    with pytest.raises(DataError, match="3 values of 0 or 1, but there are 2 labels: a, b"):
        infer([[0, 1, 1]], labels=["a", "b"])


def test_columns_of_flags():
    rows = labels_of_columns({"toxic": ["1", "0"], "rude": [True, 0.0]}, "comments.csv")
    assert rows == [["toxic", "rude"], []]
    with pytest.raises(DataError) as error:
        labels_of_columns({"toxic": [1, 2], "rude": [0, 0]}, "comments.csv")
    assert str(error.value) == (
        "The label column 'toxic' of comments.csv must hold 0 or 1, found row 1 (2); "
        "1 of 2 rows, counted from 0."
    )


def test_given_names_go_with_class_numbers():
    kept, labels = infer([1, 0], labels=["neg", "pos"])
    assert kept == [1, 0]
    assert labels == Labels(["neg", "pos"])
    assert infer(["1", "0"], labels=["neg", "pos"])[1] == Labels(["neg", "pos"])
    assert infer([0, 1], labels=2)[1] == Labels(["LABEL_0", "LABEL_1"])


def test_names_that_are_numbers_are_meant_by_name():
    # 0 is no star rating, although it would be the number of the first class.
    with pytest.raises(DataError, match=r"labels: 1, 2, 3; found row 1 \(0\)"):
        infer([3, 0], labels=["1", "2", "3"])


def test_a_value_outside_the_given_labels():
    with pytest.raises(DataError) as error:
        infer(["good", "meh", "bad"], labels=["good", "bad"])
    assert str(error.value) == (
        "The labels of reviews must be one of these labels: good, bad; found row 1 ('meh'); "
        "1 of 3 rows, counted from 0. A class without training examples can be neither learned "
        "nor measured ('meh'): add training examples of it and include it in labels=[…], or "
        "leave such rows out."
    )
    with pytest.raises(DataError, match=r"lists of these labels: a, b; found row 1 \(\['c'\]\)"):
        infer([["a"], ["c"]], labels=["a", "b"])


def test_hidden_labels():
    with pytest.raises(
        DataError, match="-1 often means that the labels are withheld: .* label=None"
    ):
        infer([-1, -1], labels=["neg", "pos"])


def test_one_class_only():
    with pytest.raises(DataError) as error:
        infer(["good", "good"])
    assert str(error.value) == (
        "The label column 'stars' of reviews has one class only, 'good': a classifier needs two "
        "or more. Name them all with labels=[…], for example labels=train.labels."
    )
    assert infer(["good"], labels=["bad", "good"])[1] == Labels(["bad", "good"])


@pytest.mark.parametrize("missing", [None, float("nan"), " "])
def test_a_missing_label(missing):
    with pytest.raises(DataError, match=r"Labels of reviews are missing: row 2 .* 1 of 3 rows"):
        infer(["a", "b", missing])


@pytest.mark.parametrize("score", ["inf", "high"])
def test_a_score_that_is_none(score):
    with pytest.raises(DataError, match=r"must be finite numbers as scores; found row 1"):
        infer([0.5, score], problem_type="regression")


def test_single_labels_where_lists_are_expected():
    with pytest.raises(DataError, match=r"a list in each row; found row 1 \('rude'\)"):
        infer([["toxic"], "rude"])


def test_labels_and_problem_type_that_contradict_each_other():
    with pytest.raises(DataError, match="labels= are for the problem type 'regression', but"):
        infer([1, 0], labels=Labels(["stars"]), problem_type=SINGLE)


def test_an_unknown_problem_type():
    with pytest.raises(DataError, match="Unknown problem type 'multilabel': choose one of"):
        infer_labels(["a", "b"], "label", "reviews", problem_type="multilabel")


def test_names_by_number_and_numbers_by_name():
    assert Labels.of({1: "yes", 0: "no"}) == ("no", "yes")
    assert Labels.of({"0": "5", "1": "0"}) == ("5", "0")  # as in a config.json
    assert Labels.of({"yes": 1, "no": 0}) == ("no", "yes")
    for wrong in ({1: "no", 2: "yes"}, {"no": 0, "yes": 0}, {0: "no", "yes": 1}):
        with pytest.raises(
            DataError, match=r"dict of labels must map the indices 0, 1, … to names, .*; found"
        ):
            Labels.of(wrong)
