"""The outputs of the old model classes."""

from typing import Any

_FIELDS = (
    "loss",
    "logits",
    "start_logits",
    "end_logits",
    "last_hidden_state",
    "pooler_output",
    "hidden_states",
    "attentions",
    "reshaped_hidden_states",
    "past_key_values",
    "decoder_hidden_states",
    "encoder_last_hidden_state",
    "encoder_hidden_states",
    "sequences",
    "logits_per_image",
    "logits_per_text",
    "text_embeds",
    "image_embeds",
    "text_model_output",
    "vision_model_output",
)


class ModelOutput(dict):
    """The named outputs of a model: `output.logits`, `output["logits"]` or `output[0]`.

    A field that the model did not compute has no key, and its attribute is None.

    Example:
        >>> from finetune_tf.compat.outputs import output_of
        >>> output = output_of(logits=[0.2, 0.8])
        >>> output.logits, output[0], output.loss
        ([0.2, 0.8], [0.2, 0.8], None)
    """

    def __getitem__(self, key: str | int | slice) -> Any:
        """Returns a field by its name or position."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        """Returns a field, or None if it was not computed."""
        if name in _FIELDS:
            return self.get(name)
        raise AttributeError(f"This model output has no {name!r}. It has {', '.join(self)}.")

    def to_tuple(self) -> tuple:
        """Returns the fields in order."""
        return tuple(self.values())


def output_of(**fields: Any) -> ModelOutput:
    """Creates an output of the fields that are not None, in the order of transformers 4."""
    return ModelOutput((n, fields[n]) for n in _FIELDS if fields.get(n) is not None)
