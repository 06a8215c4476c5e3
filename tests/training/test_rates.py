"""Learning rates by group of variables: values, order, state, and the optimizers of Keras."""

import re

import keras
import numpy as np
import pytest
from helpers_decoders import write_decoder
from helpers_images import TINY_VIT
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training import AdamW, by_pattern, layerwise, with_rates
from finetune_tf.training.rates import EXACT

TOKENS, ANSWERS = token_batch(16)
REFERENCES = TINY_VIT.parents[1]
SGD = keras.optimizers.SGD


def kernels(count=2):
    random = np.random.default_rng(0)
    return [
        keras.Variable(random.normal(size=(3, 2)).astype("float32"), name=f"kernel_{i}")
        for i in range(count)
    ]


def steps_of(optimizer, variables, steps=3, seed=1):
    """Applies a few random gradients, the same ones for each variable of the same number."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        gradients = [random.normal(size=(3, 2)).astype("float32") for _ in variables]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    return [variable.numpy() for variable in variables]


def fitted(model, epochs=2, callbacks=(), **options):
    keras.utils.set_random_seed(0)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    model.fit(TOKENS, ANSWERS, epochs=epochs, callbacks=list(callbacks), **options)
    return {v.path: np.array(v.numpy()) for v in model.weights}


def seeded_model():
    keras.utils.set_random_seed(0)
    return small_model()


class TestExact:
    """An optimizer with groups does what an optimizer for each group would do."""

    @pytest.mark.slow
    @pytest.mark.parametrize("name", EXACT)
    def test_optimizers_of_keras(self, name):
        make = getattr(keras.optimizers, name)
        grouped = with_rates(make(0.1), {"kernel_1": 0.25})
        found = steps_of(grouped, kernels())
        expected = steps_of(make(0.1), kernels())[0], steps_of(make(0.025), kernels())[1]
        for value, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-7)
        assert np.abs(found[1] - steps_of(make(0.1), kernels())[1]).max() > 1e-6

    def test_adamw(self):
        found = steps_of(AdamW(0.1, 0.3, rates={"kernel_1": 0.25}), kernels())
        expected = [steps_of(AdamW(rate, 0.3), kernels())[i] for i, rate in ((0, 0.1), (1, 0.025))]
        for value, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("make", [keras.optimizers.AdamW, keras.optimizers.Muon])
    def test_others_are_refused(self, make):
        message = (
            f"The optimizer {make.__name__} cannot have rates by group. The result is exact for "
            "optimizers that use the learning rate only in the update of a single variable: "
        )
        with pytest.raises(ModelError, match=message):
            with_rates(make(0.1), {"kernel": 2.0})

    def test_weight_decay_of_keras_is_refused(self):
        message = "Rates by group do not work with the weight decay of Adam: Keras applies it apart"
        with pytest.raises(ModelError, match=message):
            with_rates(keras.optimizers.Adam(weight_decay=0.1), {"kernel": 2.0})

    def test_a_used_optimizer_is_refused(self):
        used = SGD(0.1)
        steps_of(used, kernels())
        with pytest.raises(ModelError, match="The optimizer SGD has been used already"):
            with_rates(used, {"kernel": 2.0})


class TestGroups:
    def factors(self, rates, model=None):
        model = model or small_model()
        optimizer = AdamW(rates=rates)
        optimizer.resolve_groups(model)
        return {v.path: optimizer.factor_of(v) for v in model.weights}

    def test_selectors_and_regular_expressions(self):
        found = self.factors({select.head(): 10.0, r"bias$": 0.5})
        assert found["classifier/dense/bias"] == found["classifier/dense/kernel"] == 10.0
        assert found["block_0/bias"] == 0.5
        assert found["block_0/kernel"] is None

    def test_the_first_one_that_fits_is_used(self):
        narrow, wide = select.blocks(-1), select.blocks(0)
        found = self.factors({narrow: 1.0, wide: 0.5})
        assert (found["block_1/kernel"], found["block_0/kernel"]) == (1.0, 0.5)
        message = (
            "The rate for blocks(-1) has no effect: each of its variables already belongs to "
            "blocks(0), and the first rate that fits a variable is used. Put blocks(-1) in front."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            self.factors({wide: 0.5, narrow: 1.0})

    @pytest.mark.parametrize("key", ["emmbeddings", select.matching("emmbeddings")])
    def test_a_group_of_nothing(self, key):
        message = r"The selector matching\('emmbeddings'\) matches nothing in 'small'"
        with pytest.raises(ModelError, match=message):
            small_model().compile(**ft.presets.cross_entropy(rates={key: 2.0}))

    @pytest.mark.parametrize("factor", [0, -1.0, float("nan"), "2"])
    def test_a_factor_is_positive(self, factor):
        message = (
            f"The rate for head() must be a factor, a number > 0, found {factor!r}. It multiplies "
            "the learning rate of the optimizer; freeze variables that are not to be trained: "
            "ft.freeze(model, selector)."
        )
        with pytest.raises(ArgumentError, match=re.escape(message)):
            AdamW(rates={select.head(): factor})

    @pytest.mark.parametrize(
        ("key", "found"), [(select.head, "head without its ()"), (3, "3"), (None, "None")]
    )
    def test_what_is_no_group(self, key, found):
        with pytest.raises(ModelError, match=re.escape(f"found {found}.")):
            AdamW(rates={key: 2.0})
        with pytest.raises(ModelError, match="is not a valid regular expression"):
            AdamW(rates={"(": 2.0})
        with pytest.raises(ModelError, match=r"A rate is given twice for head\(\)"):
            AdamW(rates={select.head(): 2.0, select.head(): 3.0})

    def test_a_selector_with_a_function_cannot_be_saved(self):
        own = select.Selector("mine", lambda model: model.weights[:1])
        with pytest.raises(ModelError, match="The selector mine uses a custom function"):
            AdamW(rates={own: 2.0})

    @pytest.mark.slow
    def test_no_decay_takes_selectors_too(self):
        model = small_model()
        model.compile(AdamW(1e-5, 0.5, no_decay=select.norms() | select.embeddings()))
        fitted(model, epochs=1)
        decayed = [v.path for v, d in zip(model.weights, model.optimizer._decays, strict=True) if d]
        assert decayed == [
            f"{n}/{k}" for n in ("block_0", "block_1") for k in ("kernel", "bias")
        ] + [
            "classifier/dense/kernel",
            "classifier/dense/bias",
        ]
        with pytest.raises(ModelError, match="no_decay is for the weight decay of 'adamw', not fo"):
            ft.presets.cross_entropy("sgd", no_decay=["bias"])


def test_weight_decay_of_other_optimizers_is_refused():
    with pytest.raises(
        ModelError, match="weight_decay=0.1 is for 'adamw' and would have no effect"
    ):
        ft.presets.cross_entropy("sgd", weight_decay=0.1)
    for without in ({}, {"weight_decay": 0.0}):
        ft.presets.cross_entropy("sgd", **without)


class TestLayerwise:
    def test_of_a_small_model(self):
        rates = layerwise(small_model(), decay=0.5, head=8.0)
        assert {str(stages): factor for stages, factor in rates.items()} == {
            "classifier": 8.0,
            "block_1": 1.0,
            "norm": 0.5,  # a stage between blocks counts as one
            "block_0": 0.25,
            "embeddings": 0.125,
        }

    @pytest.mark.parametrize(
        ("family", "lowest"), [("deberta-v2", 2), ("modernbert", 2), ("vit", 2)]
    )
    def test_of_other_families(self, family, lowest):
        folder = next(iter(sorted((REFERENCES / family).iterdir())))
        task = "image-classification" if family == "vit" else "text-classification"
        model = ft.load(REFERENCES / family / task if family == "vit" else folder, task, labels=3)
        rates = layerwise(model, decay=0.5)
        assert list(rates.values())[0] == 10.0
        blocks = sum(stage.role == "block" for stage in model.stages)
        assert min(rates.values()) == 0.5**blocks
        optimizer = AdamW(rates=rates)
        optimizer.build(model.trainable_variables)  # needs no model
        assert None not in optimizer._group_of

    def test_of_a_decoder(self, tmp_path):
        model = ft.load(write_decoder(tmp_path))
        assert {str(stages): factor for stages, factor in layerwise(model).items()} == {
            "final_norm | block_1": 1.0,
            "block_0": 0.9,
            "embeddings": pytest.approx(0.81),
        }

    @pytest.mark.parametrize("wrong", [{"decay": 0}, {"decay": 1.5}, {"head": 0}])
    def test_numbers(self, wrong):
        with pytest.raises(ArgumentError, match=f"{next(iter(wrong))} must be a number > 0"):
            layerwise(small_model(), **wrong)


class TestModels:
    @pytest.mark.slow
    def test_a_preset(self):
        plain, grouped = seeded_model(), seeded_model()
        start = {v.path: np.array(v.numpy()) for v in plain.weights}
        options = {"learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0}
        options |= {"clip_norm": None}
        plain.compile(**ft.presets.cross_entropy("sgd", 1e-3, schedule="constant", clip_norm=None))
        grouped.compile(
            **ft.presets.cross_entropy(
                "sgd",
                1e-3,
                schedule="constant",
                clip_norm=None,
                rates={select.head(): 10.0, "embeddings": 0.5},
            )
        )
        one, two = fitted(plain, 1, batch_size=16), fitted(grouped, 1, batch_size=16)
        for path, factor in {
            "classifier/dense/kernel": 10.0,
            "embeddings/embeddings": 0.5,
            "block_0/kernel": 1.0,
        }.items():
            moved, expected = two[path] - start[path], one[path] - start[path]
            np.testing.assert_allclose(moved, factor * expected, rtol=1e-3, atol=1e-7)

    @pytest.mark.parametrize("name", ["adamw", "adam"])
    def test_a_factor_changed_in_mid_fit_takes_effect_without_a_new_trace(self, name):
        model, functions, moves = seeded_model(), set(), []

        class Change(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.before = np.array(self.model.weights[-2].numpy())
                if len(moves) == 2:
                    self.model.optimizer.rate_factors["head()"].assign(1e-6)

            def on_train_batch_end(self, batch, logs=None):
                functions.add(self.model.train_function)
                moves.append(np.abs(self.model.weights[-2].numpy() - self.before).max())

        options = {"schedule": "constant", "rates": {select.head(): 10.0}}
        model.compile(**ft.presets.cross_entropy(name, 1e-5, **options))
        fitted(model, callbacks=[Change()])
        assert len(functions) == 1
        assert min(moves[:2]) > 5e-5 and max(moves[2:]) < 1e-8

    def test_one_trace(self):
        traces, model = [], small_model()
        model.compile(**ft.presets.cross_entropy(rates=layerwise(model)))
        apply = model.optimizer.apply
        model.optimizer.apply = lambda *args: traces.append(1) or apply(*args)
        fitted(model, epochs=3)
        assert len(traces) == 1

    @pytest.mark.slow
    def test_a_reload_keeps_groups_factors_and_state(self, tmp_path):
        model = seeded_model()
        model.compile(**ft.presets.cross_entropy("adamw", 1e-5, rates={select.head(): 10.0}))
        fitted(model)
        model.optimizer.rate_factors["head()"].assign(4.0)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert float(again.optimizer.rate_factors["head()"]) == 4.0
        assert again.optimizer._group_of == model.optimizer._group_of
        for one, two in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one, two)
        for one, two in zip(fitted(model).values(), fitted(again).values(), strict=True):
            np.testing.assert_array_equal(one, two)

    @pytest.mark.slow
    def test_freezing_keeps_a_changed_factor(self):
        model = seeded_model()
        model.compile(**ft.presets.cross_entropy("adam", 1e-5, rates={select.head(): 10.0}))
        fitted(model, epochs=1)
        model.optimizer.rate_factors["head()"].assign(3.0)
        ft.train_only(model, select.head() | select.blocks(-1))
        assert float(model.optimizer.rate_factors["head()"]) == 3.0
        assert model.optimizer._group_of == [None, None, 0, 0]

    def test_files_of_earlier_versions_load(self):
        store = {}
        old, new = AdamW(0.1), AdamW(0.1)
        steps_of(old, kernels())
        old.save_own_variables(store)
        del store[str(len(store) - 1)]  # the births
        new.build(kernels())
        new.load_own_variables(store)
        assert int(new.iterations) == 3
        np.testing.assert_array_equal(new.variables[-2], old.variables[-2])

    @pytest.mark.slow
    def test_selectors_of_a_model_on_cached_features_mean_the_whole_model(self, tiny_bert):
        texts = ft.data.from_arrays(["a good film", "bad"] * 4, ["yes", "no"] * 4)
        model = ft.load(tiny_bert, labels=texts.labels)
        ft.train_only(model, select.head() | select.blocks(-1))
        learner = ft.cache_features(model)
        learner.compile(**ft.presets.cross_entropy(rates={select.blocks(1): 0.5}))
        learner.fit(texts.batches(learner, 4), verbose=0)
        groups = zip(learner.trainable_variables, learner.optimizer._group_of, strict=True)
        assert {v.path.split("/")[0] for v, group in groups if group == 0} == {"block_1"}


class TestForeign:
    def network(self):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(4, "tanh", name="lower"),
                keras.layers.Dense(2, name="top"),
            ]
        )

    def test_a_model_of_keras_needs_patterns(self, tmp_path):
        network = self.network()
        rates = by_pattern(network, {select.head(): 10.0})
        network.compile(**ft.presets.cross_entropy("adamw", 1e-3, rates=rates))
        bind = ft.callbacks.BindSchedule()
        network.fit(TOKENS.astype("float32"), ANSWERS, verbose=0, callbacks=[bind])
        assert network.optimizer._group_of == [None, None, 0, 0]
        network.save(tmp_path / "network.keras")
        again = keras.saving.load_model(tmp_path / "network.keras")
        assert float(again.optimizer.rate_factors["head()"]) == 10.0

    def test_selectors_without_a_model(self):
        network = self.network()
        network.compile(**ft.presets.cross_entropy("adamw", 1e-3, rates={select.head(): 10.0}))
        message = (
            "The selector head(), which has a rate of its own, depends on the model, which this "
            "optimizer does not know. Write rates=ft.training.by_pattern(model, {…})"
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            network.fit(TOKENS.astype("float32"), ANSWERS, verbose=0)

    def test_a_pattern_that_matches_nothing(self):
        network = self.network()
        network.compile(**ft.presets.cross_entropy("adamw", 1e-3, rates={"uper": 10.0}))
        with pytest.raises(ModelError, match=r"The selector matching\('uper'\) matches nothing"):
            bind = ft.callbacks.BindSchedule()
            network.fit(TOKENS.astype("float32"), ANSWERS, verbose=0, callbacks=[bind])


class TestAutomaticRate:
    """Factors refer to 5e-5 while each trainable variable has one."""

    def peak(self, selector, **rates):
        model = small_model()
        ft.train_only(model, selector)
        model.compile(**ft.presets.cross_entropy(**rates))
        fitted(model, epochs=1)
        return model.optimizer._learning_rate.rate

    @pytest.mark.slow
    def test_a_head_with_a_factor_keeps_its_rate(self):
        rates = {"rates": {select.head(): 40.0}}
        assert self.peak(select.head(), **rates) == 5e-5
        assert self.peak(select.everything(), **rates) == 5e-5

    def test_a_head_without_one_does_not(self):
        assert self.peak(select.head(), rates={select.embeddings(): 0.5}) == 2e-3

    def test_the_warning_counts_factors(self, recwarn):
        model = small_model()
        rates = {~select.head(): 0.01}
        model.compile(**ft.presets.cross_entropy("adamw", 1e-3, rates=rates))
        assert not recwarn.list
        with pytest.warns(UserWarning, match="A learning rate of 0.005 usually ruins pretrained"):
            model.compile(**ft.presets.cross_entropy(rates={select.blocks(0): 100.0}))
