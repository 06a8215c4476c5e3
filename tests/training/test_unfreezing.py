"""`Unfreeze`: what is trained in which epoch of one fit, and what goes on over the changes."""

import json
import re

import keras
import numpy as np
import pytest
from helpers_decoders import write_decoder
from helpers_images import TINY_VIT
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import Unfreeze
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training import AdamW
from finetune_tf.training.unfreezing import gradual

TOKENS, ANSWERS = token_batch(16)
HEAD, ALL = ["classifier"], ["block_0", "block_1", "classifier", "embeddings", "norm"]
LAST = ["block_1", "classifier"]
ALL_OF_IT = select.everything()
REFERENCES = TINY_VIT.parents[1]


class Watch(keras.callbacks.Callback):
    """Records which layers change in each epoch, the rates, and the traced functions."""

    def __init__(self):
        super().__init__()
        self.moved, self.rates, self.functions = [], [], []

    def values(self):
        return {v.path: np.array(v.numpy()) for v in self.model.weights}

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.values()

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        if self.model.train_function not in self.functions:
            self.functions.append(self.model.train_function)

    def on_epoch_end(self, epoch, logs=None):
        after = self.values()
        moved = {p for p in after if not np.array_equal(self.before[p], after[p])}
        self.moved.append(sorted({path.split("/")[0] for path in moved}))


def compiled(optimizer=None):
    keras.utils.set_random_seed(0)
    model = small_model()
    model.compile(optimizer or AdamW(1e-4))
    return model


def fitted(model, *callbacks, epochs=4, **options):
    watch = Watch()
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    history = model.fit(TOKENS, ANSWERS, epochs=epochs, callbacks=[*callbacks, watch], **options)
    watch.history = history.history
    return watch


class TestPlans:
    @pytest.mark.jax
    def test_gradual(self, capsys):
        watch = fitted(compiled(), Unfreeze(), epochs=6)
        blocks = ["block_0", "block_1", "classifier", "norm"]
        assert watch.moved == [HEAD, LAST, [*LAST, "norm"], blocks, ALL, ALL]
        assert len(watch.history["loss"]) == 6
        said = capsys.readouterr().out.splitlines()
        assert "Epoch 2 trains classifier | block_1." in said
        assert "90 of 354 parameters are trainable." in said

    def test_every_second_epoch(self):
        assert fitted(compiled(), Unfreeze(every=2)).moved == [HEAD, HEAD, LAST, LAST]

    @pytest.mark.slow
    def test_epochs(self):
        plan = {0: select.head(), 3: select.everything()}
        assert fitted(compiled(), Unfreeze(plan)).moved == [HEAD, HEAD, HEAD, ALL]

    @pytest.mark.slow
    def test_a_list_as_fine_tune_of_fastai(self):
        plan = [select.head(), select.everything()]
        assert fitted(compiled(), Unfreeze(plan)).moved == [HEAD, ALL, ALL, ALL]

    @pytest.mark.slow
    def test_freezing_again(self):
        plan = {0: select.everything(), 1: select.head(), 2: select.head() | select.blocks(-1)}
        assert fitted(compiled(), Unfreeze(plan)).moved == [ALL, HEAD, LAST, LAST]

    @pytest.mark.slow
    def test_a_plan_that_begins_later(self):
        assert fitted(compiled(), Unfreeze({2: select.head()})).moved == [ALL, ALL, HEAD, HEAD]

    @pytest.mark.slow
    def test_a_fit_that_goes_on(self):
        model, plan = compiled(), [select.head(), select.everything()]
        fitted(model, Unfreeze(plan), epochs=1)
        assert fitted(model, Unfreeze(plan), initial_epoch=1, epochs=2).moved == [ALL]

    @pytest.mark.slow
    def test_when_a_result_stalls(self):
        class Loss(keras.callbacks.Callback):
            values = iter([1.0, 0.9, 0.9, 0.8, 0.8, 0.8])

            def on_epoch_end(self, epoch, logs=None):
                logs["val_loss"] = next(self.values)

        plan = [select.head(), select.head() | select.blocks(-1), select.everything()]
        unfreeze = Unfreeze(plan, monitor="val_loss", patience=1)
        watch = fitted(compiled(), Loss(), unfreeze, epochs=6)
        assert watch.moved == [HEAD, HEAD, HEAD, LAST, LAST, ALL]
        assert json.loads(json.dumps(unfreeze.state_dict())) == {
            "step": 2,
            "waited": 1,
            "best": 0.8,
        }

    def test_a_result_that_is_better_if_higher(self):
        class Accuracy(keras.callbacks.Callback):
            values = iter([0.5, 0.6, 0.6, 0.5])

            def on_epoch_end(self, epoch, logs=None):
                logs["val_accuracy"] = next(self.values)

        unfreeze = Unfreeze(
            [select.head(), select.everything()], monitor="val_accuracy", patience=2
        )
        assert fitted(compiled(), Accuracy(), unfreeze).moved == [HEAD, HEAD, HEAD, HEAD]
        assert unfreeze.state_dict() == {"step": 1, "waited": 0, "best": -0.6}

    @pytest.mark.parametrize("monitor", ["val_precision", "val_f1_loss"])
    def test_a_name_that_does_not_say_what_is_better(self, monitor):
        with pytest.raises(ArgumentError, match=f"monitor='{monitor}' does not say whether lower"):
            Unfreeze(monitor=monitor)
        Unfreeze(monitor=monitor, mode="max")

    def test_the_state_can_be_stored(self):
        unfreeze, model = Unfreeze(monitor="loss"), compiled()

        class Restore(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                unfreeze.load_state_dict({"step": 1, "waited": 0, "best": None})

        assert fitted(model, unfreeze, Restore(), epochs=1).moved == [LAST]


class TestContinuity:
    @pytest.mark.slow
    def test_schedule_steps_and_slots(self):
        model = compiled(ft.presets.cross_entropy("adamw", 1e-4)["optimizer"])
        watch = fitted(model, Unfreeze([select.head(), select.everything()]))
        np.testing.assert_allclose(
            watch.rates,
            fitted(compiled(ft.presets.cross_entropy("adamw", 1e-4)["optimizer"])).rates,
            rtol=1e-6,
        )
        assert int(model.optimizer.iterations) == 8
        births = dict(
            zip(
                (v.path for v in model.trainable_variables),
                model.optimizer._births.numpy(),
                strict=True,
            )
        )
        assert births["classifier/dense/kernel"] == 0 and births["block_0/kernel"] == 2

    @pytest.mark.slow
    def test_it_learns_as_in_two_fits(self):
        """Compared with two fits of a constant rate; the optimizer keeps its state there too."""
        inside, outside = compiled(), compiled()
        fitted(inside, Unfreeze({0: select.head(), 2: select.everything()}))
        ft.train_only(outside, select.head())
        fitted(outside, epochs=2)
        ft.train_only(outside, select.everything())
        fitted(outside, epochs=2)
        for one, two in zip(inside.weights, outside.weights, strict=True):
            np.testing.assert_array_equal(one, two)

    @pytest.mark.slow
    def test_the_first_updates_of_what_is_unfrozen_late_are_those_of_a_new_optimizer(self):
        """With the bias correction of an optimizer that ran 60 steps they would be three times
        the rate.
        """
        moves = []

        class Move(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.before = self.model.get_layer("block_1").kernel.numpy()

            def on_train_batch_end(self, batch, logs=None):
                change = self.model.get_layer("block_1").kernel.numpy() - self.before
                moves.append(np.abs(change).max())

        plan = {0: select.head(), 30: select.head() | select.blocks(-1)}
        fitted(compiled(AdamW(1e-4, 0.0)), Unfreeze(plan), Move(), epochs=31)
        assert max(moves[:60]) == 0
        assert moves[60] == pytest.approx(1e-4, rel=0.01)

    @pytest.mark.slow
    def test_nothing_is_traced_again_if_nothing_changes(self):
        same = {0: select.head(), 1: select.head(), 2: ~select.head() | select.head()}
        watch = fitted(compiled(), Unfreeze(same))
        assert len(watch.functions) == 2  # one for the head, one for everything
        assert len(fitted(compiled(), Unfreeze({0: select.everything()})).functions) == 1

    @pytest.mark.slow
    def test_a_rate_of_the_head_that_stays(self, capsys):
        model = compiled(ft.presets.cross_entropy(schedule="constant")["optimizer"])
        watch = fitted(model, Unfreeze([select.head(), select.everything()]), epochs=2)
        np.testing.assert_allclose(watch.rates, [2e-3, 2e-3, 5e-5, 5e-5], rtol=1e-5)
        hint = (
            "The learning rate 'auto' is 0.002 while only new variables are trained, and 5e-05 for "
            "all variables afterwards. To keep that of the head, give the preset "
            "rates={ft.select.head(): 40}."
        )
        assert hint in capsys.readouterr().out.splitlines()
        preset = ft.presets.cross_entropy(schedule="constant", rates={select.head(): 40})
        watch = fitted(compiled(preset["optimizer"]), Unfreeze(), epochs=2)
        np.testing.assert_allclose(watch.rates, 5e-5, rtol=1e-5)  # times 40 for the head
        assert hint not in capsys.readouterr().out.splitlines()

    @pytest.mark.parametrize(
        ("plan", "epochs", "needed"),
        [({}, 2, 5), ({"every": 2}, 4, 9), ({"plan": {0: select.head(), 2: ALL_OF_IT}}, 2, 3)],
    )
    def test_a_fit_that_ends_before_the_plan(self, plan, epochs, needed, capsys):
        fitted(compiled(), Unfreeze(**plan), epochs=epochs)
        (said,) = (li for li in capsys.readouterr().out.splitlines() if "needs" in li)
        assert f"the fit has {epochs} epochs, but the plan of " in said
        assert f"needs {needed}, so it ends before " in said

    def test_a_fit_that_is_as_long_as_the_plan(self, capsys):
        fitted(compiled(), Unfreeze([select.head(), ALL_OF_IT]), epochs=2)
        fitted(compiled(), Unfreeze(monitor="loss"), epochs=1)
        assert "needs" not in capsys.readouterr().out

    def test_adam_of_keras_gets_a_hint(self, capsys):
        fitted(compiled(keras.optimizers.Adam(1e-4)), Unfreeze(), epochs=1)
        hint = (
            "Adam of Keras counts the same steps for all variables, so the first updates of a "
            "stage that is unfrozen late may be several times too large. Use the optimizer "
            "'adamw' of a preset, in which such a stage starts at step 1."
        )
        assert hint in capsys.readouterr().out.splitlines()

    @pytest.mark.slow
    def test_a_file_saved_in_the_middle_goes_on(self, tmp_path):
        class Save(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    self.model.save(tmp_path / "middle.keras")

        plan = [select.head(), select.head() | select.blocks(-1), select.everything()]
        model = compiled()
        fitted(model, Unfreeze(plan), Save())
        again = keras.saving.load_model(tmp_path / "middle.keras")
        fitted(again, Unfreeze(plan), initial_epoch=2)
        for one, two in zip(model.weights, again.weights, strict=True):
            np.testing.assert_array_equal(one, two)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "make",
        [
            lambda: AdamW(1e-4, gradient_accumulation_steps=2),
            lambda: keras.optimizers.LossScaleOptimizer(AdamW(1e-4), initial_scale=8.0),
            lambda: AdamW(1e-4, use_ema=True, rates={select.head(): 2.0}),
            lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
        ],
        ids=["accumulation", "loss scaling", "averaged weights", "sgd"],
    )
    def test_with_what_an_optimizer_carries(self, make):
        watch = fitted(compiled(make()), Unfreeze([select.head(), select.everything()]), epochs=2)
        assert watch.moved == [HEAD, ALL]


class TestModels:
    @pytest.mark.jax
    def test_of_keras(self):
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(4, name="lower")(inputs)
        hidden = keras.layers.BatchNormalization(name="norm")(hidden)
        network = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
        network.compile(**ft.presets.cross_entropy("adamw", 1e-3, schedule="constant"))
        watch = Watch()
        callbacks = [Unfreeze({0: select.head(), 1: select.everything()}), watch]
        x = TOKENS.astype("float32")
        network.fit(x, ANSWERS, epochs=2, batch_size=8, verbose=0, callbacks=callbacks)
        # The statistics of a frozen normalization do not move.
        assert watch.moved == [["top"], ["lower", "norm", "top"]]

    @pytest.mark.slow
    def test_statistics_of_frozen_stages_do_not_move(self):
        config = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8]}
        config |= {"depths": [1, 1]}
        model = ft.load(config, "image-classification", labels=["cat", "dog"], image_size=32)
        ft.train_batch_statistics(model)
        model.compile(AdamW(1e-4))
        images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
        watch = Watch()
        top = select.head() | select.blocks(-1)
        callbacks = [Unfreeze([select.head(), top, select.everything()]), watch]
        labels = np.arange(8) % 2
        model.fit(images, labels, epochs=3, batch_size=4, verbose=0, callbacks=callbacks)
        statistics = [{p.rpartition("/")[2] for p in moved} for moved in watch.moved]
        assert watch.moved[0] == ["classifier"]
        assert watch.moved[1] == ["block_1", "classifier"], statistics
        assert len(watch.moved[2]) == 4

    @pytest.mark.slow
    @pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert", "gpt2", "vit"])
    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
    def test_families(self, family, dtype, tmp_path):
        if family == "gpt2":
            model = ft.load(write_decoder(tmp_path), dtype=dtype)
            ids = np.random.default_rng(0).integers(3, 20, (8, 6)).astype("int32")
            x, y = ids, np.roll(ids, -1, axis=1)
        elif family == "vit":
            model = ft.load(TINY_VIT, new_head=True, labels=2, dtype=dtype)
            x = np.random.default_rng(0).integers(0, 256, (8, 21, 21, 3)).astype("uint8")
            y = np.arange(8) % 2
        else:
            folder = REFERENCES / family / "text-classification"
            model = ft.load(folder, new_head=True, labels=2, dtype=dtype)
            x = np.random.default_rng(0).integers(5, 20, (8, 6)).astype("int32")
            y = np.arange(8) % 2
        steps = gradual(model)
        model.compile(**ft.presets.cross_entropy(rates=ft.training.layerwise(model)))
        watch = Watch()
        model.fit(
            x,
            y,
            batch_size=4,
            epochs=len(steps),
            verbose=0,
            callbacks=[Unfreeze(), watch],
        )
        assert all(variable.trainable for variable in model.trainable_variables)
        assert sorted(map(len, watch.moved)) == list(map(len, watch.moved))
        assert len(watch.moved[-1]) > len(watch.moved[0])
        assert np.isfinite(watch.model.history.history["loss"]).all()


class TestFeatures:
    def learner(self, tiny_bert, selector):
        texts = ft.data.from_arrays(["a good film", "bad"] * 4, ["yes", "no"] * 4)
        model = ft.load(tiny_bert, labels=texts.labels)
        ft.train_only(model, selector)
        learner = ft.cache_features(model)
        learner.compile(**ft.presets.cross_entropy())
        return learner, texts.batches(learner, 4)

    @pytest.mark.slow
    def test_above_the_cut(self, tiny_bert):
        upper = select.head() | select.blocks(-1)
        learner, batches = self.learner(tiny_bert, upper)
        watch = Watch()
        unfreeze = Unfreeze([select.head(), upper])
        learner.fit(batches, epochs=2, verbose=0, callbacks=[unfreeze, watch])
        assert watch.moved == [["classifier"], ["block_1", "classifier"]]

    def test_below_the_cut_it_is_an_error_before_the_first_step(self, tiny_bert):
        learner, batches = self.learner(tiny_bert, select.head())
        message = (
            "Unfreeze would train everything(), of which stages are below the cut, where features "
            "are computed once. Fit the whole model, cut it below all stages of the plan, or fit "
            "in phases, each with features of its own: compile with the optimizer of the phase "
            "before, and pass callbacks=[ft.callbacks.BindSchedule(epochs=…)] to each fit."
        )
        plan = {0: select.head(), 3: select.everything()}
        with pytest.raises(ModelError, match=re.escape(message)):
            learner.fit(batches, epochs=4, verbose=0, callbacks=[Unfreeze(plan)])
        assert int(learner.optimizer.iterations) == 0

    @pytest.mark.slow
    def test_phases_with_features_of_their_own_are_one_training(self, tiny_bert):
        texts = ft.data.from_arrays(["a good film", "bad", "a dull story"] * 4, ["y", "n", "n"] * 4)
        steps = [select.head(), select.head() | select.blocks(-1), select.everything()]
        steps.insert(1, steps[0])
        start = ft.load(tiny_bert, labels=texts.labels).get_weights()

        def loaded():
            model = ft.load(tiny_bert, labels=texts.labels)
            model.set_weights(start)
            return model, ft.presets.cross_entropy("adamw", 1e-4, rates={select.head(): 10.0})

        whole, preset = loaded()
        whole.compile(**preset)
        expected = Watch()
        fit = {"verbose": 0, "callbacks": [Unfreeze(steps), expected]}
        history = whole.fit(texts.batches(whole, 4), epochs=4, **fit).history

        model, preset = loaded()
        found, losses, optimizer = Watch(), [], preset["optimizer"]
        for epoch, selector in enumerate(steps):
            ft.train_only(model, selector)
            learner = model if epoch == 3 else ft.cache_features(model)
            learner.compile(optimizer, preset["loss"], preset["metrics"])
            callbacks = [ft.callbacks.BindSchedule(epochs=4), found]
            part = {"initial_epoch": epoch, "epochs": epoch + 1, "callbacks": callbacks}
            losses += learner.fit(texts.batches(learner, 4), verbose=0, **part).history["loss"]
            optimizer = learner.optimizer
        np.testing.assert_allclose(found.rates, expected.rates, rtol=1e-6)
        np.testing.assert_allclose(losses, history["loss"], atol=1e-5)
        for one, two in zip(model.weights, whole.weights, strict=True):
            np.testing.assert_allclose(one, two, atol=2e-6)

    def test_a_part_that_is_longer_than_the_whole(self):
        message = (
            "BindSchedule has epochs=1, the length of the whole training, but this fit alone goes "
            "on to epoch 2."
        )
        with pytest.raises(ArgumentError, match=message):
            fitted(compiled(), ft.callbacks.BindSchedule(epochs=1), epochs=2)


class TestMistakes:
    @pytest.mark.parametrize("plan", [[], {}, "head", ["head"], {0: "head"}, 3, [select.head]])
    def test_what_is_no_plan(self, plan):
        message = (
            "The plan of Unfreeze must be a list of selectors, or a dict of selectors by epoch, "
            "such as {0: ft.select.head(), 2: ft.select.everything()}; found "
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            Unfreeze(plan)

    @pytest.mark.parametrize("epoch", [-1, 1.5, "2"])
    def test_epochs(self, epoch):
        with pytest.raises(ArgumentError, match="epoch must be an integer >= 0, found"):
            Unfreeze({epoch: select.head()})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"every": 2, "monitor": "loss"}, "monitor='loss' and every are both given, but only"),
            ({"plan": {0: select.head()}, "monitor": "loss"}, "and a plan with epochs are both"),
            ({"plan": {0: select.head()}, "every": 2}, "the plan has epochs already. Leave it out"),
            ({"mode": "up"}, "mode must be 'min' or 'max', found 'up'."),
            ({"patience": 0}, "patience must be an integer >= 1, found 0."),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            Unfreeze(**options)

    def test_a_selector_of_nothing_is_an_error_before_the_first_step(self):
        model = compiled()
        with pytest.raises(ModelError, match="The selector blocks\\(-4\\) selects blocks beyond"):
            fitted(model, Unfreeze({0: select.head(), 9: select.blocks(-4)}))
        assert int(model.optimizer.iterations) == 0

    def test_a_result_that_does_not_exist(self):
        message = (
            "Unfreeze monitors 'val_loss', but the results of an epoch are: accuracy, loss. Pass "
            "validation_data to fit, or monitor one of these results."
        )
        with pytest.raises(ModelError, match=message):
            fitted(compiled(), Unfreeze(monitor="val_loss"))
