"""Prototypes, MAML and Reptile: what they learn, what they leave alone, and what they refuse."""

import gc
import weakref

import keras
import numpy as np
import pytest
from helpers_meta import network, points, sentences

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, ModelError

TRAIN, TEST = ft.meta.split_classes(points(12, 20), test=0.5)


def prototypes(model, **options):
    return ft.meta.Prototypes(model, learning_rate=0.01, keep_head=True, **options)


def maml(model, **options):
    options = {"inner_rate": 0.3, "steps": 2, "learning_rate": 0.02, "keep_head": True} | options
    return ft.meta.MAML(model, **options)


def reptile(model, **options):
    return ft.meta.Reptile(model, inner_rate=0.02, adapt_steps=8, keep_head=True, **options)


LEARNERS = {
    "prototypes": prototypes,
    "maml": maml,
    "first order": lambda model: maml(model, first_order=True),
    "maml, prototypes": lambda model: maml(model, head="prototypes"),
    "reptile": reptile,
}


@pytest.fixture(scope="module", params=LEARNERS)
def learner(request):
    """A learner that was fitted to episodes of 4 classes."""
    learner = LEARNERS[request.param](network(keras.layers.BatchNormalization(momentum=0.8)))
    return learner.fit(TRAIN, 4, 3, episodes=160)


@pytest.mark.slow
def test_a_fit_lowers_the_loss_and_separates_new_classes(learner):
    losses = np.array(learner.history["loss"])
    assert losses[-10:].mean() < losses[:10].mean()
    report = learner.evaluate(TEST, 4, 1, 5, episodes=20)
    assert report.accuracy.low > 0.4  # by chance 0.25
    assert report.accuracies.shape == report.probe_accuracies.shape == (20,)
    again = learner.evaluate(TEST, 4, 1, 5, episodes=20)
    np.testing.assert_array_equal(report.accuracies, again.accuracies)


def test_adaptation_leaves_the_learner_as_it_is(learner):
    variables = [*learner.network.whole.variables, *learner._variables]
    values = [np.array(variable) for variable in variables]
    episode = ft.meta.episodes(TEST, 4, 2, 4)[0]
    classifier = learner.adapt(episode.support)
    found = classifier.probabilities(episode.query)
    for value, variable in zip(values, variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert classifier.labels == tuple(sorted(episode.classes, key=int))
    assert found.shape == (16, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    # No row depends on the others.
    np.testing.assert_allclose(classifier.probabilities(episode.query[0][:1]), found[:1], atol=1e-6)
    # Neither another adaptation nor a further fit changes the classifier.
    learner.adapt(ft.meta.episodes(TEST, 4, 2, 4)[1].support)
    learner.fit(TRAIN, 4, 2, episodes=5)
    assert any(np.any(v != np.array(w)) for v, w in zip(values, variables, strict=True))
    np.testing.assert_array_equal(classifier.probabilities(episode.query), found)
    # Each function was traced once, whatever the sizes of the episodes were.
    traces = {key: each.experimental_get_tracing_count() for key, each in learner._traced.items()}
    assert set(traces.values()) == {1}, traces


def few(ways):
    return ft.meta.episodes(TEST, ways, 2, 1)[0].support


@pytest.mark.slow
def test_only_what_is_trainable_is_trained_and_frozen_stages_are_cached(tiny_bert):
    train, test = ft.meta.split_classes(sentences(), test=0.34)
    model = ft.load(tiny_bert, labels=train.labels, pooling="mean")
    ft.train_only(model, ft.select.blocks(-1))
    frozen = {v.path: np.array(v) for v in model.variables if not v.trainable}
    block = {v.path: np.array(v) for v in model.trainable_variables}
    learner = maml(model, head="prototypes", keep_head=False)
    assert "cached_features" in {t.name for t in learner.network.upper.inputs}
    learner.fit(train, 2, 1, 2, episodes=4)
    for variable in model.variables:
        if variable.path in frozen:
            np.testing.assert_array_equal(variable, frozen[variable.path])
    assert all(np.any(np.array(v) != block[v.path]) for v in model.trainable_variables)
    classifier = learner.adapt(test)
    assert classifier.predict("a film").label in test.labels
    assert classifier.predict(test)[0].probabilities.keys() == set(test.labels)
    assert 0 <= classifier.accuracy(test) <= 1


def test_features_of_a_frozen_model_are_computed_once(tiny_bert, capsys):
    examples = sentences()
    model = ft.load(tiny_bert, labels=examples.labels, pooling="mean")
    ft.train_only(model, ft.select.head())
    learner = ft.meta.Prototypes(model)
    capsys.readouterr()
    first = learner.evaluate(examples, 3, 1, 2, episodes=4)
    second = learner.evaluate(examples, 3, 1, 2, episodes=4)
    assert capsys.readouterr().out.count("computed once") == 1
    np.testing.assert_array_equal(first.accuracies, second.accuracies)
    rows = learner.network.rows_of(examples).batch(np.arange(len(examples)))
    assert rows["cached_features"].shape == (len(examples), 24)


@pytest.mark.slow
def test_a_cached_network_computes_what_the_whole_one_does(tiny_bert):
    examples = sentences()
    model = ft.load(tiny_bert, labels=examples.labels, pooling="mean")
    whole = ft.meta.Prototypes(model)
    values = whole._features(whole.network.rows_of(examples))
    ft.train_only(model, ft.select.blocks(-1))
    upper = ft.meta.Prototypes(model)
    np.testing.assert_allclose(upper._features(upper.network.rows_of(examples)), values, atol=1e-5)
    ft.train_only(model, ft.select.head())
    frozen = ft.meta.Prototypes(model)
    found = frozen._features(frozen.network.rows_of(examples))
    np.testing.assert_allclose(found, values, atol=1e-5)


@pytest.mark.slow
def test_images():
    resnet = ft.load(
        {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
        "image-classification",
        labels=["cat", "dog"],
        image_size=32,
    )
    images = list(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype("uint8"))
    examples = ft.data.Examples(
        {"image": images, "label": ["cat", "dog", "cow"] * 4}, ft.Labels(["cat", "dog", "cow"])
    )
    learner = ft.meta.MAML(resnet, steps=1, head="prototypes")
    learner.fit(examples, 3, 1, 2, episodes=2, episodes_per_step=1)
    assert learner.adapt(examples).predict(images[:2])[0].label in examples.labels


def test_the_head_of_a_foreign_model_is_left_out_unless_it_is_kept(capsys):
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, "tanh", name="below")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden), name="classifier")
    assert ft.meta.Prototypes(model).network.features == 7
    assert "logits is taken for the head of other classes and left out" in capsys.readouterr().out
    assert ft.meta.Prototypes(model, keep_head=True).network.features == 3


def test_the_report():
    learner = prototypes(network())
    report = learner.evaluate(TEST, 3, 2, 4, episodes=10)
    text = str(report)
    assert text.startswith("3-way 2-shot, 10 episodes\n  Prototypes: ")
    assert "logistic regression on the same features: " in text and "difference: " in text
    difference = report.accuracies - report.probe_accuracies
    assert report.difference.value == pytest.approx(difference.mean())
    spread = np.std(difference, ddof=1) / np.sqrt(10) * 2.262157  # Student's t, 9 degrees
    assert report.difference.high - report.difference.value == pytest.approx(spread, rel=1e-5)


def test_a_support_set_that_is_no_classification():
    learner = prototypes(network())
    with pytest.raises(DataError, match="have no rows. Pass at least one"):
        learner.adapt((np.zeros((0, 5)), np.zeros(0)))
    with pytest.raises(DataError, match="at least two classes, but the support set .* only '1'"):
        learner.adapt((np.zeros((2, 5)), np.ones(2, int)))
    with pytest.raises(
        DataError, match=r"input 'points' has the shape \(None, 5\), found \(2, 4\)"
    ):
        learner.adapt((np.zeros((2, 4)), np.arange(2)))


@pytest.mark.parametrize("name", LEARNERS)
def test_float16_is_refused(name):
    model = keras.Sequential(
        [keras.Input((4,)), *[keras.layers.Dense(4, dtype="mixed_float16") for _ in range(2)]]
    )
    with pytest.raises(ModelError, match=r"computes in float16, .* does not scale the loss\. Load"):
        LEARNERS[name](model)


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_an_output_layer_that_is_not_learned_yet(name):
    learner = LEARNERS[name](network())
    with pytest.raises(ModelError, match='head="learned" adapts an output layer that fit learns'):
        learner.adapt(few(3))
    with pytest.raises(ModelError, match=r'Call fit first, or use head="prototypes"'):
        learner.evaluate(TEST, 3, 1, 4)
    learner.fit(TRAIN, 3, 2, episodes=2)
    with pytest.raises(ModelError, match=r"fitted with 3 ways, .* found 4\. Fit it with ways=4"):
        learner.adapt(few(4))
    with pytest.raises(ModelError, match="fitted with 3 ways"):
        learner.fit(TRAIN, 4, 2, episodes=2)


def test_models_without_stages():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    own = Own()
    with pytest.raises(ModelError, match="has no weights yet, so it has no stages"):
        ft.meta.Prototypes(own)
    own(np.zeros((1, 3)))
    with pytest.raises(ModelError, match="subclassed model without a graph, so it cannot be split"):
        ft.meta.Prototypes(own)
    with pytest.raises(ModelError, match="Expected a Keras model"):
        ft.meta.MAML("bert-base-uncased")


def test_a_model_with_nothing_to_train():
    model = network()
    model.trainable = False
    learner = prototypes(model)
    with pytest.raises(
        ModelError, match="no trainable variables below its head.*adapt without a f"
    ):
        learner.fit(TRAIN, 3, 1, 2, episodes=2)
    assert len(learner.adapt(few(3)).labels) == 3


def test_stages_below_the_cut_that_become_trainable():
    model = network()
    ft.train_only(model, ft.select.matching("second/"))
    learner = prototypes(model)
    assert list(learner.network.variables) == list(model.get_layer("second").variables)
    model.get_layer("first").trainable = True
    for call in (
        lambda: learner.fit(TRAIN, 3, 1, 2, episodes=2),
        lambda: learner.adapt(few(3)),
        lambda: learner.evaluate(TEST, 3, 1, 2),
    ):
        with pytest.raises(ModelError, match="first became trainable after the learner was made"):
            call()
    model.get_layer("first").trainable = model.get_layer("second").trainable = False
    with pytest.raises(ModelError, match="Other variables are trainable than when the learner was"):
        learner.adapt(few(3))


def test_examples_for_a_model_without_a_task():
    with pytest.raises(DataError, match="is not a model from ft.load, so nothing is known that"):
        prototypes(network()).fit(sentences(), 2, 1, 2)


class OwnNorm(keras.layers.LayerNormalization):
    """A subclass, whose second derivatives are unknown."""


@pytest.mark.slow
def test_normalizations_whose_second_derivatives_are_wrong():
    model = network(OwnNorm(name="own"))
    with pytest.raises(ModelError, match=r"own \(OwnNorm\) computes its variance .* first_order=T"):
        maml(model)
    maml(model, first_order=True).fit(TRAIN, 3, 1, 2, episodes=1)
    for layer in model.layers[:3]:  # below the trainable part, second derivatives do not matter
        layer.trainable = False
    maml(model)


def test_rows_that_are_normalized_together_are_not_predicted_alone():
    learner = prototypes(network(keras.layers.BatchNormalization()), statistics="batch")
    classifier = learner.adapt(few(3))
    assert len(classifier.predict(TEST[0][:5])) == 5
    with pytest.raises(DataError, match='With statistics="batch", the rows of a call are normal'):
        classifier.predict(TEST[0][:1])


def test_stored_statistics_that_are_not_yet_those_of_the_data():
    learner = prototypes(network(keras.layers.BatchNormalization()))  # a momentum of 0.99
    with pytest.warns(UserWarning, match="97% of the stored statistics .* from before the fit"):
        learner.fit(TRAIN, 3, 1, 2, episodes=3)


def test_options_out_of_range():
    model = network()
    for options, message in (
        ({"statistics": "moving"}, "statistics must be one of 'support', 'batch', 'stored', found"),
        ({"head": "zeros"}, "head must be 'learned' or 'prototypes', found 'zeros'."),
    ):
        with pytest.raises(ModelError, match=message):
            ft.meta.MAML(model, **options)
    with pytest.raises(ArgumentError, match="episodes must be an integer >= 2, found 1."):
        ft.meta.Prototypes(model).evaluate(TEST, episodes=1)
    with pytest.raises(ArgumentError, match=r"no argument 'n_way'. Did you mean ways=\?"):
        ft.meta.Prototypes(model).evaluate(TEST, n_way=5)


def test_a_loss_that_is_not_finite_is_not_applied():
    model = network()
    learner = maml(model, inner_rate=3e38)
    before = [np.array(v) for v in model.variables]
    with pytest.raises(
        ModelError, match=r"The loss of MAML is \w+ in episode 0; the last step was"
    ):
        learner.fit(TRAIN, 3, 1, 2, episodes=4)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


@pytest.mark.slow
def test_a_learner_is_freed_with_its_traces():
    learner = prototypes(network())
    learner.fit(TRAIN, 3, 1, 2, episodes=2)
    model = weakref.ref(learner.network.upper)
    del learner
    gc.collect()
    assert model() is None


def test_an_adaptation_that_diverges_is_an_error_and_not_the_first_class():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu")])
    learner = ft.meta.MAML(model, inner_rate=1e30, steps=3, head="prototypes", keep_head=True)
    message = r"logits .*are not finite numbers: the adaptation has diverged"
    with pytest.raises(ModelError, match=message):
        learner.evaluate(TEST, 3, 1, 2, episodes=2)
    classifier = learner.adapt(few(3))
    for call in (classifier.predict, classifier.probabilities):
        with pytest.raises(ModelError, match=message):
            call(TEST[0][:2])
    with pytest.raises(ModelError, match=message):
        classifier.accuracy(few(3))


def test_features_that_are_no_numbers_are_an_error():
    model = network()
    model.get_layer("second").bias.assign(np.full(4, np.nan))
    with pytest.raises(ModelError, match=r"The features of episode 0 are not finite numbers"):
        ft.meta.Prototypes(model, keep_head=True).evaluate(TEST, 3, 1, 2, episodes=2)


def test_a_last_step_that_ruins_the_weights_is_an_error():
    learner = ft.meta.Prototypes(network(), learning_rate=1e39, keep_head=True)
    with pytest.raises(ModelError, match=r"The last step of the fit made weights NaN or infin"):
        learner.fit(TRAIN, 3, 1, 2, episodes=1)


@pytest.mark.slow
def test_a_fit_forgets_thresholds_of_other_weights_and_notes_what_has_changed(tiny_bert, capsys):
    examples = sentences()
    model = ft.load(tiny_bert, labels=examples.labels, pooling="mean")
    ft.train_only(model, ft.select.blocks(-1))
    model.config["calibration"] = {"temperature": 2.0}
    learner = ft.meta.Prototypes(model)
    learner.evaluate(examples, 2, 1, 2, episodes=2)
    learner.adapt(examples)
    assert "calibration" in model.config and "changed" not in model.info.record
    learner.fit(examples, 2, 1, 2, episodes=1)
    assert "calibration" not in model.config
    assert "trained after its calibration, which no longer apply" in capsys.readouterr().out
    # An adapter that is saved later belongs to these weights, and not to those of the checkpoint.
    assert all(path.startswith("block_1/") for path in model.info.record["changed"])
    assert len(model.info.record["changed"]) > 10


def features_of(model, inputs):
    found = ft.meta.Prototypes(model, keep_head=True)
    rows = found.network.rows_of((inputs, np.zeros(1, int)))
    return np.asarray(found.network.upper(rows.batch(np.arange(1))))


@pytest.mark.parametrize("is_frozen", [False, True])
def test_tokens_that_keras_masks_do_not_count(is_frozen):
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = keras.layers.Embedding(9, 4, mask_zero=True, name="embeddings")
    model = keras.Model(ids, keras.layers.Dense(4, "tanh", name="block_0")(table(ids)))
    table.trainable = not is_frozen
    padded = features_of(model, np.array([[3, 4, 5, 0, 0]]))
    np.testing.assert_allclose(padded, features_of(model, np.array([[3, 4, 5]])), atol=1e-6)


def test_padding_of_keras_hub_does_not_count():
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    hidden = keras.layers.Embedding(9, 4, name="embeddings")(ids)
    hidden = keras.layers.Dense(4, "tanh", name="block_0")(
        hidden * keras.ops.cast(keras.ops.expand_dims(mask >= 0, -1), "float32")
    )
    model = keras.Model({"token_ids": ids, "padding_mask": mask}, hidden)
    short = {"token_ids": np.array([[3, 4, 5]]), "padding_mask": np.array([[1, 1, 1]])}
    padded = {"token_ids": np.array([[3, 4, 5, 1, 1]]), "padding_mask": np.array([[1, 1, 1, 0, 0]])}
    np.testing.assert_allclose(features_of(model, padded), features_of(model, short), atol=1e-6)
