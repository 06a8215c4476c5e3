"""What is saved here opens in PyTorch with the same logits, and comes back here."""

import json

import numpy as np
import pytest
from helpers_checkpoints import inputs_of, logits, read_weights, reference

import finetune_tf as ft

TEXTS = ["the film was very good", "a dull long story", "bad", "and not a great actor , poor film"]


def scrambled(folder, **options):
    """A loaded model whose weights are all changed, so that none can be the old file's."""
    model = ft.load(folder, **options)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(np.asarray(variable) + rng.normal(0, 0.1, variable.shape))
    return model


def encoded(model, texts=TEXTS):
    return dict(model.tokenizer(texts, padding=True, return_tensors="np"))


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_reloaded_here(tiny_bert, tmp_path, pooling):
    model = scrambled(tiny_bert, labels=["bad", "fair", "good"], pooling=pooling)
    model.save_pretrained(tmp_path / "out")
    again = ft.load(tmp_path / "out")
    assert again.labels == model.labels
    assert again.info.pooling == pooling
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(logits(again, encoded(again)), logits(model, encoded(model)))


@pytest.mark.parametrize("name", ["relu", "gelu_new", "gelu"])
def test_what_pytorch_saved_is_saved_again_unchanged(name, tmp_path):
    folder, _ = reference(name)
    ft.load(folder).save_pretrained(tmp_path / "out")
    theirs, ours = read_weights(folder), read_weights(tmp_path / "out")
    assert theirs.keys() == ours.keys()
    for tensor in theirs:
        np.testing.assert_array_equal(theirs[tensor], ours[tensor])
    before = json.loads((folder / "config.json").read_text())
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    changed = {key for key in before if before[key] is not None and after[key] != before[key]}
    assert changed == set()


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_problem_type_and_labels_come_back(tiny_bert, tmp_path, problem_type, pooling):
    names = ["stars"] if problem_type == "regression" else ["funny", "sad"]
    labels = ft.Labels(names, problem_type)
    ft.load(tiny_bert, labels=labels, pooling=pooling).save_pretrained(tmp_path / "out")
    assert ft.load(tmp_path / "out").labels == labels
    assert ft.load(tmp_path / "out").labels.problem_type == problem_type


def test_bfloat16_models_keep_float32_files(tiny_bert, tmp_path):
    model = scrambled(tiny_bert, labels=2, dtype="mixed_bfloat16")
    model.save_pretrained(tmp_path / "out")
    assert {tensor.dtype.name for tensor in read_weights(tmp_path / "out").values()} == {"float32"}
    again = ft.load(tmp_path / "out", dtype="mixed_bfloat16")
    np.testing.assert_array_equal(logits(again, encoded(again)), logits(model, encoded(model)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "gelu_new", "gelu"])
def test_opens_in_pytorch(name, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertForSequenceClassification

    folder, expected = reference(name)
    model = scrambled(folder)
    model.save_pretrained(tmp_path / "out")
    theirs, report = BertForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    inputs = inputs_of(expected)
    with torch.no_grad():
        output = theirs.eval()(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    np.testing.assert_allclose(logits(model, inputs), output.logits, rtol=0, atol=1e-5)
    assert theirs.config.id2label == dict(enumerate(model.labels))


@pytest.mark.slow
def test_a_pipeline_of_transformers_reads_texts_alike(tiny_bert, tmp_path):
    pytest.importorskip("torch")
    from transformers import pipeline

    model = scrambled(tiny_bert, labels=["bad", "fair", "good"])
    model.save_pretrained(tmp_path / "out")
    answers = pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)(TEXTS)
    scores = [[{a["label"]: a["score"] for a in row}[name] for name in model.labels]
              for row in answers]  # fmt: skip
    ours = model.task.probabilities(logits(model, encoded(model)))
    np.testing.assert_allclose(ours, scores, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_opens_in_sentence_transformers_and_comes_back(tiny_bert, tmp_path, pooling):
    library = pytest.importorskip("sentence_transformers")
    model = scrambled(tiny_bert, labels=["bad", "fair", "good"], pooling=pooling)
    model.save_pretrained(tmp_path / "out")
    expected = logits(model, encoded(model))

    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert theirs.max_seq_length == model.max_length
    found = theirs.encode(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    theirs.save(str(tmp_path / "theirs"))
    again = ft.load(tmp_path / "theirs")
    assert again.info.pooling == pooling
    np.testing.assert_allclose(logits(again, encoded(again)), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_head_trained_in_pytorch_goes_on_here(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertForSequenceClassification

    folder, expected = reference("relu")
    theirs = BertForSequenceClassification.from_pretrained(folder)
    tensors = {name: torch.from_numpy(array) for name, array in inputs_of(expected).items()}
    labels = torch.from_numpy(expected["labels"]).long()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        theirs(**tensors, labels=labels).loss.backward()
        optimizer.step()
    theirs.save_pretrained(tmp_path / "trained")
    with torch.no_grad():
        output = theirs.eval()(**tensors).logits.numpy()
    assert np.abs(output - expected["logits"]).max() > 0.1
    found = logits(ft.load(tmp_path / "trained"), inputs_of(expected))
    np.testing.assert_allclose(found, output, rtol=0, atol=1e-5)
