"""On JAX, batches are NumPy arrays: those of the tf.data pipeline, bit for bit, in each epoch."""

import gc
import threading

import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_models import ENGLISH

import finetune_tf as ft
from finetune_tf.data import array_dataset, batching, packed_batches
from finetune_tf.data.array_dataset import ArrayDataset
from finetune_tf.data.batching import bucketed_dataset
from finetune_tf.distribution.jax_shares import places_of
from finetune_tf.errors import DataError
from finetune_tf.messages import quiet
from finetune_tf.tasks.feature import Feature

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(ENGLISH, n)) for n in RANDOM.integers(1, 20, 37)]
OTHERS = [" ".join(RANDOM.choice(ENGLISH, n)) for n in RANDOM.integers(1, 8, 37)]
LABELS = [("bad", "fair", "good")[i % 5 % 3] for i in range(37)]
SHUFFLED = {"shuffle": True, "seed": 5}


@pytest.fixture
def arrays(monkeypatch):
    """Returns a function that makes the batches of JAX in this process."""

    def make(examples, model, *args, **options):
        with monkeypatch.context() as patch, quiet():
            for module in (batching, packed_batches):
                patch.setattr(module, "uses_pipeline", lambda augment=None: augment is not None)
            made = examples.batches(model, *args, **options)
        assert isinstance(made, ArrayDataset)
        return made

    return make


def loaded(checkpoint, task=None, **options):
    with quiet():
        return ft.load(checkpoint, task, **options)


def tensors_of(batch):
    """The arrays of a batch by name; without targets, a batch is its inputs."""
    inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
    return inputs | ({} if targets is None else {"targets": targets})


def assert_same_epochs(found, expected, epochs=3):
    """Two datasets have the same batches, and the same description."""
    assert len(found) == found.cardinality() == int(expected.cardinality()) > 1
    spec, wanted = tensors_of(found.element_spec), tensors_of(expected.element_spec)
    assert {name: (each.shape, each.dtype) for name, each in spec.items()} == {
        name: (tuple(each.shape), each.dtype.name) for name, each in wanted.items()
    }
    seen = []
    for epoch in range(epochs):
        assert found.cursor.epoch == epoch
        ours, theirs = list(found), list(expected.as_numpy_iterator())
        assert len(ours) == len(theirs) == len(found)
        for one, other in zip(map(tensors_of, ours), map(tensors_of, theirs), strict=True):
            assert one.keys() == other.keys()
            for name, array in one.items():
                np.testing.assert_array_equal(array, other[name], strict=True, err_msg=name)
        seen.append(ours)
    assert found.cursor.state_dict() == expected.cursor.state_dict()
    assert found.labels == expected.labels
    counts = [getattr(each, "class_counts", None) for each in (found, expected)]
    np.testing.assert_array_equal(*counts)
    return seen


@pytest.fixture(scope="module")
def classifier(tiny_bert):
    return loaded(tiny_bert, labels=["bad", "fair", "good"])


@pytest.fixture(scope="module")
def texts():
    return ft.data.from_arrays(TEXTS, LABELS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        SHUFFLED,
        SHUFFLED | {"drop_remainder": True},
        SHUFFLED | {"buckets": 1, "max_length": 12},
        SHUFFLED | {"tokens_per_batch": 64},
        SHUFFLED | {"balance": True},
        {"packing": True},
        SHUFFLED | {"packing": True},
        SHUFFLED | {"packing": 28},
        SHUFFLED | {"packing": "auto"},
    ],
    ids=lambda options: ", ".join(f"{name}={value}" for name, value in options.items()),
)
def test_batches_of_texts(classifier, texts, arrays, options):
    with quiet():
        expected = texts.batches(classifier, 4, **options)
    seen = assert_same_epochs(arrays(texts, classifier, 4, **options), expected)
    first = [[batch[1].tolist() for batch in epoch] for epoch in seen]
    assert (first[0] != first[1]) == bool(options.get("shuffle"))


def tags_of(text):
    """The first word has an entity."""
    return ["B-X", *["O"] * (len(text.split()) - 1)]


def answer_in(text):
    """The last word."""
    word = text.split()[-1]
    return {"text": [word], "answer_start": [len(text) - len(word)]}


QUESTIONS = {
    "question": ["was the film good"] * 37,
    "context": TEXTS,
    "answers": [answer_in(text) for text in TEXTS],
}
#: By the kind of the examples: the checkpoint, the task, and the columns.
KINDS = {
    "pairs": ("bert", "text-classification", {"text": TEXTS, "text_pair": OTHERS, "label": LABELS}),
    "several labels": ("bert", "text-classification", {
        "text": TEXTS, "label": [LABELS[: i % 3] for i in range(37)]
    }),
    "numbers": ("bert", "text-classification", {"text": TEXTS, "label": np.arange(37) / 2}),
    "no labels": ("bert", "text-classification", {"text": TEXTS}),
    "tokens": ("bert", "token-classification", {
        "tokens": [text.split() for text in TEXTS], "tags": [tags_of(text) for text in TEXTS]
    }),
    "answers": ("bert", "question-answering", QUESTIONS),
    "masked words": ("bert", "fill-mask", {"text": TEXTS}),
    "similar texts": ("bert", "feature-extraction", {"text": TEXTS, "text_pair": OTHERS}),
    "completions": ("decoder", "text-generation", {"prompt": TEXTS, "completion": OTHERS}),
    "texts": ("decoder", "text-generation", {"text": TEXTS}),
    "translations": ("t5", "translation", {"source": TEXTS, "target": OTHERS}),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def model_and_examples(request):
    checkpoint, task, columns = KINDS[request.param]
    examples = ft.data.from_arrays(**columns)
    labels = {"labels": examples.labels or ["bad", "good"]}
    has_labels = task in ("text-classification", "token-classification")
    folder = request.getfixturevalue(f"tiny_{checkpoint}")
    return loaded(folder, task, **(labels if has_labels else {})), examples


@pytest.mark.parametrize("options", [{}, SHUFFLED], ids=["in order", "shuffled"])
def test_batches_of_every_kind_of_examples(model_and_examples, arrays, options):
    model, examples = model_and_examples
    with quiet():
        expected = examples.batches(model, 4, **options)
    assert_same_epochs(arrays(examples, model, 4, **options), expected)


def test_packed_rows_of_every_kind_of_examples(model_and_examples, arrays):
    model, examples = model_and_examples
    options = SHUFFLED | {"packing": True}
    try:
        with quiet():
            expected = examples.batches(model, 4, **options)
    except DataError as refused:
        with pytest.raises(DataError, match="cannot be packed") as found:
            arrays(examples, model, 4, **options)
        assert str(found.value) == str(refused)
        return
    assert_same_epochs(arrays(examples, model, 4, **options), expected)


class OneOfThree:
    """The share of a process, without JAX."""

    def __init__(self, number):
        self.number = number

    def of_process(self, count):
        return places_of(count, 3, 6)[self.number]

    def joined(self, batch, count):
        return count, tensors_of(batch)


def epoch_of_keras(batches):
    """The batches of an epoch as Keras reads them."""
    batches.on_epoch_begin()
    return [batches[number] for number in range(batches.num_batches)]


@pytest.mark.parametrize("packing", [False, True])
def test_what_three_processes_read_are_whole_batches(
    packing, model_and_examples, arrays, monkeypatch
):
    """Each reads some rows of each batch; together they are the rows of all, each of them once."""
    model, examples = model_and_examples
    try:
        whole = list(arrays(examples, model, 5, **SHUFFLED, packing=packing))
    except DataError as refused:
        assert packing and "cannot be packed" in str(refused)
        return
    read = []
    for number in range(3):
        monkeypatch.setattr(array_dataset, "shares", lambda number=number: OneOfThree(number))
        read.append(epoch_of_keras(arrays(examples, model, 5, **SHUFFLED, packing=packing)))
    assert len(whole) == len(read[0]) > 1
    for expected, *parts in zip(map(tensors_of, whole), *read, strict=True):
        (count,) = {count for count, _ in parts}
        places = places_of(count, 3, 6)
        first = np.unique(places, return_index=True)[1]
        for name, array in expected.items():
            joined = np.concatenate([part[name] for _, part in parts])
            each = len(joined) // places.size  # values for each row
            rows = joined.reshape(places.size, each, *array.shape[1:])[first]
            np.testing.assert_array_equal(rows.reshape(array.shape), array, err_msg=name)


def test_batches_of_cached_features(tiny_bert, texts, arrays):
    model = loaded(tiny_bert, labels=texts.labels)
    with quiet():
        ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
        upper = ft.cache_features(model)
        expected = texts.batches(upper, 4, **SHUFFLED)
    assert_same_epochs(arrays(texts, upper, 4, **SHUFFLED), expected)


def test_variants_of_images(arrays):
    """Each epoch has the features of another variant."""
    images = RANDOM.integers(0, 256, (9, 21, 21, 3)).astype("uint8")
    examples = ft.data.from_arrays(image=images, label=list("abcabcabc"))
    model = loaded(TINY_VIT, labels=examples.labels, new_head=True)
    options = SHUFFLED | {"augment": ["flip", "color"], "augment_variants": 2}
    with quiet():
        ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
        learner = ft.cache_features(model)
        expected = examples.batches(learner, 4, **options)
    seen = assert_same_epochs(arrays(examples, learner, 4, **options), expected)
    first, second, third = (
        np.sort(np.concatenate([x["cached_features"] for x, _ in epoch]), axis=None)
        for epoch in seen
    )
    assert (first != second).any() and (first == third).all()


def numbered():
    """Row i has the target i; five batches of rows of three lengths."""
    ids = [np.full(n, i) for i, n in enumerate([3, 5, 3, 9, 5, 3, 9, 9, 3, 5])]
    return bucketed_dataset(
        {"input_ids": Feature(ids)},
        Feature.of_array(np.arange(10)),
        2,
        {"tokens": [3, 5, 9]},
        shuffle=True,
        seed=7,
    )


@pytest.fixture
def both(monkeypatch):
    """The same batches from the pipeline and as arrays."""
    pipeline = numbered()
    monkeypatch.setattr(batching, "uses_pipeline", lambda augment=None: False)
    return numbered(), pipeline


def targets_of(batches):
    return [np.asarray(targets).tolist() for _, targets in batches]


def test_an_epoch_begins_at_any_batch(both):
    arrays, pipeline = both
    for batches in both:
        batches.cursor.epoch, batches.cursor.batch = 3, 2
    assert targets_of(arrays) == targets_of(pipeline) and len(arrays) == 5
    assert arrays.cursor.state_dict() == {"epoch": 4, "batch": 0, "batch_count": 5, "seed": 7}


def test_a_broken_iteration_ends_its_thread(both):
    arrays, _ = both
    before = threading.enumerate()
    iterator = iter(arrays)
    next(iterator)
    # Not a count of all threads: those of other tests may end at any time.
    started = [thread for thread in threading.enumerate() if thread not in before]
    (own,) = [thread for thread in started if thread.name.startswith("map_ahead")]
    assert own.is_alive()
    del iterator
    gc.collect()
    assert not own.is_alive()


def test_an_error_of_a_row_reaches_the_reader(both):
    arrays, _ = both

    def broken(drawn, items, shape):
        raise OSError("the disk is gone")

    arrays._read_batch = broken
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(arrays))
