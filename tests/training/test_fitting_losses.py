"""All losses of Keras and of the presets on all kinds of models: they fit or are rejected."""

import re

import keras
import numpy as np
import pytest
from helpers_tasks import CASES, rows_for, small_task_model

import finetune_tf as ft
from finetune_tf import messages, presets
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training.outputs import LOSSES

L = keras.losses
CLASSES = ("one label", "two labels", "tokens", "words", "answers")
#: The losses of Keras by the kinds of models that they fit.
FITS = {
    ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"): CLASSES,
    ("CategoricalCrossentropy", "categorical_crossentropy"): CLASSES,
    ("CategoricalFocalCrossentropy", "categorical_focal_crossentropy"): CLASSES,
    ("CategoricalHinge", "categorical_hinge"): CLASSES,
    ("BinaryCrossentropy", "binary_crossentropy", "bce"): ("several labels", "number"),
    ("BinaryFocalCrossentropy", "binary_focal_crossentropy"): ("several labels", "number"),
    ("Hinge", "hinge"): ("several labels", "number"),
    ("SquaredHinge", "squared_hinge"): ("several labels", "number"),
    ("MeanSquaredError", "mean_squared_error", "mse", "MSE"): ("number", "vectors"),
    ("MeanAbsoluteError", "mean_absolute_error", "mae"): ("number", "vectors"),
    ("MeanAbsolutePercentageError", "mape"): ("number", "vectors"),
    ("Huber", "huber"): ("number", "vectors"),
    ("LogCosh", "log_cosh"): ("number", "vectors"),
    ("CosineSimilarity", "cosine_similarity"): ("vectors",),
    ("Circle", "circle"): ("vectors",),
    ("KLDivergence", "kl_divergence", "kld"): (),
    ("Dice", "dice"): (),
    ("Tversky", "tversky"): (),
    ("CTC", "ctc"): (),
    ("CategoricalGeneralizedCrossEntropy",): (),
}


FITS = {
    names: cases for names, cases in FITS.items() if hasattr(L, names[0])
}  # in the installed version of Keras


@pytest.fixture(scope="module")
def models():
    return {case: small_task_model(case) for case in CASES}


def in_every_form(names):
    """A loss in all forms: by name, as a function, a class, an object, a config, in containers."""
    cls = getattr(L, names[0])
    whole = {"from_logits": True} if LOSSES[names[0]].takes == "logits" else {}
    yield from names
    yield cls(**whole)
    yield [cls(**whole)]
    yield {"classifier": cls(**whole)}
    yield L.serialize(cls(**whole))
    for name in names[1:]:
        yield L.get(name)


@pytest.mark.parametrize("names", FITS, ids=lambda names: names[0])
@pytest.mark.parametrize("case", CASES)
def test_a_loss_fits_or_is_refused(models, case, names):
    model, preset = models[case], ft.presets.PRESETS[models[case].task.output_kind].__name__
    forms = list(in_every_form(tuple(name for name in names if hasattr(L, name) or name.islower())))
    for loss in forms:
        with messages.quiet():
            if case in FITS[names]:
                model.compile(keras.optimizers.SGD(0.0), loss)
                continue
            with pytest.raises(ModelError, match=f"{names[0]} is for .*, but the model") as refused:
                model.compile(keras.optimizers.SGD(0.0), loss)
        assert not FITS[names] or f"to use that of ft.presets.{preset}()." in str(refused.value)


def test_the_table_knows_every_loss_of_keras():
    found = {
        name
        for name, loss in vars(L).items()
        if isinstance(loss, type) and issubclass(loss, L.Loss) and loss is not L.Loss
    }
    assert found <= LOSSES.keys()


PRESETS = {
    "cross_entropy": CLASSES,
    "binary_cross_entropy": ("several labels", "number"),
    "mean_squared_error": ("number", "vectors"),
    "similarity": ("vectors",),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("case", CASES)
def test_a_preset_fits_or_is_refused(models, case, name):
    preset = getattr(presets, name)()
    if case == "vectors" and name == "mean_squared_error":
        preset["metrics"] = []
    if case in PRESETS[name]:
        models[case].compile(**preset)
        return
    with pytest.raises(ModelError, match=r"is for .*, but the model's .* is .*Call compile\(\)"):
        models[case].compile(**preset)


def test_a_preset_of_another_task_is_named():
    message = (
        "MeanSquaredError is for regression, but the model's problem type is "
        "'single_label_classification'. Call compile() without a loss to use that of "
        "ft.presets.cross_entropy()."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        small_task_model("two labels").compile(**presets.mean_squared_error())
    message = "SparseCategoricalCrossentropy is for one label out of several, but the model's task "
    with pytest.raises(ModelError, match=re.escape(message + "is 'feature-extraction'.")):
        small_task_model("vectors").compile(**presets.cross_entropy())


class TestTargetsThatCountForNothing:
    @pytest.mark.parametrize(
        "loss",
        [
            lambda: "sparse_categorical_crossentropy",
            lambda: "SparseCategoricalCrossentropy",
            lambda: "crossentropy",
            lambda: L.sparse_categorical_crossentropy,
            lambda: L.SparseCategoricalCrossentropy(from_logits=True),
            lambda: [L.SparseCategoricalCrossentropy(from_logits=True)],
            lambda: L.serialize(L.SparseCategoricalCrossentropy(from_logits=True)),
        ],
    )
    @pytest.mark.parametrize("case", ["tokens", "words"])
    def test_in_every_form_of_the_loss(self, case, loss):
        model, (ids, targets) = small_task_model(case), rows_for(case)
        model.compile(keras.optimizers.SGD(0.0), loss(), run_eagerly=True)
        logits = np.asarray(model(ids), "float64")[targets != -100]
        chosen = np.take_along_axis(logits, targets[targets != -100][:, None], 1)[:, 0]
        expected = (np.log(np.exp(logits).sum(-1)) - chosen).mean()
        assert model.evaluate(ids, targets, verbose=0) == pytest.approx(expected, rel=1e-5)

    def test_is_said(self, capsys):
        loss = L.SparseCategoricalCrossentropy(from_logits=True)
        small_task_model("tokens").compile(keras.optimizers.SGD(0.0), loss)
        said = "compile: the loss ignores targets of -100 (ignore_class=-100).\n"
        assert capsys.readouterr().out == said

    def test_another_class_to_ignore(self):
        loss = L.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
        message = (
            "has ignore_class=0, but ignored targets are -100 in this library. Write ignore_cl"
        )
        with pytest.raises(ModelError, match=message):
            small_task_model("tokens").compile(loss=loss)


class TestLabelSmoothing:
    def test_in_question_answering(self):
        with pytest.raises(
            ModelError, match="label_smoothing spreads probability over all classes"
        ):
            small_task_model("answers").compile(**presets.cross_entropy(label_smoothing=0.1))

    @pytest.mark.parametrize("given", [-0.1, 1, 1.5, float("nan"), True, "0.1"])
    def test_outside_of_its_range(self, given):
        message = f"label_smoothing must be a number >= 0 and < 1, found {given!r}."
        with pytest.raises(ArgumentError, match=re.escape(message)):
            presets.cross_entropy(label_smoothing=given)

    @pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error", "similarity"])
    def test_in_presets_without_it(self, name):
        message = "Label smoothing applies to single-label classification only: ft.presets"
        with pytest.raises(ArgumentError, match=re.escape(message)):
            getattr(presets, name)(label_smoothing=0.1)


def test_warnings_of_what_will_not_learn():
    with pytest.warns(UserWarning, match="BinaryCrossentropy has from_logits=False"):
        small_task_model("several labels").compile(loss=L.BinaryCrossentropy())
    for name in ("poisson", "mean_squared_logarithmic_error"):
        with pytest.warns(UserWarning, match="expects predictions above 0, but the model also"):
            small_task_model("number").compile(loss=name)


def test_unknown_names():
    with pytest.raises(ModelError, match="There is no loss 'crossentropi'. Call compile"):
        small_task_model("one label").compile(loss="crossentropi")


def test_somebodys_own_loss_is_trusted():
    def own(targets, outputs):
        return keras.ops.mean(keras.ops.square(outputs), axis=-1)

    class Mine(L.MeanSquaredError):
        def call(self, targets, outputs):
            return keras.ops.mean(keras.ops.square(outputs), axis=-1)

    for loss in (own, Mine()):
        model = small_task_model("one label")
        model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
        assert model.loss is loss
        ids, _ = rows_for("one label")
        found = model.evaluate(ids, np.full(4, -7.5), verbose=0)
        assert found == pytest.approx(float((np.asarray(model(ids)) ** 2).mean()), rel=1e-5)


def test_vectors_learn_from_those_of_a_teacher():
    model = small_task_model("vectors")
    model.compile(keras.optimizers.SGD(0.1), "mse", ["cosine_similarity"])
    ids, teacher = rows_for("vectors")[0], np.ones((8, 8), "float32")
    losses = model.fit(ids, teacher, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_rows_where_class_numbers_are_meant_and_back(models):
    models["one label"].compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    with pytest.raises(ft.errors.DataError, match=r"Write np.eye\(3\)\[labels\] to convert class"):
        models["one label"].fit(*rows_for("one label"), verbose=0)
    models["several labels"].compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ft.errors.DataError, match="rows with 0 or 1 for each of the 3 labels"):
        models["several labels"].fit(rows_for("one label")[0], np.array([0, 1, 1, 0]), verbose=0)
    models["number"].compile(keras.optimizers.SGD(0.0))
    with pytest.raises(
        ft.errors.DataError, match="The model returns one number per text, so targe"
    ):
        models["number"].fit(rows_for("number")[0], np.ones((4, 3)), verbose=0)
