"""Batches of few lengths: every row once, in a known order, padded and masked."""

import itertools
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_arrays
from finetune_tf.data.batching import bucketed_dataset
from finetune_tf.data.buckets import length_buckets
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.tasks import Encoded, TextClassification
from finetune_tf.tasks.feature import Feature

LENGTHS = [3, 20, 16, 40, 17, 5, 30, 64, 1, 2]


def dataset(lengths=LENGTHS, batch_size=2, **options):
    """Row i holds the id i + 1 throughout and has the target i."""
    inputs = {
        "input_ids": Feature([np.full(n, i + 1) for i, n in enumerate(lengths)], padding=99),
        "token_type_ids": Feature([np.arange(length) % 2 for length in lengths]),
    }
    targets = options.pop("targets", np.arange(len(lengths)))
    return bucketed_dataset(
        inputs,
        None if targets is None else Feature.of_array(targets),
        batch_size=batch_size,
        bucket_lengths={"tokens": options.pop("buckets", [16, 24, 32, 48, 64])},
        **options,
    )


def rows_of(batches):
    return [targets.tolist() for _, targets in batches.as_numpy_iterator()]


def padding(lengths, buckets):
    return int((np.asarray(buckets)[np.searchsorted(buckets, lengths)] - lengths).sum())


def test_buckets_need_the_least_padding():
    assert length_buckets([3, 8], 8) == [3, 8]
    assert length_buckets([5] * 100 + [6, 40, 41], 512, count=2) == [5, 41]
    assert length_buckets([7], 512) == [7]
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(1, 12, 30)
        found = length_buckets(lengths, 512, count=3)
        values = np.unique(lengths)
        others = ([*pair, values[-1]] for pair in itertools.combinations(values[:-1], 2))
        assert padding(lengths, found) == min(padding(lengths, other) for other in others)


def test_few_buckets_are_enough_for_real_text():
    lengths = np.random.default_rng(0).gamma(4, 6, 5000).astype(int) + 3  # sentences, about
    buckets = length_buckets(lengths, 512)
    assert len(buckets) == 8 and buckets[-1] == lengths.max()
    assert padding(lengths, buckets) < 0.14 * lengths.sum()


def test_a_row_beyond_the_longest_bucket():
    with pytest.raises(DataError, match="A row has 9 tokens, more than max_length=8"):
        length_buckets([9], 8)


def test_a_batch_is_padded_to_its_bucket_and_masked():
    inputs, targets = next(dataset([3, 17], buckets=[16, 24]).as_numpy_iterator())
    assert targets.tolist() == [0, 1]
    assert inputs["input_ids"].tolist() == [[1] * 3 + [99] * 21, [2] * 17 + [99] * 7]
    assert inputs["token_type_ids"][0].tolist() == [0, 1, 0] + [0] * 21
    assert inputs["attention_mask"].tolist() == [[1] * 3 + [0] * 21, [1] * 17 + [0] * 7]
    assert all(values.dtype == "int32" for values in inputs.values())


def test_without_targets_a_batch_is_its_inputs():
    inputs = next(dataset(targets=None).as_numpy_iterator())
    assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask"}


def test_targets_keep_shape_and_type():
    targets = np.eye(10, 3, dtype="float32")
    _, batch = next(dataset(targets=targets, batch_size=4).as_numpy_iterator())
    np.testing.assert_array_equal(batch, targets[:4])
    assert batch.dtype == "float32"


def test_without_shuffling_rows_keep_their_order():
    batches = dataset(batch_size=3)
    assert rows_of(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    lengths = [inputs["input_ids"].shape[1] for inputs, _ in batches]
    assert lengths == [24, 48, 64, 16]


def test_shuffled_rows_come_once_in_each_epoch_in_another_order():
    batches = dataset(shuffle=True, seed=1)
    first, second = rows_of(batches), rows_of(batches)
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(10))
    assert first != second


def test_the_order_of_each_epoch_follows_the_seed():
    one, same, other = (dataset(shuffle=True, seed=seed) for seed in (1, 1, 2))
    epochs = [rows_of(one) for _ in range(3)]
    assert epochs == [rows_of(same) for _ in range(3)]
    assert epochs != [rows_of(other) for _ in range(3)]
    assert sum(epochs, []) == rows_of(dataset(shuffle=True, seed=1).repeat(3))


def test_shuffled_rows_of_one_bucket_come_together():
    lengths = [4] * 50 + [60] * 50
    batches = dataset(lengths, batch_size=8, shuffle=True)
    shapes = [inputs["input_ids"].shape for inputs, _ in batches.as_numpy_iterator()]
    # 50 = 6 * 8 + 2: two short rows fill up a long batch, so one batch only is not full.
    assert sorted(shapes) == [(4, 64)] + [(8, 16)] * 6 + [(8, 64)] * 6
    assert shapes != sorted(shapes)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("drop_remainder", "count"), [(False, 4), (True, 3)])
def test_the_number_of_batches_is_known(shuffle, drop_remainder, count):
    batches = dataset(batch_size=3, shuffle=shuffle, drop_remainder=drop_remainder)
    assert int(batches.cardinality()) == count
    assert len(rows_of(batches)) == count
    assert len(rows_of(batches)) == count


def test_a_dropped_remainder_is_another_in_each_epoch():
    batches = dataset([4, 4, 4, 60], batch_size=3, shuffle=True, drop_remainder=True)
    left_out = {({0, 1, 2, 3} - set(sum(rows_of(batches), []))).pop() for _ in range(12)}
    assert left_out == {0, 1, 2, 3}


def test_an_epoch_does_not_end_in_waiting():
    """For TensorFlow's tuning thread, which sleeps for seconds."""
    assert not dataset(shuffle=True).options().autotune.enabled


def test_shapes_are_open():
    inputs, targets = dataset(shuffle=True).element_spec
    assert all(spec.shape.as_list() == [None, None] for spec in inputs.values())
    assert targets.shape.as_list() == [None]


def test_rows_that_disagree():
    a, b = Feature([np.arange(3)]), Feature([np.arange(2)])
    buckets = {"tokens": [16]}
    with pytest.raises(DataError, match="'a' and 'b' differ in the lengths of their rows"):
        bucketed_dataset({"a": a, "b": b}, None, 1, buckets)
    with pytest.raises(DataError, match="'a' and 'targets' differ in the lengths of their rows"):
        bucketed_dataset({"a": a}, b, 1, buckets)
    with pytest.raises(DataError, match="There are 1 rows of inputs but 2 targets"):
        bucketed_dataset({"a": a}, Feature.of_array(np.zeros(2)), 1, buckets)
    with pytest.raises(DataError, match="'a' and 'b' differ in the number of their rows: 1 and 2"):
        bucketed_dataset({"a": a, "b": Feature.of_array(np.zeros(2))}, None, 1, buckets)
    with pytest.raises(DataError, match="A row has 3 tokens, more than the longest bucket, 2"):
        bucketed_dataset({"a": a}, None, 1, {"tokens": [2]})
    with pytest.raises(DataError, match="1 rows do not fill one batch of 8: choose a smaller"):
        bucketed_dataset({"a": a}, None, 8, buckets, drop_remainder=True)


class WordTask(TextClassification):
    """Encodes each word by its length."""

    def encode(self, examples, tokenizer, max_length):
        rows = [[len(word) for word in text.split()] for text in examples.columns["text"]]
        has_labels = "label" in examples.columns
        return Encoded(
            inputs={"input_ids": Feature([np.array(row[:max_length]) for row in rows])},
            targets=Feature.of_array(
                np.array([self.labels.index(v) for v in examples.columns["label"]])
            )
            if has_labels
            else None,
            truncated=sum(len(row) > max_length for row in rows),
        )


LABELS = Labels(["pos", "neg"])
MODEL = SimpleNamespace(
    task=WordTask(LABELS),
    tokenizer=None,
    labels=LABELS,
    max_length=12,
    row_length=12,
    inputs=[SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")],
)


def test_examples_make_batches_in_the_label_order_of_the_model(capsys):
    examples = from_arrays(["a fine film", "bad", "so so"], label=["pos", "neg", "neg"])
    batches = examples.batches(MODEL, batch_size=2)
    assert int(batches.cardinality()) == 2
    inputs, targets = next(batches.as_numpy_iterator())
    assert inputs["input_ids"].tolist() == [[1, 4, 4], [3, 0, 0]]
    assert inputs["attention_mask"].sum() == 4
    assert targets.tolist() == [0, 1]
    assert capsys.readouterr().out == ""


def test_cut_texts_are_told(capsys):
    examples = from_arrays(["one two three", "one"], name="reviews.csv")
    inputs = next(examples.batches(MODEL, max_length=2).as_numpy_iterator())
    assert inputs["input_ids"].tolist() == [[3, 3], [3, 0]]
    assert capsys.readouterr().out == (
        "reviews.csv: 1 of 2 texts are longer than 2 tokens and are truncated.\n"
    )


def test_a_length_the_model_cannot_take():
    with pytest.raises(ModelError) as error:
        from_arrays(["a"]).batches(MODEL, max_length=13)
    assert str(error.value) == "max_length=13 does not fit: the model takes 1 to 12 tokens."


@pytest.mark.parametrize("max_length", [0, -1])
def test_a_length_that_is_none(max_length):
    with pytest.raises(ArgumentError, match="max_length must be an integer >= 1 or None"):
        from_arrays(["a"]).batches(MODEL, max_length=max_length)


def test_another_kind_of_model():
    with pytest.raises(ModelError, match=r"needs a model of finetune_tf.load\(…\), .* found str"):
        from_arrays(["a"]).batches("bert-base-uncased")


def test_a_fit_sees_the_same_epochs():
    seen = []

    class Recorder(keras.Model):
        def train_step(self, data):
            inputs, targets = data
            seen.append(targets.numpy().tolist())
            return {"loss": keras.ops.mean(targets)}

    model = Recorder()
    model.compile(run_eagerly=True)
    model.fit(dataset(shuffle=True, seed=5), epochs=2, verbose=0, shuffle=False)

    again = dataset(shuffle=True, seed=5)
    assert seen == rows_of(again) + rows_of(again)


@pytest.mark.parametrize(("buckets", "lengths"), [(1, {7}), (2, {2, 7}), (8, {1, 2, 7})])
def test_as_many_lengths_as_are_asked_for(buckets, lengths):
    texts = ["good"] * 4 + ["good good"] * 4 + ["good " * 7]
    made = from_arrays(texts).batches(MODEL, batch_size=4, buckets=buckets)
    assert {inputs["input_ids"].shape[1] for inputs in made.as_numpy_iterator()} == lengths


def test_batches_without_rows():
    with pytest.raises(ArgumentError, match="batch_size must be an integer >= 1, found 0"):
        from_arrays(["a"]).batches(MODEL, batch_size=0)
    with pytest.raises(ArgumentError, match="buckets must be an integer >= 1, found 0"):
        from_arrays(["a"]).batches(MODEL, buckets=0)


def test_batches_of_so_many_tokens():
    made = dataset(tokens_per_batch=96)
    shapes = [inputs["input_ids"].shape for inputs, _ in made.as_numpy_iterator()]
    assert all(rows * length <= 96 for rows, length in shapes)
    assert shapes == [(3, 24), (2, 48), (2, 32), (1, 64), (2, 16)]  # in the order of the rows
    assert sum(rows_of(made), []) == list(range(10))


def test_shuffled_batches_of_so_many_tokens():
    made = dataset(tokens_per_batch=96, shuffle=True)
    epochs = [list(made.as_numpy_iterator()) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == made.cardinality()
        assert all(inputs["input_ids"].size <= 96 for inputs, _ in epoch)
        assert sorted(sum((targets.tolist() for _, targets in epoch), [])) == list(range(10))
    first, second = ([targets.tolist() for _, targets in epoch] for epoch in epochs)
    assert first != second


def test_pairs_stay_together_in_batches_of_so_many_tokens():
    made = dataset(tokens_per_batch=128, group=2, targets=np.arange(5), shuffle=True)
    for inputs, targets in made.as_numpy_iterator():
        assert inputs["input_ids"].size <= 128
        assert inputs["input_ids"][:, 0].tolist() == [
            row for target in targets for row in (2 * target + 1, 2 * target + 2)
        ]


def test_tokens_that_do_not_make_a_batch():
    with pytest.raises(DataError, match="tokens_per_batch=60 is less than the 64 tokens of the"):
        dataset(tokens_per_batch=60)
    with pytest.raises(DataError, match="leave drop_remainder out"):
        dataset(tokens_per_batch=640, drop_remainder=True)
