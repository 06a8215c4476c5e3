"""The kinds of data and models that a fit is continued on, and those that are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_images import TINY_VIT, levels
from helpers_models import ENGLISH, small_model, token_batch
from helpers_resume import broken_and_resumed, outcome

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import FollowTrainable, Resume
from finetune_tf.data.cursor import Cursor
from finetune_tf.errors import DataError, ModelError
from finetune_tf.training.resuming import data_place

TOKENS, ANSWERS = token_batch(20)
REFERENCES = TINY_VIT.parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


def films(rows=20):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(ENGLISH, random.integers(2, 9))) for _ in range(rows)]
    return ft.data.from_arrays(texts, ["good" if i % 3 else "bad" for i in range(rows)])


def dataset():
    return tf.data.Dataset.from_tensor_slices(({"input_ids": TOKENS}, ANSWERS))


def on(make_data, **fit):
    """Makes a small model that is fitted on data which a function makes."""

    def make():
        model = small_model()
        with ft.messages.quiet():
            model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
        data = make_data()
        data = data if isinstance(data, dict) else {"x": data}
        return model, {"epochs": 3, **data, **fit}

    return make


DATASETS = {
    "shuffled": lambda: dataset().shuffle(20, seed=1).batch(4),
    "shuffled validation": lambda: {
        "x": dataset().shuffle(20, seed=1).batch(4),
        "validation_data": dataset().shuffle(20, seed=2).batch(4).map(lambda x, y: (x, y)),
    },
    "without end": lambda: {
        "x": dataset().shuffle(20, seed=1).batch(4).repeat(),
        "steps_per_epoch": 4,
    },
    "filtered": lambda: dataset().batch(4).filter(lambda x, y: tf.reduce_sum(y) > 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shuffled validation", "without end"])
@pytest.mark.jax
def test_datasets_of_tensorflow(name, tmp_path):
    make = on(DATASETS[name])
    broken_and_resumed(make, tmp_path, (1, 1), (2, 3)).require_same(outcome(make))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shuffled", "filtered"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_other_datasets_of_tensorflow(name, tmp_path):
    make = on(DATASETS[name])
    broken_and_resumed(make, tmp_path, (1, 3), (2, 3)).require_same(outcome(make))


class OfBatches:
    """Datasets made of our batches, which have a cursor."""

    @staticmethod
    def mapped(batches):
        return batches.map(lambda x, y: ({"input_ids": x["input_ids"]}, y))

    @staticmethod
    def without_end(batches):
        return batches.repeat()

    @staticmethod
    def repeated(batches):
        return batches.repeat(2)

    @staticmethod
    def shuffled_again(batches):
        return batches.map(lambda x, y: (x, y)).shuffle(3, seed=1)


@pytest.fixture(scope="module")
def bert(tiny_bert):
    return ft.load(tiny_bert, labels=["bad", "good"])


@pytest.mark.parametrize("name", ["mapped", "repeated", "without_end", "shuffled_again"])
@pytest.mark.slow
def test_datasets_made_of_batches(name, bert, tmp_path):
    """The batches are those of a BERT; the small model that reads them is faster."""
    train = films()

    def make_data():
        batches = getattr(OfBatches, name)(train.batches(bert, 4, shuffle=True, seed=1))
        steps = {"steps_per_epoch": 4} if name == "without_end" else {}
        return {"x": batches, **steps}

    make = on(make_data)
    broken_and_resumed(make, tmp_path, (0, 3), (2, 1)).require_same(outcome(make))


def calls_python(x, y):
    (y,) = tf.numpy_function(lambda value: value, [y], [y.dtype])
    return x, tf.ensure_shape(y, (None,))


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return TOKENS[4 * i : 4 * i + 4], ANSWERS[4 * i : 4 * i + 4]


REFUSED = {
    "shuffle() without a seed": (
        lambda: dataset().shuffle(20).batch(4),
        "Resume cannot continue a fit on a tf.data.Dataset with shuffle() without a seed, whose "
        "order differs in each process. Give it a seed. Or: Make the batches with "
        "examples.batches(model, shuffle=True, seed=0), whose order depends on (seed, epoch) "
        "alone.",
    ),
    "a Python function": (
        lambda: dataset().batch(4).map(calls_python),
        "Resume cannot continue a fit on a tf.data.Dataset that calls Python functions (map), "
        "whose state it does not know. ",
    ),
    "random numbers": (
        lambda: dataset().batch(4).map(lambda x, y: (x, y * tf.random.uniform((), 0, 1, y.dtype))),
        "Resume cannot continue a fit on a tf.data.Dataset that draws random numbers with "
        "RandomUniformInt (map). Use operations of tf.random.stateless_…, whose seed is an "
        "argument.",
    ),
    "a PyDataset": (
        Sequence,
        "Resume cannot continue a fit on a Python PyDataset, whose state it does not know. ",
    ),
    "any order": (
        lambda: dataset().batch(4).map(lambda x, y: (x, y), 2, deterministic=False),
        "",
    ),
    "steps of data that ends": (
        lambda: {"x": dataset().batch(4), "steps_per_epoch": 2},
        "Resume cannot continue a fit with steps_per_epoch=2 on data that ends. Leave "
        "steps_per_epoch out, or repeat the dataset without end: dataset.repeat().",
    ),
}


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "any order"])
def test_data_that_cannot_be_repeated_are_refused(name, tmp_path, monkeypatch):
    make_data, message = REFUSED[name]
    from tensorflow.python.eager import context

    make = on(make_data)
    model, fit = make()
    if name.startswith("shuffle()"):
        context.context()._set_global_seed(None)  # as in a process that sets no seed
        fit = make()[1]
    with pytest.raises(DataError) as caught:
        model.fit(**fit, callbacks=[Resume(tmp_path)], verbose=0)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_arrays_are_shuffled_by_a_seed_only(tmp_path):
    from tensorflow.python.eager import context

    model, _ = on(dict)()
    context.context()._set_global_seed(None)
    with pytest.raises(DataError) as caught:
        model.fit(TOKENS, ANSWERS, callbacks=[Resume(tmp_path)], verbose=0)
    assert str(caught.value).startswith(
        "Resume cannot continue a fit on arrays with shuffle=True, whose order differs in each "
        "process. Call keras.utils.set_random_seed(0) before fit, or pass shuffle=False."
    )


class Ordered(keras.utils.PyDataset):
    """Batches of a Python class in an order that depends on (seed, epoch) alone."""

    def __init__(self):
        super().__init__()
        self.cursor, self.rows = Cursor(5, seed=1), [TOKENS]

    def __len__(self):
        return 5

    def on_epoch_begin(self):
        self._epoch, self._begin = self.cursor.advance()

    def __getitem__(self, i):
        order = np.random.default_rng([1, self._epoch]).permutation(20)
        rows = order[4 * (i + self._begin) :][:4]
        return {"input_ids": TOKENS[rows]}, ANSWERS[rows]


@pytest.mark.slow
@pytest.mark.jax
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="read ahead of the fit elsewhere")
def test_a_class_with_a_cursor(tmp_path):
    make = on(Ordered, shuffle=False)
    broken_and_resumed(make, tmp_path, (0, 3), (2, 1)).require_same(outcome(make))
    with pytest.raises(DataError, match="Keras draws another one. Pass shuffle=False to fit."):
        outcome(on(Ordered, shuffle=True), tmp_path / "other")


@pytest.mark.jax
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="its batches are drawn on JAX only")
def test_batches_in_an_order_of_their_own_are_refused_on_jax(tmp_path):
    model, _ = on(dict)()
    with pytest.raises(DataError, match="shuffle='batch' on JAX, where each batch draws from"):
        model.fit(TOKENS, ANSWERS, shuffle="batch", callbacks=[Resume(tmp_path)], verbose=0)


def other_keras_model():
    """A model of Keras with batch normalization, dropout and a layer that wakes up."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu", name="lower"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    model.get_layer("lower").trainable = False

    class Wake(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("lower").trainable = epoch >= 1

    model.compile("adam", "mse", metrics=["mae"])
    arrays = {"x": TOKENS.astype("float32"), "y": ANSWERS, "batch_size": 4, "epochs": 3}
    callbacks = [Wake(), FollowTrainable()]
    return model, {**arrays, "validation_split": 0.2, "shuffle": False, "callbacks": callbacks}


@pytest.mark.slow
def test_another_keras_model(tmp_path):
    expected = outcome(other_keras_model)
    resumed = broken_and_resumed(other_keras_model, tmp_path, (0, 3), (1, 3), (2, 1))
    resumed.require_same(expected)


@pytest.mark.slow
def test_flags_that_keras_ignores_are_refused(tmp_path):
    model, fit = other_keras_model()
    fit["callbacks"] = [fit["callbacks"][0], Resume(tmp_path)]
    message = "Add ft.callbacks.FollowTrainable\\(\\) to the callbacks, after the one that sets"
    with pytest.raises(ModelError, match=message):
        model.fit(**fit, verbose=0)


def test_what_identifies_rows():
    arrays = [np.arange(12).reshape(6, 2), [np.array([1, 2]), np.array([3])]]
    first = data_place._digest(arrays)
    assert data_place._digest(arrays) == first
    changes = [
        [arrays[0] + 1, arrays[1]],
        [arrays[0].astype("int32"), arrays[1]],
        [arrays[0], [np.array([1]), np.array([2, 3])]],
        arrays[::-1],
    ]
    assert len({first, *map(data_place._digest, changes)}) == 5


def test_a_model_that_is_not_built_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ModelError, match="^Resume needs a model that is built. Call it on a batch"):
        model.fit(TOKENS, ANSWERS, callbacks=[Resume(tmp_path)], verbose=0)


def ids_of(folder, length=6, **options):
    """Random token ids for a checkpoint without a tokenizer."""
    model = ft.load(REFERENCES / folder, dropout=0.1, **options)
    high = min(model.config.vocab_size, 20)
    ids = np.random.default_rng(0).integers(5, high, (12, length)).astype("int32")
    with ft.messages.quiet():
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-3))
    return model, {"x": ids, "y": np.arange(12) % len(model.labels), "batch_size": 4, "epochs": 2}


def of_images():
    colors = ["red", "blue"] * 6
    images = np.stack([levels(color, (21, 21), seed=i) for i, color in enumerate(colors)])
    examples = ft.data.from_arrays(image=images, label=colors)
    model = ft.load(TINY_VIT, labels=examples.labels, new_head=True)
    model.compile()
    batches = examples.batches(model, 4, shuffle=True, seed=1, augment=["flip", "crop", "mixup"])
    return model, {"x": batches, "epochs": 2}


FAMILIES = {
    "deberta": lambda _: ids_of("deberta/text-classification"),
    "modernbert": lambda _: ids_of("modernbert/text-classification"),
    "mixed precision": lambda _: ids_of("modernbert/text-classification", dtype="mixed_bfloat16"),
    "images": lambda _: of_images(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name, tmp_path):
    def make():
        return FAMILIES[name](None)

    with ft.messages.quiet():
        resumed = broken_and_resumed(make, tmp_path, (0, 2), (1, 1), every_steps=1)
        resumed.require_same(outcome(make))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["fill-mask", "text-generation"])
def test_language_models(task, tiny_bert, tiny_decoder, tmp_path):
    """Masks are drawn anew in each epoch, from (seed, epoch)."""
    train = ft.data.from_arrays(films(12).columns["text"])

    def make():
        model = ft.load(tiny_bert if task == "fill-mask" else tiny_decoder, task)
        model.compile()
        return model, {"x": train.batches(model, 4, shuffle=True, seed=1), "epochs": 2}

    with ft.messages.quiet():
        resumed = broken_and_resumed(make, tmp_path, (0, 2), (1, 1), every_steps=1)
        resumed.require_same(outcome(make))


@pytest.mark.slow
def test_cached_features(tiny_bert, tmp_path):
    train = films(12)

    def make():
        model = ft.load(tiny_bert, labels=train.labels, dropout=0.2)
        ft.train_only(model, select.head())
        upper = ft.cache_features(model)
        upper.compile()
        return upper, {"x": train.batches(upper, 4, shuffle=True, seed=1), "epochs": 2}

    with ft.messages.quiet():
        resumed = broken_and_resumed(make, tmp_path, (0, 2), (1, 1), every_steps=1)
        resumed.require_same(outcome(make))
