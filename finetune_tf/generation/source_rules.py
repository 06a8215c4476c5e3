"""Rules on the tokens of what a text is written for: its source, or the prompt of a decoder.

Shape legend: B texts (beams count as texts), K tokens so far, M tokens of a source, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras import ops

from finetune_tf.checkpoints.tokenizers import TARGET_TOKENIZER
from finetune_tf.errors import ArgumentError
from finetune_tf.generation.engine import at_least_0
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
        penalty = 1 / self.reward
        better = ops.where(scores < 0, scores * penalty, scores / penalty)
        return ops.where(marked(*_inputs(seen), ops.shape(scores)), better, scores)


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
        source, mask = _inputs(seen)
        before = self.size - 1
        # Sources are padded on the right and prompts on the left, so that the mask of every token
        # of an n-gram counts. Where a text has fewer tokens than that, the missing ones equal none.
        real = ops.where(mask > 0, source, -1)
        texts = ops.pad(
            ops.where(seen.mask > 0, seen.ids, -2), [[0, 0], [before, 0]], constant_values=-2
        )
        last = texts[:, ops.shape(texts)[1] - before :]  # (B, size - 1)
        count = at_least_0(ops.shape(real)[1] - before)
        same = ops.ones((ops.shape(real)[0], count), "bool")
        for i in range(before):
            same &= ops.equal(real[:, i : i + count], last[:, i : i + 1])
        follows = real[:, before : before + count]
        same &= follows >= 0
        kept = ops.maximum(follows, 0)  # those that are not real are not marked
        return without(scores, marked(kept, ops.cast(same, "int32"), ops.shape(scores)))


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
    has_two |= getattr(model, "_target_tokenizer_files", None) is not None
    if has_two or (Path(model.info.tokenizer) / TARGET_TOKENIZER).is_dir():
        raise ArgumentError(
            "encoder_repetition_penalty and encoder_no_repeat_ngram_size compare the tokens of a "
            f"text with those of its source, but {model.name} has a vocabulary for each. Leave "
            "them out."
        )


def _inputs(seen: Seen) -> tuple[Any, Any]:
    """Returns ids and mask (B, M) of the sources, or of the prompts where there are no sources."""
    if seen.memory:
        return seen.memory.ids, ops.cast(seen.memory.attention_mask, "int32")
    length = ops.shape(seen.ids)[1]
    return seen.ids, seen.mask * ops.cast(ops.arange(length) < length - seen.step, "int32")
