"""Text generation: a causal language model, which predicts each token from those before it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune_tf.architectures import Backbone, LanguageModelHead
from finetune_tf.tasks.encoded import features_of
from finetune_tf.tasks.task import IGNORED, Columns, Encoded, HeadParts, Kind, Task
from finetune_tf.tasks.text_classification import encode_texts


class TextGeneration(Task):
    """Scores of the next token at every token of a text."""

    name = "text-generation"
    class_suffix = "ForCausalLM"
    columns = ("text",)
    target_column = "text"
    output_layers = ("lm_head",)
    token_axis = 0
    usage = 'ft.generate(model, "Once upon a time", max_new_tokens=50)'
    target_title = "A target"
    target_advice = "Encode the texts with the model's own tokenizer, model.tokenizer."

    def outputs(
        self,
        backbone: Backbone,
        head: HeadParts,
        config: Mapping[str, Any],
        pooling: None,
        dtype: Any,
        modules: Any,
    ) -> Any:
        """Logits (batch, length, vocabulary), float32."""
        if head.tied:
            return backbone.embeddings(backbone.hidden, decode=True)
        return LanguageModelHead(
            config["vocab_size"], config["initializer_range"], dtype=dtype, name="lm_head"
        )(backbone.hidden)

    @property
    def output_kind(self) -> Kind:
        """Logits over the vocabulary, at each token."""
        return "classes"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, whose exponential is the perplexity."""
        return "val_loss", "min"

    def encode(self, examples: Columns, tokenizer: Any, max_length: int) -> Encoded:
        """Token ids; the target of each token is the next one, and the last token has none."""
        encoding, truncated = encode_texts(tokenizer, examples.columns["text"], None, max_length)
        parts = features_of(encoding, tokenizer)
        targets = [next_tokens(row) for row in parts["features"]["input_ids"]]
        return Encoded(**parts, targets=targets, truncated=truncated, tokenizer=tokenizer)

    def targets(self, examples: Columns) -> list[str]:
        """The texts themselves."""
        return examples.columns["text"]

    def decide(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> Any:
        raise NotImplementedError

    def describe(self, rows: list[np.ndarray], encoded: Encoded, examples: Columns) -> list:
        raise NotImplementedError


def next_tokens(ids: np.ndarray) -> np.ndarray:
    """The target of each token of a text: the token after it; (length,), -100 for the last."""
    return np.append(ids[1:], IGNORED).astype("int32")
