"""Examples: checked at the door, then sliced, shuffled and split."""

import numpy as np
import pytest
from helpers_models import small_model

from finetune_tf.base.labels import Labels
from finetune_tf.data import Examples, from_arrays
from finetune_tf.errors import ArgumentError, DataError, DataTypeError

SENTIMENT = Labels(["negative", "positive"])


def texts(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


def test_rows_slices_and_index_arrays():
    examples = Examples({"text": texts(5), "label": [0, 1, 0, 1, 0]}, SENTIMENT, "reviews")

    assert len(examples) == 5
    assert examples[-1] == {"text": "text 4", "label": 0}
    assert examples[1:3].columns == {"text": ["text 1", "text 2"], "label": [1, 0]}
    assert examples[np.array([4, 0])].columns["text"] == ["text 4", "text 0"]
    assert examples[np.array([True, False, False, False, True])].columns["label"] == [0, 0]
    assert examples[1:3].labels is SENTIMENT
    assert examples[1:3].name == "reviews"
    assert examples.take(2).columns["text"] == ["text 0", "text 1"]
    assert len(examples.take(100)) == 5


def test_arrays_become_lists():
    examples = Examples({"text": np.array(["a", "b"]), "label": np.array([0, 1])}, SENTIMENT)
    assert examples.columns == {"text": ["a", "b"], "label": [0, 1]}


def test_shuffle_keeps_rows_together_and_follows_its_seed():
    examples = from_arrays(texts(20), label=list(range(20)))
    shuffled = examples.shuffle(seed=3)

    assert shuffled.columns["text"] == [f"text {i}" for i in shuffled.columns["label"]]
    assert sorted(shuffled.columns["label"]) == list(range(20))
    assert shuffled == examples.shuffle(seed=3)
    assert shuffled != examples.shuffle(seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_the_mix_of_classes(seed):
    examples = from_arrays(texts(100), label=["rare"] * 10 + ["common"] * 90)
    train, held_out = examples.split(0.2, seed=seed)

    assert (len(train), len(held_out)) == (80, 20)
    assert held_out.columns["label"].count("rare") == 2
    assert set(train.columns["text"]).isdisjoint(held_out.columns["text"])
    assert examples.split(0.2, seed=seed)[1] == held_out
    assert examples.split(0.2, seed=seed + 1)[1] != held_out


def test_split_of_scores_and_of_unlabeled_texts():
    scored = from_arrays(texts(10), label=[i + 0.5 for i in range(10)])
    assert [len(part) for part in scored.split(0.3)] == [7, 3]
    assert [len(part) for part in from_arrays(texts(10)).split(0.3)] == [7, 3]


def test_split_refuses_an_empty_part():
    with pytest.raises(DataError, match="of the 10 rows of arrays leaves one part empty"):
        from_arrays(texts(10)).split(0.01)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 2.0, -0.5])
def test_split_takes_a_share(fraction):
    with pytest.raises(ArgumentError, match="fraction must be a number > 0 and < 1, found"):
        from_arrays(texts(10)).split(fraction)


def test_repr_tells_what_is_inside():
    classes = from_arrays(texts(3), label=["b", "a", "b"], name="reviews.csv")
    assert repr(classes) == "<Examples reviews.csv: 3 rows of text, label; labels a 1, b 2>"

    scores = from_arrays(texts(3), label=[0.5, 2.0, 5.0])
    assert repr(scores) == "<Examples arrays: 3 rows of text, label; scores 'label' from 0.5 to 5>"

    several = from_arrays(texts(2), label=[["a", "b"], ["a"]])
    assert repr(several) == ("<Examples arrays: 2 rows of text, label; several of labels a 2, b 1>")
    many = from_arrays(texts(11), label=list(range(11)))
    assert repr(many) == "<Examples arrays: 11 rows of text, label; 11 labels>"
    assert repr(from_arrays(texts(1))) == "<Examples arrays: 1 rows of text>"


def test_columns_of_different_length():
    with pytest.raises(DataError, match="columns of pairs differ in length: text 2, text_pair 1"):
        Examples({"text": ["a", "b"], "text_pair": ["c"]}, name="pairs")


@pytest.mark.parametrize("columns", [{}, {"text": []}])
def test_no_rows(columns):
    with pytest.raises(DataError, match="examples has no rows: at least one example is needed"):
        Examples(columns)


def test_empty_slice():
    with pytest.raises(DataError, match="arrays has no rows"):
        from_arrays(texts(3))[3:]
    with pytest.raises(DataError, match="arrays has no rows"):
        from_arrays(texts(3))[[]]


@pytest.mark.parametrize("blank", ["", " \n", None, float("nan")])
def test_a_text_without_words_is_named_by_row_and_source(blank):
    with pytest.raises(DataError) as error:
        Examples({"text": ["good", blank, "bad"]}, name="reviews.csv")
    assert str(error.value) == (
        f"The column 'text' of reviews.csv has empty texts: row 1 ({blank!r}); 1 of 3 rows, "
        "counted from 0. Remove these rows or fill them in."
    )


def test_only_the_first_offenders_are_named():
    with pytest.raises(DataError, match=r"row 4 \(''\), …; 1,000 of 1,000 rows"):
        Examples({"text": [""] * 1000})


def test_token_ids_where_texts_are_meant():
    with pytest.raises(DataTypeError) as error:
        Examples({"text": [101, 2023, 102]}, name="batch")
    assert str(error.value) == (
        "The column 'text' of batch must hold texts (str), found int: row 0 (101), row 1 (2023), "
        "row 2 (102); 3 of 3 rows, counted from 0. Give the texts themselves, not token ids or "
        "other numbers: the model's tokenizer encodes them. If the numbers are meant as text, "
        "use str(value)."
    )


def test_bytes_and_words_where_texts_are_meant():
    with pytest.raises(DataTypeError, match="found bytes: .* Decode them first"):
        Examples({"text": [b"good"]})
    with pytest.raises(DataTypeError, match="found list: .* Give one text a row; join words"):
        Examples({"text": [["a", "good", "film"]]})


def test_second_texts_are_checked_too():
    with pytest.raises(DataError, match="column 'text_pair' of examples has empty texts: row 0"):
        Examples({"text": ["a"], "text_pair": [""]})


def test_a_label_column_needs_names():
    with pytest.raises(DataError, match="a column 'label' but no labels= that name them"):
        Examples({"text": ["a"], "label": [1]})


def test_a_label_that_is_not_among_the_labels():
    with pytest.raises(DataError) as error:
        Examples({"text": ["a", "b"], "label": ["positive", "neutral"]}, SENTIMENT)
    assert str(error.value) == (
        "The labels of examples must be one of these labels: negative, positive; found row 1 "
        "('neutral'); 1 of 2 rows, counted from 0. A class without training examples can be "
        "neither learned nor measured ('neutral'): add training examples of it and include it in "
        "labels=[…], or leave such rows out."
    )


@pytest.mark.parametrize("score", [float("inf"), "high", True])
def test_a_score_must_be_a_finite_number(score):
    with pytest.raises(DataError, match=r"must be finite numbers as scores; found row 1"):
        Examples({"text": ["a", "b"], "label": [0.5, score]}, Labels(["stars"]))


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_missing_label(missing):
    with pytest.raises(DataError) as error:
        Examples({"text": ["a", "b"], "label": ["positive", missing]}, SENTIMENT, "reviews")
    assert str(error.value) == (
        f"Labels of reviews are missing: row 1 ({missing!r}); 1 of 2 rows, counted from 0. "
        "Remove these rows, or read the data with label=None to predict only."
    )


def test_texts_with_the_token_that_begins_each_text(tiny_bert):
    examples = from_arrays(["[CLS] a good film [SEP]", "a bad film"], name="sentences")
    with pytest.warns(UserWarning) as caught:
        encoded = examples.encoded(small_model(checkpoint=tiny_bert))
    assert encoded.inputs["input_ids"][0][:2].tolist() == [2, 2]
    assert str(caught[0].message) == (
        "sentences: 1 of 2 texts begin with '[CLS]', which the tokenizer puts in front of each "
        "text, so that they have it twice. Remove it from the texts. Conversations need no text: "
        "the chat template writes them."
    )
