"""Words to tags: a tiny BERT that learns, is measured, saved and misused."""

import json

import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation import Entity

# The toy model is random, so there is nothing that a high rate could ruin.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")

LABELS = ft.Labels(["O", "B-film", "I-film", "B-who", "I-who"])
SENTENCES = [
    (["the", "good", "actor", "was", "bad"], ["O", "B-who", "I-who", "O", "O"]),
    (["a", "very", "long", "story"], ["O", "O", "B-film", "I-film"]),
    (["actor", "and", "film"], ["B-who", "O", "B-film"]),
]


def sentences(rows=SENTENCES, **options) -> ft.data.Examples:
    tokens, tags = zip(*rows, strict=True)
    options = {"labels": LABELS, "name": "toy", **options}
    return ft.data.from_arrays(tokens=list(tokens), tags=list(tags), **options)


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one-block", blocks=1)


@pytest.fixture(scope="module")
def result(one_block):
    """What the recipe makes of a few sentences."""
    return ft.finetune(
        one_block,
        sentences(SENTENCES * 4),
        sentences(),
        test=sentences(),
        task="token-classification",
        epochs=8,
        batch_size=6,
        learning_rate=3e-2,
    )


@pytest.fixture(scope="module")
def model(result):
    return result.model


@pytest.mark.slow
def test_the_recipe_learns_and_measures(result):
    assert result.report.metrics["f1"] == 1.0
    assert result.report.baseline.name == "dictionary"
    assert len(result.history["val_accuracy"]) == 8
    assert result.model.info.record["data"] == "toy (12 sentences)"


@pytest.mark.slow
def test_predict_takes_texts_and_lists_of_words(model):
    text = "the good actor was bad"

    found = ft.predict(model, text)

    assert [(e.label, e.text, e.start) for e in found] == [("who", "good actor", 4)]
    assert all(isinstance(e, Entity) and 0 < e.score <= 1 for e in found)
    beside_another = ft.predict(model, [text, "actor and film"])[0]  # with other padding
    assert list(map(str, beside_another)) == list(map(str, found))
    assert [e.label for e in ft.predict(model, ("actor and film",))[0]] == ["who", "film"]
    assert ft.predict(model, [text.split()]) == [found]
    tagged = ft.data.Examples({"tokens": [text.split()], "tags": [["O"] * 5]}, model.labels)
    assert ft.predict(model, tagged) == [found]
    assert ft.predict(model, []) == []


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (
            "a film",
            {"text_pair": "b"},
            DataError,
            "takes texts, or lists of words; found text_pair",
        ),
        ("a film", {"question": "b"}, DataError, "takes texts, or lists of words; found question"),
        ([["a", "film"], "b"], {}, DataTypeError, "must hold lists of words: found row 1 .'b'."),
        ([["a", 7]], {}, DataTypeError, "must hold lists of words"),
        ([["a", ""]], {}, DataError, "has empty rows or words"),
        ([" "], {}, DataError, "has empty texts"),
        (7, {}, DataTypeError, "must hold texts .str., found int"),
    ],
)
def test_predict_refuses_what_is_neither(model, given, options, error, message):
    with pytest.raises(error, match=message):
        ft.predict(model, given, **options)


def test_a_report_with_everything(model, tmp_path):
    test = sentences([*SENTENCES, (["a", "dull", "film"], ["O", "O", "B-film"])])

    report = ft.evaluate(model, test, baseline="auto", train=sentences())

    assert list(report.metrics) == ["f1", "precision", "recall", "accuracy"]
    assert report.targets == test.columns["tags"]
    assert report.predictions[:3] == test.columns["tags"][:3]
    assert report.baseline.name == "dictionary"
    assert report.baseline.metrics["f1"] == 1.0
    assert str(report).startswith("toy: 4 sentences\n")
    assert "3 of 4 test texts also occur in the training examples" in str(report)
    assert set(report.per_class) == {"film", "who"}
    report.save(tmp_path)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert (stored["kind"], stored["main_metric"]) == ("token-classification", "f1")
    assert stored["per_class"]["who"]["support"] == 2
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_models_are_compared_by_names_of_labels(model, one_block):
    other = ft.load(one_block, "token-classification", labels=LABELS[::-1])
    test = sentences()

    comparison = ft.compare({"learnt": model, "new": other}, test, "majority", test)

    assert [row.name for row in comparison.rows] == ["learnt", "new", "baseline majority"]
    assert comparison.rows[0].metrics["f1"] == 1.0
    assert comparison.rows[2].metrics == {"f1": 0.0, "precision": 0.0, "recall": 0.0} | {
        "accuracy": 6 / 12
    }
    assert comparison.rows[2].difference.value == -1.0
    given = [["O"] * 5, ["O"] * 4, [3, 0, 1]]  # names or numbers
    assert ft.evaluate(model, test, baseline=given).baseline.metrics["recall"] == 0.5
    with pytest.raises(
        DataError, match="Row 1 of the baseline's predictions has 4 words but 5 tag"
    ):
        ft.evaluate(model, test, baseline=[["O"] * 5] * 3)


def test_parts_of_speech_are_measured_by_accuracy(one_block, tmp_path):
    rows = [(["the", "film"], ["D", "N"]), (["a", "long", "story"], ["D", "A", "N"])]
    train = sentences(rows, labels=None)
    model = ft.load(one_block, "token-classification", labels=train.labels)

    report = ft.evaluate(model, train, baseline="dictionary", train=train)

    assert train.labels == ("A", "D", "N")
    assert report.main_metric == "accuracy"
    assert report.baseline.metrics == {"accuracy": 1.0, "macro_f1": 1.0}
    assert set(report.per_class) >= {"A", "D", "N"}
    report.save(tmp_path)


def test_saved_models_come_back_with_their_head(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "tagger")

    again = ft.load(folder, "token-classification")

    assert again.labels == LABELS
    assert ft.predict(again, "actor and film") == ft.predict(model, "actor and film")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["label2id"] == {name: i for i, name in enumerate(LABELS)}
    card = (folder / "README.md").read_text()
    assert 'folder", aggregation_strategy="first")' in card
    assert 'ft.load("path/to/this/folder", "token-classification")' in card
    with pytest.raises(CheckpointError, match="has a head trained for the labels"):
        ft.load(folder, "token-classification", labels=["O", "B-x"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_pipeline_of_transformers_finds_the_same(one_block, tmp_path):
    """A new head says something else of every word; the first token of each is what counts."""
    from transformers import pipeline

    model = ft.load(one_block, "token-classification", labels=LABELS)
    folder = model.save_pretrained(tmp_path / "tagger")
    find = pipeline("token-classification", str(folder), aggregation_strategy="first", device="cpu")
    text = "the good actor's film: a very-long story (dull?), and not great."

    found, expected = ft.predict(model, text), find(text)

    assert [(e.label, e.start, e.end) for e in found] == [
        (e["entity_group"], e["start"], e["end"]) for e in expected
    ]
    assert [e.score for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)


def test_what_a_checkpoint_said_of_texts_is_forgotten(one_block, tmp_path):
    folder = tmp_path / "regression"
    ft.load(one_block, labels=1).save_pretrained(folder)

    tagger = ft.load(folder, "token-classification", labels=LABELS)

    tagger.save_pretrained(tmp_path / "tagger")
    assert ft.load(tmp_path / "tagger", "token-classification").labels == LABELS


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(["O"], None), (["O", "B-x"], "multi_label_classification")]
)
def test_labels_of_other_problems_are_refused(one_block, labels, problem_type):
    with pytest.raises(ModelError, match="gives each word one of several labels, found Labels"):
        ft.load(one_block, "token-classification", labels=labels, problem_type=problem_type)


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_each_word_needs_a_tag(tmp_path):
    good = {"tokens": ["a", "film"], "tags": ["O", "B-film"]}
    long = {"tokens": ["a", "film"], "tags": ["O", "B-film", "O"]}
    path = write(tmp_path / "words.jsonl", good, long)

    with pytest.raises(
        DataError,
        match=r"Line 2 of words.jsonl has 2 words but 3 tags; each word needs one. The words begin "
        r"with \['a', 'film'\]",
    ):
        ft.data.from_jsonl(path, tokens="tokens", tags="tags")
    path = write(tmp_path / "words.jsonl", good, {"tokens": ["a"]})
    with pytest.raises(DataError, match="Each row of words.jsonl needs a list of tags, one a word"):
        ft.data.from_jsonl(path, tokens="tokens", tags="tags")
    with pytest.raises(DataError, match="'tags' of examples must hold lists of labels, one a word"):
        ft.data.Examples({"tokens": [["a"]], "tags": ["O"]})


def test_rows_may_be_arrays():
    """As pandas has them when it reads Parquet."""
    columns = [[np.array(row) for row in column] for column in zip(*SENTENCES, strict=True)]

    examples = ft.data.from_arrays(tokens=columns[0], tags=columns[1], labels=LABELS)

    assert examples.columns == sentences().columns


def test_a_tag_that_the_model_does_not_know(model):
    test = sentences([(["a", "film"], ["O", "B-book"])], labels=None)

    expected = (
        "Row 0 of toy has the tag 'B-book' at the word 'film', which is none of the model's 5"
    )
    for use in (test.batches, lambda model: ft.evaluate(model, test)):
        with pytest.raises(DataError, match=expected):
            use(model)


def test_data_of_the_other_task(model, one_block):
    texts = ft.data.from_arrays(["a film", "bad"], ["good", "bad"], name="reviews")
    with pytest.raises(
        ModelError,
        match=r"The task token-classification reads the columns tokens, tags, but reviews has "
        r"text, label\. .* With these columns the task can be text-classification",
    ):
        texts.batches(model)
    with pytest.raises(DataError, match="reviews has no tags, so nothing can be measured on it"):
        ft.evaluate(model, texts)

    classifier = ft.load(one_block, labels=2)
    with pytest.raises(
        ModelError,
        match=r"The task text-classification reads the columns .* but toy has tokens, tags\. .* "
        r"With these columns the task can be token-classification\.",
    ):
        sentences().batches(classifier)
    with pytest.raises(ModelError, match="With these columns the task can be token-classification"):
        ft.finetune(one_block, sentences(), sentences())
