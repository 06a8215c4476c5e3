"""The parts of a model under their old names, to freeze and to call."""

from typing import Any

import keras

from finetune_tf.architectures import EncoderBlock
from finetune_tf.checkpoints import FAMILIES

_OF_HEADS = ("pooler", "classifier", "transform", "vocabulary_bias")


class Blocks:
    """`model.bert.encoder`: the blocks as one thing to freeze."""

    def __init__(self, layers: list[keras.layers.Layer]) -> None:
        self.layers = layers

    @property
    def layer(self) -> list[keras.layers.Layer]:
        """The blocks."""
        return [layer for layer in self.layers if isinstance(layer, EncoderBlock)]

    @property
    def weights(self) -> list:
        """All variables."""
        return [v for layer in self.layers for v in layer.weights]

    @property
    def trainable_weights(self) -> list:
        """Those that learn."""
        return [v for layer in self.layers for v in layer.trainable_weights]

    variables, trainable_variables = weights, trainable_weights

    def count_params(self) -> int:
        """How many numbers it has."""
        return sum(layer.count_params() for layer in self.layers)

    @property
    def trainable(self) -> bool:
        """Whether anything in it learns; to be set before or after `compile`."""
        return bool(self.trainable_variables)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value


class Encoder(Blocks):
    """`model.bert` and its kin: what is below the head, with the pooler if PyTorch has it there."""

    def __init__(self, model: Any) -> None:
        rows = FAMILIES[model.config["model_type"]].weights(model.config)
        owns_pooler = any((row.variable or "").startswith("pooler/") for row in rows)
        outside = _OF_HEADS[1:] if owns_pooler else _OF_HEADS
        layers = [layer for stage in model.stages for layer in stage.layers]
        super().__init__([layer for layer in layers if layer.name not in outside])
        self._model = model
        self.embeddings = model.get_layer("embeddings")
        self.pooler = next((layer for layer in self.layers if layer.name == "pooler"), None)
        self.encoder = self.transformer = Blocks(self.layer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Last hidden state and the pooler's output, as the class without a head."""
        return self._model.encode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as `config` and `name`, is the model's."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)


class Layers(list):
    """`model.layers`: all of them, but `layers[0]` is the encoder, as it was.

    Loops and slices see the real layers, the first of which are inputs.
    """

    def __init__(self, layers: list, model: Any) -> None:
        super().__init__(layers)
        self._model = model

    def __getitem__(self, index: Any) -> Any:
        """The encoder, or a real layer."""
        return Encoder(self._model) if index == 0 else super().__getitem__(index)
