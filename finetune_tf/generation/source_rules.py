"""Rules on the tokens of what a text is written for: its source, or the prompt of a decoder.

Shape legend: B texts (beams count as texts), K tokens so far, M tokens of a source, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.checkpoints.tokenizers import TARGET_TOKENIZER
from finetune_tf.errors import ArgumentError
from finetune_tf.generation.rules import Rule, Seen, marked, without


@dataclass(frozen=True)
class SourceReward:
    """Makes tokens of the source more probable, against words that the source does not contain.

    It is the `EncoderRepetitionPenaltyLogitsProcessor` of transformers.

    Attributes:
        reward: Above 1, such tokens become more probable; below 1, less.
    """

    reward: float

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `rules.Rule.apply`."""
        import tensorflow as tf

        penalty = 1 / self.reward
        better = tf.where(scores < 0, scores * penalty, scores / penalty)
        return tf.where(marked(*_inputs(seen), tf.shape(scores)), better, scores)


@dataclass(frozen=True)
class NoSourceNgrams:
    """Forbids tokens that would complete an n-gram of the source.

    It is the `EncoderNoRepeatNGramLogitsProcessor` of transformers.

    Attributes:
        size: The n of the n-grams.
    """

    size: int

    def apply(self, scores: Any, seen: Seen) -> Any:
        """See `rules.Rule.apply`."""
        import tensorflow as tf

        source, mask = _inputs(seen)
        before = self.size - 1
        # Sources are padded on the right and prompts on the left, so that the mask of every token
        # of an n-gram counts. Where a text has fewer tokens than that, the missing ones equal none.
        real = tf.where(mask > 0, source, -1)
        texts = tf.pad(
            tf.where(seen.mask > 0, seen.ids, -2), [[0, 0], [before, 0]], constant_values=-2
        )
        last = texts[:, tf.shape(texts)[1] - before :]  # (B, size - 1)
        count = tf.maximum(tf.shape(real)[1] - before, 0)
        same = tf.ones([tf.shape(real)[0], count], "bool")
        for i in range(before):
            same &= tf.equal(real[:, i : i + count], last[:, i : i + 1])
        follows = real[:, before : before + count]
        same &= follows >= 0
        kept = tf.maximum(follows, 0)  # those that are not real are not marked
        return without(scores, marked(kept, tf.cast(same, "int32"), tf.shape(scores)))


def check_shared_vocabulary(rules: Iterable[Rule], model: Any) -> None:
    """Checks that the tokens that rules compare belong to one vocabulary.

    Args:
        rules: The rules of a call.
        model: The model; Marian may have a vocabulary for sources and one for targets.

    Raises:
        ArgumentError: If sources have a vocabulary of their own, and a rule compares their tokens.
    """
    if not any(isinstance(rule, SourceReward | NoSourceNgrams) for rule in rules):
        return
    own = getattr(model, "_target_tokenizer", None)
    has_two = model.config.get("share_encoder_decoder_embeddings") is False
    has_two |= own is not None and own is not getattr(model, "_tokenizer", None)
    if has_two or (Path(model.info.tokenizer) / TARGET_TOKENIZER).is_dir():
        raise ArgumentError(
            "encoder_repetition_penalty and encoder_no_repeat_ngram_size compare the tokens of a "
            f"text with those of its source, but {model.name} has a vocabulary for each. Leave "
            "them out."
        )


def _inputs(seen: Seen) -> tuple[Any, Any]:
    """Returns ids and mask (B, M) of the sources, or of the prompts where there are no sources."""
    import tensorflow as tf

    if seen.memory:
        return seen.memory.ids, tf.cast(seen.memory.attention_mask, "int32")
    given = tf.shape(seen.ids)[1] - seen.step
    return seen.ids[:, :given], seen.mask[:, :given]
