"""Fill-mask: PyTorch's numbers, hidden words, perplexity, and what stands at a mask."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_checkpoints import copy_checkpoint, inputs_of, logits, reference
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError, ModelError
from finetune_tf.tasks.masking import Masking
from finetune_tf.tasks.task import IGNORED

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a very good film", "the film was dull and long", "the actor was great", "not bad"]
# The toy models are random, so there is nothing that a high rate could ruin.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


@pytest.fixture(scope="module")
def stored():
    return reference("fill-mask")


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ft.load(tiny_bert, "fill-mask")


@pytest.fixture(scope="module")
def toy():
    return ft.data.from_arrays(TEXTS * 8, name="toy")


def test_logits_are_pytorchs_and_survive_both_ways_of_saving(stored, tmp_path, capsys):
    folder, expected = stored
    model = ft.load(folder, "fill-mask", dropout=0.0)
    assert "42 of 42 variables filled; saves for" in capsys.readouterr().out
    np.testing.assert_allclose(
        logits(model, inputs_of(expected)), expected["logits"], rtol=0, atol=1e-5
    )
    model.save_pretrained(tmp_path / "saved")
    model.save(tmp_path / "model.keras")
    for again in (
        ft.load(tmp_path / "saved", "fill-mask"),
        keras.models.load_model(tmp_path / "model.keras"),
    ):
        assert len(again.weights) == len(model.weights) == 42  # one table reads and writes words
        np.testing.assert_array_equal(
            logits(again, inputs_of(expected)), logits(model, inputs_of(expected))
        )


def test_gradients_of_the_tied_table_are_pytorchs(stored):
    import tensorflow as tf

    folder, expected = stored
    model = ft.load(folder, "fill-mask", dropout=0.0)
    loss = ft.presets.cross_entropy()["loss"]
    with tf.GradientTape() as tape:
        value = loss(expected["labels"], model(inputs_of(expected), training=True))
    assert float(value) == pytest.approx(expected["losses"][0], abs=1e-5)
    table = model.get_layer("embeddings").word.embeddings
    found = np.asarray(tf.convert_to_tensor(tape.gradient(value, table.value)))
    theirs = expected["gradient/bert.embeddings.word_embeddings.weight"]
    assert np.linalg.norm(found - theirs) < 1e-4 * np.linalg.norm(theirs)


@pytest.mark.slow
def test_pytorch_opens_what_is_saved(stored, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertForMaskedLM

    folder, expected = stored
    ft.load(folder, "fill-mask").save_pretrained(tmp_path / "saved")
    theirs = BertForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    tensors = {name: torch.from_numpy(x).long() for name, x in inputs_of(expected).items()}
    with torch.no_grad():
        found = theirs(**tensors).logits.numpy()
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_jax_computes_the_same(stored):
    pytest.importorskip("jax")
    script = """if True:
        import json, sys, numpy as np, finetune_tf as ft
        from helpers_checkpoints import inputs_of, logits, reference
        folder, expected = reference("fill-mask")
        model = ft.load(folder, "fill-mask", dropout=0.0)
        print(float(np.abs(logits(model, inputs_of(expected)) - expected["logits"]).max()))
    """
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) < 1e-5


def test_an_untied_decoder_is_refused(stored, tmp_path):
    folder = copy_checkpoint(stored[0], tmp_path / "untied", tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match="'tie_word_embeddings' is False"):
        ft.load(folder, "fill-mask")


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_that_a_family_may_tie(tied):
    folder = ROOT / "tests" / "references" / "eurobert" / "text-classification"
    model = ft.load(folder, "fill-mask", config={"tie_word_embeddings": tied}, dropout=0.0)
    head = [stage.name for stage in model.stages if stage.role == "head"]
    assert head == (["vocabulary_bias"] if tied else ["lm_head", "vocabulary_bias"])
    words = model.get_layer("embeddings").word.embeddings.numpy().T  # (features, vocabulary)
    kernel = words if tied else model.get_layer("lm_head").dense.kernel.numpy()
    bias = model.get_layer("vocabulary_bias").bias
    bias.assign(np.arange(bias.shape[0]))
    ids = np.array([[5, 6, 7]], "int32")
    hidden = keras.Model(model.input, model.get_layer("final_norm").output)
    hidden = np.asarray(hidden({"input_ids": ids, "attention_mask": np.ones_like(ids)}))
    np.testing.assert_allclose(model(ids), hidden @ kernel + bias.numpy(), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_without_the_head_gets_a_new_one(tiny_bert, capsys):
    model = ft.load(tiny_bert, "fill-mask")
    assert "new: transform/dense, transform/norm, vocabulary_bias" in capsys.readouterr().out
    assert [stage.name for stage in model.stages if stage.role == "head"] == [
        "transform", "vocabulary_bias",
    ]  # fmt: skip


def test_fifteen_percent_of_the_words_are_hidden_as_in_bert(model):
    rows = [np.array([2, *[5 + i % 17 for i in range(98)], 3], "int32")] * 300
    masking = Masking(rows, model.tokenizer, rate=0.15)
    seen, answers = masking.draw(np.random.default_rng(0))
    ids, hidden = np.concatenate(rows), answers != IGNORED

    assert (hidden.reshape(300, 100).sum(axis=1) == 15).all()
    assert not hidden.reshape(300, 100)[:, [0, -1]].any()  # [CLS] and [SEP]
    np.testing.assert_array_equal(answers[hidden], ids[hidden])
    np.testing.assert_array_equal(seen[~hidden], ids[~hidden])
    masked = seen[hidden] == model.tokenizer.mask_token_id
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    others = seen[hidden][~masked]
    # One in 17 of the random words is the word itself.
    assert (others == ids[hidden][~masked]).mean() == pytest.approx(0.5 + 0.5 / 17, abs=0.04)
    assert set(others) <= set(range(5, 22))


def test_whole_words_are_hidden_together(tmp_path):
    words = ["film", "##s", "##y", "good", "a"]
    model = ft.load(write_checkpoint(tmp_path / "pieces", words), "fill-mask")
    texts = ft.data.from_arrays(["a filmsy good films"] * 40)
    batches = texts.batches(model, 40, mask_rate=0.5, whole_word=True)
    hidden = next(iter(batches))[1].numpy() != IGNORED

    # [CLS] a film ##s ##y good film ##s [SEP]: two of the four words
    assert (hidden[:, 2] == hidden[:, 3]).all() and (hidden[:, 3] == hidden[:, 4]).all()
    assert (hidden[:, 6] == hidden[:, 7]).all()
    assert (hidden[:, [1, 2, 5, 6]].sum(axis=1) == 2).all()


def test_each_epoch_hides_other_words_and_validation_always_the_same(model, toy):
    def epochs(count=2, **options):
        batches = toy.batches(model, 32, **options)
        assert batches.cardinality() == 1
        return [next(iter(batches)) for _ in range(count)]

    (inputs, answers), (others, other_answers) = epochs(shuffle=True, seed=3)
    assert inputs["input_ids"].shape == answers.shape == (32, 8)
    assert (np.sort(answers, axis=None) != np.sort(other_answers, axis=None)).any()
    again = epochs(shuffle=True, seed=3)
    np.testing.assert_array_equal(again[0][1], answers)
    np.testing.assert_array_equal(again[1][0]["input_ids"], others["input_ids"])
    assert (epochs(shuffle=True, seed=4)[0][1].numpy() != answers.numpy()).any()

    (first, fixed), (second, fixed_again) = epochs()
    np.testing.assert_array_equal(first["input_ids"], second["input_ids"])
    np.testing.assert_array_equal(fixed, fixed_again)


@pytest.mark.slow
def test_the_recipe_learns_and_is_measured_against_words_by_frequency(tiny_bert, toy, tmp_path):
    result = ft.finetune(
        tiny_bert, toy, toy, toy, task="fill-mask", epochs=12, batch_size=8, learning_rate=3e-3
    )

    report = result.report
    assert result.history["loss"][-1] < result.history["loss"][0] - 1
    assert report.baseline.name == "unigram"
    assert report.metrics["perplexity"] < report.baseline.metrics["perplexity"] < 17
    assert report.difference.high < 0
    assert "lower is better" in str(report)
    result.save(tmp_path / "run")

    untrained = ft.load(tiny_bert, "fill-mask")
    comparison = ft.compare({"tuned": result.model, "untrained": untrained}, toy)
    assert "perplexity against tuned, lower is better" in str(comparison)
    assert comparison.rows[0].metrics == report.metrics
    assert comparison.rows[1].difference.low > 0
    comparison.plot()
    adapted = ft.load(tmp_path / "run" / "checkpoint", labels=["bad", "good"])
    assert "classifier" in adapted.info.head_layers


@pytest.mark.slow
def test_perplexity_is_that_of_the_logits(model, toy):
    report = ft.evaluate(model, toy, batch_size=5, seed=1)
    surprise = []
    for cloze in report.targets:
        scores = logits(model, cloze.input_ids[None])[0]
        chances = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        surprise += [-row[id] for row, id in zip(chances, cloze.answers, strict=True) if id >= 0]
    assert report.metrics["perplexity"] == pytest.approx(np.exp(np.mean(surprise)), rel=1e-4)
    assert ft.evaluate(model, toy, seed=1).metrics == pytest.approx(report.metrics)


def test_candidates_for_each_mask(model):
    first, *others = ft.predict(model, "The film was [MASK].")
    assert len(others) == 4
    assert 1 > first.score >= others[0].score > 0
    assert first.text == f"The film was {first.word}."
    assert repr(first) == f"Candidate({first.word!r}, {first.score:.3f})"

    one, two = ft.predict(model, ["a [MASK] film", "[MASK] was [MASK]"])
    assert one[0].text == f"a {one[0].word} film"
    assert [len(candidates) for candidates in two] == [5, 5]
    assert two[1][0].text == f"[MASK] was {two[1][0].word}"


def test_a_piece_joins_the_word_before(tmp_path):
    model = ft.load(write_checkpoint(tmp_path / "pieces", ["film", "##s"]), "fill-mask")
    bias = np.zeros(7, "float32")
    bias[6] = 50
    model.get_layer("vocabulary_bias").bias.assign(bias)
    found = ft.predict(model, "film [MASK] film")[0]
    assert (found.word, found.text) == ("##s", "films film")


def test_what_cannot_be_asked(model, toy, tiny_bert, tmp_path):
    with pytest.raises(DataError, match=r"Text 1 has no \[MASK\], so there is nothing to fill in"):
        ft.predict(model, ["a [MASK]", "a film"])
    with pytest.raises(DataError, match=r"2 \[MASK\], but only 1 among the tokens"):
        ft.predict(model, "[MASK] film " + "good " * 30 + "[MASK]")
    with pytest.raises(DataError, match="takes single texts, no text_pair"):
        ft.predict(model, "a [MASK]", "film")
    with pytest.raises(ModelError, match="mask_rate must be a number > 0 and <= 1, found 15"):
        toy.batches(model, mask_rate=15)
    with pytest.raises(ModelError, match="no argument 'rate'. Did you mean mask_rate="):
        toy.batches(model, rate=0.2)
    with pytest.raises(DataError, match="fill-mask has no option stride; it has mask_rate, whole"):
        toy.batches(model, stride=2)
    with pytest.raises(DataError, match="compared with the baseline 'unigram' or with another"):
        ft.evaluate(model, toy, baseline=[0.5] * len(toy))
    with pytest.raises(DataError, match="has no word that the tokenizer knows"):
        ft.evaluate(model, ft.data.from_arrays(["zzz"]))
    other = ft.load(write_checkpoint(tmp_path / "other", ["film", "a"]), "fill-mask")
    with pytest.raises(ModelError, match="split the texts of toy into different tokens"):
        ft.compare({"one": model, "other": other}, toy)
    maskless = ft.load(tiny_bert, "fill-mask")
    maskless.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="tokenizer has no mask token"):
        toy.batches(maskless)
