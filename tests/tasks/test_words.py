"""First tokens of words and the entities they make up: hand-written logits, real tokenizers."""

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.tasks import get_task

LABELS = ft.Labels(["O", "B-film", "I-film", "B-who", "I-who"])


def task(labels=LABELS):
    return get_task("token-classification", labels)


def sentences(rows) -> ft.data.Examples:
    tokens, tags = zip(*rows, strict=True)
    return ft.data.from_arrays(tokens=list(tokens), tags=list(tags), labels=LABELS)


def logits(encoded, tags, labels=LABELS, strength=4.0):
    """What a model would have to give to say these tags at the first tokens of words."""
    rows = []
    for ids, words, wanted in zip(encoded.inputs["input_ids"], encoded.words, tags, strict=True):
        # Everything that is no first token says the last label, which nobody may hear.
        row = np.zeros((len(ids), len(labels)), "float32")
        row[:, -1] = 9.0
        for (token, *_), tag in zip(words, wanted, strict=True):
            if token >= 0:
                row[token] = strength * (np.arange(len(labels)) == labels.index(tag))
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def bert_tokenizer():
    """Knows "good", "act", "##or" and few others, so that some words have two tokens."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "act", "##or", "in", "new"]
    words += ["york", "##s", ".", "-", "film"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=16)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Byte-level BPE as in RoBERTa, made without add_prefix_space, as most are."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the actor was in New York"] * 9, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def encode(tokenizer, rows):
    return task().encode(sentences(rows), tokenizer, 16)


def test_the_first_token_of_a_word_has_its_label(bert_tokenizer):
    row = (["good", "actors", "in", "New-York", "."], ["O", "B-who", "O", "B-film", "O"])

    encoded = encode(bert_tokenizer, [row])

    tokens = bert_tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0])
    assert tokens == (
        ["[CLS]", "good", "act", "##or", "##s", "in", "new", "-", "york", ".", "[SEP]"]
    )
    rest = -100
    assert encoded.targets[0].tolist() == [rest, 0, 3, rest, rest, 0, 1, rest, rest, 0, rest]
    assert encoded.targets[0].dtype == "int32"
    assert encoded.truncated == 0


def test_words_beyond_the_cut_and_words_without_tokens_are_outside(bert_tokenizer):
    words = ["good", "\u200b", "film", "in", "new", "york"]
    tags = ["O", "O", "B-film", "O", "B-film", "I-film"]

    examples = sentences([(words, tags)])
    encoded = task().encode(examples, bert_tokenizer, 6)

    assert encoded.truncated == 1
    assert encoded.words[0][:, 0].tolist() == [1, -1, 2, 3, 4, -1]
    assert encoded.targets[0].tolist() == [-100, 0, 1, 0, 1, -100]
    decided = task().decide(logits(encoded, [tags]), encoded, examples)
    assert decided == [["O", "O", "B-film", "O", "B-film", "O"]]

    nouns = ft.Labels(["noun", "verb"])
    decided = task(nouns).decide(logits(encoded, [["verb"] * 6], nouns), encoded, examples)
    assert decided == [["verb", "noun", "verb", "verb", "verb", "noun"]]


def test_byte_level_tokens_have_their_space(byte_tokenizer):
    """Without it, "York" would get the tokens that it has inside of "NewYork"."""
    rows = [(["actor", "in", "New", "York"], ["B-who", "O", "B-film", "I-film"])]

    encoded = encode(byte_tokenizer, rows)

    tokens = byte_tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0])
    assert tokens == ["<s>", "Ġactor", "Ġin", "ĠNew", "ĠYork", "</s>"]
    with_space = byte_tokenizer.backend_tokenizer.pre_tokenizer
    assert not with_space.add_prefix_space  # the tokenizer itself stays as it was


def describe(tokenizer, texts, tags, labels=LABELS):
    column = "text" if isinstance(texts[0], str) else "tokens"
    examples = ft.data.Examples({column: texts}, name="texts")
    task().require(examples)
    encoded = task(labels).encode(examples, tokenizer, 16)
    return task(labels).describe(logits(encoded, tags, labels), encoded, examples)


def test_entities_have_places_in_the_text(bert_tokenizer):
    text = "Good  actors in New-York."
    tags = [["O", "B-who", "O", "B-film", "I-film", "I-film", "O"]]

    found = describe(bert_tokenizer, [text], tags)[0]

    score = np.exp(4) / (np.exp(4) + 4)
    assert [(e.label, e.text, e.start, e.end) for e in found] == [
        ("who", "actors", 6, 12),
        ("film", "New-York", 16, 24),
    ]
    assert [e.score for e in found] == pytest.approx([score, score])
    assert all(text[e.start : e.end] == e.text for e in found)
    assert repr(found[0]) == "Entity('who', 'actors', 6:12, 0.932)"


def test_entities_of_words_have_places_in_the_joined_words(bert_tokenizer):
    words = ["Good", "actors", "in", "\u200b", "New-York"]

    found = describe(bert_tokenizer, [words], [["O", "B-who", "O", "O", "I-film"]])[0]

    assert [(e.label, e.text, e.start, e.end) for e in found] == [
        ("who", "actors", 5, 11),
        ("film", "New-York", 17, 25),
    ]


def test_a_byte_level_text_has_the_words_of_a_bert(byte_tokenizer, bert_tokenizer):
    text = "actor's in New York…  \U0001f600! 王小"
    examples = ft.data.Examples({"text": [text]}, name="texts")

    for tokenizer in (byte_tokenizer, bert_tokenizer):
        encoded = task().encode(examples, tokenizer, 99)
        words = [text[start:end] for _, start, end in encoded.words[0]]
        assert words == [
            *("actor", "'", "s", "in", "New", "York", "…", "\U0001f600", "!", "王", "小")
        ]
    ids = task().encode(examples, byte_tokenizer, 99).inputs["input_ids"][0]
    assert byte_tokenizer.convert_ids_to_tokens(ids)[1] == "Ġactor"


def test_tokens_by_white_space_are_cut_at_punctuation():
    """XLM-R, ALBERT and others: "Paris." is one word to them, and so is a Chinese sentence."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "▁", "▁in", "▁New", "▁York", "."]
    inner = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")

    text = "in  New York."
    tags = [["O", "B-film", "I-film", "O"]]

    assert [e.text for e in describe(tokenizer, [text], tags)[0]] == ["New York"]


def test_a_text_without_words_has_no_entities(bert_tokenizer):
    assert describe(bert_tokenizer, ["\u200b\u200d"], [[]]) == [[]]


def test_tags_without_b_and_i_are_one_entity_a_word(bert_tokenizer):
    labels = ft.Labels(["O", "noun", "verb"])

    found = describe(bert_tokenizer, ["good film in"], [["noun", "noun", "O"]], labels)[0]

    assert [(e.label, e.text) for e in found] == [("noun", "good"), ("noun", "film")]
    assert (task(labels).evaluator, task(LABELS).evaluator) == ("tagging", "token-classification")
    assert task(ft.Labels(["B", "I", "O"])).evaluator == "token-classification"
    assert task(ft.Labels(["B", "I", "CD"])).evaluator == "tagging"
