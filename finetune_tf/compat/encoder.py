"""The parts of a model, such as `model.bert`, with the attributes they had in transformers 4."""

from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import Embeddings, EncoderBlock, Group
from finetune_tf.compat.arguments import inputs_of
from finetune_tf.compat.outputs import output_of
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.training.freezing import set_trainable

_HEAD_LAYERS = ("classifier", "transform", "vocabulary_bias", "lm_head")


class Part(keras.layers.Layer):
    """Several layers of a model as one layer, which can be frozen before or after `compile`."""

    def __init__(self, layers: list[keras.layers.Layer], name: str) -> None:
        super().__init__(name=name)
        self.parts, self.built = layers, True

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """All layers."""
        return self.parts

    @property
    def layer(self) -> list[keras.layers.Layer]:
        """The encoder blocks; of convolutional networks and Swin, the groups of blocks."""
        return [layer for layer in self.parts if _is_block(layer)]

    h = block = stages = layer  # the names in GPT-2, T5 and ResNet

    @property
    def trainable(self) -> bool:
        """Whether any variable of these layers is trainable."""
        return any(variable.trainable for variable in self.weights)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; `trainable` is set for all layers."""
        if name == "trainable":
            set_trainable(self, value)
        else:
            super().__setattr__(name, value)


class Side(Part):
    """The encoder or the decoder of an encoder-decoder, such as `model.get_encoder()`.

    The token embeddings belong to both sides if they share them, as in PyTorch.

    Args:
        model: An encoder-decoder.
        chain: "encoder" or "decoder".
    """

    def __init__(self, model: Any, chain: str) -> None:
        layers = [layer for s in model.stages if s.chain == chain for layer in s.layers]
        if not any(isinstance(layer, Embeddings) for layer in layers):
            layers = [
                layer for layer in model.stages[0].layers if isinstance(layer, Embeddings)
            ] + layers
        super().__init__(layers, chain)
        self._get_model = lambda: model  # as in `Encoder`

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The blocks, as in BART."""
        return self.layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the last hidden state of an encoder.

        Raises:
            ModelError: If this is a decoder, or an input is not supported.
        """
        model = self._get_model()
        if self.name != "encoder":
            raise ModelError(
                "A decoder cannot be called alone. Call the model: model(input_ids, "
                "decoder_input_ids=…)."
            )
        inputs, _ = inputs_of(args, kwargs)
        ids = ops.convert_to_tensor(inputs["input_ids"])
        decoder_ids = ops.zeros_like(ids[:, :1])  # any, since the encoder does not read them
        output = model({**inputs, "decoder_input_ids": decoder_ids}, return_dict=True)
        return output_of(last_hidden_state=output.encoder_last_hidden_state)


class Encoder(Part):
    """The encoder, such as `model.bert`: the layers below the head.

    It includes the pooler if the pooler belongs to the encoder in PyTorch.
    """

    def __init__(self, model: Any) -> None:
        family = FAMILIES[model.config["model_type"]]
        has_head = bool(model.task.output_layers)
        excluded = (*_HEAD_LAYERS, "pooler") if has_head and _pooler_module(model) else _HEAD_LAYERS
        layers = [layer for stage in model.stages for layer in stage.layers]
        layers = [layer for layer in layers if layer.name not in excluded]
        super().__init__(layers, family.tensor_prefix or family.model_type)
        self._get_model = lambda: model  # a function, so that Keras does not track it as a sublayer
        embeddings = (layer for layer in layers if isinstance(layer, Embeddings))
        self.embeddings = self.embedder = next(embeddings, layers[0])  # the first stage of images
        self.pooler = next((layer for layer in layers if layer.name == "pooler"), None)
        if getattr(model, "is_encoder_decoder", False):
            self.encoder, self.decoder = model.get_encoder(), model.get_decoder()
        else:
            self.encoder = self.transformer = Part(self.layer, "encoder")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the last hidden state and the pooler output, as a model without a head does."""
        return self._get_model().encode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Returns any other attribute, such as `config`, from the model."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._get_model(), name)


def _is_block(layer: keras.layers.Layer) -> bool:
    is_group = isinstance(layer, Group) and layer.role == "block"
    return is_group or isinstance(layer, EncoderBlock)


def parts_of(model: Any, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Returns what `model.layers` was in transformers 4: the encoder and the layers of the head."""
    encoder = Encoder(model)
    if not FAMILIES[model.config["model_type"]].tensor_prefix:  # T5 has no part that holds all
        head = [layer for layer in layers if layer.name == "lm_head"]
        return [model.shared, model.get_encoder(), model.get_decoder(), *head]
    head = [layer for layer in layers[layers.index(encoder.layers[-1]) + 1 :] if layer.weights]
    if _pooler_module(model) == "classifier" and len(head) > 1:
        head = [Part(head, "classifier")]
    return [encoder, *head]


def _pooler_module(model: Any) -> str | None:
    """Returns the PyTorch module of a pooler outside of the encoder; None if there is none."""
    head = FAMILIES[model.config["model_type"]].head(model.task.name, model.config)
    tensors = [row.tensors[0] for row in head.weights if row.belongs_to(["pooler"])]
    return tensors[0].partition(".")[0] if tensors else None
