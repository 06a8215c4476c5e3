"""Few-shot classifiers: contrastive training of the encoder, and linear heads."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.fewshot import PairCosines, body
from finetune_tf.fewshot.body import BodyTrainer
from finetune_tf.fewshot.encoder import vectors_of
from finetune_tf.fewshot.sampling import balanced_order
from finetune_tf.fewshot.snapshots import Snapshot

GOOD = ["a good film", "the film was very good", "great story", "a great and good actor"]
BAD = ["a bad film", "the film was very bad", "poor story", "a poor and bad actor"]
TRAIN = ft.data.from_arrays(GOOD + BAD, ["good"] * 4 + ["bad"] * 4)
TEST = ft.data.from_arrays(
    ["the story was good", "a good actor", "the story was bad", "a bad actor"],
    ["good", "good", "bad", "bad"],
)
# Eight texts are too few for cross-validation to trust them.
C_OF = {"prototypes": {}, "logistic": {"C": 100.0}}
SEVERAL = ft.data.from_arrays(
    GOOD + BAD,
    [["good", "film"], ["good", "film"], ["good"], ["good"], ["film"], ["film"], [], []],
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a random BERT with one block."""
    return write_checkpoint(tmp_path_factory.mktemp("fewshot") / "encoder", blocks=1)


@pytest.fixture(scope="module")
def tuned(encoder):
    return ft.fewshot.fit(encoder, TRAIN, steps=30, learning_rate=3e-3)


def vectors(model, examples):
    return vectors_of(model, examples.encoded(model, targets=False), 8, "texts")


def likeness(model):
    """The mean cosine of pairs of one class minus that of pairs of two classes."""
    found = vectors(model, TRAIN)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = np.equal.outer(TRAIN.columns["label"], TRAIN.columns["label"])
    return cosines[same].mean() - cosines[~same].mean()


@pytest.mark.slow
def test_the_result_is_an_ordinary_model(tuned, tmp_path, capsys):
    assert isinstance(tuned, ft.FineTuneModel)
    assert ft.evaluate(tuned, TEST).metrics["accuracy"] == 1.0
    folder = tuned.save_pretrained(tmp_path / "saved")
    again = ft.load(folder)
    assert again.labels == tuned.labels
    for before, after in zip(
        ft.predict(tuned, GOOD + BAD), ft.predict(again, GOOD + BAD), strict=True
    ):
        assert before.label == after.label
        assert before.score == pytest.approx(after.score, abs=1e-6)
    assert "not trained" not in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    assert "AdamW, contrastive" in card and "arrays (8 texts)" in card


def test_training_makes_texts_of_one_class_alike(encoder, tuned):
    untrained = ft.load(encoder, labels=TRAIN.labels, pooling="mean")
    assert likeness(tuned) > likeness(untrained) + 0.5


def small(tiny_bert, examples=TRAIN):
    """A classifier that is traced in a fraction of a second."""
    keras.utils.set_random_seed(0)
    return small_model(examples.labels, tiny_bert)


@pytest.mark.slow
def test_steps_of_its_own_are_the_same_as_the_recipe(encoder, tuned):
    model = ft.load(encoder, labels=TRAIN.labels, pooling="mean", new_head=True)
    losses = ft.fewshot.tune_body(model, TRAIN, steps=30, learning_rate=3e-3)
    ft.fewshot.fit_head(model, TRAIN)
    assert len(losses) == 30 and losses[-1] < losses[0] / 2
    np.testing.assert_allclose(vectors(model, TEST), vectors(tuned, TEST), atol=1e-5)


@pytest.mark.slow
def test_a_head_alone_leaves_the_encoder_as_it_is(tiny_bert):
    model = small(tiny_bert)
    before = vectors(model, TEST)
    for kind in ("prototypes", "logistic"):
        assert ft.fewshot.fit_head(model, TRAIN, kind=kind, **C_OF[kind]) is model
        assert ft.evaluate(model, TRAIN).metrics["accuracy"] >= 0.75
    np.testing.assert_array_equal(vectors(model, TEST), before)


@pytest.mark.slow
def test_frozen_stages_do_not_change_and_are_computed_once(tiny_bert, capsys):
    model = small(tiny_bert)
    before = {variable.path: np.array(variable) for variable in model.variables}
    ft.train_only(model, ft.select.matching("block_1"))
    ft.fewshot.tune_body(model, TRAIN, TEST, steps=8)
    changed = {v.path for v in model.variables if not np.array_equal(before[v.path], v)}
    assert {path.partition("/")[0] for path in changed} == {"block_1"}


@pytest.mark.slow
def test_a_recipe_with_frozen_blocks(tiny_bert, capsys):
    frozen = ft.load(tiny_bert, labels=TRAIN.labels, pooling="mean")
    model = ft.fewshot.fit(
        tiny_bert, TRAIN, TEST, policy=ft.select.blocks(-1), steps=8, head="prototypes"
    )
    assert "computed once" in capsys.readouterr().out
    changed = {
        after.path.partition("/")[0]
        for before, after in zip(frozen.variables, model.variables, strict=True)
        if not np.array_equal(before.numpy(), after.numpy())
    }
    assert changed == {"block_1", "classifier"}


@pytest.mark.slow
def test_several_labels(tiny_bert):
    model = small(tiny_bert, SEVERAL)
    losses = ft.fewshot.tune_body(model, SEVERAL, steps=60, learning_rate=0.02)
    assert losses[-1] < losses[0] / 2
    for kind in ("prototypes", "logistic"):
        ft.fewshot.fit_head(model, SEVERAL, kind=kind, **C_OF[kind])
        assert ft.evaluate(model, SEVERAL).metrics["micro_f1"] > 0.9


@pytest.mark.slow
def test_validation_ends_the_training_early_and_keeps_the_best_weights(tiny_bert):
    # The labels of validation have nothing to do with the texts: training makes their loss worse.
    wrong = ft.data.from_arrays(GOOD + BAD, ["bad", "good"] * 4)
    options = {"steps": 80, "learning_rate": 0.02}
    ending, whole = small(tiny_bert), small(tiny_bert)

    def loss_of(model):
        return float(PairCosines()(model.task.targets(wrong), vectors(model, wrong)))

    before = loss_of(ending)
    assert len(ft.fewshot.tune_body(ending, TRAIN, wrong, **options)) < 80
    assert len(ft.fewshot.tune_body(whole, TRAIN, **options)) == 80
    assert loss_of(ending) <= before
    assert loss_of(ending) < loss_of(whole)


@pytest.mark.slow
def test_a_training_is_repeated_exactly_and_without_another_trace(tiny_bert, monkeypatch):
    model, traced, call = small(tiny_bert), [], PairCosines.call
    monkeypatch.setattr(PairCosines, "call", lambda *args: traced.append(1) or call(*args))
    trainer, start = BodyTrainer(model), Snapshot(model.variables)
    first = trainer.fit(TRAIN, steps=4, batch_size=4)
    number = len(traced)
    start.restore()
    assert trainer.fit(TRAIN, steps=4, batch_size=4) == first
    start.restore()
    assert trainer.fit(TRAIN, steps=4, batch_size=8, seed=1) != first
    assert len(traced) == number > 0


def test_the_loss_fits_the_labels(tiny_bert):
    model = small(tiny_bert, SEVERAL)
    with pytest.raises(ArgumentError, match=r'loss="contrast" needs one label for each text'):
        ft.fewshot.tune_body(model, SEVERAL, loss="contrast")
    with pytest.raises(ArgumentError, match=r"loss must be 'auto', 'cosines' or 'contrast', found"):
        ft.fewshot.tune_body(model, SEVERAL, loss="triplet")


def test_a_frozen_encoder_cannot_be_tuned(tiny_bert):
    model = small(tiny_bert)
    ft.train_only(model, ft.select.head())
    with pytest.raises(ModelError, match=r"All variables below the head are frozen"):
        ft.fewshot.tune_body(model, TRAIN)


def test_models_of_other_tasks_are_refused(encoder):
    vectors_only = ft.load(encoder, "feature-extraction")
    with pytest.raises(ModelError, match=r"need a classifier of texts, found one for feature-ext"):
        ft.fewshot.fit_head(vectors_only, TRAIN)
    with pytest.raises(ModelError, match=r"need a classifier of texts, found Sequential"):
        ft.fewshot.tune_body(keras.Sequential(), TRAIN)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["a film"], r"train= must be Examples, found \['a film'\]"),
        (
            ft.data.from_arrays(GOOD),
            r"train= needs labels, but arrays has the columns text\. Name the column with the "
            r"labels when reading it",
        ),
        (
            ft.data.from_arrays(GOOD, [1.5, 2.5, 3.0, 4.0]),
            r"Few-shot methods learn classes, but the labels of arrays are numbers for a regr",
        ),
        (
            ft.data.from_arrays(GOOD, ["good", "good", "good", "bad"]),
            r"compares texts of one class, but arrays has only one example of 'bad'\. Add a second "
            r"one, or fit a head on the encoder as it is",
        ),
        (
            ft.data.from_arrays(GOOD, ["good"] * 4, labels=["good", "bad"]),
            r"arrays has no example of 'bad'\. Add at least two examples of each class",
        ),
    ],
)
def test_wrong_examples_are_found_before_the_checkpoint_is_opened(train, message):
    with pytest.raises((DataError, DataTypeError), match=message):
        ft.fewshot.fit("no-such-checkpoint", train)


def test_empty_examples():
    with pytest.raises(DataError, match="no rows|empty"):
        ft.data.from_arrays([], [])


def test_a_class_that_only_validation_has():
    other = ft.data.from_arrays(GOOD, ["good", "good", "bad", "mixed"])
    with pytest.raises(
        DataError, match=r"validation= has the class 'mixed', which the training examples do not"
    ):
        ft.fewshot.fit("no-such-checkpoint", TRAIN, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps must be an integer >= 1 or 'auto', found 0"),
        ({"batch_size": 3}, r"batch_size must be an integer >= 4, found 3"),
        ({"learning_rate": -1.0}, r"learning_rate must be a number > 0 or 'auto', found -1"),
        ({"head": "forest"}, r"The head must be 'logistic' or 'prototypes', found 'forest'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        ft.fewshot.fit("no-such-checkpoint", TRAIN, **options)


@pytest.mark.slow
def test_pytorch_opens_the_saved_folder_with_the_same_logits(tuned, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = tuned.save_pretrained(tmp_path / "saved")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    found = theirs.encode(GOOD + BAD, convert_to_numpy=True)
    rows = ft.data.from_arrays(GOOD + BAD)
    ours = tuned.predict(rows.batches(tuned, 8), verbose=0)
    np.testing.assert_allclose(found, ours, atol=1e-4)


ONE_LABEL = ft.Labels(["good"], "multi_label_classification")


def test_texts_without_labels_are_compared_with_the_others(tiny_bert, monkeypatch):
    train = ft.data.from_arrays(GOOD + BAD, [["good"]] * 4 + [[]] * 4, labels=ONE_LABEL)
    orders = []
    monkeypatch.setattr(
        body, "balanced_order", lambda *args: orders.append(balanced_order(*args)) or orders[-1]
    )
    ft.fewshot.tune_body(small(tiny_bert, train), train, steps=3, batch_size=4)
    (order,) = orders
    assert ((order < 4).sum(axis=1) == 2).all() and order.shape == (3, 4)


def test_texts_that_all_have_the_same_labels_cannot_be_told_apart(tiny_bert):
    train = ft.data.from_arrays(GOOD, [["good"]] * 4, labels=ONE_LABEL)
    with pytest.raises(DataError, match=r"All texts of arrays have the same labels, so contrast"):
        ft.fewshot.tune_body(small(tiny_bert, train), train)


@pytest.mark.parametrize("validation", [None, TEST])
def test_a_loss_that_is_no_number_ends_the_training_with_an_error(tiny_bert, validation):
    with pytest.raises(ModelError, match=r"The loss is nan at step|vectors of .* are not finite"):
        ft.fewshot.tune_body(small(tiny_bert), TRAIN, validation, steps=30, learning_rate=1e30)


def test_variables_of_16_bits_are_refused(encoder):
    model = ft.load(encoder, labels=TRAIN.labels, pooling="mean", dtype="bfloat16")
    with pytest.raises(ModelError, match=r"The trainable variables are bfloat16"):
        ft.fewshot.tune_body(model, TRAIN, steps=3)


def test_float16_scales_the_loss(tiny_bert, monkeypatch):
    model = ft.load(tiny_bert, labels=TRAIN.labels, pooling="mean", dtype="mixed_float16")
    scales = []

    class Scaled(keras.optimizers.LossScaleOptimizer):
        def scale_loss(self, loss):
            scales.append(self.initial_scale)
            return super().scale_loss(loss)

    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", Scaled)
    before = model.get_weights()
    losses = ft.fewshot.tune_body(model, TRAIN, steps=3)
    assert scales
    assert min(scales) > 1000
    assert np.isfinite(losses).all()
    assert any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))


def test_thresholds_of_other_weights_are_forgotten(tiny_bert, capsys):
    model = small(tiny_bert)
    trainings = {
        "fit_head": lambda: ft.fewshot.fit_head(model, TRAIN, kind="prototypes"),
        "tune_body": lambda: ft.fewshot.tune_body(model, TRAIN, steps=2),
    }
    for name, train in trainings.items():
        model.config["label_thresholds"] = {"good": 0.99}
        train()
        assert "label_thresholds" not in model.config, name
        assert "trained after its thresholds, which no longer apply" in capsys.readouterr().out
