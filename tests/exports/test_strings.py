"""Graphs that read texts give what the model gives for the tokens of its own tokenizer."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers_models import CHINESE, write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

pytest.importorskip("tensorflow_text")
pytestmark = pytest.mark.slow  # for the package tensorflow-text

TEXTS = [
    "a very GOOD film",
    "The actor was, [SEP] dull!",
    "",
    "a fine story and not long " * 20,
    "bäd 电影",
]
# Serving has TensorFlow and its operations on texts.
SERVE = """
import json, sys
sys.modules["finetune_tf"] = sys.modules["transformers"] = None
import tensorflow as tf, tensorflow_text
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = served(text=tf.constant(json.loads(sys.argv[2])))
print(json.dumps({
    "label": [label.decode() for label in found["label"].numpy()],
    **{name: found[name].numpy().tolist() for name in ("logits", "probabilities")},
}))
"""


def logits_of(model, *texts):
    """Of a model with its own tokenizer, row by row, so that nothing is padded."""
    rows = [
        model.tokenizer(*row, truncation=True, max_length=model.max_length, return_tensors="np")
        for row in zip(*texts, strict=True)
    ]
    return np.concatenate([np.asarray(model(dict(row))) for row in rows])


def test_tensorflow_serves_texts_alone(tiny_bert, tmp_path):
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
        folder = model.export(tmp_path / "served", strings=True)
    done = subprocess.run(
        [sys.executable, "-c", SERVE, folder, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    wanted = logits_of(model, TEXTS)
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)
    np.testing.assert_allclose(np.sum(found["probabilities"], axis=1), 1, atol=1e-6)
    assert found["label"] == [model.labels[i] for i in wanted.argmax(axis=1)]
    served = ft.load_exported(folder)
    np.testing.assert_allclose(
        [each.score for each in ft.predict(served, TEXTS[:2])],
        [each.score for each in ft.predict(model, TEXTS[:2])],
        atol=1e-5,
    )


def test_pairs(tiny_bert, tmp_path):
    import tensorflow as tf

    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
        served = tf.saved_model.load(model.export(tmp_path / "served", strings=True))
    seconds = [TEXTS[3], TEXTS[0], "a film", TEXTS[3] + "x", "good"]
    found = served.signatures["pairs"](text=tf.constant(TEXTS), text_pair=tf.constant(seconds))
    np.testing.assert_allclose(found["logits"], logits_of(model, TEXTS, seconds), atol=1e-5)


def test_pairs_of_texts_that_are_compared(tiny_bert, tmp_path):
    """Each text of a pair has a vector of its own, as in `ft.predict`."""
    import tensorflow as tf

    with quiet():
        model = ft.load(tiny_bert, "feature-extraction")
        served = tf.saved_model.load(model.export(tmp_path / "served", strings=True))
        firsts, seconds = TEXTS[:2], ["a film", TEXTS[1]]
        expected = ft.predict(model, firsts, seconds)
    found = served.signatures["pairs"](text=tf.constant(firsts), text_pair=tf.constant(seconds))
    assert set(found) == {"similarity"}
    np.testing.assert_allclose(found["similarity"], expected, atol=1e-5)


def test_a_tokenizer_that_cuts_the_start_of_long_texts(tiny_bert, tmp_path):
    import tensorflow as tf

    sizes = {"vocab_size": 22, "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 32}
    sizes |= {"num_attention_heads": 3, "max_position_embeddings": 512}
    words = np.random.default_rng(0).choice(["a", "good", "film", "was", "dull"], 700).tolist()
    texts, seconds = [" ".join(words), "a film"], [" ".join(words[:300]), " ".join(words[50:])]
    with quiet():
        model = ft.load({"model_type": "bert", **sizes}, labels=["bad", "good"])
        tokenizer = ft.load(tiny_bert, labels=["bad", "good"]).tokenizer
        tokenizer.model_max_length, tokenizer.truncation_side = 512, "left"
        model.tokenizer = tokenizer
        served = tf.saved_model.load(model.export(tmp_path / "served", strings=True)).signatures
    found = served["serving_default"](text=tf.constant(texts))
    np.testing.assert_allclose(found["logits"], logits_of(model, texts), atol=1e-5)
    found = served["pairs"](text=tf.constant(texts), text_pair=tf.constant(seconds))
    np.testing.assert_allclose(found["logits"], logits_of(model, texts, seconds), atol=1e-5)


def test_vectors_of_a_chinese_model(tmp_path):
    import tensorflow as tf

    with quiet():
        model = ft.load(write_checkpoint(tmp_path / "bert", CHINESE), "feature-extraction")
        served = tf.saved_model.load(model.export(tmp_path / "served", strings=True))
    texts = ["这部电影很好看", "难看 x 无聊。", "我不喜欢故事" * 9]
    found = served.signatures["serving_default"](text=tf.constant(texts))
    assert set(found) == {"sentence_embedding"}
    np.testing.assert_allclose(found["sentence_embedding"], logits_of(model, texts), atol=1e-5)


def test_a_tokenizer_with_other_tokens_is_refused(tiny_bert, tmp_path, monkeypatch):
    """Where the operations of the graph and the tokenizer differ, nothing is written."""
    from finetune_tf.model.exports import graph_tokenizer

    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
    table = graph_tokenizer._table

    def with_other_cases(backend, marks):
        changed = json.loads(backend.to_str())
        changed["normalizer"]["lowercase"] = not changed["normalizer"]["lowercase"]
        return table(type(backend).from_str(json.dumps(changed)), marks)

    monkeypatch.setattr(graph_tokenizer, "_table", with_other_cases)
    with pytest.raises(ModelError, match="the tokens of the text .* differ. Export without strin"):
        model.export(tmp_path / "served", strings=True)
    assert not (tmp_path / "served").exists()


def test_added_tokens(tiny_bert, tmp_path):
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
    model.tokenizer.add_tokens(["podcast"])  # found in normalized texts
    model.resize_token_embeddings(len(model.tokenizer))
    with pytest.raises(ModelError, match="the added token 'podcast' is found in normalized texts"):
        model.export(tmp_path / "served", strings=True)
