"""Rules that change scores, one by one."""

import numpy as np
import pytest
from keras import ops

from finetune_tf.generation import rules
from finetune_tf.generation.forward import Memory
from finetune_tf.generation.rules import Seen, apply_rules
from finetune_tf.generation.source_rules import NoSourceNgrams, SourceReward

pytestmark = pytest.mark.jax
SIZE, NONE = 8, -np.inf
SCORES = np.log(np.arange(1.0, 17.0).reshape(2, SIZE)).astype("float32")


def forbidden(rule, ids, mask=None, step=0, most=5):
    """The tokens that a rule forbids in each text."""
    ids = np.array(ids, "int32")
    mask = np.ones_like(ids) if mask is None else np.array(mask, "int32")
    seen = Seen(ids, mask, ops.convert_to_tensor(step), most)
    scores = np.asarray(apply_rules([rule], ops.convert_to_tensor(SCORES[: len(ids)]), seen))
    return [np.flatnonzero(np.isneginf(row)).tolist() for row in scores]


@pytest.mark.parametrize(
    ("words", "ids", "expected"),
    [
        (((5,),), [[1, 2], [3, 4]], [[5], [5]]),
        (((2, 5), (4, 6), (4, 7)), [[1, 2], [3, 4]], [[5], [6, 7]]),
        (((1, 2, 5), (2, 3)), [[1, 2], [3, 2]], [[3, 5], [3]]),
        (((9, 9, 1, 2, 5),), [[1, 2], [3, 2]], [[], []]),  # longer than the text
        (((2, 5), (2, 5)), [[1, 2], [2, 1]], [[5], []]),
    ],
)
def test_bad_words(words, ids, expected):
    assert forbidden(rules.BadWords(words), ids) == expected


def test_padding_is_part_of_no_word():
    rule = rules.BadWords(((0, 2, 5), (2, 6)))
    assert forbidden(rule, [[0, 2], [0, 2]], mask=[[0, 1], [1, 1]]) == [[6], [5, 6]]


def test_lengths_are_those_of_each_text_without_padding():
    ids, mask = [[1, 2, 3], [0, 0, 3]], [[1, 1, 1], [0, 0, 1]]
    assert forbidden(rules.MinLength(3, (6, 7)), ids, mask) == [[], [6, 7]]
    assert forbidden(rules.ForcedFirst(4), ids, mask) == [[], [0, 1, 2, 3, 5, 6, 7]]
    assert forbidden(rules.SuppressedFirst((4,)), ids, mask) == [[4], [4]]
    assert forbidden(rules.SuppressedFirst((4,)), ids, mask, step=1) == [[], []]


def test_tokens_after_a_forced_first_one_are_suppressed():
    rule = rules.SuppressedFirst((4,), after_forced=True)
    ids, mask = [[1, 2, 3], [0, 0, 3]], [[1, 1, 1], [0, 0, 1]]
    assert forbidden(rule, ids, mask, step=0) == [[4], []]
    ids, mask = [[1, 2, 3, 4], [0, 0, 3, 4]], [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert forbidden(rule, ids, mask, step=1) == [[], [4]]


def test_steps():
    ids = [[1, 2, 3]]
    assert forbidden(rules.MinNewTokens(2, (7,)), ids, step=1) == [[7]]
    assert forbidden(rules.MinNewTokens(2, (7,)), ids, step=2) == [[]]
    assert forbidden(rules.ForcedLast((5, 6)), ids, step=3) == [[]]
    assert forbidden(rules.ForcedLast((5, 6)), ids, step=4) == [[0, 1, 2, 3, 4, 7]]


def test_a_forced_token_has_the_score_0():
    seen = Seen(np.array([[1]]), np.array([[1]]), ops.convert_to_tensor(0), 5)
    found = np.asarray(rules.ForcedFirst(4).apply(ops.convert_to_tensor(SCORES[:1]), seen))[0]
    assert found.tolist() == [NONE, NONE, NONE, NONE, 0, NONE, NONE, NONE]


def test_rules_are_applied_in_their_order():
    seen = Seen(np.array([[1]]), np.array([[1]]), ops.convert_to_tensor(0), 5)
    first, then = rules.ForcedFirst(4), rules.Suppressed((4,))
    assert (
        np.asarray(apply_rules([then, first], ops.convert_to_tensor(SCORES[:1]), seen))[0, 4] == 0
    )
    assert (
        np.asarray(apply_rules([first, then], ops.convert_to_tensor(SCORES[:1]), seen))[0, 4]
        == NONE
    )


def test_renormalized_scores_are_log_probabilities():
    found = np.asarray(rules.Renormalized().apply(ops.convert_to_tensor(SCORES), None))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-6)


def seen_with_sources(ids, sources, mask):
    memory = Memory(np.array(mask, "int32"), np.array(sources, "int32"), ())
    ids = np.array(ids, "int32")
    return Seen(ids, np.ones_like(ids), ops.convert_to_tensor(len(ids[0]) - 1), 9, memory)


@pytest.mark.parametrize(
    ("size", "ids", "expected"),
    [
        (1, [[7], [7]], [[1, 2, 3], [4]]),
        (2, [[7, 1], [7, 4]], [[2], []]),  # what follows 4 is padding
        (2, [[7, 2], [7, 2]], [[1, 3], []]),
        (3, [[1, 2], [4, 0]], [[1, 3], []]),
        (4, [[2], [4]], [[], []]),  # the texts are shorter than the n-grams
        (9, [[2], [4]], [[], []]),
    ],
)
def test_ngrams_of_the_source(size, ids, expected):
    seen = seen_with_sources(ids, [[1, 2, 1, 2, 3], [4, 0, 0, 0, 0]], [[1] * 5, [1, 0, 0, 0, 0]])
    found = np.asarray(NoSourceNgrams(size).apply(ops.convert_to_tensor(SCORES), seen))
    assert [np.flatnonzero(np.isneginf(row)).tolist() for row in found] == expected


def test_of_a_decoder_the_prompt_is_the_source():
    ids, mask = [[0, 1, 2, 5], [3, 1, 2, 5]], [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert forbidden(NoSourceNgrams(1), ids, mask, step=1) == [[1, 2], [1, 2, 3]]
    assert forbidden(NoSourceNgrams(2), [[0, 1, 2, 1], [3, 1, 2, 3]], mask, step=1) == [[2], [1]]
    assert forbidden(NoSourceNgrams(2), [[0, 1], [3, 0]], [[0, 1], [1, 1]], step=0) == [[], []]


def test_words_of_the_source_are_rewarded():
    scores = ops.convert_to_tensor([[-2.0, -1.0, 1.0, 2.0]])
    seen = seen_with_sources([[0]], [[1, 3, 0]], [[1, 1, 0]])
    found = np.asarray(SourceReward(2.0).apply(scores, seen))[0]
    assert found.tolist() == [-2.0, -0.5, 1.0, 4.0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_sources_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch")
    from transformers.generation.logits_process import (
        EncoderNoRepeatNGramLogitsProcessor,
        EncoderRepetitionPenaltyLogitsProcessor,
    )

    random = np.random.default_rng(seed)
    ids = random.integers(0, 4, (6, random.integers(1, 9))).astype("int32")  # two beams each
    sources = random.integers(0, 4, (3, random.integers(1, 12))).astype("int32")
    scores = random.normal(size=(6, SIZE)).astype("float32")
    seen = seen_with_sources(ids, np.repeat(sources, 2, axis=0), np.ones((6, sources.shape[1])))
    size, reward = int(random.integers(1, 4)), float(random.uniform(0.5, 2))
    given = torch.tensor(sources).long()
    for rule, processor in [
        (NoSourceNgrams(size), EncoderNoRepeatNGramLogitsProcessor(size, given)),
        (SourceReward(reward), EncoderRepetitionPenaltyLogitsProcessor(reward, given)),
    ]:
        expected = processor(torch.tensor(ids).long(), torch.tensor(scores))
        found = apply_rules([rule], ops.convert_to_tensor(scores), seen)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(rule))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_words_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch")
    from transformers.generation.logits_process import (
        NoBadWordsLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
    )

    random = np.random.default_rng(seed)
    ids = random.integers(0, 4, (3, random.integers(1, 9))).astype("int32")
    words = [random.integers(0, 4, random.integers(1, 5)).tolist() for _ in range(6)]
    scores = random.normal(size=(3, SIZE)).astype("float32")
    seen = Seen(ids, np.ones_like(ids), ops.convert_to_tensor(0), 5)
    size = int(random.integers(1, 4))
    for rule, processor in [
        (rules.BadWords(tuple(map(tuple, words))), NoBadWordsLogitsProcessor(words, [7])),
        (rules.NoRepeatedNgrams(size), NoRepeatNGramLogitsProcessor(size)),
        (rules.RepetitionPenalty(1.7), RepetitionPenaltyLogitsProcessor(1.7)),
    ]:
        expected = processor(torch.tensor(ids).long(), torch.tensor(scores))
        found = apply_rules([rule], ops.convert_to_tensor(scores), seen)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(rule))
