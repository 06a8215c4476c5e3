"""A `.keras` file restores frozen variables, the optimizer state and the labels."""

import re

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import CheckpointError

TOKENS, ANSWERS = token_batch()

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of 0.01")


@pytest.fixture(scope="module")
def trained(tiny_bert):
    """A model with a frozen block and some frozen biases, after two steps."""
    keras.utils.set_random_seed(0)
    model = small_model(["no", "yes"], checkpoint=tiny_bert)
    with ft.messages.quiet():
        ft.freeze(model, select.bottom(1) | select.matching("classifier/dense/bias"))
        model.compile(**ft.presets.cross_entropy(learning_rate=0.01, label_smoothing=0.0))
    model.fit(TOKENS, ANSWERS, batch_size=8, verbose=0)
    return model


@pytest.fixture
def reloaded(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def frozen(model):
    return [v.path for v in model.weights if not v.trainable]


def test_what_the_model_knows(trained, reloaded):
    assert type(reloaded) is ft.FineTuneModel
    assert reloaded.labels == ("no", "yes")
    assert reloaded.labels.problem_type == "single_label_classification"
    assert reloaded.info == trained.info
    assert reloaded.tokenizer("good")["input_ids"] == trained.tokenizer("good")["input_ids"]
    assert reloaded.max_length == 32
    assert [(s.name, s.role) for s in reloaded.stages] == [(s.name, s.role) for s in trained.stages]
    np.testing.assert_array_equal(reloaded(TOKENS), trained(TOKENS))


def test_what_is_frozen(reloaded):
    assert frozen(reloaded) == ["block_0/kernel", "block_0/bias", "classifier/dense/bias"]
    assert not reloaded.get_layer("block_0").trainable


def test_optimizer_and_loss(trained, reloaded):
    assert type(reloaded.optimizer) is type(trained.optimizer)
    assert int(reloaded.optimizer.iterations) == 2
    assert len(reloaded.optimizer.variables) == len(trained.optimizer.variables)
    for theirs, ours in zip(trained.optimizer.variables, reloaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())
    schedule = reloaded.optimizer._learning_rate
    assert isinstance(schedule, ft.training.WarmupLinearDecay)
    assert (schedule.peak, schedule.warmup_ratio) == (0.01, 0.1)
    assert reloaded.optimizer._decays == [0.01, 0.0, 0.0, 0.01, 0.0, 0.01]
    assert reloaded.loss.get_config()["from_logits"] is True


def test_a_further_fit_goes_on_and_keeps_it_frozen(reloaded):
    before = {v.path: v.numpy() for v in reloaded.weights}
    reloaded.fit(TOKENS, ANSWERS, batch_size=8, verbose=0)
    moved = [v.path for v in reloaded.weights if not np.array_equal(before[v.path], v.numpy())]
    assert moved == [v.path for v in reloaded.weights if v.path not in frozen(reloaded)]
    assert int(reloaded.optimizer.iterations) == 4


def test_unfreezing_after_a_reload(reloaded):
    ft.train_only(reloaded, select.everything())
    before = {v.path: v.numpy() for v in reloaded.weights}
    reloaded.fit(TOKENS, ANSWERS, batch_size=8, verbose=0)
    assert not [v.path for v in reloaded.weights if np.array_equal(before[v.path], v.numpy())]


def test_a_model_that_was_never_compiled(tmp_path, tiny_bert):
    model = small_model(["cost", "taste", "place"], checkpoint=tiny_bert)
    ft.train_only(model, select.head())
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert not hasattr(reloaded, "optimizer")
    assert reloaded.labels == ("cost", "taste", "place")
    assert len(frozen(reloaded)) == 7


def test_a_tokenizer_that_moved_is_asked_for_when_it_is_needed(tmp_path, tiny_bert):
    model = small_model(checkpoint=tmp_path / "gone")
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    message = f"The folder {tmp_path / 'gone'}, from which the tokenizer is loaded, does not exist."
    with pytest.raises(CheckpointError, match=re.escape(message)):
        ft.predict(reloaded, "good")
    reloaded.info.tokenizer = str(tiny_bert)
    assert ft.predict(reloaded, "good").label in {"no", "yes"}


def test_weights_of_a_whole_bert_come_back(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=["no", "yes"])
    ft.freeze(model, select.embeddings() | select.blocks(0, 1) | select.norms())
    model.save(tmp_path / "bert.keras")
    reloaded = keras.models.load_model(tmp_path / "bert.keras")
    np.testing.assert_array_equal(reloaded(TOKENS), model(TOKENS))
    assert frozen(reloaded) == frozen(model)
    assert reloaded.config == model.config
