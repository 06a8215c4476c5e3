"""The parts of a model under their old names, to freeze and to call."""

from typing import Any

import keras

from finetune_tf.architectures import EncoderBlock
from finetune_tf.checkpoints import FAMILIES

_OF_HEADS = ("pooler", "classifier", "transform", "vocabulary_bias")


class Part(keras.layers.Layer):
    """Several layers of a model as one, to freeze before or after `compile`."""

    def __init__(self, layers: list[keras.layers.Layer], name: str) -> None:
        super().__init__(name=name)
        self.layers, self.built = layers, True

    @property
    def layer(self) -> list[keras.layers.Layer]:
        """The blocks."""
        return [layer for layer in self.layers if isinstance(layer, EncoderBlock)]

    @property
    def trainable(self) -> bool:
        """Whether anything in it learns."""
        return any(variable.trainable for variable in self.weights)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value


class Encoder(Part):
    """`model.bert` and its kin: what is below the head, with the pooler if PyTorch has it there."""

    def __init__(self, model: Any) -> None:
        family = FAMILIES[model.config["model_type"]]
        rows = family.weights(model.config)
        owns_pooler = any((row.variable or "").startswith("pooler/") for row in rows)
        owns_pooler |= model.task.name == "feature-extraction"
        outside = _OF_HEADS[1:] if owns_pooler else _OF_HEADS
        layers = [layer for stage in model.stages for layer in stage.layers]
        layers = [layer for layer in layers if layer.name not in outside]
        super().__init__(layers, family.tensor_prefix)
        self._whole = lambda: model  # which Keras is not to take for a part
        self.embeddings = model.get_layer("embeddings")
        self.pooler = next((layer for layer in layers if layer.name == "pooler"), None)
        self.encoder = self.transformer = Part(self.layer, "encoder")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Last hidden state and the pooler's output, as the class without a head."""
        return self._whole().encode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as `config`, is the model's."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole(), name)
