"""Rows that are tokenized already."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers_models import small_model

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError

ROWS = {
    "input_ids": [[2, 7, 3], [2, 8, 9, 3], [2, 3]],
    "attention_mask": [[1] * 3, [1] * 4, [1] * 2],
}


@pytest.fixture(scope="module")
def model(tiny_bert):
    return small_model(checkpoint=tiny_bert)


def test_one_label_a_row(model):
    data = ft.data.tokenized_batches({**ROWS, "label": [0, 1, 1], "text": ["a"] * 3}, model, 3)
    ((inputs, targets),) = data.as_numpy_iterator()
    assert set(inputs) == {"input_ids", "attention_mask"}
    np.testing.assert_array_equal(inputs["input_ids"], [[2, 7, 3, 0], [2, 8, 9, 3], [2, 3, 0, 0]])
    np.testing.assert_array_equal(inputs["attention_mask"].sum(1), [3, 4, 2])
    np.testing.assert_array_equal(targets, [0, 1, 1])


class Table(dict):
    """As much of a `datasets.Dataset` as is asked for."""

    def __init__(self, names=None, shown=None, **columns):
        super().__init__(columns)
        self.column_names = list(columns)
        self.features = {"label": SimpleNamespace(names=names)}
        self.format = {"type": "tensorflow", "columns": shown or self.column_names}


def test_class_numbers_whose_names_the_model_has_in_another_order(model):
    data = {"input_ids": [[2, 7, 3]], "label": [0]}
    with pytest.warns(UserWarning) as caught:
        ft.data.tokenized_batches(Table(["Yes", "No"], **data), model)
    message = str(caught[0].message)
    assert "'label' of the tokenized dataset are those of Yes, No, but the model has" in message
    assert message.endswith("in enumerate(model.labels)}, 'label').")
    for names in (["No", "Yes"], ["bad", "good"], None):
        ft.data.tokenized_batches(Table(names, **data), model)


def test_padding_without_a_mask(model):
    padded = {"input_ids": [[2, 7, 3, 0, 0], [2, 8, 9, 3]], "label": [0, 1]}
    with pytest.warns(UserWarning, match="1 of 2 rows .* are padded, but it has no column 'att"):
        ft.data.tokenized_batches(padded, model)
    ft.data.tokenized_batches({**padded, "attention_mask": [[1, 1, 1, 0, 0], [1] * 4]}, model)


def test_columns_that_a_format_hides_are_not_read(model):
    data = Table(shown=["input_ids", "label"], **ROWS, label=[0, 1, 1])
    del data["attention_mask"]  # a `KeyError` as in datasets
    ((inputs, targets),) = ft.data.tokenized_batches(data, model, 3).as_numpy_iterator()
    assert inputs["attention_mask"].sum(axis=1).tolist() == [3, 4, 2]
    assert targets.tolist() == [0, 1, 1]


def test_streamed_rows_are_refused(model):
    class IterableDataset:
        column_names = ("input_ids", "label")

        def __iter__(self):
            return iter(())

    with pytest.raises(DataTypeError, match="is a datasets.Dataset that is not streamed, or a di"):
        ft.data.tokenized_batches(IterableDataset(), model)


def test_one_label_a_token(model):
    labels = [[-100, 1, -100], [-100, 0, 1, -100], [-100, -100]]
    data = ft.data.tokenized_batches({**ROWS, "labels": labels}, model, 3, pad_token_id=5)
    ((inputs, targets),) = data.as_numpy_iterator()
    assert inputs["input_ids"][2].tolist() == [2, 3, 5, 5]
    assert targets.tolist() == [[-100, 1, -100, -100], labels[1], [-100] * 4]


def test_start_and_end(model):
    ends = {"start_positions": [1, 0, 0], "end_positions": [2, 1, 0]}
    ((_, targets),) = ft.data.tokenized_batches({**ROWS, **ends}, model, 3).as_numpy_iterator()
    assert targets.tolist() == [[1, 2], [0, 1], [0, 0]]


def test_no_labels(model):
    (inputs,) = ft.data.tokenized_batches(ROWS, model, 3).as_numpy_iterator()
    assert inputs["input_ids"].shape == (3, 4)


def test_hidden_tokens(model):
    data = ft.data.tokenized_batches(ROWS, model, 3, mask_rate=0.5, shuffle=True)
    for _ in range(2):
        ((inputs, targets),) = data.as_numpy_iterator()
        hidden = targets != -100
        np.testing.assert_array_equal(np.sort(hidden.sum(axis=1)), [0, 1, 1])
        assert sorted(np.where(hidden, targets, inputs["input_ids"]).sum(1)) == [5, 12, 22]


def test_no_ids(model):
    with pytest.raises(DataError, match="has a column input_ids, found text, label. Tokenize it"):
        ft.data.tokenized_batches({"text": ["a"], "label": [0]}, model)


def test_labels_of_a_causal_language_model_are_its_tokens(tiny_decoder):
    """As in transformers, whose models shift them."""
    decoder = ft.load(tiny_decoder)
    ids = [[3, 4, 5], [6, 7, 8, 9], [3, 3]]
    expected = [[4, 5, -100, -100], [7, 8, 9, -100], [3, -100, -100, -100]]

    def targets(labels):
        rows = {"input_ids": ids, "labels": labels}
        ((_, found),) = ft.data.tokenized_batches(rows, decoder, 3).as_numpy_iterator()
        return found.tolist()

    assert targets(ids) == expected
    following = [[4, 5, -100], [7, 8, 9, -100], [3, -100]]  # are not shifted again
    assert targets(following) == expected
    completions = [[-100, -100, 5], [-100, -100, 8, 9], [-100, 3]]
    assert targets(completions) == [[-100, 5, -100, -100], [-100, 8, 9, -100], [3, *[-100] * 3]]
