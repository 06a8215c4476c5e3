"""Classification without examples: by an entailment head, or by a sentence encoder."""

import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError

TEXTS = ["a good film", "the story was very dull and long"]
LABELS = ["good", "bad", "fine"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a sentence encoder."""
    folder = tmp_path_factory.mktemp("zero") / "encoder"
    plain = write_checkpoint(folder / "plain", blocks=1)
    model = ft.load(plain, "feature-extraction", pooling="mean")
    return model.save_pretrained(folder / "encoder")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Folder of a classifier of pairs with the labels of natural language inference."""
    folder = tmp_path_factory.mktemp("zero") / "judge"
    plain = write_checkpoint(folder / "plain", blocks=1)
    names = ["contradiction", "neutral", "entailment"]
    model = ft.load(plain, labels=names)
    layer = model.layers[-1].dense
    layer.kernel.assign(np.random.default_rng(0).normal(size=layer.kernel.shape))
    return model.save_pretrained(folder / "judge")


def logits_of(model, template):
    """Logits (texts, labels, 3)."""
    rows = [(text, template.replace("{}", label)) for text in TEXTS for label in LABELS]
    first, second = map(list, zip(*rows, strict=True))
    batches = ft.data.from_arrays(first, text_pair=second).batches(model, 64)
    return model.predict(batches, verbose=0).reshape(len(TEXTS), len(LABELS), 3)


def softmax(logits):
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def as_array(found):
    return np.array([[each.probabilities[label] for label in LABELS] for each in found])


def test_an_entailment_head_decides(judge, capsys):
    found = ft.zero_shot(judge, TEXTS, LABELS, template="the film was {}")
    message = "zero_shot: 2 texts and 3 labels compared by its entailment head (label 'entailment')"
    assert message in capsys.readouterr().out
    logits = logits_of(ft.load(judge), "the film was {}")
    np.testing.assert_allclose(as_array(found), softmax(logits[..., 2]), atol=1e-5)
    assert all(each.label == max(each.probabilities, key=each.probabilities.get) for each in found)


def test_each_label_for_itself_against_contradiction(judge):
    model = ft.load(judge)
    found = ft.zero_shot(model, TEXTS, LABELS, template="the film was {}", multi_label=True)
    logits = logits_of(model, "the film was {}")
    expected = softmax(logits[..., [0, 2]])[..., 1]
    np.testing.assert_allclose(as_array(found), expected, atol=1e-5)
    chosen = [[label for label, p in zip(LABELS, row, strict=True) if p >= 0.5] for row in expected]
    assert [each.label for each in found] == chosen


@pytest.mark.slow
def test_templates_are_averaged(judge):
    model, templates = ft.load(judge), ["the film was {}", "a {} story"]
    found = ft.zero_shot(model, TEXTS, LABELS, template=templates)
    logits = np.mean([logits_of(model, template)[..., 2] for template in templates], axis=0)
    np.testing.assert_allclose(as_array(found), softmax(logits), atol=1e-5)


@pytest.mark.slow
def test_a_sentence_encoder_compares_vectors(encoder, capsys):
    one = ft.zero_shot(encoder, TEXTS[0], LABELS, template="a {} film")
    assert "by the cosine of the vectors of text and label" in capsys.readouterr().out
    model = ft.load(encoder)
    of_labels = ft.predict(model, [f"a {label} film" for label in LABELS])
    (of_text,) = ft.predict(model, TEXTS[:1])
    unit = of_labels / np.linalg.norm(of_labels, axis=1, keepdims=True)
    cosines = unit @ of_text / np.linalg.norm(of_text)
    assert one.label == "good"  # the text itself
    np.testing.assert_allclose(as_array([one])[0], softmax(20 * cosines), atol=1e-5)
    rows = ft.data.from_arrays(TEXTS, ["bad", "fine"])
    assert len(ft.zero_shot(model, rows, ft.Labels(LABELS))) == 2
    assert ft.zero_shot(model, [], LABELS) == []


def test_a_sentence_encoder_has_no_threshold(encoder):
    with pytest.raises(ArgumentError, match=r"multi_label=True needs a checkpoint with an entail"):
        ft.zero_shot(encoder, TEXTS, LABELS, multi_label=True)


def test_other_heads_are_refused(tiny_bert, tiny_decoder, tmp_path):
    sentiment = ft.load(tiny_bert, labels=["negative", "positive"])
    sentiment.layers[-1].dense.bias.assign([1.0, 0.0])
    sentiment.layers[-1].dense.kernel.assign(np.ones(sentiment.layers[-1].dense.kernel.shape))
    with pytest.raises(
        ModelError, match=r"has the labels negative, positive, which say nothing about other labels"
    ):
        ft.zero_shot(sentiment.save_pretrained(tmp_path / "sentiment"), TEXTS, LABELS)
    with pytest.raises(ModelError, match=r"has neither: it is a pretrained encoder whose vectors"):
        ft.zero_shot(tiny_bert, TEXTS, LABELS)
    with pytest.raises(ModelError, match=r"zero_shot needs .* Found a model for text-generation\."):
        ft.zero_shot(tiny_decoder, TEXTS, LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"template": "about nothing"},
            r"A template is a text with \{\} in the place of the label",
        ),
        ({"template": []}, r"A template is a text with .*, found \[\]"),
        ({"labels": ["good"]}, r"needs at least two, found \['good'\]"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        ft.zero_shot("no-such-checkpoint", TEXTS, **{"labels": LABELS, **options})
    with pytest.raises(
        DataTypeError, match=r"expects a text, a list of texts or Examples, found 3"
    ):
        ft.zero_shot("no-such-checkpoint", 3, LABELS)


def test_pairs_are_refused_and_not_read_as_their_first_texts():
    pairs = ft.data.from_arrays(TEXTS, ["good", "bad"], text_pair=TEXTS)
    with pytest.raises(
        DataError,
        match=r"zero_shot classifies single texts, but arrays has the "
        r"columns text, text_pair\. Pass what is to be classified as one text",
    ):
        ft.zero_shot("no-such-checkpoint", pairs, LABELS)
