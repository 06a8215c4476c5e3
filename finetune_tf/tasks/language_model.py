"""What tasks share whose models have a distribution over the next token at every token."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.architectures import Backbone, LanguageModelHead
from finetune_tf.tasks.interfaces import HeadParts, Kind


class LanguageModelOutputs:
    """The head, the loss and the monitored value of a language model; a base class of tasks."""

    generates_text = True
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
        if head.tied:
            return backbone.embeddings(backbone.hidden, decode=True)
        return LanguageModelHead(
            backbone.embeddings.vocab_size,
            config.get("initializer_range", 0.02),
            dtype=dtype,
            name="lm_head",
        )(backbone.hidden)

    @property
    def output_kind(self) -> Kind:
        """Logits over the vocabulary at each token."""
        return "classes"

    @property
    def monitor(self) -> tuple[str, str]:
        """The loss, whose exponential is the perplexity."""
        return "val_loss", "min"
