"""Freezing takes effect at any time: before and after compile, between and during fits."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.training import AdamW

TOKENS, ANSWERS = token_batch()


def values(model):
    """Returns all weights by path."""
    return {v.path: v.numpy().copy() for v in model.weights}


def moved(before, after):
    """Returns the layers whose weights changed."""
    paths = [path for path in before if not np.array_equal(before[path], after[path])]
    return {path.split("/")[0] for path in paths}


def fit(model, **kwargs):
    """Runs two steps with a high rate; returns the layers that changed."""
    before = values(model)
    model.fit(TOKENS, ANSWERS, batch_size=8, verbose=0, **kwargs)
    return moved(before, values(model))


def slots(model):
    """Returns the slot variables of Adam by the path of the model variable."""
    optimizer = model.optimizer
    return {
        variable.path: momentum.numpy().copy()
        for variable, momentum in zip(
            optimizer._trainable_variables, optimizer._momentums, strict=True
        )
    }


def compiled(model, optimizer=keras.optimizers.SGD):
    with ft.messages.quiet():
        model.compile(optimizer(1e-2))
    return model


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return small_model()


ALL = {"embeddings", "block_0", "norm", "block_1", "classifier"}


class TestWhen:
    def test_before_compile(self, model):
        ft.freeze(model, select.embeddings() | select.bottom(1))
        assert fit(compiled(model)) == ALL - {"embeddings", "block_0"}

    def test_after_compile(self, model):
        compiled(model)
        ft.train_only(model, select.head())
        assert fit(model) == {"classifier"}

    @pytest.mark.slow
    def test_between_fits_both_ways(self, model):
        assert fit(compiled(model)) == ALL
        ft.freeze(model, select.bottom(2))
        assert fit(model) == ALL - {"block_0", "norm"}
        ft.train_only(model, select.everything())
        assert fit(model) == ALL

    def test_single_variables(self, model):
        ft.train_only(compiled(model), select.biases())
        before = values(model)
        fit(model)
        after = values(model)
        changed = {path for path in before if not np.array_equal(before[path], after[path])}
        assert changed == {
            "block_0/bias",
            "norm/beta",
            "block_1/bias",
            "classifier/dense/bias",
        }

    def test_inside_a_fit_from_a_callback(self, model):
        """Gradual unfreezing (Howard & Ruder 2018): one more block from the second epoch on."""

        class Unfreeze(keras.callbacks.Callback):
            def __init__(self):
                super().__init__()
                self.moved = []

            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    ft.train_only(self.model, select.head() | select.blocks(-1))
                self.before = values(self.model)

            def on_epoch_end(self, epoch, logs=None):
                self.moved.append(moved(self.before, values(self.model)))

        ft.train_only(compiled(model), select.head())
        unfreeze = Unfreeze()
        fit(model, epochs=3, callbacks=[unfreeze])
        assert unfreeze.moved == [{"classifier"}, *[{"block_1", "classifier"}] * 2]
        assert int(model.optimizer.iterations) == 6

    @pytest.mark.slow
    def test_trainable_set_by_hand_counts_at_the_next_fit(self, model):
        fit(compiled(model))
        model.get_layer("block_0").trainable = False
        assert fit(model) == ALL - {"block_0"}
        model.get_layer("block_0").trainable = True
        assert fit(model) == ALL

    def test_trainable_set_by_hand_before_the_first_fit(self, model):
        compiled(model)
        model.get_layer("block_0").trainable = False
        assert fit(model) == ALL - {"block_0"}

    def test_on_a_train_step_of_ones_own(self, model):
        compiled(model)
        model.train_on_batch(TOKENS, ANSWERS)
        ft.train_only(model, select.head())
        before = values(model)
        model.train_on_batch(TOKENS, ANSWERS)
        assert moved(before, values(model)) == {"classifier"}


@pytest.mark.filterwarnings("ignore:A learning rate of 0.01")
class TestSlots:
    def test_freezing_and_unfreezing_keep_what_adam_knows(self, model):
        fit(compiled(model, AdamW))
        at_first = slots(model)
        ft.freeze(model, select.bottom(1))
        kept = slots(model)
        assert kept.keys() == {path for path in at_first if not path.startswith("block_0")}
        assert all(np.array_equal(kept[path], at_first[path]) for path in kept)
        assert int(model.optimizer.iterations) == 2

    def test_what_comes_back_starts_from_zero_and_the_others_go_on(self, model):
        ft.train_only(compiled(model, AdamW), select.head())
        fit(model)
        of_head = slots(model)
        ft.train_only(model, select.everything())
        now = slots(model)
        assert np.abs(of_head["classifier/dense/kernel"]).max() > 0
        for path in now:
            np.testing.assert_array_equal(now[path], of_head.get(path, np.zeros_like(now[path])))

    def test_a_policy_that_changes_nothing_rebuilds_nothing(self, model):
        ft.freeze(compiled(model, AdamW), select.bottom(1))
        fit(model)
        optimizer, function = model.optimizer, model.train_function
        ft.freeze(model, select.bottom(1))
        assert model.optimizer is optimizer
        assert model.train_function is function


def test_an_optimizer_that_trained_another_model():
    """Its moments would be taken over by path."""
    preset, first, second = ft.presets.cross_entropy(), small_model(), small_model()
    tokens, answers = token_batch()
    with ft.messages.quiet():
        first.compile(**preset)
        second.compile(**preset)
        first.fit(tokens, answers, verbose=0)
        for call in (second.fit, second.train_on_batch):
            with pytest.raises(ft.errors.ModelError, match="The optimizer has trained another"):
                call(tokens, answers)
        first.fit(tokens, answers, verbose=0)


def test_applied_twice_it_changes_nothing(model, capsys):
    ft.freeze(model, select.bottom(1) | select.biases())
    frozen = [v.path for v in model.weights if not v.trainable]
    ft.freeze(model, select.bottom(1) | select.biases())
    assert [v.path for v in model.weights if not v.trainable] == frozen
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_freeze_adds_to_what_is_frozen_and_train_only_says_all(model):
    ft.freeze(model, select.embeddings())
    ft.freeze(model, select.bottom(1))
    assert {v.path.split("/")[0] for v in model.weights if not v.trainable} == {
        "embeddings",
        "block_0",
    }
    ft.train_only(model, select.embeddings())
    assert [v.path for v in model.trainable_variables] == ["embeddings/embeddings"]


def test_a_layer_frozen_whole_is_frozen_as_a_layer(model):
    ft.freeze(model, select.bottom(1))
    assert not model.get_layer("block_0").trainable
    assert model.get_layer("block_1").trainable


def test_says_how_many_parameters_train(model, tiny_bert, capsys):
    ft.train_only(model, select.head())
    assert capsys.readouterr().out == "18 of 354 parameters are trainable.\n"
    assert ft.count_parameters(model) == (18, 354)
    ft.freeze(model, select.head() & select.biases())
    assert capsys.readouterr().out == "16 of 354 parameters are trainable.\n"
    bert = ft.load(tiny_bert, labels=2)
    capsys.readouterr()
    ft.train_only(bert, select.head())
    assert (
        capsys.readouterr().out
        == f"{2 * 24 + 2} of {bert.count_params():,} parameters are trainable.\n"
    )


def test_nothing_left_to_train_warns(model):
    with pytest.warns(UserWarning, match="'small' has no trainable variables left") as caught:
        ft.freeze(model, select.everything())
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.slow
def test_a_real_bert_moves_in_its_trained_part_only(tiny_bert):
    bert = compiled(ft.load(tiny_bert, labels=2))
    ft.freeze(bert, select.embeddings() | select.bottom(1))
    assert fit(bert) == {"block_1", "pooler", "classifier"}
