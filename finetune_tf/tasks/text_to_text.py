"""Text to text: a model reads a source and writes a target.

T5 and BART have an encoder for the source and a decoder for the target. A prefix language model, as
BERT becomes one, joins both texts to one sequence, so that they share its positions.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import say
from finetune_tf.tasks.causal_tokens import NO_END
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import IGNORED, TARGET_TOKENS, Feature
from finetune_tf.tasks.interfaces import Columns
from finetune_tf.tasks.joined_texts import (
    NEW_TOKENS,
    joined_source_length,
    joined_target_length,
)
from finetune_tf.tasks.language_model import LanguageModelOutputs
from finetune_tf.tasks.languages import marks_languages, set_languages
from finetune_tf.tasks.target_texts import (
    adds_end,
    end_of,
    language_token,
    references_of,
    shifted,
    target_ids,
    token_ids,
)
from finetune_tf.tasks.task import Task
from finetune_tf.tasks.task_params import (
    params_of,
    params_of_languages,
    record_params,
    warn_of_prefix,
)
from finetune_tf.tasks.usage import Usage, make_usage

_TRANSFORMERS = """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
params = getattr(model.config, "task_specific_params", None) or {{}}
prefix = params.get("{task}", {{}}).get("prefix", "")
ids = model.generate(**tokenizer(prefix + "…", return_tensors="pt"), max_new_tokens=128)
tokenizer.decode(ids[0], skip_special_tokens=True)"""


_PREFIX_MODEL = """from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForMaskedLM.from_pretrained("{folder}")
# transformers computes the logits, given a four-dimensional attention_mask in which the target is
# causal and the source is not, but does not generate with this class. finetune_tf does."""


class TextToText(LanguageModelOutputs, Task):
    """A distribution over the next token of the target, given the source and the tokens before.

    In training the decoder reads the target, shifted by one token (teacher forcing). Predictions
    are generated token by token.
    """

    name = "text2text-generation"
    class_suffix = "ForConditionalGeneration"
    auto_suffix = "ForSeq2SeqLM"
    generates_text = True
    columns = ("source", "target")
    target_column = "target"
    output_layers = ("lm_head", "transform", "vocabulary_bias")
    encode_options = ("prefix", "max_target_length")
    writes_targets = True
    usage = make_usage(transformers=_TRANSFORMERS)
    #: The key of a prediction in the JSON of the command line, as in Hugging Face's pipelines.
    result_key: ClassVar[str] = "generated_text"

    def usage_for(self, config: Mapping[str, Any]) -> Usage:
        """The code for the model card; transformers does not generate with a class of encoders."""
        is_joined = self._joined_length(config) is not None
        return make_usage(transformers=_PREFIX_MODEL) if is_joined else self.usage

    def config_keys(self) -> dict[str, Any]:
        """The name of the task, since models of several tasks have the same class."""
        return {"finetuning_task": self.name}

    def require(self, examples: Columns) -> None:
        """Checks that examples have sources.

        Raises:
            ModelError: If they have none.
        """
        if "source" not in examples.columns:
            raise ModelError(
                f"The task {self.name} reads the columns source and target (to predict, source "
                f"alone), but {examples.name} has {', '.join(examples.columns)}. Name them when "
                'reading it, for example from_jsonl(path, source="en", target="de").'
            )

    def complete_options(
        self, options: Mapping[str, Any], config: MutableMapping[str, Any]
    ) -> dict[str, Any]:
        """Completes the options with those of the config, and records those that were given.

        Args:
            options: As for every task.
            config: As for every task.

        Raises:
            ArgumentError: If `max_target_length` is out of range.
            CheckpointError: If `task_specific_params` of the config is damaged.
            ModelError: If an option is wrong, or none chooses one of several prefixes.
        """
        given = dict(options)
        new: dict[str, Any] = {}
        if "languages" in given:
            if "prefix" in given:
                raise ModelError("Give either languages= or prefix=, because each sets the prefix.")
            chosen = params_of_languages(config, self.name, given.pop("languages"))
            new = {key: chosen[key] for key in ("prefix", "max_length") if key in chosen}
        if "prefix" in given:
            if not isinstance(given["prefix"], str):
                raise ModelError(
                    'prefix= is a text in front of each source, or "" for none; found '
                    f"{shown(given['prefix'])}."
                )
            new["prefix"] = given["prefix"]
        length = given.get("max_target_length")
        check(max_target_length=length)
        if length is not None:
            new["max_length"] = length
        record_params(config, self.name, new)
        return {
            "prefix": self.prompt_prefix(config),
            "max_target_length": length,
            "start": config.get("decoder_start_token_id"),
            "joined_length": self._joined_length(config),
        }

    def _joined_length(self, config: Mapping[str, Any]) -> int | None:
        """The `max_target_length` of a model that joins both texts; 0 for its default.

        It is None for an encoder-decoder, whose texts have positions of their own.
        """
        if config.get("is_encoder_decoder"):
            return None
        return params_of(config, self.name).get("max_length") or 0

    def shared_params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The prefix of sources, and the most tokens of a target."""
        params = params_of(config, self.name)
        return {"prefix": ""} | {
            key: params[key] for key in ("prefix", "max_length") if key in params
        }

    def adopt_params(self, params: Mapping[str, Any], config: MutableMapping[str, Any]) -> None:
        """Records prefix and length under the name of the task, if the config has others."""
        try:
            known = {"prefix": ""} | params_of(config, self.name)
        except ModelError:  # one of several prefixes has to be chosen
            known = {}
        record_params(config, self.name, {k: v for k, v in params.items() if known.get(k) != v})

    def prompt_prefix(self, config: Mapping[str, Any]) -> str:
        """The prefix of sources; see `complete_options`."""
        return params_of(config, self.name).get("prefix", "")

    def encode(
        self,
        examples: Columns,
        tokenizer: Any,
        max_length: int,
        prefix: str = "",
        max_target_length: int | None = None,
        start: int | None = None,
        joined_length: int | None = None,
        target_tokenizer: Any = None,
    ) -> Encoded:
        """Encodes sources and, if there are any, targets.

        The decoder reads the start token and then the target without its last token; what it has
        to predict is the complete target. The first of several references is the target.

        Args:
            examples: Examples with sources and perhaps targets.
            tokenizer: As for every task.
            max_length: As for every task; the tokens of a source, or of both texts if the model
                joins them.
            prefix: A text in front of each source.
            max_target_length: The tokens of a target; by default `max_length`.
            start: The id of the token that the decoder starts with. In a model that joins the
                texts it is by default the token that ends a text.
            joined_length: The tokens of a target in a model that joins the texts, by default a
                quarter of `max_length` and at most 128; None for an encoder-decoder.
            target_tokenizer: The tokenizer of targets; by default that of the sources.

        Raises:
            DataError: If a source has no tokens.
            ModelError: If there are targets, but the config has no start token; or if targets leave
                no room for sources.
        """
        check(max_length=max_length, max_target_length=max_target_length)
        if joined_length is not None:
            max_target_length = joined_length or joined_target_length(max_length)
            start = end_of(tokenizer) if start is None else start
            max_length = joined_source_length(max_length, max_target_length)
        warn_of_prefix(prefix, examples.columns["source"], examples.name)
        texts = [prefix + text for text in examples.columns["source"]]
        ids, truncated = token_ids(tokenizer, max_length, texts)
        for i, row in enumerate(ids):
            if not len(row):
                raise DataError(
                    f"{examples.places.title(i)} of {examples.name} has no tokens. Remove it."
                )
        writer = target_tokenizer or tokenizer
        padding = tokenizer.pad_token_id or 0
        inputs, targets = {"input_ids": Feature(ids, padding=padding)}, None
        if "target" in examples.columns:
            limit = max_target_length or max_length
            first = references_of(examples.columns["target"][0])[0]
            if end_of(writer) is None and not adds_end(writer, first):
                say(f"{examples.name}: {NO_END}")
            rows, cut = target_ids(examples, writer, limit)
            decoder_ids = [shifted(row, start, end_of(writer)) for row in rows]
            inputs["decoder_input_ids"] = Feature(
                decoder_ids, TARGET_TOKENS, writer.pad_token_id or 0
            )
            targets = Feature(rows, TARGET_TOKENS, IGNORED)
            if cut:
                say(
                    f"{examples.name}: {cut:,} of {len(rows):,} targets are longer than {limit} "
                    "tokens and lose their end."
                )
        return Encoded(inputs, targets, truncated=truncated, tokenizer=writer, limit=max_length)

    def targets(self, examples: Columns) -> list[list[str]]:
        """Returns the references of each example."""
        return [references_of(value) for value in examples.columns["target"]]

    def predict_rows(
        self,
        model: Any,
        encoded: Encoded,
        batch_size: int,
        forward: Callable[[Encoded], list[np.ndarray]],
    ) -> list[np.ndarray]:
        """Generates the target of each source.

        The number of new tokens is limited by the checkpoint's generation_config.json, or else by
        `max_length` of the task in its config, or else to 128; in a model that joins the texts, to
        a quarter of its positions if that is less. A message says how many predictions reached the
        limit. The language of the tokenizer's targets is forced where the decoder writes it, as in
        mBART-50.

        Args:
            model: As for every task.
            encoded: As for every task.
            batch_size: As for every task.
            forward: As for every task.
        """
        options: dict[str, Any] = {}
        generation = model.info.generation
        language = language_token(model.target_tokenizer)
        starts_with_end = model.config.get("decoder_start_token_id") == end_of(model.tokenizer)
        if language is not None and starts_with_end and "forced_bos_token_id" not in generation:
            options["forced_bos_token_id"] = language  # mBART-50 writes the language first
        if not any(generation.get(key) for key in ("max_new_tokens", "max_length")):
            limit = params_of(model.config, self.name).get("max_length", NEW_TOKENS)
            if self._joined_length(model.config) == 0:
                limit = joined_target_length(model.max_length)
            # The token that the decoder starts with takes one of the model's positions.
            options["max_new_tokens"] = min(limit, max(model.max_length - 1, 1))
        rows = model.generate(
            list(encoded.inputs["input_ids"].rows), batch_size=batch_size, **options
        )
        limit = options.get("max_new_tokens")
        cut = 0 if limit is None else sum(len(row) >= limit for row in rows)
        if cut:
            say(
                f"{cut:,} of {len(rows):,} predictions have {limit} tokens, the most that they may "
                "have, and lose their end. Raise the limit: "
                'model.info.generation["max_new_tokens"] = ….'
            )
        return rows

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list[str]:
        """Returns the text of each prediction."""
        return [encoded.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list[str]:
        """Returns the text of each prediction."""
        return self.decide(rows, encoded, examples)

    def as_json(self, described: str) -> dict[str, Any]:
        """Returns the text under the key of Hugging Face's pipeline."""
        return {self.result_key: described}

    def asked(self, texts: Any, text_pair: Any = None, **columns: Any) -> dict[str, Any]:
        """Returns the sources.

        Raises:
            DataError: If anything else is given.
        """
        if text_pair is not None:
            raise DataError(f"predict for {self.name} expects sources, not pairs of texts.")
        texts = columns.pop("source", None) if texts is None else texts
        return {"source": super().asked(texts, **columns)["text"]}

    def read_predictions(self, values: list, examples: Any) -> list[str]:
        """Checks the predictions of another method, one text for each example.

        Raises:
            DataError: If one is not a text.
        """
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise DataError(
                    f"The baseline's predictions must be texts, found {shown(value)} for "
                    f"{examples.places.name(i)} of {examples.name}."
                )
        return values


class Translation(TextToText):
    """Translates the sources; the targets are in another language."""

    name = "translation"
    has_old_classes = False  # those of text to text
    encode_options = (*TextToText.encode_options, "languages")
    result_key = "translation_text"

    def apply_options(self, options: Mapping[str, Any], model: Any) -> dict[str, Any]:
        """Sets the languages where the tokenizer marks texts with them, as in mBART.

        Raises:
            ModelError: If the tokenizer does not know them.
        """
        given = dict(options)
        if "languages" in given and marks_languages(model.tokenizer):
            set_languages(model, given.pop("languages"))
        return given


class Summarization(TextToText):
    """Summarizes the sources."""

    name = "summarization"
    has_old_classes = False  # those of text to text
    result_key = "summary_text"
