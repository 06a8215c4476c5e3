"""`ft.interpolate`: models whose weights lie between those before and after fine-tuning."""

import json

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_models import small_model, token_batch, write_checkpoint
from helpers_tasks import small_task_model
from helpers_towers import write_towers

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet

IDS, TARGETS = token_batch()
REFERENCES = TINY_VIT.parents[1]
TINY_MOBILENET = REFERENCES / "mobilenet_v2" / "image-classification"


def weights(model):
    return {v.path: np.array(v.numpy(), copy=True) for v in model.weights}


def assert_same(model, expected):
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def trained(model, inputs=IDS, targets=TARGETS, rate=0.1):
    """The same model after a few steps."""
    with quiet():
        model.compile(keras.optimizers.SGD(rate))
        model.fit(inputs, targets, epochs=2, batch_size=8, verbose=0)
    return model


def copied(model):
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


@pytest.fixture(scope="module")
def pair(tiny_bert):
    """A small text classifier before and after a fit."""
    before = small_model(checkpoint=tiny_bert)
    before.set_weights([w + 0.1 for w in before.get_weights()])
    return before, trained(copied(before))


class TestWeights:
    def test_are_those_of_the_formula(self, pair):
        first, last = map(weights, pair)
        between = weights(ft.interpolate(*pair, 0.3))
        assert between.keys() == first.keys()
        for path, value in between.items():
            expected = 0.7 * first[path].astype("float64") + 0.3 * last[path].astype("float64")
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7, err_msg=path)

    @pytest.mark.parametrize("share", [0, 1])
    def test_at_the_ends_outputs_are_exactly_those_of_one_model(self, pair, share):
        end = ft.interpolate(*pair, share)
        assert_same(end, weights(pair[share]))
        np.testing.assert_array_equal(end(IDS), pair[share](IDS))

    def test_that_were_frozen_stay_exactly_as_they_are(self, pair):
        before, _ = pair
        after = copied(before)
        ft.train_only(after, ft.select.head())
        between = weights(ft.interpolate(before, trained(after), 0.1))
        changed = [
            path for path, value in weights(before).items() if (value != between[path]).any()
        ]
        assert changed == ["classifier/dense/kernel", "classifier/dense/bias"]

    @pytest.mark.slow
    def test_of_the_arguments_never_change(self, pair):
        first, last = map(weights, pair)
        between = ft.interpolate(*pair, 0.5)
        end = ft.interpolate(*pair, 1)
        trained(between)
        trained(end)
        assert_same(pair[0], first)
        assert_same(pair[1], last)

    def test_with_the_policy_bfloat16_are_interpolated_in_float32(self, tiny_bert):
        with quiet():
            before, after = (
                ft.load(tiny_bert, labels=2, dtype="bfloat16", new_head=True) for _ in range(2)
            )
        rng = np.random.default_rng(0)
        for model in (before, after):
            model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        with quiet():
            between = ft.interpolate(before, after, 0.3)
        assert "bfloat16" in {v.dtype for v in between.weights}
        for mixed, first, last in zip(between.weights, before.weights, after.weights, strict=True):
            first, last = (keras.ops.cast(v.value, "float32") for v in (first, last))
            expected = keras.ops.cast(first + 0.3 * (last - first), mixed.dtype)
            assert keras.ops.all(mixed.value == expected)

    @pytest.mark.slow
    def test_include_the_moving_statistics_of_batch_normalization(self):
        with quiet():
            before, after = (ft.load(TINY_MOBILENET) for _ in range(2))
        rng = np.random.default_rng(0)
        after.set_weights([w + rng.random(w.shape) / 10 for w in after.get_weights()])
        first, last = weights(before), weights(after)
        between = weights(ft.interpolate(before, after, 0.25))
        variances = [path for path in first if path.endswith("/variance")]
        assert variances
        for path in variances:
            expected = 0.75 * first[path] + 0.25 * last[path]
            np.testing.assert_allclose(between[path], expected, rtol=1e-6)

    def test_states_of_random_numbers_are_those_after_fine_tuning(self, tiny_bert):
        with quiet():
            before, after = (ft.load(tiny_bert, labels=2, dropout=0.1) for _ in range(2))
            for model in (before, after):
                model.set_weights([w + 0.01 for w in model.get_weights()])
            between = ft.interpolate(before, after, 0.5)
        states = [
            [v.numpy() for v in model.variables if "seed" in v.path] for model in (after, between)
        ]
        assert states[0]
        np.testing.assert_array_equal(*states)


class TestTheNewModel:
    def test_is_like_the_one_after_fine_tuning(self, pair):
        before, after = pair[0], copied(pair[1])
        ft.train_only(after, ft.select.head())
        after.compile()
        between = ft.interpolate(before, after, 0.5)
        assert type(between) is type(after)
        assert between.labels == after.labels and between.config == after.config
        assert between.config is not after.config
        assert [v.trainable for v in between.weights] == [v.trainable for v in after.weights]
        assert getattr(between, "optimizer", None) is None

    def test_has_a_tokenizer_of_its_own(self, pair, tiny_bert):
        before, after = pair
        words = len(after.tokenizer)
        between = ft.interpolate(before, after, 0.5)
        between.tokenizer.add_tokens(["covid"])
        assert len(after.tokenizer) == words == len(between.tokenizer) - 1

    @pytest.mark.slow
    def test_is_saved_with_a_card_that_says_what_it_is(self, tmp_path, tiny_bert):
        examples = ft.data.from_arrays(["a good film", "a bad film"] * 4, ["yes", "no"] * 4)
        with quiet():
            model = ft.load(tiny_bert, labels=examples.labels)
            head = model.get_layer("classifier").dense.kernel
            head.assign_add(keras.ops.ones(head.shape))
            before = ft.load(model.save_pretrained(tmp_path / "before"))
            head.assign_add(keras.ops.ones(head.shape))
            ft.evaluate(model, examples)
            between = ft.interpolate(before, model, 0.25)
            folder = between.save_pretrained(tmp_path / "between")
            again = ft.load(folder)
        card = (folder / "README.md").read_text()
        assert "- **weights**: 0.75 times those before and 0.25 times those after fine" in card
        assert "## Result" not in card  # that of the model after fine-tuning is not its own
        assert "result" in model.info.record
        assert_same(again, weights(between))
        assert "result" in ft.interpolate(before, model, 1).info.record

    @pytest.mark.slow
    def test_keeps_the_class_of_old_scripts(self, tiny_bert):
        from finetune_tf.compat import TFBertForSequenceClassification

        with quiet():
            before, after = (
                TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
                for _ in range(2)
            )
            for model in (before, after):
                model.set_weights([w + 0.01 for w in model.get_weights()])
            between = ft.interpolate(before, after, 0.5)
        assert type(between) is type(after)
        assert between(IDS).logits.shape == (16, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    sorted(str(path.parent.relative_to(REFERENCES)) for path in REFERENCES.glob("*/*/config.json")),
)
def test_every_family_and_task(case, tmp_path):
    rng = np.random.default_rng(0)
    with quiet():
        after = ft.load(REFERENCES / case)
        # The config of a saved model is complete, and is the same all the same.
        before = ft.load(after.save_pretrained(tmp_path / "before"))
        for model in (before, after):
            changed = [w + rng.normal(0, 0.01, w.shape) for w in model.get_weights()]
            model.set_weights(changed)
        between, end = (ft.interpolate(before, after, share) for share in (0.5, 1))
    assert_same(end, weights(after))
    first, last = weights(before), weights(after)
    for path, value in weights(between).items():
        np.testing.assert_allclose(value, (first[path] + last[path]) / 2, atol=1e-6, err_msg=path)


class TestErrors:
    @pytest.mark.parametrize("share", [-0.1, 1.1, "half", None, np.nan, True])
    def test_a_share_out_of_range(self, pair, share):
        with pytest.raises(ArgumentError, match="^share must be a number >= 0 and <= 1, found"):
            ft.interpolate(*pair, share)

    def test_one_model_twice(self, pair):
        _, after = pair
        with pytest.raises(ModelError, match="before and after are one model: a fit changes a mod"):
            ft.interpolate(after, after, 0.5)

    def test_other_objects(self, pair):
        before, after = pair
        with pytest.raises(ModelError, match="after must be a model from ft.load, found <Sequ"):
            ft.interpolate(before, keras.Sequential(), 0.5)
        with pytest.raises(ModelError, match="before must be a model from ft.load, found 'bert'"):
            ft.interpolate("bert", after, 0.5)
        with pytest.raises(ModelError, match=r"keras\.models\.clone_model copies only the layers"):
            ft.interpolate(keras.models.clone_model(before), after, 0.5)

    def test_the_upper_part_of_a_model(self, pair):
        before, _ = pair
        after = copied(before)
        ft.train_only(after, ft.select.head())
        learner = ft.cache_features(after)
        with pytest.raises(ModelError, match=r"after is the upper .*: learner\.whole"):
            ft.interpolate(before, learner, 0.5)
        ft.interpolate(before, learner.whole, 0.5)

    def test_another_number_of_labels(self, pair):
        with pytest.raises(ModelError) as error:
            ft.interpolate(pair[0], small_model(labels=("a", "b", "c")), 0.5)
        assert str(error.value).startswith(
            "before and after have different variables. The first difference: before has "
            "classifier/dense/kernel (8, 2), after has classifier/dense/kernel (8, 3). Both need "
            "the same architecture and the same labels. "
        )

    def test_another_depth(self, tmp_path, tiny_bert):
        deep = write_checkpoint(tmp_path / "deep", blocks=3)
        with quiet():
            before, after = (ft.load(c, labels=2) for c in (tiny_bert, deep))
        with pytest.raises(ModelError, match=r"before has pooler/dense/kernel .*block_2/attention"):
            ft.interpolate(before, after, 0.5)

    def test_labels_in_another_order(self, pair):
        with pytest.raises(ModelError) as error:
            ft.interpolate(pair[0], small_model(labels=("yes", "no")), 0.5)
        assert "have the same labels in another order: Labels(['no', 'yes'], " in str(error.value)
        assert "Load the model from before fine-tuning, and fine-tune that one. A checkpoint k" in (
            str(error.value)
        )

    def test_other_labels(self, pair):
        with pytest.raises(ModelError, match="have different labels: .*'no', 'yes'.*'bad', 'good"):
            ft.interpolate(pair[0], small_model(labels=("bad", "good")), 0.5)
        several = ft.Labels(["no", "yes"], "multi_label_classification")
        with pytest.raises(ModelError, match="have different labels: .*single_label.*multi_label"):
            ft.interpolate(pair[0], small_model(labels=several), 0.5)

    def test_another_task(self, pair):
        with pytest.raises(ModelError, match="for text-classification, and after for fill-mask"):
            ft.interpolate(pair[0], small_task_model("words"), 0.5)

    def test_another_dtype_policy(self, tiny_bert):
        with quiet():
            before, after = (
                ft.load(tiny_bert, labels=2, dtype=dtype) for dtype in ("float32", "mixed_bfloat16")
            )
        with pytest.raises(ModelError) as error:
            ft.interpolate(before, after, 0.5)
        assert str(error.value) == (
            "before computes in float32, and after in mixed_bfloat16 (the layer embeddings). Load "
            "both with the same dtype=, such as ft.load('before', dtype='mixed_bfloat16')."
        )

    def test_another_function_of_the_same_weights(self, tiny_bert):
        with quiet():
            before = ft.load(tiny_bert, labels=2)
            other = ft.load(tiny_bert, labels=2, config={"hidden_act": "relu"})
            mean = ft.load(tiny_bert, labels=2, pooling="cls")
        with pytest.raises(ModelError, match='hidden_act is "gelu" in before, and "relu" in after'):
            ft.interpolate(before, other, 1)
        with pytest.raises(ModelError, match="have different variables"):
            ft.interpolate(before, mean, 1)
        with quiet():
            cls = ft.load(tiny_bert, labels=2, pooling="mean")
        with pytest.raises(ModelError, match='pooling is "cls" in before, and "mean" in after'):
            ft.interpolate(mean, cls, 1)

    def test_other_active_adapters(self, tiny_bert):
        with quiet():
            before = ft.load(tiny_bert, labels=["no", "yes"])
            ft.adapters.add(before, ft.adapters.LoRA(rank=2))
            after = copied(before)
            ft.adapters.switch(before, None)
        message = r'active adapters is \[\] in before, and \["default"\] in after'
        with pytest.raises(ModelError, match=message):
            ft.interpolate(before, after, 0.5)

    def test_other_dropout_rates_are_no_difference(self, tiny_bert):
        with quiet():
            before, after = (ft.load(tiny_bert, labels=2, dropout=rate) for rate in (0.0, 0.3))
            assert ft.interpolate(before, after, 1).config["hidden_dropout_prob"] == 0.3

    def test_images_with_another_normalization(self, tmp_path):
        for path in TINY_VIT.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        file = tmp_path / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
        with quiet():
            before, after = ft.load(TINY_VIT), ft.load(tmp_path)
        with pytest.raises(ModelError, match="normalization of images is "):
            ft.interpolate(before, after, 0.5)

    @pytest.mark.slow
    def test_zero_shot_classification_by_other_prompts(self, tmp_path):
        """Its models have no new head; what they compute depends on the prompts as well."""
        folder = write_towers(tmp_path / "clip", "clip")
        options = {"task": "zero-shot-image-classification", "labels": ["red", "blue"]}
        with quiet():
            before, after = (ft.load(folder, **options) for _ in range(2))
            other = ft.load(folder, **options, prompts=["a {} picture"])
        after.set_weights([w + 0.01 for w in after.get_weights()])
        ft.interpolate(before, after, 0.5)
        with pytest.raises(
            ModelError, match=r'prompts is \["This is a photo of {}."\] in before, and'
        ):
            ft.interpolate(before, other, 0.5)

    def test_a_head_that_was_never_trained(self, tiny_bert):
        with quiet():
            before, after = (ft.load(tiny_bert, labels=2) for _ in range(2))
        after.set_weights([w + 0.01 for w in after.get_weights()])
        for share in (0, 0.5):
            with pytest.raises(ModelError) as error:
                ft.interpolate(before, after, share)
            assert str(error.value).startswith(
                "The head of before (classifier) was never trained. Its weights are random, and so "
                "would be a part of the result. Train the head first while all other stages are "
                "frozen (ft.train_only(model, ft.select.head())), save the model "
            )
        with quiet():
            assert_same(ft.interpolate(before, after, 1), weights(after))
        with pytest.raises(ModelError, match=r"The head of after \(classifier\) was never trained"):
            ft.interpolate(after, before, 0.5)

    def test_weights_that_are_no_numbers(self, pair):
        before, after = pair
        broken = copied(after)
        broken.weights[2].assign(np.full(broken.weights[2].shape, np.nan))
        with pytest.raises(
            ModelError,
            match="Interpolating with after is not.*NaN or infinity, for example block_0",
        ):
            ft.interpolate(before, broken, 0.5)

    def test_unrelated_weights_are_reported(self, pair, capsys):
        before, after = pair
        ft.interpolate(before, after, 0.5)
        assert capsys.readouterr().out == ""
        unrelated = copied(before)
        rng = np.random.default_rng(5)
        unrelated.set_weights([rng.normal(size=w.shape) for w in before.get_weights()])
        ft.interpolate(before, unrelated, 0.5)
        printed = capsys.readouterr().out
        assert "The weights of before and after have a cosine similarity of only " in printed
        assert "most likely not fine-tuned from before" in printed
