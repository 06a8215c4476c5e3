"""Words are those of the text as it is written, and have all of their tokens."""

import pytest

from finetune_tf.tasks.explained import words_of


def words(text, *pieces):
    """The words of a text whose tokens are these pieces, in their order; "" is a special token."""
    offsets, at = [], 0
    for piece in pieces:
        at = text.index(piece, at)
        offsets.append((at, at + len(piece)))
        at += len(piece)
    columns = ["text" if piece else None for piece in pieces]
    return [(word.text, word.tokens) for word in words_of({"text": text}, columns, offsets)]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("a film", ("", "a", "film", ""), [("a", (1,)), ("film", (2,))]),
        ("unusable!", ("un", "us", "able", "!"), [("unusable", (0, 1, 2)), ("!", (3,))]),
        ("I don't", ("I", "don", "'", "t"), [("I", (0,)), ("don't", (1, 2, 3))]),
        ("well-known", ("well", "-", "known"), [("well-known", (0, 1, 2))]),
        ("3,000.50 (net)", ("3", ",", "000", ".", "50", "(", "net", ")"),
         [("3,000.50", (0, 1, 2, 3, 4)), ("(", (5,)), ("net", (6,)), (")", (7,))]),
        ("end.Start", ("end", ".", "Start"), [("end.Start", (0, 1, 2))]),
        ("yes, no", ("yes", ",", "no"), [("yes", (0,)), (",", (1,)), ("no", (2,))]),
        # Tokens of SentencePiece may begin with the space before them, or be that space.
        ("a b", ("a", " b"), [("a", (0,)), ("b", (1,))]),
        ("a b", ("a", " ", "b"), [("a", (0,)), ("b", (1, 2))]),
        # Without spaces between words, a character is a word, unless a token holds several.
        ("很好。", ("很", "好", "。"), [("很", (0,)), ("好", (1,)), ("。", (2,))]),
        ("电影很好", ("电影", "很好"), [("电影", (0,)), ("很好", (1,))]),
        ("映画です。", ("映画", "です", "。"), [("映画", (0,)), ("です", (1,)), ("。", (2,))]),
        # Marks belong to the letter before them.
        ("हिन्दी है", ("हि", "न्दी", "है"), [("हिन्दी", (0, 1)), ("है", (2,))]),
        ("naïve", ("na", "ï", "ve"), [("naïve", (0, 1, 2))]),
    ],
)  # fmt: skip
def test_words_and_their_tokens(text, pieces, expected):
    assert words(text, *pieces) == expected


def test_what_was_truncated_is_no_word():
    assert words("a good film", "a", "good") == [("a", (0,)), ("good", (1,))]


def test_tokens_of_one_character_stay_together():
    found = words_of({"text": "😀 ok"}, ["text"] * 4, [(0, 1), (0, 1), (0, 1), (2, 4)])
    assert [(word.text, word.tokens) for word in found] == [("😀", (0, 1, 2)), ("ok", (3,))]


def test_two_texts_have_words_of_their_own():
    texts = {"text": "a film", "text_pair": "a story"}
    columns = [None, "text", "text", None, "text_pair", "text_pair", None]
    offsets = [(0, 0), (0, 1), (2, 6), (0, 0), (0, 1), (2, 7), (0, 0)]
    found = words_of(texts, columns, offsets)
    assert [(word.column, word.text, word.tokens) for word in found] == [
        ("text", "a", (1,)),
        ("text", "film", (2,)),
        ("text_pair", "a", (4,)),
        ("text_pair", "story", (5,)),
    ]
