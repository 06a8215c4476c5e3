"""`load(max_length=…)`: one number truncates texts wherever the model reads them."""

import json

import keras
import numpy as np
import pytest
from helpers_models import POSITIONS, write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import quiet

LONG = "a very good film and the actor was great"  # 11 tokens with [CLS] and [SEP]
SHORT = "a very good film"  # 6
TEXTS = [LONG, "the story was poor and very long", "a bad film", "not a great film"] * 3
VALUES = ["good", "bad", "bad", "good"] * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("length") / "bert")


def load(folder, **options):
    with quiet():
        return ft.load(folder, **options)


def tokens_of(model, text=LONG):
    """The number of tokens that a model reads of a text."""
    with quiet():
        return len(ft.data.from_arrays([text]).encoded(model, targets=False).inputs["input_ids"][0])


def test_texts_are_truncated(checkpoint):
    model, complete = (
        load(checkpoint, labels=["bad", "good"], max_length=length) for length in (6, None)
    )
    complete.set_weights(model.get_weights())
    assert (model.max_length, complete.max_length) == (6, POSITIONS)
    assert (tokens_of(model), tokens_of(complete)) == (6, 11)
    with quiet():
        assert ft.predict(model, LONG) == ft.predict(model, SHORT) == ft.predict(complete, SHORT)
        assert ft.predict(model, LONG) != ft.predict(complete, LONG)
        with pytest.raises(ModelError, match="max_length=7 does not fit: the model takes 1 to 6"):
            ft.data.from_arrays([LONG]).batches(model, max_length=7)


@pytest.mark.parametrize("form", ["checkpoint", "keras"])
def test_it_is_saved(form, checkpoint, tmp_path):
    model = load(checkpoint, labels=["bad", "good"], max_length=6)
    with quiet():
        if form == "checkpoint":
            folder = model.save_pretrained(tmp_path / "saved")
            again = load(folder)
            settings = json.loads((folder / "tokenizer_config.json").read_text())
            assert settings["model_max_length"] == 6  # the tokenizer of PyTorch truncates, too
        else:
            model.save(tmp_path / "saved.keras")
            again = keras.saving.load_model(tmp_path / "saved.keras")
        assert again.max_length == 6
        assert ft.predict(again, LONG) == ft.predict(model, LONG)
    # The tokenizer of the model in memory has not been changed.
    assert model.tokenizer.model_max_length == POSITIONS


def test_it_can_be_raised_again(checkpoint, tmp_path):
    with quiet():
        short = load(checkpoint, labels=["bad", "good"], max_length=6).save_pretrained(
            tmp_path / "short"
        )
    model = load(short, max_length=9)
    assert (model.max_length, tokens_of(model)) == (9, 9)
    with quiet():
        assert load(model.save_pretrained(tmp_path / "longer")).max_length == 9


def test_rows_of_questions(tmp_path):
    """Their default is 384 tokens, even if the model accepts more."""
    folder = write_checkpoint(tmp_path / "bert")
    sizes = {"max_position_embeddings": 512, "intermediate_size": 8}
    config = json.loads((folder / "config.json").read_text()) | sizes
    tokenizer = load(folder).tokenizer
    tokenizer.model_max_length = 512
    for asked, row in ((None, 384), (500, 500), (100, 100)):
        with quiet():
            model = ft.load(config, "question-answering", tokenizer=tokenizer, max_length=asked)
            again = ft.load(model.save_pretrained(tmp_path / f"saved {asked}"))
            model.save(tmp_path / "model.keras")
            last = keras.saving.load_model(tmp_path / "model.keras")
        assert model.row_length == again.row_length == last.row_length == row


def test_a_report_reads_what_the_fit_has_read(checkpoint):
    """The last validation of the fit and the report are about the same tokens."""
    examples = ft.data.from_arrays(TEXTS, VALUES, labels=["bad", "good"])
    with quiet():
        result = ft.finetune(
            checkpoint,
            examples,
            examples,
            examples,
            max_length=4,
            epochs=2,
            learning_rate=1e-4,
            keep="last",
            verbose=0,
        )
    assert result.settings["max_length"] == result.model.max_length == 4
    loss = result.history["val_loss"][-1]
    texts = examples.columns["text"]
    with quiet():
        found = [each.probabilities for each in ft.predict(result.model, texts)]
    numbers = [result.model.labels.index_of(value) for value in VALUES]
    expected = -np.mean([np.log(list(p.values())[n]) for p, n in zip(found, numbers, strict=True)])
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (33, ModelError, "max_length=33 does not fit: the model takes 1 to 32 tokens."),
        (0, ArgumentError, "max_length"),
        (2.5, ArgumentError, "max_length"),
    ],
)
def test_wrong_lengths(length, error, message, checkpoint):
    with pytest.raises(error, match=message):
        load(checkpoint, max_length=length)


def test_images_have_no_length():
    vit = {"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "image_size": 16}
    vit |= {"num_hidden_layers": 1, "intermediate_size": 8, "patch_size": 8}
    with pytest.raises(ModelError, match="max_length= is for texts, but the model reads images"):
        load(vit, task="image-classification", labels=["cat", "dog"], max_length=8)
