"""The parts of a model under their old names, to freeze and to call."""

from typing import Any

import keras

from finetune_tf.architectures import EncoderBlock
from finetune_tf.families import FAMILIES
from finetune_tf.training.freezing import set_trainable

_OF_HEADS = ("classifier", "transform", "vocabulary_bias")


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

    def __setattr__(self, name: str, value: Any) -> None:
        """Keras's, but `trainable` reaches all that is inside."""
        if name == "trainable":
            set_trainable(self, value)
        else:
            super().__setattr__(name, value)


class Encoder(Part):
    """`model.bert` and its kin: what is below the head, with the pooler if PyTorch has it there."""

    def __init__(self, model: Any) -> None:
        family = FAMILIES[model.config["model_type"]]
        has_head = bool(model.task.output_layers)
        outside = (*_OF_HEADS, "pooler") if has_head and _module_of_pooler(model) else _OF_HEADS
        layers = [layer for stage in model.stages for layer in stage.layers]
        layers = [layer for layer in layers if layer.name not in outside]
        super().__init__(layers, family.tensor_prefix)
        self._whole = lambda: model  # which Keras is not to take for a part
        self.embeddings = next(layer for layer in layers if layer.name == "embeddings")
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


def parts_of(model: Any, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """What scripts knew as `model.layers`: the encoder, and what PyTorch has above it."""
    encoder = Encoder(model)
    above = [layer for layer in layers[layers.index(encoder.layers[-1]) + 1 :] if layer.weights]
    if _module_of_pooler(model) == "classifier" and len(above) > 1:
        above = [Part(above, "classifier")]
    return [encoder, *above]


def _module_of_pooler(model: Any) -> str | None:
    """PyTorch's module of a pooler that is none of the encoder's."""
    head = FAMILIES[model.config["model_type"]].head(model.task.name, model.config)
    of_pooler = [row.tensors[0] for row in head.weights if row.belongs_to(["pooler"])]
    return of_pooler[0].partition(".")[0] if of_pooler else None
