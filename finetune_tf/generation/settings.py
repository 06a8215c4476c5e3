"""How text is generated: the generation_config.json of a checkpoint and what a call changes.

Keys and defaults are those of transformers' GenerationConfig.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from finetune_tf.base.arguments import check, check_known, shown
from finetune_tf.base.spelling import unknown_argument
from finetune_tf.checkpoints.tokenizers import has_vocabulary
from finetune_tf.errors import ArgumentError
from finetune_tf.generation import rules
from finetune_tf.generation.beams import Beams
from finetune_tf.generation.forward import is_prefix_model
from finetune_tf.generation.generation_config import (
    RULES,
    check_generation_config,
    older_settings,
    token_beyond,
)
from finetune_tf.generation.sampling import Sampling, Warped
from finetune_tf.generation.source_rules import NoSourceNgrams, SourceReward
from finetune_tf.tasks.target_texts import end_of

Stopping = bool | Literal["never"]

# What is read from files only.
_NO_OPTIONS = ("max_length", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_OF_SAMPLES = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff")
_OF_SAMPLES += ("eta_cutoff",)


def target_size(config: Mapping[str, Any]) -> int:
    """Returns the number of tokens that a model can generate.

    Args:
        config: A complete Hugging Face config. Only Marian may have two vocabularies.
    """
    return config.get("decoder_vocab_size") or config["vocab_size"]


@dataclass(frozen=True)
class GenerationSettings:
    """How text is generated.

    Attributes:
        max_new_tokens: Maximum number of generated tokens; None for as many as fit.
        max_length: Maximum number of tokens of prompt and text together; counts where
            `max_new_tokens` is None.
        min_new_tokens: Number of generated tokens before a text may end; None for `min_length`.
        min_length: Number of tokens, those of a decoder's prompt included, before a text may end.
        do_sample: Whether tokens are drawn at random instead of taking the best one.
        num_beams: Beams of beam search; 1 for none.
        temperature: See `sampling.Sampling`, as for the next six.
        top_k: Of the best tokens.
        top_p: Of their probability.
        min_p: Of the best one's probability.
        typical_p: Of the probability of typical tokens.
        epsilon_cutoff: The lowest probability.
        eta_cutoff: The lowest probability, which depends on the entropy.
        repetition_penalty: See `rules.RepetitionPenalty`.
        no_repeat_ngram_size: See `rules.NoRepeatedNgrams`; 0 for no such rule.
        encoder_repetition_penalty: See `source_rules.SourceReward`.
        encoder_no_repeat_ngram_size: See `source_rules.NoSourceNgrams`; 0 for no such rule.
        bad_words_ids: See `rules.BadWords`.
        forced_bos_token_id: See `rules.ForcedFirst`.
        forced_eos_token_id: See `rules.ForcedLast`.
        suppress_tokens: See `rules.Suppressed`.
        begin_suppress_tokens: See `rules.SuppressedFirst`.
        renormalize_logits: See `rules.Renormalized`.
        length_penalty: See `beams.Beams`.
        early_stopping: See `beams.Beams`.
        num_return_sequences: Texts for each prompt.
        stop_strings: Texts that end a text as soon as it contains one of them.
        eos_token_id: The tokens that end a text.
        pad_token_id: The token that fills rows up.
        decoder_start_token_id: The first token of the decoder of an encoder-decoder.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int = 0
    do_sample: bool = False
    num_beams: int = 1
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_repetition_penalty: float = 1.0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: rules.Words = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    renormalize_logits: bool = False
    length_penalty: float = 1.0
    early_stopping: Stopping = False
    num_return_sequences: int = 1
    stop_strings: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None

    @classmethod
    def of(cls, model: Any) -> Self:
        """Returns the settings of a model's checkpoint.

        They come from generation_config.json or, without such a file, from config.json. If neither
        names the token that ends a text, the tokenizer's does, since completions are trained with
        it; transformers would not end a text then. Neither a start nor an end is known to the
        config of an encoder that has become a prefix language model.

        Raises:
            CheckpointError: If its generation_config.json asks for something that is not
                supported.
        """
        given = dict(model.info.generation or older_settings(model.config))
        for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
            if given.get(name) is None:
                given[name] = model.config.get(name)
        files = getattr(model, "_tokenizer_files", None)
        has_tokenizer = getattr(model, "_tokenizer", None) is not None
        has_tokenizer |= files is not None and files.is_carried
        has_tokenizer |= has_vocabulary(Path(model.info.tokenizer))
        if given["eos_token_id"] is None and has_tokenizer:
            given["eos_token_id"] = model.target_tokenizer.eos_token_id
        if is_prefix_model(model) and has_tokenizer:  # as it is trained
            for name in ("eos_token_id", "decoder_start_token_id"):
                if given[name] is None:
                    given[name] = end_of(model.tokenizer)
        check_generation_config(given, target_size(model.config))
        return cls().with_values(given)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """Returns these settings with values as in a generation_config.json; None counts as absent.

        Other keys are ignored.
        """
        names = {field.name for field in fields(self)}
        return replace(
            self,
            **{
                key: _in_tuples(key, value)
                for key, value in values.items()
                if key in names and value is not None
            },
        )

    def changed(self, options: Mapping[str, Any], vocab_size: int) -> Self:
        """Returns these settings with the options of a call.

        Args:
            options: The options; None counts as absent.
            vocab_size: Number of tokens of the model.

        Raises:
            ArgumentError: If a value is out of range, or options contradict each other.
        """
        options = {name: value for name, value in options.items() if value is not None}
        check_options(options)
        if beyond := token_beyond(options, vocab_size):
            name, token = beyond
            raise ArgumentError(
                f"{name} has the id {token}, but the model has {vocab_size:,} tokens, from 0 to "
                f"{vocab_size - 1:,}."
            )
        for name in options.keys() & set(_OF_SAMPLES):
            if not options.get("do_sample", self.do_sample):
                raise ArgumentError(f"{name} has no effect without do_sample=True. Add it.")
        for name in options.keys() & {"length_penalty", "early_stopping"}:
            if options.get("num_beams", self.num_beams) == 1:
                raise ArgumentError(f"{name} has no effect without beams: give num_beams=4.")
        settings = self.with_values(options)
        if "max_new_tokens" in options:
            settings = replace(settings, max_length=None)
        if "min_length" in options and "min_new_tokens" not in options:
            settings = replace(settings, min_new_tokens=None)
        settings._check_together()
        return settings

    def _check_together(self) -> None:
        """Raises an ArgumentError if settings contradict each other."""
        is_one_search = not self.do_sample or self.num_beams > 1
        if is_one_search and self.num_return_sequences > self.num_beams:
            other = "do_sample=True with num_beams=1" if self.do_sample else "do_sample=True"
            raise ArgumentError(
                f"num_return_sequences={self.num_return_sequences} different texts need as many "
                f"beams, or {other}; found num_beams={self.num_beams}."
            )
        forced = {
            "forced_bos_token_id": {self.forced_bos_token_id} - {None},
            "forced_eos_token_id": set(self.forced_eos_token_id),
        }
        for name, tokens in forced.items():
            if tokens and tokens <= set(self.suppress_tokens):
                raise ArgumentError(
                    f"{name} forces token {min(tokens)}, which suppress_tokens forbids, so that no "
                    "token is left. Take it out of one of them."
                )

    def rules(self) -> Iterator[rules.Rule]:
        """Yields the rules that change scores, in the order of transformers."""
        ends, first = self.eos_token_id, self.forced_bos_token_id
        if self.encoder_repetition_penalty != 1.0:
            yield SourceReward(self.encoder_repetition_penalty)
        if self.repetition_penalty != 1.0:
            yield rules.RepetitionPenalty(self.repetition_penalty)
        if self.no_repeat_ngram_size:
            yield rules.NoRepeatedNgrams(self.no_repeat_ngram_size)
        if self.encoder_no_repeat_ngram_size:
            yield NoSourceNgrams(self.encoder_no_repeat_ngram_size)
        # A sequence of one token that ends a text is no bad word.
        words = dict.fromkeys(
            word for word in self.bad_words_ids if word[1:] or word[0] not in ends
        )
        if words:
            yield rules.BadWords(tuple(words))
        if ends and self.min_new_tokens:
            yield rules.MinNewTokens(self.min_new_tokens, ends)
        if ends and self.min_length and self.min_new_tokens is None:
            yield rules.MinLength(self.min_length, ends)
        if first is not None:
            yield rules.ForcedFirst(first)
        if self.forced_eos_token_id:
            yield rules.ForcedLast(self.forced_eos_token_id)
        if self.suppress_tokens:
            yield rules.Suppressed(self.suppress_tokens)
        if self.begin_suppress_tokens:
            yield rules.SuppressedFirst(self.begin_suppress_tokens, after_forced=first is not None)
        if self.do_sample and self.num_beams > 1:
            yield Warped(self._sampling(), kept=1 + max(len(ends), 1))
        if self.renormalize_logits:
            yield rules.Renormalized()

    def choice(self) -> Sampling | Beams:
        """Returns how each token is chosen."""
        if self.num_beams > 1:
            penalty, stopping = self.length_penalty, self.early_stopping
            return Beams(self.num_beams, penalty, stopping, self.do_sample)
        return self._sampling() if self.do_sample else Sampling()

    def _sampling(self) -> Sampling:
        return Sampling(True, **{name: getattr(self, name) for name in _OF_SAMPLES})

    def padding(self) -> int:
        """Returns the token that follows the end of a text in a row."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        return self.eos_token_id[0] if self.eos_token_id else 0


def _in_tuples(key: str, value: Any) -> Any:
    """Returns a value of a generation_config.json with tuples in place of lists."""
    is_single = not isinstance(value, list | tuple)
    if key in ("eos_token_id", "forced_eos_token_id", "stop_strings") and is_single:
        return (value,)
    if is_single:
        return value
    return tuple(tuple(each) if isinstance(each, list | tuple) else each for each in value)


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the options of a call.

    Raises:
        ArgumentError: If an option is out of range, or does not exist.
    """
    names = [field.name for field in fields(GenerationSettings)]
    names = [name for name in names if name not in _NO_OPTIONS]
    for name, value in options.items():
        if name in ("batch_size", "seed"):
            check(**{name: value})
            continue
        if name not in names:
            raise unknown_argument("generate()", name, names)
        check_known(**{name: value})  # its message has the range of the argument
        if not RULES[name].accepts(value):
            if name == "early_stopping":
                raise ArgumentError(
                    f"early_stopping is True, False or 'never', found {shown(value)}."
                )
            if name == "do_sample":
                raise ArgumentError(f"do_sample is True or False, found {shown(value)}.")
            expected = str(RULES[name]).replace("null", "None")
            raise ArgumentError(f"{name} has to be {expected}, found {shown(value)}.")
