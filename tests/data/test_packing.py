"""Plans of packed rows: every text once, in rows with little padding."""

import numpy as np
import pytest

from finetune_tf.data.batch_plans import NO_ITEM
from finetune_tf.data.packing import pack_lengths, packing_of

RANDOM = np.random.default_rng(0)
SENTENCES = np.clip(RANDOM.lognormal(2.8, 0.6, 5000).astype(int), 3, 90)  # as long as questions


@pytest.mark.parametrize("row_length", [90, 95, 128, 400])
def test_rows_hold_all_texts(row_length):
    rows = pack_lengths(SENTENCES, row_length, most=1000)
    assert rows.sum(axis=1).max() <= row_length
    np.testing.assert_array_equal(np.sort(rows[rows > 0]), np.sort(SENTENCES))
    assert SENTENCES.sum() / (len(rows) * row_length) > 0.99


def test_rows_have_a_limit_of_texts():
    rows = pack_lengths(np.ones(10, int), 100, most=3)
    np.testing.assert_array_equal(rows, [[1, 1, 1]] * 3 + [[1, 0, 0]])


@pytest.mark.parametrize("most_lengths", [1, 2])
@pytest.mark.parametrize("wanted", [8, 16, 32, 128])
def test_batches_have_as_many_texts_as_wanted_and_little_padding(wanted, most_lengths):
    packing = packing_of(SENTENCES, wanted, most_lengths=most_lengths)
    assert len(packing.groups) == most_lengths
    assert abs(len(SENTENCES) / packing.batches / wanted - 1) < 0.05
    assert packing.padding < 0.08  # shorter rows are worth some padding


def test_few_texts_are_one_batch():
    assert packing_of(np.array([5, 5]), 32).batches == 1


def test_long_texts_get_longer_rows():
    short, long = packing_of(SENTENCES, 32).groups
    assert short.row_length < 90 <= long.row_length
    assert short.lengths.max() < long.lengths[:, 0].min()


@pytest.mark.parametrize("most_lengths", [1, 2])
def test_an_epoch_has_each_text_once_in_an_order_of_its_own(most_lengths):
    packing = packing_of(SENTENCES, 32, most_lengths=most_lengths)
    epochs = [packing.plan(SENTENCES, np.random.default_rng((0, epoch))) for epoch in range(2)]
    for items, shapes in epochs:
        np.testing.assert_array_equal(np.sort(items[items != NO_ITEM]), np.arange(len(SENTENCES)))
        for of_batch, (rows, places, row_length) in zip(items, shapes, strict=True):
            table = of_batch[: rows * places].reshape(rows, places)
            tokens = np.where(table == NO_ITEM, 0, SENTENCES[table]).sum(axis=1)
            assert tokens.max() <= row_length
            assert (of_batch[rows * places :] == NO_ITEM).all()
    (first, _), (second, _) = epochs
    is_text = (first != NO_ITEM) & (second != NO_ITEM)
    assert (first != second)[is_text].mean() > 0.9
    again, _ = packing.plan(SENTENCES, np.random.default_rng((0, 0)))
    np.testing.assert_array_equal(again, first)


def test_rows_are_not_longer_than_the_model_allows():
    assert all(rows.row_length <= 95 for rows in packing_of(SENTENCES, 32, limit=95).groups)
