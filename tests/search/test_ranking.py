"""`rank_checkpoints` scores checkpoints without fine-tuning; higher is better."""

import gc
import json
import weakref

import numpy as np
import pytest
from helpers_images import TINY_VIT, write_classes
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.search import layer_means as module_of_means
from finetune_tf.search import scoring
from finetune_tf.search.layer_means import layer_means
from finetune_tf.search.scores import h_score, half_samples, linear_probe

WORDS = ["good", "fine", "great", "bad", "dull", "poor"]
TEXTS = [f"the {noun} was {a} and {b}" for noun in ("film", "actor") for a in WORDS for b in WORDS]
LABELS = ["yes" if text.split()[3] in WORDS[:3] else "no" for text in TEXTS]


@pytest.fixture
def train():
    return ft.data.from_arrays(TEXTS, LABELS, name="toy")


def test_h_score_is_the_mean_squared_canonical_correlation():
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 3000)
    targets = np.eye(3)[classes]
    features = random.normal(size=(3000, 4)) + 2 * targets @ random.normal(size=(3, 4))
    # With many rows there is hardly any shrinkage, so Bao's formula gives the same.
    centred = features - features.mean(axis=0)
    means = np.stack([centred[classes == k].mean(axis=0) for k in range(3)])[classes]
    by_definition = np.trace(np.linalg.solve(np.cov(centred.T), np.cov(means.T))) / 2
    assert h_score(features, targets) == pytest.approx(by_definition, rel=0.02)
    # A linear map of the features changes nothing that a linear layer could not undo.
    assert h_score(features * 3.0 + 1.0, targets) == pytest.approx(h_score(features, targets))


def test_h_score_of_one_number_is_the_share_of_explained_variance():
    random = np.random.default_rng(0)
    features = random.normal(size=(4000, 3)) * [1.0, 4.0, 0.1]
    numbers = features @ [1.0, 0.5, 0.0] + random.normal(size=4000) * np.sqrt(5)
    assert h_score(features, numbers[:, None]) == pytest.approx(0.5, abs=0.03)


def test_noise_scores_low_even_with_more_features_than_rows():
    random = np.random.default_rng(0)
    targets = np.eye(2)[random.integers(0, 2, 100)]
    assert h_score(random.normal(size=(100, 400)), targets) < 0.1
    assert h_score(np.ones((100, 5)), targets) == 0.0
    assert h_score(random.normal(size=(100, 5)), np.ones((100, 2))) == 0.0


def test_half_samples_estimate_the_standard_error():
    def drawn(seed):
        random = np.random.default_rng(seed)
        classes = random.integers(0, 2, 400)
        return random.normal(size=(400, 3)) + classes[:, None], np.eye(2)[classes]

    repeated = np.std([h_score(*drawn(seed)) for seed in range(200)])
    estimated = np.std(half_samples(*drawn(0), draws=100, seed=1))
    assert estimated == pytest.approx(repeated, rel=0.35)


def test_the_probe_predicts_numbers():
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 5))
    targets = features[:, :2] * [1.0, -2.0] + 3.0
    np.testing.assert_allclose(
        linear_probe(features[:200], targets[:200], features[200:]), targets[200:], atol=0.05
    )


@pytest.mark.slow
@pytest.mark.jax
def test_a_model_that_separates_the_classes_is_ranked_first(tiny_bert, train, tmp_path, capsys):
    """The second checkpoint has the same embedding for all words, so it knows no differences."""
    from safetensors.numpy import load_file, save_file

    blind = write_checkpoint(tmp_path / "blind")
    tensors = load_file(blind / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][:] = tensors["embeddings.word_embeddings.weight"][
        0
    ]
    save_file(tensors, blind / "model.safetensors", metadata={"format": "pt"})
    (blind / "README.md").write_text("---\nlanguage: [en, de]\n---\n# Blind\n")
    missing = tmp_path / "missing"
    ranking = ft.rank_checkpoints({"blind": blind, "seeing": tiny_bert, "none": missing}, train)

    assert ranking.best == "seeing" and ranking.ties == []
    seeing, other = ranking.rows
    assert seeing.h_score.low > other.h_score.high
    assert seeing.probe.value > 0.9 > other.probe.value
    assert seeing.parameters == other.parameters > 1000
    assert seeing.megabytes == pytest.approx(4e-6 * seeing.parameters)
    assert other.languages == ("en", "de") and seeing.languages == ()
    assert list(ranking.failed) == ["none"]
    assert ranking.failed["none"].startswith("There is no folder")
    printed = capsys.readouterr().out
    assert "rank_checkpoints: none could not be scored: There is no folder" in printed
    text = str(ranking)
    assert text.startswith(
        "toy: 54 texts, the probe on 18 others. Higher is better for both scores, which have 95% "
        "intervals; the checkpoints are in the order of the H-score, the best one first."
    )
    assert "seeing is clearly the best by its H-score." in text
    assert "en, de" in text and "not stated" in text
    written = json.loads(json.dumps(ranking.to_dict()))
    assert written["higher_is_better"] is True and written["best"] == "seeing"
    assert [axes.get_title(loc="left") for axes in ranking.plot().axes] == [
        "H-score (higher is better), 95% interval",
        "probe accuracy (higher is better), 95% interval",
    ]


@pytest.mark.slow
def test_the_same_weights_tie(tiny_bert, train, tmp_path):
    other = write_checkpoint(tmp_path / "same", seed=0)
    for by in ("h_score", "probe"):
        ranking = ft.rank_checkpoints([tiny_bert, other], train, by=by)
        assert ranking.ties == [ranking.rows[1].name]
        assert "tie: the interval of their difference includes 0." in str(ranking)
        assert ranking.rows[0].h_score == ranking.rows[1].h_score


@pytest.mark.slow
def test_features_are_means_over_tokens_and_layers(tiny_bert):
    examples = ft.data.from_arrays(["a good film", "the film was very bad"], ["x", "y"])
    with ft.messages.quiet():
        # Its head reads only the first token of the last block.
        model = ft.load(tiny_bert, labels=examples.labels, pooling="cls")
        states = ft.load(tiny_bert, "feature-extraction")
    from finetune_tf.graph.hidden_states import with_states

    found = layer_means(model, examples.encoded(model), "texts")
    for row, text in enumerate(examples.columns["text"]):
        encoding = dict(states.tokenizer(text, return_tensors="np"))
        outputs = with_states(states)({name: encoding[name] for name in encoding})
        layers = [np.asarray(state)[0].mean(axis=0) for state in outputs["hidden_states"]]
        np.testing.assert_allclose(found[row], np.mean(layers, axis=0), atol=1e-5)


@pytest.mark.slow
def test_several_labels_numbers_pairs_decoders_and_images(tiny_bert, tiny_decoder, tmp_path, train):
    several = [
        [label, "film"] if "film" in text else [label]
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    for labels, metric in (
        (several, "micro_f1"),
        ([len(text) / 8 for text in TEXTS], "pearson"),
    ):
        examples = ft.data.from_arrays(TEXTS, labels)
        ranking = ft.rank_checkpoints([tiny_bert], examples)
        assert ranking.metric == metric
        assert 0.3 < ranking.rows[0].h_score.value < 1
    pairs = ft.data.from_arrays(TEXTS, LABELS, text_pair=TEXTS[::-1])
    ranking = ft.rank_checkpoints([tiny_bert, tiny_decoder], pairs, task="text-classification")
    assert len(ranking.rows) == 2
    images = ft.data.from_image_folder(write_classes(tmp_path / "images", count=8))
    ranking = ft.rank_checkpoints([TINY_VIT], images)
    assert "images" in str(ranking)


@pytest.mark.slow
def test_one_model_at_a_time_is_in_memory(tiny_bert, train, tmp_path, monkeypatch):
    alive = []
    load = scoring.load

    def watched(*args, **kwargs):
        gc.collect()
        assert not any(reference() for reference in alive)
        model = load(*args, **kwargs)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(scoring, "load", watched)
    ft.rank_checkpoints([tiny_bert, write_checkpoint(tmp_path / "other", seed=1)], train, rows=20)
    assert len(alive) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"checkpoints": "bert"}, DataTypeError, "rank_checkpoints expects a list of checkpoints"),
        ({"checkpoints": []}, DataError, "rank_checkpoints got no checkpoints. List at least one"),
        ({"checkpoints": ["a", "a"]}, DataError, "The checkpoint 'a' is listed twice."),
        ({"train": ["a"]}, DataTypeError, "train= must be Examples, found"),
        ({"train": ft.data.Examples({"text": ["a"]})}, DataError, "examples has no labels, so"),
        ({"by": "loss"}, ModelError, "by must be 'h_score' or 'probe', found 'loss'."),
        ({"rows": 0}, ArgumentError, "rows must be an integer >= 1 or None, found 0."),
        ({"checkpoints": ["/none"]}, ModelError, "None of the checkpoints could be scored. /none"),
        ({"task": "ner"}, ModelError, "None of the checkpoints could be scored."),
    ],
)
def test_wrong_arguments(call, error, message, train):
    with pytest.raises(error) as caught:
        ft.rank_checkpoints(**{"checkpoints": ["/none"], "train": train, **call})
    assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_a_checkpoint_with_vectors_that_are_no_numbers_does_not_stop_the_others(
    tiny_bert, train, monkeypatch
):
    def rows_of(part, encoded, size, kept, name):
        for row in range(len(encoded)):
            yield row, np.full(part.output.shape[-1], np.nan if len(seen) < 1 else row % 7)
        seen.append(name)

    seen = []
    monkeypatch.setattr(module_of_means, "rows_of", rows_of)
    ranking = ft.rank_checkpoints({"broken": tiny_bert, "whole": tiny_bert}, train)
    assert ranking.best == "whole" and list(ranking.failed) == ["broken"]
    assert "The hidden states of toy are not finite numbers" in ranking.failed["broken"]


@pytest.mark.slow
def test_a_probe_without_mistakes_is_not_certain(tiny_bert, monkeypatch):
    """A bootstrap of rows that are all right has no other value."""
    found = ft.data.from_arrays(TEXTS, LABELS)
    monkeypatch.setattr(scoring, "linear_probe", lambda *args: np.eye(2)[answers])
    answers = [["no", "yes"].index(label) for label in found.columns["label"]]
    (row,) = ft.rank_checkpoints([tiny_bert], found, found).rows
    assert (row.probe.value, row.probe.high) == (1.0, 1.0)
    assert row.probe.low == pytest.approx(72 / (72 + 1.959964**2))
