"""What the old models returned."""

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
)


class ModelOutput(dict):
    """Named outputs of a model, as `output.logits`, `output["logits"]` or `output[0]`.

    A field that the model did not compute is missing as a key and None as an attribute.
    """

    def __getitem__(self, key: str | int | slice) -> Any:
        """By name, or by place."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        """A field, None where it was not computed."""
        if name in _FIELDS:
            return self.get(name)
        raise AttributeError(f"A model's output has no {name!r}; it has {', '.join(self)}.")

    def to_tuple(self) -> tuple:
        """The fields in order."""
        return tuple(self.values())


def output_of(**fields: Any) -> ModelOutput:
    """An output of the fields that are not None, in the order of the old classes."""
    return ModelOutput((n, fields[n]) for n in _FIELDS if fields.get(n) is not None)
