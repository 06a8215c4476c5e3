"""Explanations leave the model, its training and all random states as they are."""

import random

import keras
import numpy as np
import pytest
from helpers_explanations import by_word, knowing_model
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.messages import quiet

TEXT = "a very good film"
EXAMPLES = ft.data.from_arrays(["a very good film", "a dull film and a bad story"])


@pytest.mark.slow
def test_weights_optimizer_traces_and_random_states(tiny_bert):
    model = knowing_model(tiny_bert)
    ids, labels = token_batch(8)
    model.compile(keras.optimizers.Adam(1e-4))
    model.fit(ids, labels, verbose=0)
    before = [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]
    step, names = model.train_function, [layer.name for layer in model.layers]
    random.seed(3), np.random.seed(3), keras.utils.set_random_seed(3)
    drawn = random.random(), np.random.random(), float(keras.random.uniform(()))
    random.seed(3), np.random.seed(3), keras.utils.set_random_seed(3)
    with quiet():
        for method in ("integrated-gradients", "occlusion", "gradient-x-input"):
            ft.explain(model, TEXT, method=method)
        ft.explain(model, TEXT, method="nearest", examples=EXAMPLES)
        ft.explanations.check(model, EXAMPLES, shares=(0.5,), randomized=1)
    assert (random.random(), np.random.random(), float(keras.random.uniform(()))) == drawn
    after = [np.array(variable) for variable in [*model.variables, *model.optimizer.variables]]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.train_function is step and [layer.name for layer in model.layers] == names
    model.fit(ids, labels, verbose=0)


def test_weights_are_restored_after_an_error(tiny_bert):
    from finetune_tf.explanations.randomizing import randomized_stages

    model = knowing_model(tiny_bert)
    before = model.get_weights()
    stages = randomized_stages(model, np.random.default_rng(0))
    next(stages)
    assert not np.array_equal(before[-2], model.get_weights()[-2])
    with pytest.raises(KeyError):
        stages.throw(KeyError("an error in the loop"))
    assert all(map(np.array_equal, before, model.get_weights()))


def test_new_weights_are_explained_at_once(tiny_bert):
    model = knowing_model(tiny_bert)
    with quiet():
        one = by_word(ft.explain(model, TEXT))["good"]
        kernel = model.get_layer("classifier").trainable_variables[0]
        kernel.assign(kernel / 2)
        other = ft.explain(model, TEXT, target="pos")
    assert by_word(other)["good"] == pytest.approx(one / 2, abs=1e-5)


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    from helpers_models import write_checkpoint

    folder = write_checkpoint(
        tmp_path_factory.mktemp("dropping") / "bert",
        hidden_dropout_prob=0.5,
        attention_probs_dropout_prob=0.5,
    )
    with quiet():
        return ft.load(folder, labels=["bad", "good"])


@pytest.mark.slow
def test_dropout_is_off_and_adapters_take_part(dropping):
    with quiet():
        one, two = (by_word(ft.explain(dropping, TEXT)) for _ in range(2))
        assert one == pytest.approx(two, abs=1e-6)
        rollout = ft.explain(dropping, TEXT, method="attention-rollout")
        assert sum(by_word(rollout).values()) + rollout.special == pytest.approx(1.0, abs=1e-5)
        ft.adapters.add(dropping, ft.adapters.LoRA(rank=2))
        same = by_word(ft.explain(dropping, TEXT))  # a new adapter changes nothing
        assert same == pytest.approx(one, abs=1e-6)
        for variable in dropping.trainable_variables:
            variable.assign(np.random.default_rng(0).normal(0, 0.5, variable.shape))
        adapted = by_word(ft.explain(dropping, TEXT))
        ft.adapters.switch(dropping, None)
        assert adapted != pytest.approx(one, abs=1e-3)


@pytest.mark.slow
def test_bfloat16_says_its_precision(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"], dtype="mixed_bfloat16")
        found = ft.explain(model, TEXT)
    assert found.precision == "mixed_bfloat16"
    assert "The model computes in mixed_bfloat16, with three significant digits." in str(found)
    assert np.isfinite([word.score for word in found.words]).all()
