"""What a model family has to say of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from finetune_tf.architectures import Backbone
from finetune_tf.checkpoints.weights import Weight
from finetune_tf.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """A row of the registry: how configs and weights of one `model_type` are read and written.

    Attributes:
        model_type: As in config.json.
        class_prefix: Of the PyTorch classes: "Bert" as in `BertModel`.
        tensor_prefix: Of the backbone's tensors inside task models: "bert".
        defaults: The value of each config key that the numbers depend on and that config.json
            may leave out.
        supported: Config keys of which only some values are supported, with these values.
        dropout_keys: Config keys that hold dropout rates.
        backbone: (complete config, dtype) to the chain of stages below pooling and head.
        pooler: (complete config, dtype) to the family's own pooling layer, named "pooler".
        weights: Complete config to the weight table of backbone and pooler.
        heads: Task name to the weight table of that task's head, whose layer is "classifier".
    """

    model_type: str
    class_prefix: str
    tensor_prefix: str
    defaults: Mapping[str, Any]
    supported: Mapping[str, tuple]
    dropout_keys: tuple[str, ...]
    backbone: Callable[[dict, Any], Backbone]
    pooler: Callable[[dict, Any], keras.layers.Layer]
    weights: Callable[[dict], list[Weight]]
    heads: Mapping[str, list[Weight]]

    def complete(self, config: Mapping[str, Any]) -> dict:
        """The config with every key that counts.

        Args:
            config: The content of config.json.

        Raises:
            CheckpointError: If a key has a value that this family does not support.
        """
        complete = {**self.defaults, **{k: v for k, v in config.items() if v is not None}}
        for key, values in self.supported.items():
            if key in complete and complete[key] not in values:
                raise CheckpointError(
                    f"The config key {key!r} has the value {complete[key]!r}, which "
                    f"{self.model_type} models do not support here; supported: "
                    f"{', '.join(map(repr, values))}."
                )
        return complete
