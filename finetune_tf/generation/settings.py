"""How a checkpoint wants text to be generated: its generation_config.json and what a call changes.

Keys and defaults are those of transformers' GenerationConfig. A key that would change the text and
is not supported is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from finetune_tf.base.arguments import Number, check, shown
from finetune_tf.base.spelling import unknown_argument
from finetune_tf.checkpoints.tokenizers import has_vocabulary
from finetune_tf.errors import ArgumentError, CheckpointError
from finetune_tf.families.config_values import OneOf, Predicate, Rule

Stopping = bool | Literal["never"]


@dataclass(frozen=True)
class GenerationSettings:
    """How text is generated.

    Attributes:
        max_new_tokens: Tokens that are generated at most; None for as many as fit.
        max_length: Tokens of prompt and text together; counts where `max_new_tokens` is None.
        min_new_tokens: Tokens that are generated at least, before a text may end.
        do_sample: Whether tokens are drawn at random instead of taking the best one.
        num_beams: Beams of beam search; 1 for none.
        temperature: See `sampling.Sampling`, as for the next four.
        top_k: Of the best tokens.
        top_p: Of their probability.
        min_p: Of the best one's probability.
        repetition_penalty: On tokens that occur already.
        no_repeat_ngram_size: So many tokens in succession never occur twice; 0 for no such rule.
        length_penalty: See `beams.Beams`.
        early_stopping: See `beams.Beams`.
        num_return_sequences: Texts for each prompt.
        eos_token_id: The tokens that end a text.
        pad_token_id: The token that fills rows up.
        decoder_start_token_id: The token with which the texts of an encoder-decoder begin.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    do_sample: bool = False
    num_beams: int = 1
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    early_stopping: Stopping = False
    num_return_sequences: int = 1
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None

    @classmethod
    def of(cls, model: Any) -> Self:
        """Returns the settings of a model's checkpoint.

        They come from generation_config.json or, without such a file, from config.json. If neither
        names the token that ends a text, the tokenizer's does, since completions are trained with
        it; transformers would not end a text then.

        Raises:
            CheckpointError: If its generation_config.json asks for something that is not
                supported.
        """
        given = dict(model.info.generation or _older_settings(model.config))
        for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
            if given.get(name) is None:
                given[name] = model.config.get(name)
        if given["eos_token_id"] is None and has_vocabulary(Path(model.info.tokenizer)):
            given["eos_token_id"] = model.tokenizer.eos_token_id
        check_generation_config(given, model.config["vocab_size"])
        names = {field.name for field in fields(cls)}
        known = {key: value for key, value in given.items() if key in names and value is not None}
        ends = known.pop("eos_token_id", ())
        known["eos_token_id"] = tuple(ends) if isinstance(ends, list | tuple) else (ends,)
        return cls(**known)

    def changed(self, options: Mapping[str, Any]) -> Self:
        """These settings with the options of a call.

        Raises:
            ArgumentError: If a value is out of range, or options contradict each other.
        """
        options = {name: value for name, value in options.items() if value is not None}
        check_options(options)
        for name in options.keys() & {"temperature", "top_k", "top_p", "min_p"}:
            if not options.get("do_sample", self.do_sample):
                raise ArgumentError(f"{name} has no effect without do_sample=True. Add it.")
        for name in options.keys() & {"length_penalty", "early_stopping"}:
            if options.get("num_beams", self.num_beams) == 1:
                raise ArgumentError(f"{name} has no effect without beams: give num_beams=4.")
        if "max_new_tokens" in options:
            options["max_length"] = None
        settings = replace(self, **options)
        if settings.do_sample and settings.num_beams > 1:
            raise ArgumentError(
                "Beam search takes the best texts and draws none: give do_sample=False or "
                f"num_beams=1, found do_sample=True and num_beams={settings.num_beams}."
            )
        if not settings.do_sample and settings.num_return_sequences > settings.num_beams:
            raise ArgumentError(
                f"num_return_sequences={settings.num_return_sequences} different texts need as "
                f"many beams, or do_sample=True; found num_beams={settings.num_beams}."
            )
        return settings


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the options of a call.

    Raises:
        ArgumentError: If an option is out of range, or does not exist.
    """
    names = [field.name for field in fields(GenerationSettings)]
    names = [name for name in names if name != "max_length" and not name.endswith("_token_id")]
    for name, value in options.items():
        if name in ("batch_size", "seed"):
            check(**{name: value})
        elif name not in names:
            raise unknown_argument("generate()", name, names)
        elif name == "do_sample":
            if not isinstance(value, bool | None):
                raise ArgumentError(f"do_sample is True or False, found {shown(value)}.")
        elif name == "early_stopping":
            if value != "never" and not isinstance(value, bool | None):
                raise ArgumentError(
                    f"early_stopping is True, False or 'never', found {shown(value)}."
                )
        else:
            check(**{name: value})


def _older_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings in a config.json of older releases, which had no other place."""
    return {key: value for key, value in config.items() if key in _RULES or key in _UNSUPPORTED}


_COUNT = Number(1, whole=True, also=(None,))
_FROM_0 = Number(0, whole=True, also=(None,))
_TOKENS = Predicate(
    "a token id, a list of them, or null",
    lambda value: (
        value is None
        or all(
            isinstance(each, int) and not isinstance(each, bool) and each >= 0
            for each in (value if isinstance(value, list) else [value])
        )
    ),
)
_RULES: dict[str, Rule] = {
    "max_new_tokens": _COUNT,
    "max_length": _COUNT,
    "min_new_tokens": _FROM_0,
    "do_sample": OneOf((True, False, None)),
    "num_beams": _COUNT,
    "temperature": Number(0, above_low=True, also=(None,)),
    "top_k": _FROM_0,
    "top_p": Number(0, 1, above_low=True, also=(None,)),
    "min_p": Number(0, 1, also=(None,)),
    "repetition_penalty": Number(0, above_low=True, also=(None,)),
    "no_repeat_ngram_size": _FROM_0,
    "length_penalty": Number(-1e9, also=(None,)),
    "early_stopping": OneOf((True, False, "never", None)),
    "num_return_sequences": _COUNT,
    "eos_token_id": _TOKENS,
    "pad_token_id": _FROM_0,
    "decoder_start_token_id": _FROM_0,
}
#: Keys that would change a text, with the values that change nothing.
_UNSUPPORTED: dict[str, tuple] = {
    "bad_words_ids": (None, []),
    "begin_suppress_tokens": (None, []),
    "constraints": (None, []),
    "diversity_penalty": (None, 0, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "epsilon_cutoff": (None, 0, 0.0),
    "eta_cutoff": (None, 0, 0.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1, 1.0),
    "max_time": (None,),
    "min_length": (None, 0),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "sequence_bias": (None, {}),
    "stop_strings": (None, []),
    "suppress_tokens": (None, []),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1, 1.0),
    "watermarking_config": (None,),
}


def check_generation_config(config: Mapping[str, Any], vocab_size: int) -> None:
    """Checks the content of a generation_config.json.

    Args:
        config: The content.
        vocab_size: Number of tokens of the model.

    Raises:
        CheckpointError: If a value is wrong, or a key is not supported; names key and value.
    """
    for key, rule in _RULES.items():
        if key in config and not rule.accepts(config[key]):
            raise CheckpointError(
                f"The key {key!r} of generation_config.json has the value {shown(config[key])}, "
                f"but has to be {rule}."
            )
    for key in ("eos_token_id", "pad_token_id"):
        ids = config.get(key)
        for token in ids if isinstance(ids, list) else [ids]:
            if token is not None and token >= vocab_size:
                raise CheckpointError(
                    f"The key {key!r} of generation_config.json has the id {token}, but the model "
                    f"has {vocab_size:,} tokens. Correct it."
                )
    for key, values in _UNSUPPORTED.items():
        if key in config and config[key] not in values:
            raise CheckpointError(
                f"The key {key!r} of generation_config.json has the value {shown(config[key])}, "
                "which is not supported here. Take the key out of the file, or set it to null, to "
                "generate without it."
            )
