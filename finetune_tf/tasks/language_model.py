"""What tasks share whose models have a distribution over the next token at every token."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.architectures import Backbone, LanguageModelHead, VocabularyBias
from finetune_tf.errors import CheckpointError
from finetune_tf.tasks.interfaces import HeadParts, Kind


def vocabulary_logits(
    backbone: Backbone, head: HeadParts, config: Mapping[str, Any], dtype: Any
) -> Any:
    """Puts the head of a language model, causal or masked, on a backbone.

    Args:
        backbone: A backbone with symbolic hidden states (batch, length, features).
        head: The head of the family: its transform, its decoder and its bias.
        config: A complete Hugging Face config.
        dtype: Keras dtype policy.

    Returns:
        Logits (batch, length, vocabulary) in float32.

    Raises:
        CheckpointError: If the decoder is not tied to the token embedding table, and the family has
            no head for that.
    """
    if head.tied and not config.get("tie_word_embeddings", True):
        raise CheckpointError(
            "The config key 'tie_word_embeddings' is False, but the language model of this family "
            "is supported only with the decoder tied to the word embeddings."
        )
    hidden = backbone.hidden
    if head.transform is not None:
        hidden = head.transform(dtype=dtype)(hidden)
    if head.tied:
        scores = backbone.embeddings(hidden, decode=True)
    else:
        size, stddev = backbone.embeddings.vocab_size, config.get("initializer_range", 0.02)
        scores = LanguageModelHead(size, stddev, dtype=dtype, name="lm_head")(hidden)
    if not any(row.belongs_to(["vocabulary_bias"]) for row in head.weights):
        return scores
    # The bias of encoder-decoders is a constant of the checkpoint.
    return VocabularyBias(learned=not head.has_logits_bias, name="vocabulary_bias")(scores)


class LanguageModelOutputs:
    """The head, the loss and the monitored value of a language model; a base class of tasks."""

    output_layers = ("lm_head",)
    token_axis = 0
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
        """Returns the logits of the next token, (batch, length, vocabulary) in float32."""
        return vocabulary_logits(backbone, head, config, dtype)

    @property
    def output_kind(self) -> Kind:
        """Logits over the vocabulary at each token."""
        return "classes"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, whose exponential is the perplexity."""
        return "val_loss", "min"
