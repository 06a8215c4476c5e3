"""Encoders as models from text to text: BERT and RoBERTa with a prefix mask write targets.

That their logits and gradients are PyTorch's is tested in `conformance/`.
"""

import functools
import json

import keras
import numpy as np
import pytest
from conformance.harness import Case
from helpers_models import POSITIONS, write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CacheError, CheckpointError, DataError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.generation.generate import way_of
from finetune_tf.generation.loop import generate_ids, stream_ids
from finetune_tf.generation.search import search_ids
from finetune_tf.generation.settings import GenerationSettings
from finetune_tf.messages import quiet
from finetune_tf.model.packed import why_not_packed

TASK = "text2text-generation"
SOURCES = ["a good film", "the actor was very bad", "the film was bad", "a very good actor"]
TARGETS = ["good film", "bad actor", "bad film", "very good actor"]
LONG = "the film was very good and the actor was great and the story was not long but dull"
CLS, SEP, START = 2, 3, 5

# In the first step, the softmax of an empty target is over a single token.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*softmax over axis -1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="module")
def pairs():
    return ft.data.from_arrays(source=SOURCES, target=TARGETS)


def loaded(folder, task="summarization", **options):
    with quiet():
        keras.utils.set_random_seed(0)
        return ft.load(folder, task, **options)


@pytest.fixture(scope="module")
def trained(folder, pairs):
    """A model that knows the pairs by heart."""
    model = loaded(folder)
    with pytest.warns(UserWarning, match="learning rate"):
        model.compile(**ft.presets.cross_entropy(learning_rate=0.02, schedule="constant"))
    model.fit(pairs.batches(model, batch_size=2, shuffle=True), epochs=30, verbose=0)
    return model


@functools.cache
def random_model(family):
    return Case.stored(f"{family}/{TASK}", TASK).load()


def batch(source, target, source_padding=0, target_padding=0):
    """Inputs of one row with padding after each text."""
    inputs = {}
    for name, ids, padding in (
        ("", source, source_padding),
        ("decoder_", target, target_padding),
    ):
        inputs[f"{name}input_ids"] = np.array([[*ids, *[0] * padding]], "int32")
        inputs[f"{name}attention_mask"] = np.array([[1] * len(ids) + [0] * padding], "int32")
    return inputs


class TestMask:
    def test_a_target_token_sees_the_source_and_the_target_before_it(self, folder):
        model = loaded(folder)
        before = np.asarray(model(batch([2, 6, 7, 3], [3, 8, 9, 10])))
        later = np.asarray(model(batch([2, 6, 7, 3], [3, 8, 9, 11])))
        np.testing.assert_allclose(later[:, :3], before[:, :3], rtol=1e-6, atol=1e-6)
        assert np.abs(later[:, 3] - before[:, 3]).max() > 1e-3
        other_source = np.asarray(model(batch([2, 6, 8, 3], [3, 8, 9, 10])))
        assert (np.abs(other_source - before).max(axis=-1) > 1e-3).all()

    def test_padding_has_no_effect(self, folder):
        model = loaded(folder)
        texts = [2, 6, 7, 3], [3, 8, 9]
        padded = model(batch(*texts, source_padding=5, target_padding=2))[:, :3]
        np.testing.assert_allclose(padded, model(batch(*texts)), rtol=1e-5, atol=1e-5)

    def test_rows_are_not_packed(self, folder):
        assert why_not_packed(loaded(folder)) == "the model has the input decoder_input_ids"


class TestEncoding:
    def test_targets_start_with_the_separator_and_end_with_it(self, folder, pairs):
        encoded = pairs.encoded(loaded(folder))
        read, learned = encoded.inputs["decoder_input_ids"][0], encoded.targets[0]
        assert read.tolist() == [SEP, CLS, *learned[1:-1]]
        assert learned.tolist()[0] == CLS and learned.tolist()[-1] == SEP

    def test_the_config_may_name_the_start(self, folder, pairs):
        model = loaded(folder, config={"decoder_start_token_id": START})
        assert pairs.encoded(model).inputs["decoder_input_ids"][0][0] == START
        assert GenerationSettings.of(model).decoder_start_token_id == START
        assert GenerationSettings.of(model).eos_token_id == (SEP,)

    @pytest.mark.parametrize(("options", "target"), [({}, 8), ({"max_target_length": 20}, 20)])
    def test_both_texts_share_the_positions(self, folder, options, target, capsys):
        long = " ".join([LONG] * 3)
        examples = ft.data.from_arrays(source=[long], target=[long])
        model = loaded(folder)
        encoded = examples.encoded(model, **options)
        assert len(encoded.inputs["input_ids"][0]) == POSITIONS - target
        assert len(encoded.targets[0]) == len(encoded.inputs["decoder_input_ids"][0]) == target
        said = capsys.readouterr().out
        assert f"1 of 1 texts are longer than {POSITIONS - target} tokens and are truncated" in said
        # A prediction reads as much of its source as training did.
        alone = ft.data.from_arrays(source=[long]).encoded(model)
        np.testing.assert_array_equal(alone.inputs["input_ids"][0], encoded.inputs["input_ids"][0])

    def test_targets_that_leave_no_room(self, folder, pairs):
        with pytest.raises(ModelError) as error, quiet():
            pairs.encoded(loaded(folder), max_target_length=POSITIONS)
        assert "max_target_length=32 leaves no room for sources" in str(error.value)
        assert "both together may have 32 tokens" in str(error.value)

    @pytest.mark.slow
    def test_texts_that_do_not_fit_together(self, folder):
        model = loaded(folder)
        inputs = batch([6] * 20, [7] * 13, source_padding=2)
        message = "A source and its target have 33 tokens, but the model has positions for 32"
        with pytest.raises(ModelError, match=message):
            model(inputs)
        with quiet():
            model.compile(keras.optimizers.SGD(1e-3))
        with pytest.raises(ModelError, match=message):
            model.train_on_batch(inputs, inputs["decoder_input_ids"])
        # Padding takes no position.
        assert model(batch([6] * 20, [7] * 12, source_padding=5)).shape == (1, 12, 22)


def way(model, **options):
    settings = GenerationSettings(pad_token_id=0, decoder_start_token_id=START)
    return way_of(model, settings.with_values(options), has_scores=True)


def next_log_probs(model, source, target):
    """The log-probabilities (V,) of the next token, by a pass over both texts."""
    logits = np.asarray(model(batch(source, target)))[0, -1].astype("float64")
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
class TestTokens:
    sources = ([6, 7, 8, 9, 10], [11, 12])

    @property
    def padded(self):
        ids = np.array([self.sources[0], [*self.sources[1], 0, 0, 0]], "int32")
        return ids, np.array([[1] * 5, [1, 1, 0, 0, 0]], "int32")

    @pytest.mark.slow
    def test_greedy_tokens_are_those_of_whole_passes(self, family):
        model = random_model(family)
        found, scores, _ = generate_ids(model, *self.padded, 5, way(model), seed=(0, 0))
        for source, tokens, score in zip(self.sources, np.asarray(found), scores, strict=True):
            target, total = [START], 0.0
            for _ in range(5):
                log_probs = next_log_probs(model, source, target)
                target.append(int(log_probs.argmax()))
                total += log_probs.max()
            assert tokens.tolist() == target[1:]
            assert float(score) == pytest.approx(total, abs=1e-4)

    @pytest.mark.slow
    def test_beams_find_the_best_text(self, family):
        """As many beams as there are tokens leave out none of the texts of two tokens."""
        model = random_model(family)
        size = model.config["vocab_size"]
        found, scores, _ = search_ids(model, *self.padded, 2, way(model, num_beams=size))
        for source, tokens, score in zip(self.sources, np.asarray(found), scores, strict=True):
            first = next_log_probs(model, source, [START])
            both = np.array(
                [first[i] + next_log_probs(model, source, [START, i]) for i in range(size)]
            )
            best = np.unravel_index(both.argmax(), both.shape)
            assert tokens[0].tolist() == list(best)
            assert float(score[0]) == pytest.approx(both.max() / 2, abs=1e-4)

    @pytest.mark.slow
    def test_tokens_one_by_one(self, family):
        model = random_model(family)
        whole, _, _ = generate_ids(model, *self.padded, 3, way(model), seed=(0, 0))
        *_, last = stream_ids(model, *self.padded, 3, way(model), seed=(0, 0))
        np.testing.assert_array_equal(np.asarray(last.ids)[:, 1:], whole)


class TestGeneration:
    @pytest.mark.slow
    def test_predictions(self, trained, pairs):
        assert ft.predict(trained, SOURCES) == TARGETS
        with quiet():
            assert ft.generate(trained, SOURCES, num_beams=2, batch_size=3) == TARGETS
            assert "".join(ft.stream(trained, SOURCES[1])) == TARGETS[1]
            report = ft.evaluate(trained, pairs, baseline="lead-3", train=pairs)
        assert report.metrics["rougeL"] == pytest.approx(1.0)
        assert report.difference.value > 0

    def test_room(self, trained, capsys):
        with pytest.raises(DataError, match="A source text has 33 tokens, but the model has pos"):
            trained.generate([[6] * 33])
        with pytest.raises(DataError, match="max_new_tokens=13 need 33 positions"):
            trained.generate([[6] * 20], max_new_tokens=13)
        capsys.readouterr()
        trained.generate([[6] * 20])
        assert "at most 12 tokens" in capsys.readouterr().out
        assert len(trained.generate([[6] * 20], max_new_tokens=12)[0]) <= 12


class TestSaving:
    @pytest.mark.slow
    def test_the_task_is_remembered(self, trained, tmp_path):
        with quiet():
            saved = trained.save_pretrained(tmp_path / "saved")
            again = ft.load(saved)
        assert again.task.name == "summarization"
        assert ft.predict(again, SOURCES) == TARGETS
        config = json.loads((saved / "config.json").read_text())
        assert config["architectures"] == ["BertForMaskedLM"]
        card = (saved / "README.md").read_text()
        assert "It opens in `transformers.BertForMaskedLM`" in card
        assert "AutoModelForMaskedLM" in card and "Seq2Seq" not in card
        with quiet():
            assert ft.load(saved, "fill-mask").task.name == "fill-mask"

    @pytest.mark.slow
    def test_keras_file(self, trained, tmp_path):
        trained.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert ft.predict(again, SOURCES) == TARGETS

    def test_a_masked_language_model_is_still_one(self, folder, tmp_path):
        with quiet():
            saved = ft.load(folder, "fill-mask").save_pretrained(tmp_path / "masked")
            assert ft.load(saved).task.name == "fill-mask"
            assert ft.load(saved, "translation").task.name == "translation"
            path = saved / "config.json"
            config = json.loads(path.read_text())
            del config["architectures"]
            path.write_text(json.dumps(config))
            assert ft.load(saved).task.name == "fill-mask"  # by its tensors

    def test_families_with_other_positions_have_no_such_models(self):
        for name in ("nomic_bert", "gte", "mpnet", "albert"):
            with pytest.raises(CheckpointError, match="no head for the task 'summarization'"):
                FAMILIES[name].head("summarization", FAMILIES[name].complete({}))


class TestFeatureCache:
    def test_states_of_joined_texts_are_refused(self, folder, pairs):
        model = loaded(folder)
        ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
        learner = ft.cache_features(model)
        with pytest.raises(CacheError, match="each token of a source joined with its target"):
            pairs.batches(learner, batch_size=2)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:A learning rate of")
    def test_states_of_targets_are_stored(self, folder, pairs):
        losses = []
        for cut in (False, True):
            model = loaded(folder)
            ft.train_only(model, ft.select.head())
            learner = ft.cache_features(model) if cut else model
            with quiet():
                learner.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
                batches = pairs.batches(learner, batch_size=2)
                losses.append(learner.fit(batches, epochs=2, verbose=0).history["loss"])
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
def test_finetune(folder, pairs):
    with quiet():
        result = ft.finetune(
            folder, pairs, pairs, pairs, task="summarization", epochs=1, batch_size=4, verbose=0
        )
    assert result.report.baseline.name == "lead-3"
    assert np.isfinite(result.history["val_loss"]).all()
