"""A dataset knows where it is, so a fit can go on at the batch where it was interrupted."""

import json

import keras
import numpy as np
import pytest

from finetune_tf.data.batching import bucketed_dataset
from finetune_tf.errors import DataError
from finetune_tf.tasks.feature import Feature

LENGTHS = [3, 20, 16, 40, 17, 5, 30, 64, 1, 2]


def masked(random):
    """As fill-mask samples ids and targets: other ones in each epoch."""
    ids = random.integers(0, 100, sum(LENGTHS)).astype("int32")
    return ids, ids


def made(shuffle=True, draw=None, **options):
    """Row i has the target i."""
    inputs = {"input_ids": Feature([np.full(n, i) for i, n in enumerate(LENGTHS)])}
    targets = None if draw else Feature.of_array(np.arange(len(LENGTHS)))
    return bucketed_dataset(
        inputs, targets, 2, {"tokens": [16, 64]}, shuffle=shuffle, seed=7, draw=draw, **options
    )


def batches(dataset):
    return [
        (inputs["input_ids"].tolist(), targets.tolist())
        for inputs, targets in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("draw", [None, masked])
def test_an_epoch_that_is_set_is_that_epoch(draw):
    dataset = made(draw=draw)
    epochs = [batches(dataset) for _ in range(4)]
    assert dataset.cursor.epoch == 4
    again = made(draw=draw)
    again.cursor.epoch = 3
    assert batches(again) == epochs[3]
    assert again.cursor.epoch == 4
    again.cursor.epoch = 1
    assert batches(again) == epochs[1]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_begins_at_a_batch(shuffle):
    epochs = [batches(dataset) for dataset in [made(shuffle)] * 2]
    again = made(shuffle)
    again.cursor.epoch, again.cursor.batch = 1, 3
    assert int(again.cardinality()) == 5
    assert batches(again) == epochs[1][3:]
    assert (again.cursor.epoch, again.cursor.batch) == (2, 0)
    assert len(batches(again)) == 5


def test_an_epoch_begins_at_a_batch_of_sampled_rows():
    dataset = made(draw=masked)
    epochs = [batches(dataset) for _ in range(2)]
    dataset.cursor.epoch, dataset.cursor.batch = 1, 2
    assert batches(dataset) == epochs[1][2:]


def test_a_place_is_stored_and_found_again():
    dataset = made()
    epochs = [batches(dataset) for _ in range(3)]
    assert dataset.cursor.state_dict() == {"epoch": 3, "batch": 0, "batch_count": 5, "seed": 7}
    # Made ahead, the whole epoch is on its way; the consumer says that it has used two batches.
    dataset.cursor.epoch = 1
    iterator = dataset.as_numpy_iterator()
    used = [next(iterator) for _ in range(2)]
    state = json.loads(json.dumps(dataset.cursor.state_dict(used=len(used))))
    assert state == {"epoch": 1, "batch": 2, "batch_count": 5, "seed": 7}
    again = made()
    again.cursor.load_state_dict(state)
    assert batches(again) == epochs[1][2:]
    assert batches(again) == epochs[2]
    # All batches of an epoch used: the next one begins.
    assert again.cursor.state_dict(used=5) == dataset.cursor.state_dict() | {"epoch": 3}
    assert made().cursor.state_dict(used=0) == dataset.cursor.state_dict() | {"epoch": 0}


def test_datasets_made_of_it_follow_its_cursor():
    dataset = made()
    epochs = [batches(dataset) for _ in range(3)]
    mapped = dataset.map(lambda inputs, targets: (inputs, targets + 1))
    assert int(mapped.cardinality()) == 5 and not hasattr(mapped, "cursor")
    dataset.cursor.epoch = 1
    shifted = [[target - 1 for target in targets] for _, targets in batches(mapped)]
    assert shifted == [targets for _, targets in epochs[1]]
    dataset.cursor.epoch, dataset.cursor.batch = 1, 4
    assert batches(dataset.repeat(2)) == epochs[1][4:] + epochs[2]


class Recorder(keras.Model):
    """Notes the targets of each step."""

    def train_step(self, data):
        _, targets = data
        self.seen.append(targets.numpy().tolist())
        return {"loss": keras.ops.mean(targets)}


def fitted(dataset, **options):
    model = Recorder()
    model.seen = []
    model.compile(run_eagerly=True)
    model.fit(dataset, verbose=0, shuffle=False, **options)
    return model.seen


def test_a_fit_goes_on_where_another_one_ended():
    whole = fitted(made(), epochs=3)
    first = made()
    seen = fitted(first, epochs=2)
    assert first.cursor.epoch == 2
    second = made()
    second.cursor.load_state_dict(first.cursor.state_dict())
    assert seen + fitted(second, epochs=3, initial_epoch=2) == whole


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_fit_goes_on_in_the_middle_of_an_epoch():
    whole = fitted(made(), epochs=3)
    dataset = made()
    dataset.cursor.epoch, dataset.cursor.batch = 1, 2
    assert fitted(dataset, epochs=3, initial_epoch=1) == whole[5 + 2 :]


def test_places_that_do_not_exist():
    cursor = made().cursor
    with pytest.raises(DataError, match="cursor.batch is a whole number from 0 to 4, found 5"):
        cursor.batch = 5
    with pytest.raises(DataError, match="cursor.epoch is a whole number from 0 on, found -1"):
        cursor.epoch = -1
    with pytest.raises(DataError, match="cursor.epoch is a whole number from 0 on, found 1.5"):
        cursor.epoch = 1.5
    other = made(drop_remainder=True, tokens_per_batch=None)
    other.cursor.seed = 8
    message = "belongs to a dataset with seed=7, but this one has seed=8. Make the batches with"
    with pytest.raises(DataError, match=message):
        other.cursor.load_state_dict(cursor.state_dict())
    assert repr(cursor) == "Cursor(epoch=0, batch=0 of 5)"
