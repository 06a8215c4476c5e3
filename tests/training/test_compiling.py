"""Arguments of `compile`: defaults, names as in old scripts, and common mistakes."""

import math
import re
import warnings

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training import AdamW, WarmupLinearDecay

TOKENS, ANSWERS = token_batch(32)
SPARSE = keras.losses.SparseCategoricalCrossentropy


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return small_model()


class TestNothingGiven:
    @pytest.mark.parametrize(
        ("problem_type", "preset", "loss", "metric"),
        [
            ("single_label_classification", "cross_entropy", SPARSE, "accuracy"),
            (
                "multi_label_classification",
                "binary_cross_entropy",
                keras.losses.BinaryCrossentropy,
                "accuracy",
            ),
            ("regression", "mean_squared_error", keras.losses.MeanSquaredError, "mae"),
        ],
    )
    def test_the_preset_of_the_task(self, problem_type, preset, loss, metric, capsys):
        names = ["stars"] if problem_type == "regression" else ["no", "yes"]
        model = small_model(ft.Labels(names, problem_type))
        model.compile()
        assert capsys.readouterr().out == f"compile: loss and metrics of the preset {preset}.\n"
        assert type(model.loss) is loss
        assert type(model.optimizer) is AdamW
        assert type(model.optimizer._learning_rate) is WarmupLinearDecay
        targets = {
            "single_label_classification": ANSWERS,
            "multi_label_classification": np.eye(2, dtype="float32")[ANSWERS],
            "regression": ANSWERS.astype("float32"),
        }[problem_type]
        model.run_eagerly = True
        history = model.fit(TOKENS, targets, verbose=0).history
        assert set(history) == {"loss", metric}

    def test_fit_without_compile_compiles(self, model, capsys):
        model.fit(TOKENS, ANSWERS, verbose=0)
        assert "preset cross_entropy" in capsys.readouterr().out
        assert type(model.optimizer) is AdamW

    def test_a_part_given_keeps_the_rest(self, model):
        sgd = keras.optimizers.SGD(1e-2)
        model.compile(sgd)
        assert model.optimizer is sgd
        assert type(model.loss) is SPARSE
        model.compile(metrics=["accuracy"])
        assert type(model.loss) is SPARSE
        loss = SPARSE(from_logits=True)
        model.compile(loss=loss)
        assert model.loss is loss
        assert type(model.optimizer) is AdamW


class TestOldScripts:
    def test_a_loss_by_name_is_computed_from_logits(self, model, capsys):
        model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
        assert capsys.readouterr().out.splitlines() == [
            "compile: optimizer 'sgd' gets the rate 'auto' with warm-up and linear decay, not "
            "Keras's default rate.",
            "compile: loss 'sparse_categorical_crossentropy' is computed from logits, which the "
            "model returns.",
        ]
        assert model.loss.get_config()["from_logits"] is True

    @pytest.mark.slow
    def test_and_it_learns(self, model):
        ft.train_only(model, select.head())
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        losses = model.fit(TOKENS, ANSWERS, epochs=30, batch_size=8, verbose=0).history["loss"]
        assert losses[-1] < losses[0] - 0.01

    @pytest.mark.parametrize("name", ["categorical_crossentropy", "binary_crossentropy"])
    def test_the_other_losses(self, name):
        is_binary = name.startswith("binary")
        labels = ft.Labels(["a", "b"], "multi_label_classification" if is_binary else None)
        model = small_model(labels)
        model.compile(loss=name)
        assert model.loss.get_config()["from_logits"] is True

    def test_a_loss_by_name_that_takes_numbers_stays(self, capsys):
        model = small_model(["stars"])
        model.compile(loss="mse")
        assert model.loss == "mse"
        assert "logits" not in capsys.readouterr().out

    def test_a_single_output_as_a_logit(self, capsys):
        small_model(["spam"]).compile(loss="binary_crossentropy")
        told = capsys.readouterr().out
        assert "ft.predict and ft.evaluate read it as the number of a regression" in told

    def test_an_optimizer_by_name_gets_the_automatic_rate(self, model):
        model.compile("adam", SPARSE(from_logits=True))
        assert type(model.optimizer) is keras.optimizers.Adam
        assert model.optimizer._learning_rate.peak == "auto"
        assert model.optimizer.global_clipnorm is None
        model.fit(TOKENS, ANSWERS, verbose=0)
        assert model.optimizer._learning_rate.rate == pytest.approx(5e-5)

    def test_accuracy_of_several_labels_counts_from_logit_zero(self):
        model = small_model(ft.Labels(["a", "b"], "multi_label_classification"))
        model.compile(loss="binary_crossentropy", metrics=["accuracy", "mae"])
        model.run_eagerly = True
        logits = np.asarray(model(TOKENS))
        model.evaluate(TOKENS, (logits > 0).astype("float32"), verbose=0, return_dict=True)
        result = model.evaluate(TOKENS, (logits > 0).astype("float32"), verbose=0, return_dict=True)
        assert result["accuracy"] == 1.0


class TestWarnings:
    def test_a_loss_on_probabilities(self, model):
        message = "SparseCategoricalCrossentropy has from_logits=False, but the model returns"
        with pytest.warns(UserWarning, match=message) as caught:
            model.compile(keras.optimizers.SGD(1e-2), SPARSE())
        assert [warning.filename for warning in caught] == [__file__]

    def test_a_rate_that_ruins_pretrained_weights(self, model):
        message = (
            "A learning rate of 0.001 usually ruins pretrained weights: use 1e-5 to 1e-4, "
            "learning_rate='auto', or train only the head: ft.train_only(model, ft.select.head())."
        )
        with pytest.warns(UserWarning, match=re.escape(message)) as caught:
            model.compile(keras.optimizers.Adam(1e-3))
        assert [warning.filename for warning in caught] == [__file__]

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda: AdamW(5e-4),
            lambda: keras.optimizers.RMSprop(),
            lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 10)),
            lambda: ft.presets.cross_entropy(learning_rate=1e-3)["optimizer"],
        ],
    )
    def test_in_all_disguises(self, model, optimizer):
        with pytest.warns(UserWarning, match="usually ruins pretrained weights"):
            model.compile(optimizer())

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda: keras.optimizers.Adam(5e-5),
            lambda: keras.optimizers.SGD(1e-2),
            lambda: keras.optimizers.Adam(
                keras.optimizers.schedules.PolynomialDecay(2e-5, 100, end_learning_rate=0.0)
            ),
        ],
    )
    def test_harmless_rates(self, model, optimizer, recwarn):
        model.compile(optimizer())
        assert not recwarn.list

    def test_a_high_rate_is_fine_for_the_head_alone(self, model, recwarn):
        ft.train_only(model, select.head())
        model.compile(keras.optimizers.Adam(1e-3))
        assert not recwarn.list

    def test_a_reload_does_not_warn_again(self, model, tmp_path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A learning rate")
            model.compile(keras.optimizers.Adam(1e-3))
        model.optimizer.build(model.trainable_variables)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")  # a warning would be an error
        assert float(again.optimizer.learning_rate) == pytest.approx(1e-3)


class TestMistakes:
    def test_a_loss_that_cannot_fit_the_labels(self):
        model = small_model(["stars"])
        message = (
            "SparseCategoricalCrossentropy is for one label out of several, but the model's "
            "problem type is 'regression'. Call compile() without a loss to use that of"
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            model.compile(loss="sparse_categorical_crossentropy")
        with pytest.raises(ModelError, match="is for one label out of several"):
            model.compile(loss=SPARSE(from_logits=True))

    def test_an_unknown_optimizer(self, model):
        with pytest.raises(ModelError, match="There is no optimizer 'adamm'"):
            model.compile("adamm")


def test_memory_that_runs_out_says_what_to_reduce(model, monkeypatch):
    class ResourceExhaustedError(Exception):
        """Has the name of TensorFlow's class."""

    def exhausted(*args, **kwargs):
        raise ResourceExhaustedError("OOM when allocating tensor\nmany lines")

    model.compile()
    monkeypatch.setattr(keras.Model, "fit", exhausted)
    with pytest.raises(ModelError, match=r"Memory ran out\. Use a smaller batch_size .*\(OOM when"):
        model.fit(TOKENS, ANSWERS)


@pytest.mark.parametrize(
    ("case", "preset", "loss"),
    [
        ("vectors", lambda: ft.presets.similarity(accumulate=4), "PairSimilarity"),
        (
            "one label",
            lambda: ft.presets.cross_entropy(
                accumulate=4, objectives=[ft.objectives.SupervisedContrastive()]
            ),
            "SupervisedContrastive",
        ),
        ("vectors", ft.presets.similarity, None),
        ("one label", lambda: ft.presets.cross_entropy(accumulate=4), None),
    ],
)
def test_accumulated_batches_whose_rows_are_compared(case, preset, loss, capsys):
    small_task_model(case).compile(**preset())
    told = capsys.readouterr().out
    assert ("Accumulating 4 batches averages their gradients" in told) == bool(loss)
    assert loss is None or f"compile: {loss} compares the rows of a batch" in told


def test_each_fit_is_noted_for_the_model_card(model):
    ft.train_only(model, select.head())
    model.compile()
    model.fit(TOKENS, ANSWERS, batch_size=16, epochs=2, verbose=0)
    (fit,) = model.info.record["fits"]
    last = fit.pop("last")
    assert fit == {
        "epochs": 2,
        "steps": 2,
        "optimizer": "AdamW",
        "learning_rate": "0.002, warm-up and linear decay",
        "trained": "18 of 354 parameters",
    }
    assert set(last) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: keras.optimizers.Adam(1e-5, global_clipnorm=-1.0),
            "global_clipnorm must be a number",
        ),
        (lambda: keras.optimizers.SGD(1e-5, clipnorm=-1.0), "clipnorm must be a number > 0"),
        (lambda: keras.optimizers.Lion(1e-5, clipvalue=-0.5), "clipvalue must be a number > 0"),
        (lambda: keras.optimizers.Adam(-1e-5), "learning_rate must be a number >= 0"),
        (lambda: keras.optimizers.AdamW(1e-5, math.inf), "weight_decay must be a number >= 0"),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-5, clipnorm=-1.0)),
            "clipnorm must be a number > 0",
        ),
    ],
)
def test_numbers_of_an_optimizer_of_keras_that_would_train_uphill(model, made, message):
    with pytest.raises(ArgumentError, match=message):
        model.compile(made())


@pytest.mark.parametrize("weights", [-1.0, [math.nan], {"classifier": -0.5}])
def test_a_weight_of_the_loss_that_would_train_uphill(model, weights):
    with pytest.raises(ArgumentError, match="loss_weights must be a number >= 0"):
        model.compile(loss_weights=weights)


def test_how_often_a_fit_validates(model):
    model.compile(keras.optimizers.SGD(0.0))
    validation = {"validation_data": (TOKENS, ANSWERS), "verbose": 0}
    with pytest.raises(ArgumentError, match="validation_freq must be an integer >= 1, found 0"):
        model.fit(TOKENS, ANSWERS, validation_freq=0, **validation)
    history = model.fit(TOKENS, ANSWERS, epochs=3, validation_freq=[2], **validation).history
    assert len(history["loss"]) == 3 and len(history["val_loss"]) == 1
