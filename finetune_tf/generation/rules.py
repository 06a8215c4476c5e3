"""Rules that change the scores of the next token before one is chosen.

They are the logits processors of transformers. `GenerationSettings.rules` puts them in the order of
transformers, which matters: a forced token, for example, is forced whatever the rules before it
forbid.

Shape legend: B texts (beams count as texts), K tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from finetune_tf.generation.engine import at_least_0

Words = tuple[tuple[int, ...], ...]  # token ids of each word


class Seen(NamedTuple):
    """What rules know about the texts so far.

    Attributes:
        ids: (B, K) int32, the tokens so far, with padding before them. For an encoder-decoder,
            these are the tokens of the decoder, which begin with its start token.
        mask: (B, K) int32, 1 for real tokens.
        step: Scalar, the number of generated tokens.
        most: Scalar, the maximum number of generated tokens.
        memory: What is known of the sources, as `forward.Memory`; empty without sources.
    """

    ids: Any
    mask: Any
    step: Any
    most: Any
    memory: Any = ()

    def lengths(self) -> Any:
        """Returns the number of real tokens, (B, 1)."""
        return ops.sum(self.mask, axis=1, keepdims=True)

    def prompt_lengths(self) -> Any:
        """Returns the number of real tokens of the prompts, (B, 1)."""
        return self.lengths() - self.step


class Rule(Protocol):
    """One change of the scores."""

    def apply(self, scores: Any, seen: Seen) -> Any:
        """Returns the changed scores.

        Args:
            scores: (B, V), logits or log-probabilities of the next token.
            seen: The texts so far.
        """


def apply_rules(rules: Sequence[Rule], scores: Any, seen: Seen) -> Any:
    """Returns scores (B, V) after all rules, in their order."""
    size = scores.shape[-1]
    for rule in rules:
        scores = ops.reshape(rule.apply(scores, seen), (-1, size))
    return scores


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divides positive scores of tokens that occur already, and multiplies negative ones.

    Keskar et al. 2019, "CTRL".

    Attributes:
        penalty: Above 1, such tokens become less probable.
    """

    penalty: float

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        worse = ops.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return ops.where(marked(seen.ids, seen.mask, ops.shape(scores)), worse, scores)


@dataclass(frozen=True)
class NoRepeatedNgrams:
    """Forbids tokens that would complete an n-gram that already occurs.

    Paulus et al. 2018, "A Deep Reinforced Model for Abstractive Summarization".

    Attributes:
        size: The n of the n-grams.
    """

    size: int

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        # A token is forbidden where the size - 1 tokens before it are the last ones of the text.
        ids, size = seen.ids, self.size
        length = ops.shape(ids)[1]
        count = at_least_0(length - size + 1)
        same = ops.cast(seen.mask[:, :count], "bool")
        for i in range(size - 1):
            last = ops.take(ids, at_least_0(length - size + 1 + i), axis=1)[:, None]
            same &= ops.equal(ids[:, i : i + count], last)
        follows = ids[:, size - 1 : size - 1 + count]
        return without(scores, marked(follows, ops.cast(same, "int32"), ops.shape(scores)))


@dataclass(frozen=True)
class BadWords:
    """Forbids sequences of tokens.

    Attributes:
        words: The token ids of each sequence. The last token of a sequence is forbidden where the
            text ends with the others.
    """

    words: Words

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        size = scores.shape[-1]
        real = ops.where(seen.mask > 0, seen.ids, -1)  # padding is part of no word
        for length in sorted({len(word) for word in self.words}):
            words = np.array([word for word in self.words if len(word) == length], "int32")
            before = length - 1
            # If the text is shorter than that, the missing tokens equal none.
            padded = ops.pad(real, [[0, 0], [before, 0]], constant_values=-1)
            last = padded[:, ops.shape(padded)[1] - before :]  # (B, length - 1)
            is_next = ops.all(ops.equal(last[:, None], words[:, :-1]), axis=-1)  # (B, words)
            hits = ops.segment_sum(
                ops.cast(ops.transpose(is_next), "int32"), words[:, -1], num_segments=size
            )
            scores = without(scores, ops.transpose(hits) > 0)
        return scores


@dataclass(frozen=True)
class MinLength:
    """Forbids the end of texts that are too short.

    Attributes:
        length: The minimum number of tokens; those of the prompt of a decoder count.
        ends: The tokens that end a text.
    """

    length: int
    ends: tuple[int, ...]

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        is_short = seen.lengths() < self.length
        return without(scores, _tokens(self.ends, scores) & is_short)


@dataclass(frozen=True)
class MinNewTokens:
    """Forbids the end of texts before a number of tokens is generated.

    Attributes:
        count: The minimum number of generated tokens.
        ends: The tokens that end a text.
    """

    count: int
    ends: tuple[int, ...]

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        return without(scores, _tokens(self.ends, scores) & (seen.step < self.count))


@dataclass(frozen=True)
class ForcedFirst:
    """Forces the token after the first one, such as the language token of a translation.

    It applies where a text has exactly one token so far: the start token of an encoder-decoder, or
    a prompt of one token.

    Attributes:
        token: The token.
    """

    token: int

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        return _forced(scores, (self.token,), seen.lengths() == 1)


@dataclass(frozen=True)
class ForcedLast:
    """Forces one of some tokens where only one more may be generated.

    Attributes:
        tokens: The tokens, mostly the one that ends a text.
    """

    tokens: tuple[int, ...]

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        return _forced(scores, self.tokens, ops.equal(seen.step, seen.most - 1))


@dataclass(frozen=True)
class Suppressed:
    """Forbids tokens everywhere.

    Attributes:
        tokens: The tokens.
    """

    tokens: tuple[int, ...]

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        return without(scores, _tokens(self.tokens, scores))


@dataclass(frozen=True)
class SuppressedFirst:
    """Forbids tokens at the beginning of the generated text.

    Attributes:
        tokens: The tokens.
        after_forced: Whether the first token of the text is forced (`ForcedFirst`); these tokens
            are then forbidden for the one after it.
    """

    tokens: tuple[int, ...]
    after_forced: bool = False

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        begin = ops.cast(seen.prompt_lengths() <= 1, "int32") if self.after_forced else 0
        return without(scores, _tokens(self.tokens, scores) & ops.equal(seen.step, begin))


@dataclass(frozen=True)
class Renormalized:
    """Turns scores into log-probabilities again. Only beam search is changed by that."""

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `Rule.apply`."""
        return ops.log_softmax(scores)


def _tokens(tokens: tuple[int, ...], scores: Any) -> Any:
    """Returns which tokens of the vocabulary are among the given ones, (1, V) bool."""
    is_one = np.zeros((1, scores.shape[-1]), "bool")
    is_one[0, list(tokens)] = True
    return is_one


def without(scores: Any, forbidden: Any) -> Any:
    """Returns scores with -inf where `forbidden`, which is broadcast to (B, V)."""
    return ops.where(forbidden, float("-inf"), scores)


def _forced(scores: Any, tokens: tuple[int, ...], where: Any) -> Any:
    """Returns scores with 0 for the given tokens and -inf for all others `where` (B, 1)."""
    forced = without(ops.zeros_like(scores), ~_tokens(tokens, scores))
    return ops.where(where, forced, scores)


def marked(ids: Any, mask: Any, shape: Any) -> Any:
    """Returns which tokens of the vocabulary occur in each row where `mask` is 1, (B, V) bool."""
    batch, length = ops.shape(ids)
    rows = ops.repeat(ops.arange(batch, dtype="int32"), length)
    places = ops.stack([rows, ops.reshape(ids, (-1,))], axis=1)
    return ops.scatter(places, ops.reshape(mask, (-1,)), shape) > 0
