"""Sample weights and class weights: the loss equals its definition computed with NumPy."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_tasks import CASES, LENGTH, ROWS, VOCABULARY, rows_for, small_task_model

import finetune_tf as ft
from finetune_tf import messages
from finetune_tf.errors import ArgumentError, DataError, ModelError
from finetune_tf.training.similarity_loss import PairSimilarity

TEXTS = np.array([2.0, 0.0, 0.5, 3.0])  # the weight of each text
WEIGHED = [case for case in CASES if case != "vectors"]
#: Class weights by number, and the same by name.
BY_CLASS = {
    "one label": ({0: 3.0, 2: 0.5}, {"neg": 3.0, "pos": 0.5}),
    "two labels": ({1: 4.0}, {"pos": 4.0}),
    "several labels": ({0: 3.0, 2: 0.5}, {"a": 3.0, "c": 0.5}),
    "tokens": ({0: 3.0, 2: 0.5}, {"O": 3.0, "I-X": 0.5}),
    "words": ({7: 3.0, 9: 0.5}, {"film": 3.0, "very": 0.5}),
}
OPTIMIZER = {"learning_rate": 0.0}


@pytest.fixture(scope="module")
def models(tiny_bert):
    made = {}
    for case in CASES:
        made[case] = small_task_model(case, tiny_bert)
        with messages.quiet():
            made[case].compile(keras.optimizers.SGD(0.0))
    return made


def terms(case, logits, targets):
    """The loss of each target, and whether it is counted; (rows, labels) for several labels."""
    logits = np.asarray(logits, "float64")
    if case == "number":
        return (logits[:, 0] - targets) ** 2, np.ones(len(targets))
    if case == "several labels":
        return np.logaddexp(0, logits) - targets * logits, np.ones(targets.shape)
    counted = targets != -100
    chosen = np.take_along_axis(logits, np.where(counted, targets, 0)[..., None], -1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen, counted


def of_texts(weights, losses):
    return np.broadcast_to(weights.reshape(-1, *(1,) * (losses.ndim - 1)), losses.shape)


def of_classes(case, targets):
    count = {"words": VOCABULARY, "two labels": 2}.get(case, 3)
    weights = np.ones(count)
    for number, weight in BY_CLASS[case][0].items():
        weights[number] = weight
    if case == "several labels":
        return np.broadcast_to(weights, targets.shape)
    return weights[np.where(targets == -100, 0, targets)]


def loss_of(losses, counted, weights):
    return (losses * counted * weights).sum() / counted.sum()


def every_way(model, ids, targets, weights=None, **kwargs):
    """The losses of all methods; without class weights, also with a dataset."""
    given = {} if weights is None else {"sample_weight": weights.astype("float32")}
    one = {"batch_size": len(targets), "verbose": 0}
    yield model.fit(ids, targets, **given, **kwargs, **one).history["loss"][0]
    yield model.evaluate(ids, targets, **given, **kwargs, **one, return_dict=True)["loss"]
    yield model.train_on_batch(ids, targets, **given, **kwargs, return_dict=True)["loss"]
    yield model.test_on_batch(ids, targets, **given, **kwargs, return_dict=True)["loss"]
    batch = (ids, targets, *given.values())
    batches = tf.data.Dataset.from_tensors(batch)
    yield model.fit(batches, verbose=0, **kwargs).history["loss"][0]
    yield model.evaluate(batches, verbose=0, return_dict=True, **kwargs)["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("case", WEIGHED)
def test_a_weight_per_text_is_that_of_each_of_its_targets(models, case):
    ids, targets = rows_for(case)
    losses, counted = terms(case, models[case](ids), targets)
    expected = loss_of(losses, counted, of_texts(TEXTS, losses))
    assert abs(expected - loss_of(losses, counted, 1)) > 0.01
    found = list(every_way(models[case], ids, targets, TEXTS))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    column = models[case].evaluate(ids, targets, sample_weight=TEXTS[:, None], verbose=0)
    np.testing.assert_allclose(np.ravel(column)[0], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", WEIGHED)
def test_weights_of_one_change_nothing(models, case):
    ids, targets = rows_for(case)
    losses, counted = terms(case, models[case](ids), targets)
    without = models[case].evaluate(ids, targets, verbose=0, return_dict=True)["loss"]
    assert without == pytest.approx(loss_of(losses, counted, 1), rel=1e-5)
    ones = models[case].evaluate(
        ids, targets, sample_weight=np.ones(ROWS), verbose=0, return_dict=True
    )
    assert ones["loss"] == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("case", ["several labels", "tokens", "words", "answers"])
def test_weights_in_the_shape_of_the_targets(models, case):
    ids, targets = rows_for(case)
    losses, counted = terms(case, models[case](ids), targets)
    weights = np.random.default_rng(2).uniform(0, 3, targets.shape)
    expected = loss_of(losses, counted, weights)
    np.testing.assert_allclose(
        list(every_way(models[case], ids, targets, weights)), expected, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("names", [0, 1], ids=["by number", "by name"])
@pytest.mark.parametrize("case", BY_CLASS)
def test_weights_of_classes(models, case, names):
    ids, targets = rows_for(case)
    losses, counted = terms(case, models[case](ids), targets)
    expected = loss_of(losses, counted, of_classes(case, targets))
    given = BY_CLASS[case][names]
    found = list(every_way(models[case], ids, targets, class_weight=given))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    without = models[case].evaluate(ids, targets, verbose=0, return_dict=True)["loss"]
    assert without == pytest.approx(loss_of(losses, counted, 1), rel=1e-5)  # and only for that call


@pytest.mark.slow
@pytest.mark.parametrize("case", BY_CLASS)
def test_weights_of_texts_and_of_classes_are_multiplied(models, case):
    ids, targets = rows_for(case)
    losses, counted = terms(case, models[case](ids), targets)
    weights = of_texts(TEXTS, losses) * of_classes(case, targets)
    found = list(every_way(models[case], ids, targets, TEXTS, class_weight=BY_CLASS[case][0]))
    np.testing.assert_allclose(found, loss_of(losses, counted, weights), rtol=1e-5)


@pytest.mark.slow
def test_the_validation_of_a_fit_weighs_no_classes_but_its_own_texts(models):
    model, (ids, targets) = models["tokens"], rows_for("tokens")
    losses, counted = terms("tokens", model(ids), targets)
    history = model.fit(
        ids, targets, class_weight={0: 3.0}, validation_data=(ids, targets, TEXTS), verbose=0
    ).history
    weights = np.where(targets == 0, 3.0, 1.0)
    assert history["loss"][0] == pytest.approx(loss_of(losses, counted, weights), rel=1e-5)
    expected = loss_of(losses, counted, of_texts(TEXTS, losses))
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_labels_among_the_inputs(models):
    model, (ids, targets) = models["one label"], rows_for("one label")
    losses, counted = terms("one label", model(ids), targets)
    expected = loss_of(losses, counted, np.where(targets == 1, 5.0, 1.0))
    for given in ({"input_ids": ids, "labels": targets}, {"input_ids": ids, "label": targets}):
        found = model.fit(given, class_weight={"mid": 5.0}, verbose=0).history["loss"][0]
        assert found == pytest.approx(expected, rel=1e-5)
    reader, (ids, targets) = models["answers"], rows_for("answers")
    inside = {"input_ids": ids, "start_positions": targets[:, 0], "end_positions": targets[:, 1]}
    losses, counted = terms("answers", reader(ids), targets)
    expected = loss_of(losses, counted, of_texts(TEXTS, losses))
    beside = {name: inside[name] for name in ("start_positions", "end_positions")}
    batches = tf.data.Dataset.from_tensors((ids, beside, TEXTS))
    assert reader.evaluate(batches, verbose=0)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", WEIGHED)
def test_weights_of_texts_with_their_targets_among_the_inputs(models, case):
    """Keras ignores sample weights if targets are not passed separately."""
    model, (ids, targets) = models[case], rows_for(case)
    losses, counted = terms(case, model(ids), targets)
    expected = loss_of(losses, counted, of_texts(TEXTS, losses))
    named = {"labels": targets}
    if case == "answers":
        named = {"start_positions": targets[:, 0], "end_positions": targets[:, 1]}
    inputs = {"input_ids": ids, **named}
    history = model.fit(
        inputs, sample_weight=TEXTS, validation_data=(inputs, None, TEXTS), verbose=0
    ).history
    found = [
        *(history["loss"] + history["val_loss"]),
        model.evaluate(inputs, sample_weight=TEXTS, verbose=0, return_dict=True)["loss"],
        model.evaluate(inputs, None, ROWS, 0, TEXTS, return_dict=True)["loss"],  # by place
        model.test_on_batch(inputs, sample_weight=TEXTS, return_dict=True)["loss"],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_arguments_by_their_place(models):
    model, (ids, targets) = models["one label"], rows_for("one label")
    callback = keras.callbacks.History()
    model.fit(ids, targets, ROWS, 2, 0, [callback])
    assert callback.epoch == [0, 1]
    with pytest.raises(DataError, match="Weights must be finite numbers of at least 0, found -2"):
        model.evaluate(ids, targets, ROWS, 0, -TEXTS)
    with pytest.raises(TypeError, match="got batch_size twice, by position and by keyword"):
        model.evaluate(ids, targets, ROWS, batch_size=ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one label", "number"])
def test_targets_with_and_without_an_axis_of_one_in_turn(models, case):
    """TensorFlow would trace the step again with targets of unknown rank."""
    model, (ids, targets) = models[case], rows_for(case)
    expected = loss_of(*terms(case, model(ids), targets), 1)
    for given in (targets, targets[:, None], targets, targets[:, None].tolist()):
        batches = tf.data.Dataset.from_tensors((ids, np.asarray(given)))
        found = [
            model.evaluate(ids, given, verbose=0, return_dict=True)["loss"],
            model.evaluate(batches, verbose=0, return_dict=True)["loss"],
            *model.fit(batches, verbose=0).history["loss"],
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "loss"),
    [
        ("one label", lambda: ft.presets.cross_entropy(label_smoothing=0.3)["loss"]),
        ("tokens", lambda: ft.presets.cross_entropy(label_smoothing=0.3)["loss"]),
        ("one label", lambda: "sparse_categorical_crossentropy"),
        ("tokens", lambda: "sparse_categorical_crossentropy"),
        ("tokens", lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        ("several labels", lambda: "binary_crossentropy"),
        ("several labels", lambda: keras.losses.BinaryFocalCrossentropy(from_logits=True)),
        ("several labels", lambda: "hinge"),
    ],
)
def test_for_every_loss_that_fits(models, case, loss, capsys):
    """A class weight of 0 has the effect of removing the targets of the class."""
    model, (ids, targets) = small_task_model(case), rows_for(case)
    model.compile(keras.optimizers.SGD(0.0), loss())
    count = 3
    each = []
    for number in range(count):
        weights = {other: float(other == number) for other in range(count)}
        each.append(model.fit(ids, targets, class_weight=weights, verbose=0).history["loss"][0])
    whole = model.evaluate(ids, targets, verbose=0)
    assert sum(each) == pytest.approx(np.ravel(whole)[0], rel=1e-5)
    both = model.fit(ids, targets, class_weight={0: 2.0, 1: 0.0}, verbose=0).history["loss"][0]
    assert both == pytest.approx(2 * each[0] + each[2], rel=1e-5)


def test_one_hot_rows_are_weighed_by_their_class():
    model, (ids, targets) = small_task_model("one label"), rows_for("one label")
    losses, counted = terms("one label", model(ids), targets)
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    found = model.fit(ids, np.eye(3)[targets], class_weight={"mid": 5.0}, verbose=0)
    expected = loss_of(losses, counted, np.where(targets == 1, 5.0, 1.0))
    assert found.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_yes_and_no_of_one_output_are_the_classes_0_and_1():
    model, (ids, _) = small_task_model("number"), rows_for("number")
    model.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy(from_logits=True))
    answers = np.array([0, 1, 1, 0])
    logits = np.asarray(model(ids), "float64")[:, 0]
    losses = np.logaddexp(0, logits) - answers * logits
    found = model.fit(ids, answers, class_weight={1: 5.0}, verbose=0).history["loss"][0]
    assert found == pytest.approx((losses * np.where(answers, 5, 1)).mean(), rel=1e-5)


class TestPairs:
    def vectors(self):
        random = np.random.default_rng(3)
        return random.normal(size=(10, 4)).astype("float32")

    def test_a_pair_of_scores_counts_as_if_it_stood_there_so_often(self):
        vectors, scores = self.vectors(), np.array([1.0, 3.0, 3.0, 0.0, 2.0], "float32")
        times = np.array([2, 1, 0, 3, 1])
        rows = np.repeat(np.arange(5), times)
        repeated = vectors.reshape(5, 2, 4)[rows].reshape(-1, 4)
        loss = PairSimilarity()
        assert float(loss(scores, vectors, times.astype("float32"))) == pytest.approx(
            float(loss(scores[rows], repeated)), rel=1e-5
        )
        assert float(loss(scores, vectors, np.ones(5, "float32"))) == pytest.approx(
            float(loss(scores, vectors)), rel=1e-6
        )

    def test_without_scores_the_loss_of_a_pair_is_multiplied(self):
        vectors, weights = self.vectors(), np.array([2.0, 1.0, 0.0, 3.0, 1.0])
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        table = 20 * unit[0::2].astype("float64") @ unit[1::2].T
        losses = np.log(np.exp(table).sum(axis=1)) - np.diag(table)
        found = PairSimilarity()(np.zeros((5, 0), "float32"), vectors, weights.astype("float32"))
        assert float(found) == pytest.approx((losses * weights).mean(), rel=1e-5)

    def test_in_the_batches_of_a_fit(self, models):
        model, (ids, scores) = models["vectors"], rows_for("vectors")
        expected = float(PairSimilarity()(scores, model(ids), TEXTS.astype("float32")))
        batches = tf.data.Dataset.from_tensors((ids, scores, TEXTS.astype("float32")))
        assert model.fit(batches, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-5)
        assert model.evaluate(batches, verbose=0) == pytest.approx(expected, rel=1e-5)
        of_texts = tf.data.Dataset.from_tensors((ids, scores, np.ones(2 * ROWS, "float32")))
        with pytest.raises((DataError, tf.errors.InvalidArgumentError)):
            model.evaluate(of_texts, verbose=0)


class TestRefused:
    @pytest.mark.parametrize(
        ("case", "what"),
        [
            ("number", "a regression"),
            ("answers", "question-answering"),
            ("vectors", "feature-extraction"),
        ],
    )
    def test_classes_where_there_are_none(self, models, case, what):
        message = (
            f"class_weight is for classes, but {what} has none. Give a weight for each text "
            "instead: sample_weight=, or the third element of a dataset's batches."
        )
        with pytest.raises(ArgumentError, match=re.escape(message)):
            models[case].fit(*rows_for(case), class_weight={0: 2.0}, verbose=0)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({3: 1.0}, "contains the class 3, but the model's classes are the indices from 0 to 2"),
            ({-1: 1.0}, "contains the class -1, but"),
            (
                {"good": 1.0},
                "contains the class 'good', but the model's classes are the indices fr",
            ),
            ({1.5: 1.0}, "contains the class 1.5, but"),
            ({0: 1.0, "neg": 2.0}, "contains class 0 twice, as 0 and as 'neg'."),
            ({0: -1.0}, "A class weight must be a finite number of at least 0, found -1.0 for 0."),
            ({0: np.nan}, "A class weight must be a finite number of at least 0, found nan for 0."),
            ({0: np.inf}, "A class weight must be a finite number of at least 0, found inf for 0."),
            ({0: "2"}, "A class weight must be a finite number of at least 0, found '2' for 0."),
            ("uniform", "class_weight must be a dict from class to weight, such as"),
            ([1.0, 2.0, 3.0], "class_weight must be a dict from class to weight, such as"),
        ],
    )
    def test_class_weights(self, models, given, message):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            models["one label"].fit(*rows_for("one label"), class_weight=given, verbose=0)

    def test_a_number_that_is_a_name_too(self, tiny_bert):
        model = small_task_model("one label")
        model.info.labels = ft.Labels(["1", "2", "3"])
        model.compile()
        message = "could be the class index 1 or the label named '1'. Write names as strings: {'1'"
        with pytest.raises(ArgumentError, match=re.escape(message)):
            model.fit(*rows_for("one label"), class_weight={1: 2.0}, verbose=0)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (np.ones(ROWS + 1), f"weight for each of the {ROWS} texts, found {ROWS + 1} weights."),
            (np.float32(1.0), f"weight for each of the {ROWS} texts, found a single number."),
            (np.array([1.0, -1.0, 1.0, 1.0]), "finite numbers of at least 0, found -1."),
            (np.array([1.0, np.nan, 1.0, 1.0]), "finite numbers of at least 0, found nan."),
            (np.array([1.0, np.inf, 1.0, 1.0]), "finite numbers of at least 0, found inf."),
        ],
    )
    @pytest.mark.parametrize("way", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
    def test_weights_of_texts(self, models, given, message, way):
        verbose = {} if way.endswith("batch") else {"verbose": 0}
        for case in ("one label", "tokens"):
            with pytest.raises(DataError, match=re.escape(message)):
                getattr(models[case], way)(*rows_for(case), sample_weight=given, **verbose)
        with pytest.raises(DataError, match=re.escape(message)):
            models["tokens"].fit(
                *rows_for("tokens"), validation_data=(*rows_for("tokens"), given), verbose=0
            )

    def test_weights_of_another_shape(self, models):
        message = f"found weights of shape (None, {LENGTH + 1}) for targets of shape"
        with pytest.raises(DataError, match=re.escape(message)):
            models["tokens"].fit(
                *rows_for("tokens"), sample_weight=np.ones((ROWS, LENGTH + 1)), verbose=0
            )

    def test_one_weight_for_a_whole_batch(self, models):
        batches = tf.data.Dataset.from_tensors((*rows_for("tokens"), np.ones(1, "float32")))
        with pytest.raises((DataError, tf.errors.InvalidArgumentError)):
            models["tokens"].evaluate(batches, verbose=0)

    def test_labels_weighed_in_a_loss_of_ones_own(self):
        model = small_task_model("several labels")
        model.compile(keras.optimizers.SGD(0.0), lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1))
        with pytest.raises(ModelError, match="Weights per label need a loss that is computed for"):
            model.fit(*rows_for("several labels"), class_weight={"a": 2.0}, verbose=0)


def test_a_second_fit_with_the_same_weights_traces_no_step(models):
    model, (ids, targets) = models["one label"], rows_for("one label")
    model.fit(ids, targets, class_weight={0: 2.0}, verbose=0)
    step = model.train_function
    model.fit(ids, targets, class_weight={"neg": 2.0}, verbose=0)
    assert model.train_function is step
    model.fit(ids, targets, verbose=0)
    assert model.train_function is not step
