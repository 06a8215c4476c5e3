"""What a model family has to say of itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from finetune_tf.architectures import Backbone
from finetune_tf.base.arguments import shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families.config_values import COMMON, OneOf, Rule, checked_values
from finetune_tf.weights.table import Weight


@dataclass(frozen=True)
class Head:
    """What PyTorch's model for a task has on top of the family's backbone.

    Attributes:
        weights: Rows of the tensors outside of the backbone, by their full names. Those of the
            output layer, "classifier" or "vocabulary_bias", are loaded only from a head that
            was trained for the labels asked for, the others from any checkpoint that has them.
        dropout: Rate before the output layer.
        transform: Makes the layer below the output layer, given `dtype=`; None for none. On
            pooled features it is the family's own pooler and named "pooler".
        pooling: The token or tokens that the family's own pooler sees.
        output_bias: Whether the output layer of a classifier has a bias.
        tied: Whether the head of a language model is the token embedding table itself.
    """

    weights: Sequence[Weight] = ()
    dropout: float = 0.0
    transform: Callable[..., keras.layers.Layer] | None = None
    pooling: Literal["cls", "mean", "last"] = "cls"
    output_bias: bool = True
    tied: bool = True


@dataclass(frozen=True)
class Family:
    """A row of the registry: how configs and weights of one `model_type` are read and written.

    Attributes:
        model_type: As in config.json.
        class_prefix: Of the PyTorch classes: "Bert" as in `BertModel`.
        tensor_prefix: Of the backbone's tensors inside task models: "bert".
        defaults: The value of each config key that the numbers depend on and that config.json
            may leave out.
        rules: What the value of each config key may be that the family reads.
        supported: Config keys of which only some values are supported, with these values.
        dropout_keys: Config keys that hold dropout rates.
        backbone: (complete config, dtype) to the chain of stages below pooling and head.
        weights: Complete config to the weight table of the backbone, and of a pooler inside it.
        heads: Complete config to the head of each task that the family has.
        max_length: Complete config to the tokens that a text may have.
        check: Raises CheckpointError if keys of a complete config contradict each other.
        class_names: Names of PyTorch classes that are not `class_prefix` with the task's suffix,
            by that suffix.
    """

    model_type: str
    class_prefix: str
    tensor_prefix: str
    defaults: Mapping[str, Any]
    rules: Mapping[str, Rule]
    supported: Mapping[str, tuple]
    dropout_keys: tuple[str, ...]
    backbone: Callable[[dict, Any], Backbone]
    weights: Callable[[dict], list[Weight]]
    heads: Callable[[dict], dict[str, Head]]
    max_length: Callable[[dict], int] = lambda config: config["max_position_embeddings"]
    check: Callable[[dict], None] = lambda config: None
    class_names: Mapping[str, str] = field(default_factory=dict)

    def class_name(self, suffix: str) -> str:
        """The PyTorch class for a task, such as "BertForSequenceClassification".

        Args:
            suffix: Of the task: "ForSequenceClassification".
        """
        return self.class_names.get(suffix, f"{self.class_prefix}{suffix}")

    def complete(self, config: Mapping[str, Any], where: str = "") -> dict:
        """The config with every key that counts, each of a type and in a range that it may have.

        Args:
            config: The content of config.json.
            where: Where the values come from, for messages: the path of the file.

        Raises:
            CheckpointError: If a key has a value that it may not have, that this family does not
                support, or that contradicts another key.
        """
        try:
            complete = {
                **self.defaults,
                **checked_values(config, {**COMMON, **self.rules}, self.defaults),
            }
            self._check(complete, config)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}" if where else str(error)) from None
        return complete

    def _check(self, complete: dict, given: Mapping[str, Any]) -> None:
        config = {"model_type": self.model_type, **complete}
        if config.get("quantization_config"):
            raise CheckpointError(
                "The config key 'quantization_config' says that the weights are quantized: "
                f"{shown(config['quantization_config'])}. Only plain float weights can be trained "
                "here: get the checkpoint that was not quantized."
            )
        for key, values in self.supported.items():
            if key in config and not OneOf(values).accepts(config[key]):
                raise unsupported(config, key, ", ".join(map(repr, values)))
        # A default is no mistake of the config: with a small vocabulary it is the id of no token.
        padding = config["pad_token_id"] if "pad_token_id" in given else None
        if padding is not None and padding >= config["vocab_size"]:
            raise unsupported(
                config, "pad_token_id", f"ids below the vocab_size, {config['vocab_size']}"
            )
        self.check(config)

    def head(self, task: str, config: dict) -> Head:
        """The head for a task.

        Raises:
            CheckpointError: If the family has none.
        """
        heads = self.heads(config)
        if task not in heads:
            raise CheckpointError(
                f"{self.model_type} models have no head for the task {task!r}; they have: "
                f"{', '.join(heads)}."
            )
        return heads[task]


def unsupported(config: Mapping[str, Any], key: str, supported: str) -> CheckpointError:
    """What to raise where a config key has a value that cannot be had here.

    Args:
        config: With the key.
        key: The one in question.
        supported: What would be supported, in words.
    """
    return CheckpointError(
        f"The config key {key!r} has the value {shown(config[key])}, which {config['model_type']} "
        f"models do not support here; supported: {supported}."
    )


def require_divisor(config: Mapping[str, Any], size_key: str, heads_key: str) -> None:
    """Refuses a number of heads, or of groups, that does not divide the size.

    Raises:
        CheckpointError: If it does not.
    """
    size, heads = config[size_key], config[heads_key]
    if size % heads:
        raise CheckpointError(
            f"The config key {heads_key!r} is {heads}, which does not divide {size_key!r} {size}."
        )


def first_of(config: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first key that the config has."""
    return next(config[key] for key in keys if config.get(key) is not None)
