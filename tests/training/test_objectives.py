"""Objectives in fits: what they fit, what they leave alone, and how they are saved."""

import re

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch, write_checkpoint
from helpers_objectives import BATCH, LABELS
from helpers_tasks import rows_for, small_task_model

import finetune_tf as ft
from finetune_tf import objectives
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.graph.taps import Taps, input_of_head, output_of_stage
from finetune_tf.training.objectives.objective import Step

ALL = {
    "r-drop": lambda: objectives.RDrop(),
    "neftune": lambda: objectives.NEFTune(),
    "mixup": lambda: objectives.Mixup(),
    "mixup at the head": lambda: objectives.Mixup(at="head"),
    "l2-sp": lambda: objectives.L2SP(),
    "contrastive": lambda: objectives.SupervisedContrastive(),
}


def bert(tiny_bert, **options):
    keras.utils.set_random_seed(0)
    return ft.load(tiny_bert, labels=["no", "yes"], **{"dropout": 0.2, **options})


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.jax
def test_an_objective_changes_training_and_nothing_else(tiny_bert, name):
    if name == "r-drop":  # which needs dropout
        model, plain = bert(tiny_bert), bert(tiny_bert)
    else:
        model, plain = small_model(), small_model()
        plain.set_weights(model.get_weights())
    plain.compile(keras.optimizers.SGD(0.05))
    before = plain.evaluate(BATCH, LABELS, verbose=0)
    model.compile(keras.optimizers.SGD(0.05), objectives=[ALL[name]()])
    np.testing.assert_allclose(model.evaluate(BATCH, LABELS, verbose=0), before, rtol=1e-6)
    options = {"validation_data": (BATCH, LABELS), "epochs": 2, "verbose": 0}
    history = model.fit(BATCH, LABELS, **options).history
    plain_history = plain.fit(BATCH, LABELS, **options).history
    assert np.isfinite(history["loss"]).all()
    assert abs(history["loss"][0] - plain_history["loss"][0]) > 1e-5
    expected = model.evaluate(BATCH, LABELS, verbose=0)[0]
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_objectives_are_part_of_presets_only_if_given():
    assert "objectives" not in ft.presets.cross_entropy()
    given = [objectives.RDrop(alpha=0.5)]
    for preset in (
        ft.presets.cross_entropy,
        ft.presets.binary_cross_entropy,
        ft.presets.mean_squared_error,
        ft.presets.similarity,
        ft.presets.contrastive,
        ft.presets.pairwise_sigmoid,
        ft.presets.focal,
        ft.presets.ordinal,
        ft.presets.huber,
    ):
        assert preset(objectives=given)["objectives"] == given
    model = small_model()
    with pytest.warns(UserWarning, match="RDrop compares two passes"):
        model.compile(**ft.presets.cross_entropy(objectives=given))
    assert repr(model.objectives) == "(RDrop(alpha=0.5),)"
    model.compile()
    assert model.objectives == ()


@pytest.mark.slow
def test_all_together_with_weights_smoothing_and_accumulation(tiny_bert):
    model = bert(tiny_bert)
    given = [ALL[name]() for name in ("r-drop", "neftune", "mixup", "l2-sp")]
    preset = ft.presets.cross_entropy(label_smoothing=0.1, accumulate=2, objectives=given)
    model.compile(**preset)
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    options = {"sample_weight": weights, "class_weight": {"no": 2.0}, "batch_size": 2}
    history = model.fit(BATCH, LABELS, epochs=2, verbose=0, **options).history
    assert np.isfinite(history["loss"]).all()
    assert 0.3 < history["loss"][0] < 3.0


@pytest.mark.slow
def test_examples_of_weight_0_count_for_nothing(tiny_bert):
    """Neither in the loss nor in the terms of objectives."""
    model = bert(tiny_bert)
    model.compile(keras.optimizers.SGD(0.1), objectives=[objectives.RDrop(), objectives.NEFTune()])
    before = model.get_weights()
    found = model.train_on_batch(BATCH, LABELS, sample_weight=np.zeros(4), return_dict=True)
    assert found["loss"] == 0.0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class TestNoise:
    def test_its_size_follows_from_the_tokens(self):
        model = small_model()
        mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0]])
        step = Step(model, {"attention_mask": mask}, Taps(model))
        step.seed = keras.random.SeedGenerator(0)
        vectors = np.zeros((2, 4, 64), "float32")
        noise = np.asarray(objectives.NEFTune(5.0)._noisy(step, mask, vectors))
        assert not noise[1, 1:].any()
        for row, tokens in ((noise[0], 4), (noise[1, :1], 1)):
            limit = 5.0 / np.sqrt(tokens * 64)
            assert 0.9 * limit < np.abs(row).max() <= limit
            assert row.std() == pytest.approx(limit / np.sqrt(3), rel=0.2)

    def test_each_text_of_a_packed_row_has_that_of_its_length(self):
        model, positions = small_model(), np.array([[0, 1, 2, 3, 0, 0, 1, 0, 0]])
        mask = np.array([[1, 1, 1, 1, 1, 1, 1, 0, 0]])
        step = Step(model, {"attention_mask": mask, "position_ids": positions}, Taps(model))
        step.seed = keras.random.SeedGenerator(0)
        vectors = np.zeros((1, 9, 64), "float32")
        (noise,) = np.asarray(objectives.NEFTune(5.0)._noisy(step, mask, vectors))
        assert not noise[7:].any()
        for row, tokens in ((noise[:4], 4), (noise[4:5], 1), (noise[5:7], 2)):
            limit = 5.0 / np.sqrt(tokens * 64)
            assert 0.9 * limit < np.abs(row).max() <= limit

    def test_each_step_has_another_one(self):
        model = small_model()
        model.compile(keras.optimizers.SGD(0.0), objectives=[objectives.NEFTune(20.0)])
        ids, labels = token_batch(8)
        losses = [model.train_on_batch(ids, labels, return_dict=True)["loss"] for _ in range(3)]
        assert len({round(float(loss), 6) for loss in losses}) > 1

    @pytest.mark.slow
    def test_seeds_repeat_it(self):
        ids, labels = token_batch(8)
        found = []
        for _ in range(2):
            keras.utils.set_random_seed(5)
            model = small_model()
            given = [objectives.NEFTune(20.0), objectives.Mixup()]
            model.compile(keras.optimizers.SGD(0.1), objectives=given)
            found.append(model.fit(ids, labels, epochs=2, verbose=0).history["loss"])
        assert found[0] == found[1]


class TestTokens:
    @pytest.mark.parametrize("case", ["tokens", "words", "answers"])
    def test_objectives_on_each_token(self, case):
        model = small_task_model(case)
        given = [objectives.RDrop(), objectives.NEFTune(), objectives.L2SP()]
        model.compile(keras.optimizers.SGD(0.1), objectives=given)
        ids, targets = rows_for(case)
        assert np.isfinite(model.fit(ids, targets, verbose=0).history["loss"][0])

    @pytest.mark.parametrize("case", ["tokens", "words", "answers", "vectors"])
    def test_what_needs_whole_texts(self, case):
        model = small_task_model(case)
        message = f"Mixup does not fit a model for {model.task.name}: it mixes whole examples"
        with pytest.raises(ModelError, match=message):
            model.compile(objectives=[objectives.Mixup()])
        assert model.objectives == ()
        message = "SupervisedContrastive does not fit a model for .*: it needs one label out of"
        with pytest.raises(ModelError, match=message):
            model.compile(objectives=[objectives.SupervisedContrastive()])

    def test_pairs_have_no_copies(self):
        message = (
            "RDrop does not fit a model for feature-extraction: its loss compares the rows of a "
            "batch with each other, where each row would have a copy of itself. Leave it out."
        )
        with pytest.raises(ModelError, match=re.escape(message)):
            small_task_model("vectors").compile(objectives=[objectives.RDrop()])

    @pytest.mark.parametrize("case", ["several labels", "number"])
    def test_other_targets_of_texts(self, case):
        model = small_task_model(case)
        given = [objectives.RDrop(), objectives.Mixup()]
        model.compile(keras.optimizers.SGD(0.1), objectives=given)
        ids, targets = rows_for(case)
        weights = np.array([1.0, 0.5, 2.0, 1.0])
        assert np.isfinite(
            model.fit(ids, targets, sample_weight=weights, verbose=0).history["loss"][0]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("objective", ["neftune", "l2-sp", "r-drop"])
    def test_language_models(self, tiny_decoder, objective):
        texts = ft.data.from_arrays(["a good film", "the story was dull", "a bad film"] * 2)
        losses = []
        for given in ([ALL[objective]()], []):
            keras.utils.set_random_seed(0)
            model = ft.load(tiny_decoder, dropout=0.1 if objective == "r-drop" else None)
            model.compile(keras.optimizers.SGD(0.1), objectives=given)
            batches = texts.batches(model, 3)
            losses.append(model.fit(batches, epochs=1, verbose=0).history["loss"][0])
        assert losses[0] == pytest.approx(losses[1], rel=0.2)
        assert losses[0] != losses[1]


class TestCachedFeatures:
    @pytest.fixture
    def upper(self, tiny_bert):
        model = bert(tiny_bert)
        ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
        return ft.cache_features(model)

    @pytest.mark.slow
    @pytest.mark.parametrize("names", [("r-drop", "l2-sp"), ("mixup at the head", "r-drop")])
    def test_objectives_of_the_upper_part(self, upper, names):
        texts = ["a good film", "the story was dull", "a bad film"] * 2
        data = ft.data.from_arrays(texts, ["yes", "no", "no"] * 2)
        upper.compile(objectives=[ALL[name]() for name in names])
        losses = upper.fit(data.batches(upper, 3), epochs=2, verbose=0).history["loss"]
        assert np.isfinite(losses).all()

    def test_embeddings_are_below_the_cut(self, upper, tiny_bert):
        message = "NEFTune does not fit .*: the embeddings are below the cut, where features are"
        with pytest.raises(ModelError, match=message):
            upper.compile(objectives=[objectives.NEFTune()])
        message = r"the embeddings are below the cut of cached features. Use Mixup\(at='head'\)."
        with pytest.raises(ModelError, match=message):
            upper.compile(objectives=[objectives.Mixup()])
        message = "batches of cached features do not contain what the teacher reads. Train the"
        with pytest.raises(ModelError, match=message):
            upper.compile(objectives=[objectives.Distillation(bert(tiny_bert))])


class TestAnchors:
    @pytest.mark.slow
    def test_weights_stay_close(self, tiny_bert):
        distances = {}
        for alpha in (0.0, 5.0):
            model = bert(tiny_bert, dropout=0.0)
            before = model.get_layer("block_0").get_weights()
            model.compile(keras.optimizers.SGD(0.1), objectives=[objectives.L2SP(alpha)])
            model.fit(BATCH, LABELS, epochs=10, verbose=0)
            after = model.get_layer("block_0").get_weights()
            distances[alpha] = sum(((a - b) ** 2).sum() for a, b in zip(before, after, strict=True))
        assert distances[5.0] < distances[0.0] / 3

    @pytest.mark.slow
    def test_stages_that_are_unfrozen_later_have_one(self):
        model = small_model()
        ft.train_only(model, ft.select.head())
        objective = objectives.L2SP(5.0)
        model.compile(keras.optimizers.SGD(0.1), objectives=[objective])
        frozen = len(objective._anchors)
        model.fit(BATCH, LABELS, verbose=0)
        start = model.get_layer("block_1").get_weights()
        ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
        model.fit(BATCH, LABELS, epochs=2, verbose=0)
        block = model.get_layer("block_1").weights
        assert len(objective._anchors) == frozen + len(block)
        for variable, value in zip(block, start, strict=True):
            np.testing.assert_array_equal(objective._anchors[id(variable)][1], value)

    def test_each_model_of_one_objective_has_its_own(self):
        objective = objectives.L2SP(5.0)
        first, second = small_model(), small_model()
        first.compile(keras.optimizers.SGD(0.1), objectives=[objective])
        variable = first.get_layer("block_1").kernel
        anchor = np.array(variable)
        first.fit(BATCH, LABELS, verbose=0)
        second.compile(keras.optimizers.SGD(0.1), objectives=[objective])
        first.fit(BATCH, LABELS, verbose=0)
        assert np.abs(anchor - np.array(variable)).max() > 0
        np.testing.assert_array_equal(objective._anchor_of(variable), anchor)

    def test_a_model_with_random_weights_has_none(self):
        model = small_model()
        model.info.pretrained = ()
        message = "its weights are random, so there is nothing to stay close to. Use weight_decay=."
        with pytest.raises(ModelError, match=re.escape(message)):
            model.compile(objectives=[objectives.L2SP()])

    def test_an_anchor_of_another_size(self, tiny_bert, tmp_path):
        other = ft.load(write_checkpoint(tmp_path / "other", blocks=1), labels=["no", "yes"])
        message = "The anchor of L2SP has no variable block_1/"
        with pytest.raises(ModelError, match=message):
            bert(tiny_bert).compile(objectives=[objectives.L2SP(anchor=other)])

    @pytest.mark.slow
    def test_a_reloaded_model_asks_for_its_anchor(self, tmp_path):
        model, origin = small_model(), small_model()
        origin.set_weights(model.get_weights())
        given = [objectives.L2SP(0.3, 0.2), objectives.NEFTune(0.5)]
        model.compile(keras.optimizers.Adam(1e-4), objectives=given)
        model.fit(BATCH, LABELS, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert repr(again.objectives) == "(L2SP(alpha=0.3, beta=0.2), NEFTune(alpha=0.5))"
        assert again.evaluate(BATCH, LABELS, verbose=0) == model.evaluate(BATCH, LABELS, verbose=0)
        message = "L2SP has no anchor: the weights that it stays close to are not part of .keras"
        with pytest.raises(ModelError, match=message):
            again.fit(BATCH, LABELS, verbose=0)
        with pytest.raises(ModelError, match=message):
            again.train_on_batch(BATCH, LABELS)
        anchored = objectives.L2SP(0.3, 0.2, anchor=origin)
        again.compile(again.optimizer, objectives=[anchored, objectives.NEFTune(0.5)])
        assert int(again.optimizer.iterations) == 1
        again.fit(BATCH, LABELS, verbose=0)
        variable = again.get_layer("block_0").weights[0]
        expected = origin.get_layer("block_0").weights[0]
        np.testing.assert_array_equal(anchored._anchors[id(variable)][1], expected)


class TestTeachers:
    def test_what_does_not_fit(self, tiny_bert, tmp_path):
        model = bert(tiny_bert)
        with pytest.raises(ModelError, match="The teacher is the student itself"):
            model.compile(objectives=[objectives.Distillation(model)])
        other = ft.load(tiny_bert, labels=["yes", "no"])
        message = "the same labels in the same order, found yes, no and no, yes."
        with pytest.raises(ModelError, match=message):
            model.compile(objectives=[objectives.Distillation(other)])
        words = ft.load(write_checkpoint(tmp_path / "w", ["a", "b"]), labels=["no", "yes"])
        message = r"different vocabularies, .* \(22 and 7 tokens\). Use a teacher with the tokenize"
        with pytest.raises(ModelError, match=message):
            model.compile(objectives=[objectives.Distillation(words)])
        tags = ft.load(tiny_bert, "token-classification", labels=["no", "yes"])
        message = (
            r"The teacher is for token-classification \(classes\), but the student is for "
            r"text-classification \(classes\)."
        )
        with pytest.raises(ModelError, match=message):
            model.compile(objectives=[objectives.Distillation(tags)])
        with pytest.raises(ModelError, match="The teacher has no stage 'block_7'; its stages are "):
            given = objectives.Distillation(bert(tiny_bert), hidden={"block_0": "block_7"})
            model.compile(objectives=[given])
        message = "The hidden states of block_0 of the student .* Compare stages of the same size"
        with pytest.raises(ModelError, match=message):
            given = objectives.Distillation(bert(tiny_bert), hidden={"block_0": "classifier"})
            model.compile(objectives=[given])

    def test_an_untrained_teacher(self, tiny_bert):
        with pytest.warns(UserWarning, match=r"The head of the teacher \(classifier\) is not trai"):
            bert(tiny_bert).compile(objectives=[objectives.Distillation(bert(tiny_bert))])

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:The head of the teacher:UserWarning")
    def test_a_student_becomes_its_teacher(self, tiny_bert, tmp_path):
        teacher, student = bert(tiny_bert), bert(tiny_bert, dropout=0.0)
        teacher.get_layer("classifier").weights[0].assign(3 * keras.random.normal((24, 2), seed=1))
        before = teacher.get_weights()
        given = objectives.Distillation(teacher, alpha=1.0, hidden="all")
        student.compile(keras.optimizers.SGD(0.3), objectives=[given])
        wrong = 1 - np.argmax(teacher.predict(BATCH, verbose=0), axis=-1)
        losses = student.fit(BATCH, wrong, epochs=40, verbose=0).history["loss"]
        assert losses[-1] < losses[0] / 10
        found, expected = (model.predict(BATCH, verbose=0) for model in (student, teacher))
        np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
        for old, new in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        # The teacher is no part of the student.
        assert len(student.weights) == len(teacher.weights)
        student.save(tmp_path / "student.keras")
        again = keras.models.load_model(tmp_path / "student.keras")
        np.testing.assert_allclose(again.predict(BATCH, verbose=0), found, atol=1e-6)
        message = "Distillation has no teacher: it is not part of .keras files. Compile again with"
        with pytest.raises(ModelError, match=message):
            again.fit(BATCH, LABELS, verbose=0)

    def test_blocks_in_the_same_relative_place(self):
        from finetune_tf.training.objectives.teachers import _stage_pairs

        def blocks(number):
            return [ft.Stage(f"block_{i}", (), "block") for i in range(number)]

        pairs = _stage_pairs(blocks(3), blocks(6), "all")
        assert [other.name for _, other in pairs] == ["block_1", "block_3", "block_5"]


def test_combinations_that_contradict_each_other(tiny_bert):
    message = (
        "Mixup trains on mixtures, but SupervisedContrastive needs the examples themselves. Use "
        "one of both."
    )
    given = [objectives.Mixup(), objectives.SupervisedContrastive()]
    with pytest.raises(ModelError, match=re.escape(message)):
        bert(tiny_bert).compile(objectives=given)
    with pytest.raises(ModelError, match="RDrop is among the objectives 2 times."):
        bert(tiny_bert).compile(objectives=[objectives.RDrop(), objectives.RDrop()])
    with pytest.raises(ModelError, match="objectives= takes a list of objectives such as .*found"):
        bert(tiny_bert).compile(objectives=["r-drop"])


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="alpha must be a number >= 0 and <= 1, found 2"):
        objectives.SupervisedContrastive(alpha=2)
    with pytest.raises(ArgumentError, match="temperature must be a number > 0, found 0"):
        objectives.Distillation(small_model(), temperature=0)
    with pytest.raises(ModelError, match="Mixup takes place at 'embeddings' or 'head', found 'x'"):
        objectives.Mixup(at="x")
    with pytest.raises(ModelError, match="hidden= is None, 'last', 'all', or a dict"):
        objectives.Distillation(small_model(), hidden="first")


def test_a_model_that_does_not_run_its_graph():
    small = small_model()
    twin = keras.Model(small.input, small.output)

    class Own(ft.FineTuneModel):
        def call(self, inputs, training=None, mask=None):
            return twin.call(self._complete_inputs(inputs), training=training)

    model = Own(inputs=small.input, outputs=small.output)
    model.info = small.info
    model.compile(objectives=[objectives.Mixup()])
    ids, labels = token_batch(4)
    with pytest.raises(ModelError, match="but Own does not run its graph"):
        model.train_on_batch(ids, labels)


def test_places_in_the_graph():
    model = small_model()
    stages = {stage.name: stage for stage in model.stages}
    assert output_of_stage(model, stages["embeddings"]).shape == (None, None, 8)
    assert input_of_head(model).shape == (None, 8)
